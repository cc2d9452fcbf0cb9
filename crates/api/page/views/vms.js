import { ask, path } from "../api.js";
import { act, confirmed, isBusy, isCutOff, vmSettles } from "../act.js";
import { serialConsole } from "../console.js";
import { look, touch } from "../live.js";
import { button, condition, explanation, facts, html, link, mebibytes, nodeLink, nodeLinks, nothing, panel, problem, shown, state, table } from "../parts.js";
import { screen } from "../screen.js";

const SELECTORS = [["", "as the VM or the cluster has it"], ["mem", "most free memory"], ["vcpus", "fewest vCPUs"], ["vms", "fewest VMs"], ["load", "least load"]];

let wanted = "";

export function vmList({ vms, nodes }) {
  const fits = (vm) => [vm.name, vm.uuid, vm.description, vm.node, condition(vm)].some((text) => (text || "").toLowerCase().includes(wanted.toLowerCase()));
  const empty = html`<p>${wanted ? html`No VM fits “${wanted}”.` : "There is no VM yet. Define the first one by its libvirt XML."}</p>`;
  return html`<div class="title"><h1 tabindex="-1">VMs</h1>
      <input type="search" aria-label="Filter by name, node or state" placeholder="Filter" .value=${wanted} @input=${(event) => ((wanted = event.target.value), touch())}>
      ${button("Define a VM", () => define(vms.data || [], nodes.data || []), { needs: "admin", main: true, off: isCutOff() })}
    </div>
    ${shown(vms, (all) => vmTable(all.filter(fits), empty))}`;
}

export function vmTable(vms, empty) {
  const row = (vm) => [
    html`${link(["vms", vm.uuid], vm.name || vm.uuid)}${vm.description ? html`<small>${vm.description}</small>` : nothing}${(vm.problems || []).map((trouble) => html`<small class="error">${trouble}</small>`)}`,
    html`${state(condition(vm))}${waits(vm) ? html` <a class="why" href="#/vms/${encodeURIComponent(vm.uuid)}">why?</a>` : nothing}`,
    vm.running_on?.length ? nodeLinks(vm.running_on) : html`<span class="dim">${vm.node ?? ""}</span>`,
    vm.vcpu ?? "–",
    mebibytes(vm.memory),
    vmActions(vm),
  ];
  return table("VMs", [["Name"], ["State"], ["Node"], ["vCPUs", "number"], ["Memory", "number"], ["Actions", "actions"]], vms.map(row), empty, vms.map((vm) => vm.uuid));
}

function waits(vm) {
  return !["running", "off"].includes(condition(vm));
}

function vmActions(vm, all = false) {
  const now = condition(vm);
  const on = (vm.running_on || []).length > 0;
  const off = isCutOff();
  const set = (word, title, done) => ({ title: `${title} ${vm.name}`, method: "PUT", to: `/vms${path(vm.uuid)}/state`, body: { state: word }, settled: vmSettles(vm.uuid, done) });
  const is = (word) => (vm) => vm && condition(vm) === word;
  const labelled = (text, press, more = {}) => button(text, press, { needs: "operate", off: off || isBusy(`${text} ${vm.name}`), label: `${text} ${vm.name}`, ...more });
  const sure = (title, text, confirm, action) => () => confirmed({ title, text, confirm, dangerous: true }, () => action);
  const shutDown = sure(`Shut down ${vm.name}?`, "The guest is asked to end; what it serves is gone until it is started again.", "Shut down", set("shutdown", "Shut down", is("off")));
  const stop = sure(`Stop ${vm.name} at once?`, "Its power is cut: what the guest has not written is lost.", "Stop", set("stop", "Stop", is("off")));
  const restart = sure(`Restart ${vm.name}?`, "The guest is shut down and started again.", "Restart", set("restart", "Restart", is("running")));
  return html`<div class="actions">
    ${!on || now === "failed" ? labelled("Start", () => act(set("start", "Start", is("running"))), { main: all }) : nothing}
    ${on ? labelled("Shut down", shutDown) : nothing}
    ${on ? labelled("Migrate", () => migrate(vm)) : nothing}
    ${all && on ? labelled("Restart", restart) : nothing}
    ${all && vm.last_node ? labelled("Migrate back", () => act({ title: `Migrate back ${vm.name}`, to: `/vms${path(vm.uuid)}/unmigrate`, settled: vmSettles(vm.uuid, (now) => now && condition(now) === "running" && !now.last_node) })) : nothing}
    ${all ? labelled("Move", () => move(vm)) : nothing}
    ${on ? labelled("Stop", stop, { dangerous: true }) : nothing}
    ${all ? labelled("Undefine", () => undefine(vm), { needs: "admin", dangerous: true }) : nothing}
  </div>`;
}

function placeFields(vm) {
  const nodes = (look("/nodes", { on: ["node"] }).data || []).map((node) => node.name).filter((name) => name !== vm?.node);
  return [
    { name: "node", label: "To node", kind: "choice", options: [["", "the cluster chooses"], ...nodes.map((name) => [name, name])] },
    { name: "selector", label: "If the cluster chooses, by", kind: "choice", options: SELECTORS },
  ];
}

/** Without what was left empty: then the cluster decides. */
const given = ({ node, selector }) => (node ? { node } : selector ? { selector } : {});

function migrate(vm) {
  const elsewhere = (now) => now && condition(now) === "running" && now.node !== vm.node && now.running_on.length === 1 && now.running_on[0] === now.node;
  confirmed({ title: `Migrate ${vm.name}`, text: `It runs on while it moves from ${vm.node}, and can be migrated back.`, fields: placeFields(vm), confirm: "Migrate" }, (values) => ({
    title: `Migrate ${vm.name}`,
    to: `/vms${path(vm.uuid)}/migrate`,
    body: given(values),
    settled: vmSettles(vm.uuid, elsewhere),
  }));
}

function move(vm) {
  const settledElsewhere = (now) => now && now.node !== vm.node && ["running", "off"].includes(condition(now)) && (now.running_on || []).every((name) => name === now.node);
  confirmed({ title: `Move ${vm.name}`, text: "Its home becomes another node; if it runs, it migrates there.", fields: placeFields(vm), confirm: "Move" }, (values) => ({
    title: `Move ${vm.name}`,
    to: `/vms${path(vm.uuid)}/move`,
    body: given(values),
    settled: vmSettles(vm.uuid, settledElsewhere),
  }));
}

function undefine(vm) {
  const runs = (vm.running_on || []).length > 0;
  const text = `The definition is removed for good${runs ? ", and the guest's power is cut" : ""}. Its disks stay.`;
  confirmed({ title: `Undefine ${vm.name}?`, text, retype: vm.name, confirm: "Undefine", dangerous: true }, () => ({
    title: `Undefine ${vm.name}`,
    method: "DELETE",
    to: `/vms${path(vm.uuid)}${runs ? "?stop=true" : ""}`,
    settled: vmSettles(vm.uuid, (now) => now === undefined),
    then: () => (location.hash = "#/vms"),
  }));
}

function define(vms, nodes) {
  const copies = vms.filter((vm) => vm.state !== undefined).map((vm) => [vm.uuid, `a copy of ${vm.name}`]);
  const change = async ({ target }, box) => {
    const text = box.querySelector("textarea");
    const judge = () => text.setCustomValidity(isUnfilled(text.value) ? "A disk's source is blank: fill in a disk of this VM's own." : "");
    if (target === text) judge();
    if (target.name !== "from" || !target.value) return;
    const vm = vms.find((vm) => vm.uuid === target.value);
    const xml = await ask("GET", `/vms${path(vm.uuid)}/definition`).catch((told) => `<!-- ${told.message} -->`);
    const taken = new Set(vms.map((vm) => vm.name));
    let number = 2;
    while (taken.has(`${vm.name}-${number}`)) number += 1;
    // Another may have been chosen meanwhile.
    if (target.value !== vm.uuid) return;
    text.value = copyOf(xml, vm.name, `${vm.name}-${number}`);
    judge();
    text.reportValidity();
  };
  const fields = [
    { name: "from", label: "Begin with", kind: "choice", options: [["", "an empty definition"], ...copies] },
    { name: "xml", label: "Definition (libvirt domain XML)", kind: "area", required: true },
    { name: "node", label: "On node", kind: "choice", options: [["", "the cluster chooses"], ...nodes.map((node) => [node.name, node.name])] },
  ];
  const text = "The disks of a copy must exist and be its own: two guests that write one disk destroy it.";
  confirmed({ title: "Define a VM", text, wide: true, confirm: "Define", fields, change }, ({ xml, node }) => ({
    title: `Define ${/<name>([^<]*)<\/name>/.exec(xml)?.[1] ?? "a VM"}`,
    to: "/vms",
    body: { xml, ...given({ node }) },
  }));
}

// Of a definition that people and libvirt have written; parsing it as XML would lose how they wrote it.
const DISK = /<disk\b[\s\S]*?<\/disk>/g;
const BACKING = /(<backingStore\b[\s\S]*<\/backingStore>)/;
const SOURCE = /<source\b(?:[^>"']|"[^"]*"|'[^']*')*>/g;
const PLACE = /(\s(?:file|dev|dir|name|volume|path|namespace)\s*=\s*)(?:"([^"]*)"|'([^']*)')/g;
const READ_ONLY = /<readonly\b|^<disk\b[^>]*\sdevice\s*=\s*["']cdrom["']/;

/** Every source of a writable disk, as `place` makes it of what it is. A backing image is only read. */
function withDisks(xml, place) {
  const source = (tag) => tag.replace(PLACE, (_, name, one, other) => `${name}"${place(one ?? other)}"`);
  return xml.replace(DISK, (disk) => {
    if (READ_ONLY.test(disk)) return disk;
    return disk.split(BACKING).map((part) => (part.startsWith("<backingStore") ? part : part.replace(SOURCE, source))).join("");
  });
}

function isUnfilled(xml) {
  let blank = false;
  withDisks(xml, (place) => (blank ||= place.trim() === ""));
  return blank;
}

/** A function that gives the copy's place for one of the original's, or nothing where the original's name is not in it. */
function ownPlaces(xml, name, newName) {
  const places = new Set();
  withDisks(xml, (place) => places.add(place));
  const whole = new RegExp(`(?<![A-Za-z0-9])${name.replace(/\W/g, "\\$&")}(?![A-Za-z0-9])`, "g");
  return (place) => {
    const own = place.replace(whole, () => newName);
    return places.has(own) ? "" : own;
  };
}

/** Another VM like this one: its own name, UUID, MACs and disks. */
export function copyOf(xml, name, newName) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
  const own = ownPlaces(xml, name, newName);
  let at = 0;
  return withDisks(xml, own)
    .replace(/(<nvram\b[^>]*>)([^<]*)(?=<\/nvram>)/, (_, tag, place) => tag + (place.includes(name) ? own(place) : ""))
    .replaceAll(`<name>${name}</name>`, `<name>${newName}</name>`)
    .replace(/<uuid>[^<]*<\/uuid>/, `<uuid>${uuid}</uuid>`)
    .replaceAll(`/${name}.log`, `/${newName}.log`)
    .replaceAll(`host=${name} `, `host=${newName} `)
    .replace(/(<mac address=["'](?:[0-9a-f]{2}:){3})[0-9a-f:]{8}/gi, (_, beginning) => {
      at += 3;
      return `${beginning}${[0, 1, 2].map((n) => hex.slice(2 * ((at + n) % 16)).slice(0, 2)).join(":")}`;
    });
}

export function vmPage(_, reference) {
  const to = `/vms${path(reference)}`;
  const vm = look(to, { on: ["vm", "node"], every: 15_000 });
  const why = look(`${to}/explanation`, { on: ["vm"], every: 3000 });
  return html`<nav class="crumbs" aria-label="Where this is">${link(["vms"], "VMs")}</nav>
    <div class="title"><h1 tabindex="-1">${vm.data?.name ?? reference}</h1>${vm.data ? html`${state(condition(vm.data))}${vmActions(vm.data, true)}` : nothing}</div>
    ${vm.data || !vm.problem ? nothing : html`<p>${link(["vms"], "All VMs")}</p>`}
    ${shown(vm, (vm) => {
      const log = look(`${to}/log?lines=400`, { on: ["vm"], every: 2000 });
      return html`${vm.description ? html`<p class="description">${vm.description}</p>` : nothing}
        ${vm.failed_reason && vm.failed_reason !== "None" ? problem({ message: vm.failed_reason }) : nothing}
        ${vm.problem ? problem({ message: vm.problem }) : nothing}
        ${panel("Why it is so", explanation(why))}
        ${panel(
          "State",
          facts([
            ["Asked for", vm.state],
            ["Belongs to", nodeLink(vm.node)],
            ["Runs on", nodeLinks(vm.running_on)],
            ["Came from", vm.last_node ? nodeLink(vm.last_node) : ""],
            ["vCPUs", vm.vcpu],
            ["Memory", mebibytes(vm.memory)],
            ["Machine", [vm.arch, vm.machine].filter(Boolean).join(", ")],
            ["UUID", html`<code>${vm.uuid}</code>`],
          ]),
        )}
        ${screen(vm)}
        ${serialConsole(vm)}
        ${panel("Console log", consoleLog(log))}
        ${vm.networks?.length ? panel("Network cards", table("Network cards", [["MAC"], ["Network"], ["Model"]], vm.networks.map((card) => [card.mac, card.source, card.model]), "")) : nothing}
        ${vm.disks?.length ? panel("Disks", table("Disks", [["Device"], ["Source"], ["Bus"]], vm.disks.map((disk) => [disk.dev, disk.name, disk.bus]), "")) : nothing}
        <details class="panel"><summary>Definition</summary><pre tabindex="0">${vm.xml}</pre></details>`;
    })}`;
}

function consoleLog(log) {
  return shown(log, (text) => {
    const lines = typeof text === "string" ? text : (text.lines ?? []).join("\n");
    const printable = lines.replace(/\u001b\[[0-9;?]*[A-Za-z]|\u001b\][^\u0007\u001b\n]*(\u0007|\u001b\\)/g, "").replace(/[^\P{C}\n\t]/gu, "");
    if (printable.trim() === "") return html`<div class="empty"><p>The guest has printed nothing yet.</p></div>`;
    keepAtTheEnd();
    return html`<pre class="console" tabindex="0" role="log" aria-label="Console log">${printable}</pre>`;
  });
}

/** What is printed last is seen, unless somebody has scrolled up. */
function keepAtTheEnd() {
  const box = document.querySelector(".console");
  const atTheEnd = !box || box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  if (atTheEnd) requestAnimationFrame(() => document.querySelector(".console")?.scrollTo(0, 1e9));
}
