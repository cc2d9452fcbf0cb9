// What people do to the cluster: they are asked first where it is dangerous, and told what became of it.

import { html, nothing, render } from "./vendor/lit-html.js";
import { ask, path } from "./api.js";
import { live, look, outdate, sessionChanged, touch } from "./live.js";
import { condition, isSettled, problem } from "./parts.js";

const SHOWN_MS = 12_000;
const MOST_OUTCOMES = 6;

let outcomes = [];

/** Whether what has this title is on its way. */
export const isBusy = (title) => outcomes.some((outcome) => outcome.title === title && outcome.kind === "busy");

/** Asks the API for a change, and shows what it answers. `settled`: says what came of it, or `null` while it is on its way. */
export async function act({ title, method = "POST", to, body = {}, settled = null }) {
  if (isBusy(title)) return false;
  const outcome = begin(title);
  try {
    const answer = await ask(method, to, method === "DELETE" ? undefined : body);
    accept(outcome, answer, settled);
    return true;
  } catch (told) {
    refuse(outcome, told);
    return false;
  } finally {
    outdate();
  }
}

function begin(title) {
  const outcome = { title, kind: "busy", message: "asked", notes: [], settled: null };
  outcomes = [outcome, ...outcomes].slice(0, MOST_OUTCOMES);
  drawOutcomes();
  touch();
  return outcome;
}

function accept(outcome, answer, settled) {
  outcome.message = answer.message || "done";
  outcome.notes = answer.notes || [];
  outcome.settled = answer.task ? taskEnded(answer.task) : settled;
  if (outcome.settled) follow();
  else end(outcome, "good");
}

function refuse(outcome, told) {
  if (told.status === 401) sessionChanged(false);
  Object.assign(outcome, { kind: "bad", problem: told });
  drawOutcomes();
  touch();
}

function end(outcome, kind, message = outcome.message) {
  Object.assign(outcome, { kind, message, settled: null });
  drawOutcomes();
  touch();
  if (kind === "good") setTimeout(() => dismiss(outcome), SHOWN_MS);
}

function dismiss(outcome) {
  outcomes = outcomes.filter((other) => other !== outcome);
  drawOutcomes();
  touch();
}

/** Looks whether what was asked for has happened; called whenever something is known anew. */
export function follow() {
  for (const outcome of outcomes) {
    const over = outcome.settled?.();
    if (over) end(outcome, over.kind, over.message);
    else if (over === null) drawOutcomes();
  }
}

/** That a VM is where and as it shall be. `done`: whether it is so; what else it settles as is told. */
export function vmSettles(uuid, done) {
  let left = 3; // Answers that are older than the change.
  return () => {
    const vms = look("/vms", { on: ["vm", "node"] }).data;
    if (!vms) return null;
    const vm = vms.find((vm) => vm.uuid === uuid);
    if (done(vm)) return { kind: "good", message: vm ? `${vm.name}: ${condition(vm)}${vm.running_on?.length ? ` on ${vm.running_on.join(" and ")}` : ""}` : "it is gone" };
    if (vm && !isSettled(vm)) left = 3;
    else if (vm && ["failed", "broken", "halted"].includes(condition(vm)) && left-- <= 0) return { kind: "bad", message: `${vm.name} is ${condition(vm)}: see why on its page` };
    return null;
  };
}

/** That a node takes VMs, or has none left. */
export function nodeSettles(name, domainState) {
  return () => {
    const node = look("/nodes", { on: ["node"] }).data?.find((node) => node.name === name);
    return node?.domain_state === domainState ? { kind: "good", message: `${name} is ${domainState}` } : null;
  };
}

function taskEnded(id) {
  return () => {
    const task = look(`/tasks${path(id)}`, { every: 1000 }).data;
    if (task?.state === "done") return { kind: "good", message: `${task.what}: done` };
    if (task?.state === "failed") return { kind: "bad", message: `${task.what}: ${task.trouble}` };
    return null;
  };
}

function drawOutcomes() {
  render(
    outcomes.map(
      (outcome) => html`<div class="outcome ${outcome.kind}">
        <header><b>${outcome.title}</b><button type="button" class="plain" aria-label="Dismiss: ${outcome.title}" @click=${() => dismiss(outcome)}>✕</button></header>
        ${outcome.problem ? problem(outcome.problem) : html`<p>${outcome.kind === "busy" ? html`<span class="spinner" aria-hidden="true"></span>` : nothing}${outcome.message}</p>`}
        ${outcome.notes.map((note) => html`<p class="dim">${note}</p>`)}
      </div>`,
    ),
    document.getElementById("outcomes"),
  );
}

// --- dialogs

/** The dialog that was opened last. */
let current = null;

/**
 * Asks before something is done. `fields`: `{ name, label, kind, value, options, note, required }`; `retype`: a word that has to be typed.
 * `go` is given the values, and may give what is done when the dialog has closed. If it throws a problem, the dialog stays and shows it,
 * with all that was typed; of a dialog that was closed meanwhile it is told among the outcomes.
 */
function dialog({ title, text, fields = [], retype = null, confirm, dangerous = false, wide = false, go, change = () => {} }) {
  const box = document.getElementById("dialog");
  const mine = (current = {});
  const isOpen = () => current === mine && box.open;
  let [refused, busy] = [null, false];
  const values = () => Object.fromEntries([...new FormData(box.querySelector("form"))]);
  const submit = async (event) => {
    event.preventDefault();
    if (busy) return;
    [busy, refused] = [true, null];
    draw();
    try {
      const then = await go(values());
      if (!isOpen()) return;
      box.close();
      then?.();
    } catch (told) {
      if (!isOpen()) return refuse(begin(title), told);
      refused = told;
      if (told.status === 401) {
        box.close();
        sessionChanged(false);
      }
    }
    busy = false;
    draw();
  };
  const draw = () =>
    render(
      html`<form method="dialog" class=${wide ? "wide" : ""} @submit=${submit} @input=${(event) => change(event, box)}>
        <h2 id="dialog-title">${title}</h2>
        ${text ? html`<p>${text}</p>` : nothing}
        ${fields.map(field)}
        ${retype ? html`<label>Type <b>${retype}</b> to confirm <input name="retype" autocomplete="off" required pattern=${retype.replace(/[^\w]/g, (c) => `\\u{${c.codePointAt(0).toString(16)}}`)}></label>` : nothing}
        ${refused ? problem(refused) : nothing}
        <footer>
          <button type="button" @click=${() => box.close()}>${busy ? "Close (it goes on)" : "Cancel"}</button>
          <button type="submit" class=${dangerous ? "dangerous main" : "main"} ?disabled=${busy}>${confirm}</button>
        </footer>
      </form>`,
      box,
    );
  render(nothing, box);
  draw();
  box.showModal();
}

function field({ name, label, kind = "text", value = "", options = [], note, required = false }) {
  const id = `field-${name}`;
  const input = {
    text: () => html`<input id=${id} name=${name} .value=${value} autocomplete="off" spellcheck="false" ?required=${required}>`,
    number: () => html`<input id=${id} name=${name} type="number" min="0" .value=${value} ?required=${required}>`,
    area: () => html`<textarea id=${id} name=${name} rows="16" spellcheck="false" .value=${value} ?required=${required}></textarea>`,
    choice: () => html`<select id=${id} name=${name}>${options.map(([key, text]) => html`<option value=${key} ?selected=${key === value}>${text}</option>`)}</select>`,
    flag: () => html`<input id=${id} name=${name} type="checkbox" value="yes" ?checked=${value}>`,
  }[kind];
  return html`<div class="field ${kind}"><label for=${id}>${label}</label>${input()}${note ? html`<small>${note}</small>` : nothing}</div>`;
}

/** A dialog whose outcome is an action. `of`: the action that these values mean. */
export function confirmed(about, of) {
  dialog({
    ...about,
    go: async (values) => {
      const action = of(values);
      const answer = await ask(action.method || "POST", action.to, action.method === "DELETE" ? undefined : (action.body ?? {}));
      const outcome = begin(action.title);
      accept(outcome, answer, action.settled || null);
      outdate();
      return action.then;
    },
  });
}

/** Whether anything can be asked for now. */
export const isCutOff = () => live.link === "lost";
