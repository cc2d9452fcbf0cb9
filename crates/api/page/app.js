// The frame of the page: which view is shown, the state of the connection, light and dark.

import { html, nothing, render } from "./vendor/lit-html.js";
import { logOut } from "./api.js";
import { follow } from "./act.js";
import { settle } from "./line.js";
import { live, look, reconnect, sessionChanged, start, touch } from "./live.js";
import { button, clock, nodeLink, problem } from "./parts.js";
import { may } from "./may.js";
import { auditList } from "./views/audit.js";
import { login } from "./views/login.js";
import { networkList, networkPage } from "./views/networks.js";
import { nodeList, nodePage } from "./views/nodes.js";
import { maintenanceButton, overview } from "./views/overview.js";
import { storage } from "./views/storage.js";
import { eventList, taskList } from "./views/tasks.js";
import { vmList, vmPage } from "./views/vms.js";

const PLACES = [
  ["", "Overview", overview],
  ["nodes", "Nodes", nodeList, nodePage],
  ["vms", "VMs", vmList, vmPage],
  ["networks", "Networks", networkList, networkPage],
  ["storage", "Storage", storage],
  ["tasks", "Tasks", taskList],
  ["events", "Events", eventList],
  ["audit", "Audit", auditList],
];

/** Who may not see it is not sent there. */
const isOffered = ([name]) => name !== "audit" || may("admin");

/** The parts of the address behind `#/`. */
function where() {
  return location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
}

let wasOpen = false;
let primary = null;

function draw() {
  const place = document.getElementById("page");
  if (live.session === "none") {
    document.title = "Log in – pvc";
    render(login(wasOpen), place);
    settle(false);
    return;
  }
  const all = {
    status: look("/status", { on: ["cluster", "node", "vm", "network"], every: 10_000 }),
    // That a node has spoken is no event; its figures are asked for.
    nodes: look("/nodes", { on: ["node", "cluster"], every: 5000 }),
    vms: look("/vms", { on: ["vm", "node"], every: 15_000 }),
    networks: look("/networks", { on: ["network"], every: 60_000 }),
  };
  if (live.session === "unknown") {
    render(html`<main class="login">${live.nextTry ? connection() : html`<p class="loading">Asking the cluster …</p>`}</main>`, place);
    return;
  }
  wasOpen = true;
  primary = all.status.data?.primary ?? primary;
  const [first, item] = where();
  const known = PLACES.find(([name]) => name === first);
  const [name, title, list, page] = known ?? ["", "Not found", nowhere];
  document.title = `${item ? `${nameOf(all, first, item)} – ` : ""}${title} – pvc`;
  render(frame(all, name, item && page ? page(all, item) : list(all)), place);
  follow();
  settle(true);
}

function nameOf({ vms }, kind, id) {
  return (kind === "vms" && vms.data?.find((vm) => vm.uuid === id)?.name) || id;
}

function nowhere() {
  return html`<h1 tabindex="-1">There is no such page</h1><p><a href="#/">Overview</a></p>`;
}

function frame(all, current, view) {
  const counts = { nodes: all.nodes.data?.length, vms: all.vms.data?.length, networks: all.networks.data?.length };
  return html`<a class="skip" href="#main" @click=${skip}>To the content</a>
    <header class="top">
      <a class="brand" href="#/"><span aria-hidden="true">△</span> pvc</a>
      <span class="link ${live.link}" role="status">${{ live: "live", connecting: "connecting …", lost: "connection lost", resting: "resting" }[live.link]}</span>
      <span class="primary">primary: ${primary ? nodeLink(primary) : "nobody"}</span>
      ${all.status.data?.maintenance ? html`<span class="maintenance">maintenance</span>` : nothing}
      <span class="space"></span>
      ${maintenanceButton(all.status)}
      ${button(theme() === "dark" ? "Light" : "Dark", switchTheme, { label: theme() === "dark" ? "Light colours" : "Dark colours" })}
      ${button("Log out", leave)}
    </header>
    <nav class="places" aria-label="Places">
      ${PLACES.filter(isOffered).map(([name, title]) => html`<a href="#/${name}" aria-current=${name === current ? "page" : nothing}>${title}${counts[name] === undefined ? nothing : html` <small>${counts[name]}</small>`}</a>`)}
    </nav>
    <main id="main">${live.link === "lost" ? connection() : nothing}${view}</main>`;
}

function connection() {
  return html`<div class="lost" role="alert">
    <b>The connection is lost${live.lostAt ? html` since ${clock(live.lostAt)}` : nothing}.</b>
    Another node may be becoming the primary. What is shown is what was known then; the page tries again by itself.
    ${live.refusal ? problem(live.refusal) : nothing}
    ${button("Try now", reconnect)}
  </div>`;
}

async function leave() {
  await logOut();
  wasOpen = false;
  sessionChanged(false);
}

function skip(event) {
  event.preventDefault();
  document.querySelector("main h1")?.focus();
}

// --- light and dark

function theme() {
  return document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function switchTheme() {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  keep(next);
  touch();
}

function keep(chosen) {
  try {
    localStorage.setItem("theme", chosen);
  } catch {
    // A browser that keeps nothing: it lasts as long as the page.
  }
}

try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // As above.
}

// --- begin

window.addEventListener("hashchange", () => {
  touch();
  document.getElementById("dialog").close();
  window.scrollTo(0, 0);
  // After the view is drawn, who does not see it hears where they are.
  requestAnimationFrame(() => document.querySelector("main h1")?.focus());
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", touch);
start(draw);
