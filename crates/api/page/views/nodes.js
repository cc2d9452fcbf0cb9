import { path } from "../api.js";
import { act, confirmed, isBusy, isCutOff, nodeSettles } from "../act.js";
import { look } from "../live.js";
import { button, explanation, facts, html, link, mebibytes, meter, nodeLink, nothing, panel, problem, shown, state, table, time } from "../parts.js";
import { nodePlots } from "./past.js";
import { vmTable } from "./vms.js";

export function nodeList({ nodes }) {
  const row = (node) =>
    node.daemon_state === undefined
      ? [node.name, state("broken"), "", "", "", "", "", (node.problems || []).join("; ")]
      : [
          nodeLink(node.name),
          state(node.daemon_state),
          state(node.coordinator_state),
          state(node.domain_state),
          node.domains_count,
          node.load.toFixed(2),
          html`${meter(node.memory.used, node.memory.total, "Memory used")} ${mebibytes(node.memory.used)} of ${mebibytes(node.memory.total)}`,
          actions(node),
        ];
  return html`<h1 tabindex="-1">Nodes</h1>
    ${shown(nodes, (all) => table("Nodes", [["Name"], ["Daemon"], ["Coordinator"], ["VMs"], ["Running", "number"], ["Load", "number"], ["Memory"], ["Actions", "actions"]], all.map(row), html`<p>No node has joined the cluster yet.</p>`, all.map((node) => node.name)))}`;
}

export function nodeCards(all) {
  return html`<div class="cards">${all.map(
    (node) => html`<article class="card">
      <header>${nodeLink(node.name)} ${state(node.daemon_state ?? "broken")}${node.coordinator_state === "primary" ? state("primary") : nothing}</header>
      ${node.memory ? nodePlots(node.name) : nothing}
    </article>`,
  )}</div>`;
}

function actions(node) {
  const flushed = node.domain_state.startsWith("flush");
  const send = (what, title, settled) => ({ title: `${title} ${node.name}`, to: `/nodes${path(node.name)}/${what}`, settled });
  const flush = () =>
    confirmed(
      { title: `Flush ${node.name}?`, text: "All its VMs move to other nodes, and it takes none until it is made ready again.", confirm: "Flush", dangerous: true },
      () => send("flush", "Flush", nodeSettles(node.name, "flushed")),
    );
  const primary = () =>
    confirmed(
      { title: `Make ${node.name} the primary?`, text: "The floating addresses and this page move there; the page reconnects by itself.", confirm: "Make it primary" },
      () => send("primary", "Primary"),
    );
  const isOther = node.daemon_mode === "coordinator" && node.coordinator_state !== "primary";
  return html`<div class="actions">
    ${flushed
      ? button("Ready", () => act(send("ready", "Ready", nodeSettles(node.name, "ready"))), { needs: "operate", off: isCutOff() || isBusy(`Ready ${node.name}`), label: `Ready: ${node.name}` })
      : button("Flush", flush, { needs: "operate", off: isCutOff(), dangerous: true, label: `Flush ${node.name}` })}
    ${isOther ? button("Make primary", primary, { needs: "admin", off: isCutOff(), label: `Make ${node.name} primary` }) : nothing}
  </div>`;
}

export function nodePage({ vms }, name) {
  const node = look(`/nodes${path(name)}`, { on: ["node"], every: 5000 });
  const why = look(`/nodes${path(name)}/explanation`, { on: ["node", "cluster"], every: 5000 });
  return html`<nav class="crumbs" aria-label="Where this is">${link(["nodes"], "Nodes")}</nav>
    <div class="title"><h1 tabindex="-1">${name}</h1>${node.data?.daemon_state ? actions(node.data) : nothing}</div>
    ${shown(node, (node) =>
      html`${panel(
          "State",
          facts([
            ["Daemon", state(node.daemon_state)],
            ["Coordinator", state(node.coordinator_state)],
            ["VMs", state(node.domain_state)],
            ["Last heard of", time(node.keepalive_unix_s)],
            ["Takes VMs", node.can_start ? "yes" : node.cannot_start_because || "no"],
            ["CPUs", node.vcpu.total],
            ["vCPUs of guests", node.vcpu.allocated],
            ["Memory", mebibytes(node.memory.total)],
            ["Of guests", mebibytes(node.memory.allocated)],
            ["System", [node.os, node.kernel, node.arch].filter(Boolean).join(", ")],
          ]),
        )}
        ${(node.problems || []).map((text) => problem({ message: text }))}
        ${panel("Why it is so", explanation(why))}
        ${panel("The last hours", html`<div class="plots">${nodePlots(name)}</div>`)}
        ${panel("Its VMs", shown(vms, (all) => vmTable(all.filter((vm) => vm.node === name || (vm.running_on || []).includes(name)), html`<p>No VM belongs to ${name}.</p>`)))}`)}`;
}
