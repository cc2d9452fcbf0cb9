import { confirmed, isCutOff } from "../act.js";
import { button, html, mebibytes, meter, nodeLink, nothing, panel, shown } from "../parts.js";
import { changeList } from "./tasks.js";
import { nodeCards } from "./nodes.js";
import { lastFailover, latencyPlot } from "./past.js";

const LEVELS = { wrong: "bad", notice: "busy" };

export function overview({ status, nodes, vms }) {
  return html`<h1 tabindex="-1">Overview</h1>
    ${shown(status, (now) => {
      const { totals } = now;
      return html`<div class="tiles">
          ${tile("Nodes", `${totals.nodes.well} of ${totals.nodes.of}`, "well", "#/nodes", totals.nodes.well < totals.nodes.of)}
          ${tile("Coordinators", `${totals.coordinators.well} of ${totals.coordinators.of}`, "well", "#/nodes", totals.coordinators.well < totals.coordinators.of)}
          ${tile("VMs", `${totals.vms.well} of ${totals.vms.of}`, [`run`, totals.vms_off ? `${totals.vms_off} off` : "", totals.vms_failed ? `${totals.vms_failed} failed` : ""].filter(Boolean).join(", "), "#/vms", totals.vms_failed > 0)}
          <div class="tile"><span>Memory of guests</span><b>${mebibytes(totals.memory_allocated_mib)}</b><small>of ${mebibytes(totals.memory_mib)}</small>${meter(totals.memory_allocated_mib, totals.memory_mib, "Memory of guests")}</div>
          <div class="tile"><span>Primary</span><b>${now.primary ? nodeLink(now.primary) : "nobody"}</b><small>maintenance ${now.maintenance ? "on" : "off"}</small></div>
        </div>
        ${findings(now)}`;
    })}
    ${shown(nodes, (all) => (vms.data?.length === 0 && all.length > 0 ? html`<div class="empty"><p>There is no VM yet.</p><p><a class="button main" href="#/vms">Go to the VMs</a> to define one.</p></div>` : nothing))}
    ${panel("Nodes", shown(nodes, nodeCards))}
    ${lastFailover()}
    ${panel("ZooKeeper", html`<div class="plots">${latencyPlot()}</div>`)}
    ${panel("What changed", changeList(12), html`<a href="#/events">all</a>`)}`;
}

function tile(name, value, unit, to, bad) {
  return html`<a class="tile ${bad ? "bad" : ""}" href=${to}><span>${name}</span><b>${value}</b><small>${unit}</small></a>`;
}

function findings(status) {
  if (status.findings.length === 0) return html`<p class="allwell">Nothing is wrong.</p>`;
  return panel(
    "What is to be known",
    html`<ul class="findings">${status.findings.map((finding) => html`<li class=${LEVELS[finding.level] || "idle"}><b>${finding.level}</b><div>${finding.what}${finding.todo ? html`<br><span class="todo">${finding.todo}</span>` : nothing}</div></li>`)}</ul>`,
  );
}

/** Maintenance on or off, asked first. */
export function maintenanceButton(status) {
  const on = status.data?.maintenance;
  if (on === undefined) return nothing;
  const press = () =>
    confirmed(
      {
        title: on ? "End maintenance?" : "Begin maintenance?",
        text: on ? "Dead nodes are fenced again, and their VMs start elsewhere." : "While it lasts no dead node is fenced, and no VM of a dead node starts elsewhere.",
        confirm: on ? "End maintenance" : "Begin maintenance",
        dangerous: !on,
      },
      () => ({ title: "Maintenance", method: "PUT", to: "/maintenance", body: { maintenance: !on } }),
    );
  return button(on ? "End maintenance" : "Maintenance", press, { off: isCutOff(), needs: "admin" });
}
