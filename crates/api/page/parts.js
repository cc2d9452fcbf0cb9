// What views are made of. Values become text, never HTML.

import { html, nothing, render, svg } from "./vendor/lit-html.js";
import { may } from "./may.js";

export { html, nothing, svg };

const WORDS = {
  good: ["run", "running", "ready", "primary", "done", "start"],
  busy: ["init", "starting", "stopping", "shutting down", "restarting", "moving", "waiting", "flush", "flushing", "unflush", "takeover", "relinquish", "migrate", "restart", "shutdown"],
  bad: ["dead", "fenced", "failed", "halted", "broken", "unreadable", "exists twice"],
};

/** A state: colour and word, so that it is read without the colour. */
export function state(word) {
  const kind = Object.keys(WORDS).find((kind) => WORDS[kind].includes(word)) || "idle";
  return html`<span class="state ${kind}"><i aria-hidden="true"></i>${word}</span>`;
}

/** What a VM does, in one word, from what is asked of it and where it runs. */
export function condition(vm) {
  if (vm.state === undefined) return "broken";
  const running = (vm.running_on || []).length;
  if (vm.state === "failed") return "failed";
  if (vm.not_executing) return "halted";
  switch (vm.state) {
    case "start":
      return running > 0 ? "running" : "starting";
    case "stop":
      return running > 0 ? "stopping" : "off";
    case "shutdown":
      return running > 0 ? "shutting down" : "off";
    case "restart":
      return "restarting";
    case "migrate":
      return "moving";
    default:
      return vm.state;
  }
}

/** Whether nothing is on its way. */
export function isSettled(vm) {
  return ["running", "off", "failed", "halted", "broken"].includes(condition(vm));
}

export function mebibytes(count) {
  if (count === undefined || count === null) return "–";
  if (count < 1024) return `${count} MiB`;
  return `${(count / 1024).toFixed(count < 10 * 1024 ? 1 : 0)} GiB`;
}

export function time(seconds) {
  if (!seconds) return "–";
  const at = new Date(seconds * 1000);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString()} `;
  return html`<time datetime=${at.toISOString()}>${day}${at.toLocaleTimeString()}</time>`;
}

export function clock(at) {
  return html`<time datetime=${at.toISOString()}>${at.toLocaleTimeString()}</time>`;
}

export function link(to, text = to.at(-1)) {
  return html`<a href="#${to.map((part) => `/${encodeURIComponent(part)}`).join("")}">${text}</a>`;
}

export const nodeLink = (name) => (name ? link(["nodes", name]) : "–");
export const nodeLinks = (names) => ((names || []).length > 0 ? names.map((name, at) => html`${at > 0 ? ", " : ""}${nodeLink(name)}`) : "–");

/** How full something is. */
export function meter(part, whole, label) {
  const share = whole > 0 ? Math.min(100, (100 * part) / whole) : 0;
  return html`<svg class="meter ${share > 90 ? "full" : ""}" role="img" aria-label=${`${label}: ${Math.round(share)} %`}>
    <rect class="whole" width="100%" height="100%" rx="2"></rect><rect class="part" width="${share}%" height="100%" rx="2"></rect>
  </svg>`;
}

/** A figure over time: `samples` are `[unix time in s, figure]`, the oldest first, without a figure where there was none. `most`: the top of the plot. */
export function plot(label, samples, text, most) {
  const known = samples.filter(([, figure]) => figure !== null);
  if (known.length < 2) return html`<p class="plot none">${label}: drawn from now on</p>`;
  const [width, height] = [240, 44];
  const [from, to] = [known[0][0], known.at(-1)[0]];
  const top = most || Math.max(...known.map(([, figure]) => figure), 0.1) * 1.15;
  const line = known
    .map(([at, figure]) => `${(((at - from) / (to - from || 1)) * width).toFixed(1)},${(height - (Math.min(figure, top) / top) * height).toFixed(1)}`)
    .join(" ");
  const last = text(known.at(-1)[1]);
  const minutes = Math.round((to - from) / 60);
  const since = minutes < 1 ? "less than a minute" : minutes < 120 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
  return html`<figure class="plot">
    <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label=${`${label}, now ${last}`}>
      ${svg`<polygon points="0,${height} ${line} ${width},${height}"></polygon><polyline points=${line}></polyline>`}
    </svg>
    <figcaption>${label} <b>${last}</b> <span>last ${since}</span></figcaption>
  </figure>`;
}

const keptRows = new Map();

/** The table's row of this key stays the same element wherever it moves: a press that began on it never ends on another's button. */
function keyedRows(caption, keys, rows) {
  const before = keptRows.get(caption);
  const now = new Map(keys.map((key, at) => {
    const row = before?.get(key) ?? document.createElement("tr");
    render(rows[at], row);
    return [key, row];
  }));
  keptRows.set(caption, now);
  return [...now.values()];
}

/** A table of rows of cells; its heads are `[text, class]`. `keys`: what each row is about, where its place is not enough. */
export function table(caption, heads, rows, empty, keys = null) {
  if (rows.length === 0) return html`<div class="empty">${empty}</div>`;
  const cells = rows.map((row) => row.map((cell, at) => (at === 0 ? html`<th scope="row">${cell}</th>` : html`<td class=${heads[at][1] || ""} data-head=${heads[at][0]}>${cell}</td>`)));
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption>${caption}</caption>
      <thead><tr>${heads.map((head) => html`<th scope="col" class=${head[1] || ""}>${head[0]}</th>`)}</tr></thead>
      <tbody>${keys ? keyedRows(caption, keys, cells) : cells.map((row) => html`<tr>${row}</tr>`)}</tbody>
    </table>
  </div>`;
}

/** What an answer has, drawn; while there is none, why. */
export function shown(entry, draw) {
  // That nobody answers is said once, above all.
  const told = entry.problem && entry.problem.status !== 0 ? problem(entry.problem) : nothing;
  if (entry.data !== undefined) return html`${told}${draw(entry.data)}`;
  if (entry.problem) return problem(entry.problem);
  return html`<p class="loading">Asking the cluster …</p>`;
}

/** Why not, in the words of the API. */
export function problem(told) {
  return html`<div class="problem" role="alert">
    ${told.what ? html`<p><b>${told.what}</b></p><p>${told.why}</p><p class="todo">${told.todo}</p>` : html`<p>${told.message}</p>`}
  </div>`;
}

/** A list of names and values. */
export function facts(all) {
  return html`<dl class="facts">${all.filter(([, value]) => value !== undefined && value !== null && value !== "").map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** Why something is as it is: the cluster's own sentence, and what it says besides. */
export function explanation(entry) {
  return shown(entry, (told) => {
    const said = [told.explanation, told.as_primary].filter(Boolean);
    return html`<div class="explain">
      <p class="conclusion">${told.conclusion}</p>
      ${said.map((say) => html`<p><b>${say.by}</b> at ${time(say.at_unix_s)}: ${say.doing}, because ${say.because}${say.error ? html`<br><span class="error">${say.error}</span>` : nothing}</p>`)}
      ${(told.troubles || []).map((trouble) => html`<p>${trouble.what} <span class="dim">(${(trouble.nodes || []).join(", ")})</span>${trouble.todo ? html`<br><span class="todo">${trouble.todo}</span>` : nothing}</p>`)}
      ${(told.problems || []).map((trouble) => html`<p class="error">${trouble}</p>`)}
      ${told.cannot_go_because ? html`<p class="dim">It could go nowhere else: ${told.cannot_go_because}</p>` : told.could_go_to ? html`<p class="dim">It could go to ${nodeLink(told.could_go_to)}.</p>` : nothing}
    </div>`;
  });
}

/** A button; `dangerous` ones look so. `needs`: the role that it takes, without which it is not offered. */
export function button(text, press, { dangerous = false, off = false, label = undefined, main = false, needs = null } = {}) {
  if (needs && !may(needs)) return nothing;
  return html`<button type="button" class="${dangerous ? "dangerous" : ""} ${main ? "main" : ""}" ?disabled=${off} aria-label=${label ?? nothing} @click=${press}>${text}</button>`;
}

export function panel(title, content, extra = nothing) {
  return html`<section class="panel"><header><h2>${title}</h2>${extra}</header>${content}</section>`;
}
