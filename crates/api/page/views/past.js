// What the service has seen since it began: figures of some hours, and the course of the last fences.

import { look } from "../live.js";
import { html, nodeLink, nothing, panel, plot, shown, svg, time } from "../parts.js";

const EVERY_MS = 30_000;
const history = () => look("/history", { every: EVERY_MS }).data;

/** Load and memory of a node. */
export function nodePlots(name) {
  const samples = history()?.nodes[name] ?? [];
  const of = (figure) => samples.map((sample) => [sample[0], sample[figure]]);
  return html`${plot("Load", of(1), (load) => load.toFixed(2))}${plot("Memory used", of(2), (part) => `${Math.round(100 * part)} %`, 1)}`;
}

/** How soon ZooKeeper answers the service. */
export function latencyPlot() {
  return plot("ZooKeeper's answers", history()?.zookeeper ?? [], (ms) => `${ms.toFixed(1)} ms`);
}

const failovers = () => look("/failovers", { on: ["cluster", "node", "vm"] });

/** The course of the last fence, if there was one. */
export function lastFailover() {
  const [last] = failovers().data ?? [];
  return last ? panel("The last failover", course(last), html`<a href="#/events">all</a>`) : nothing;
}

/** The courses of all that are known. */
export function failoverList() {
  return shown(failovers(), (all) =>
    all.length === 0 ? html`<div class="empty"><p>No node was fenced since this service began.</p></div>` : html`${all.map(course)}`,
  );
}

function course(failover) {
  const { steps } = failover;
  const [from, to] = [steps[0].at_unix_ms, steps.at(-1).at_unix_ms];
  const after = (step) => (step.at_unix_ms - from) / 1000;
  const place = (step) => `${(1 + (98 * (step.at_unix_ms - from)) / (to - from || 1)).toFixed(1)}%`;
  return html`<article class="course">
    <h3>${nodeLink(failover.node)} <span class="dim">${time(Math.round(from / 1000))}, ${after(steps.at(-1)).toFixed(1)} s${failover.over ? "" : ", not over yet"}</span></h3>
    ${failover.from_the_beginning ? nothing : html`<p class="dim">It had begun before this service did, where another node was primary.</p>`}
    <svg aria-hidden="true"><line x1="1%" x2="99%" y1="8" y2="8"></line>${steps.map((step) => svg`<circle cx=${place(step)} cy="8" r="4"></circle>`)}</svg>
    <ol>${steps.map((step) => html`<li><span class="after">+${after(step).toFixed(1)} s</span> <span>${step.what}</span></li>`)}</ol>
  </article>`;
}
