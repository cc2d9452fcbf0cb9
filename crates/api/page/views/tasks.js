import { path } from "../api.js";
import { confirmed, isCutOff } from "../act.js";
import { changes } from "../history.js";
import { look } from "../live.js";
import { failoverList } from "./past.js";
import { button, clock, html, link, nodeLink, nothing, panel, shown, state, table, time } from "../parts.js";

export function taskList() {
  const tasks = look("/tasks", { every: 2000 });
  const row = (task) => [
    task.what,
    state(task.state),
    task.trouble ?? (task.progress === undefined ? "" : `${task.progress} % done`),
    nodeLink(task.node),
    task.by,
    time(task.asked_at),
    time(task.over_at),
    task.state === "waiting" || task.state === "running" ? button("Cancel", () => cancel(task), { dangerous: true, off: isCutOff(), needs: "admin", label: `Cancel: ${task.what}` }) : nothing,
  ];
  return html`<h1 tabindex="-1">Tasks</h1>
    ${shown(tasks, (all) => table("Tasks", [["What"], ["State"], ["Why"], ["Node"], ["Asked by"], ["Asked at"], ["Over at"], ["Actions", "actions"]], all.map(row), html`<p>No task is known. Pools, volumes and snapshots are made and removed as tasks.</p>`))}`;
}

function cancel(task) {
  confirmed({ title: "Cancel this task?", text: task.what, confirm: "Cancel the task", dangerous: true }, () => ({ title: `Cancel: ${task.what}`, method: "DELETE", to: `/tasks${path(task.id)}` }));
}

// What is not there any more has no page.
const ENDS = ["is gone", "is undefined", "was removed from the cluster"];
const PLACES = { node: "nodes", vm: "vms", network: "networks" };

/** The last of what this page has seen change. */
export function changeList(most) {
  if (changes.length === 0) return html`<div class="empty"><p>Nothing has changed since this page was opened.</p></div>`;
  return html`<ol class="changes">${changes.slice(0, most).map(
    (change) => html`<li>${clock(change.at)} <span class="dim">${change.kind}</span> ${PLACES[change.kind] && !ENDS.includes(change.what) ? link([PLACES[change.kind], change.id], change.name) : change.name} <span>${change.what}</span></li>`,
  )}</ol>`;
}

export function eventList() {
  return html`<h1 tabindex="-1">Events</h1>
    <p class="dim">What has changed since this page was opened, the last first. The journals of the nodes have what was before.</p>
    ${changeList(300)}
    ${panel("Failovers", failoverList())}`;
}
