// A WebSocket to a guest, and the document of its own that shows what comes over it: opened, opened again after the connection was lost, and why not.
// This module looks at none of the bytes.
//
//   opening ──► open ──the connection is lost──► again ──► open
//      └──refused──► ended ◄──off, taken, not good any more──┘

import { html, nothing } from "./vendor/lit-html.js";
import { ask, path, Problem } from "./api.js";
import { outdate, touch } from "./live.js";
import { button, panel, problem } from "./parts.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8_000;
/** How long it is opened again after the connection was lost: the death of the primary's node is over by then. */
const PATIENCE_MS = 180_000;
/** The largest frame that the API takes. */
export const MOST_SENT = 64 * 1024;
/** Codes of a close that end it for good: the VM is off, this page's mistake, the session is over, it is lost. */
const OVER = [1000, 1003, 1008, 1011];
/** Another version of the service has no document of this one. */
const THERE_WITHIN_MS = 10_000;

/** Those that are open, or were and are still shown. */
const lines = new Set();

/** Closes what is not shown any more. */
export function settle(isLoggedIn) {
  for (const line of [...lines]) {
    if (!isLoggedIn || line.at !== location.hash || (line.frame && !line.frame.isConnected)) line.close();
  }
}

/** That of a VM, of this kind. */
export const lineOf = (kind, vm) => [...lines].find((line) => line instanceof kind && line.vm === vm);

/**
 * What a kind says of itself: `route`, `title` and `noun`; `document`, what shows it; `mostUnshown`, how many bytes may not be shown yet, since a WebSocket
 * cannot be held back; `mayPass`, statuses of refusals that may be over soon where it was open before. And it hears: `said` and `came` of the
 * guest, `fromFrame` of the document.
 */
export class Line {
  constructor(vm, name) {
    Object.assign(this, { vm, name, at: location.hash, early: [], unshown: 0, missed: 0 });
  }

  /** Opens it, or opens it again: then it has its document still. */
  open(query = "") {
    for (const other of [...lines]) if (other !== this && other.constructor === this.constructor) other.close();
    lines.add(this);
    Object.assign(this, { state: "opening", line: "Opening …", note: null, lostAt: null, wait: FIRST_WAIT_MS, wantsFocus: true });
    this.#connect(query);
    touch();
  }

  close() {
    if (!lines.delete(this)) return;
    clearTimeout(this.timer);
    this.socket?.close();
    this.port?.close();
    touch();
  }

  get isOpen() {
    return this.state === "open" && this.socket?.readyState === WebSocket.OPEN;
  }

  #connect(query = "") {
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/api/v2/vms${path(this.vm)}/${this.route}?inside=true${query}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.refusal = null;
    const isMine = () => lines.has(this) && this.socket === socket;
    socket.onmessage = ({ data }) => {
      if (!isMine()) return;
      if (typeof data !== "string") this.came(new Uint8Array(data));
      else if (data.startsWith("{")) this.#refused(JSON.parse(data));
      else this.said(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (isMine()) this.#closed(code, reason);
    };
  }

  #refused(told) {
    this.refusal = new Problem(told.status, told);
  }

  /** It is open, and this is of whom and where. */
  opened(line) {
    Object.assign(this, { state: "open", line, note: null, wasOpen: true, lostAt: null, wait: FIRST_WAIT_MS });
    this.#focus();
    touch();
  }

  #closed(code, reason) {
    this.socket = null;
    const { refusal } = this;
    if (refusal ? !(this.lostAt && this.mayPass.includes(refusal.status)) : OVER.includes(code)) {
      if (code === 1008) outdate();
      // What was said last says why, unless it was refused.
      return this.#end(refusal ? "It was not opened." : (this.lastWord ?? reason));
    }
    if (this.wasOpen) this.#again(reason);
    else this.#explain();
  }

  #end(line) {
    Object.assign(this, { state: "ended", line, note: null });
    // What was never open has nothing to show: opened again, it gets another document.
    if (!this.wasOpen) {
      this.port?.close();
      Object.assign(this, { frame: null, port: null });
    }
    touch();
  }

  #again(reason) {
    this.lostAt ??= Date.now();
    if (Date.now() - this.lostAt > PATIENCE_MS) return this.#end(`The connection was lost, and the ${this.noun} could not be opened again.`);
    const line = `${reason || "The connection is lost"}: the ${this.noun} is opened again …`;
    Object.assign(this, { state: "again", line, refusal: null });
    this.timer = setTimeout(() => this.#connect(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
    touch();
  }

  /** It is open, and is opened from its beginning: its place may not be free at once. */
  #anew() {
    Object.assign(this, { state: "again", line: `The ${this.noun} is opened again …`, note: null, lostAt: Date.now(), wait: FIRST_WAIT_MS, wantsFocus: true });
    const { socket } = this;
    this.#connect();
    socket.close();
    touch();
  }

  /** It cannot go on. */
  fail(line) {
    const { socket } = this;
    this.socket = null;
    socket?.close();
    this.#end(line);
  }

  /** A browser shows no answer to what did not become a WebSocket: it is asked for once more, as an ordinary request. */
  async #explain() {
    let why;
    try {
      await ask("GET", `/vms${path(this.vm)}/${this.route}`);
    } catch (told) {
      // That it takes a WebSocket: whatever was in the way was not for long.
      why = told.status === 426 ? new Problem(0, { detail: "The connection broke off while it was opened." }) : told;
    }
    if (!lines.has(this)) return;
    this.refusal = why;
    if (why?.status === 401) outdate();
    this.#end("It was not opened.");
  }

  /** The document is there: it is handed a port, and what came before. It has no origin that could be named. */
  show(frame) {
    if (!lines.has(this)) return;
    const wasThere = Boolean(this.port);
    this.port?.close();
    const { port1, port2 } = new MessageChannel();
    Object.assign(this, { frame, port: port1, unshown: 0, isThere: false });
    setTimeout(() => {
      if (lines.has(this) && this.port === port1 && !this.isThere) this.tell("There is nothing to show it with: the service is of another version than this page. Load the page again.");
    }, THERE_WITHIN_MS);
    port1.onmessage = ({ data }) => {
      if (!lines.has(this)) return;
      // Nothing of what it says is believed but that it is there, how much it has shown, and what it sends to the guest.
      if (data.isThere) this.isThere = true;
      if (Number.isInteger(data.shown)) this.unshown = Math.max(0, this.unshown - data.shown);
      if (data.left) document.querySelector(`.panel [aria-label^="Close the ${this.noun}"]`)?.focus();
      this.fromFrame(data);
    };
    frame.contentWindow.postMessage(null, "*", [port2]);
    for (const message of this.early.splice(0)) this.post(message);
    // A document that was loaded again has nothing of what the one before was shown.
    if (wasThere && this.isOpen) this.#anew();
    if (this.state === "open") this.#focus();
  }

  /** To the document, now or when it is there. */
  post(message) {
    if (this.port) this.port.postMessage(message);
    else this.early.push(message);
  }

  /** Once for each time that it was asked for: nobody is taken from elsewhere on the page later. */
  #focus() {
    if (!this.port || !this.wantsFocus) return;
    this.wantsFocus = false;
    this.frame.focus();
    this.port.postMessage({ focus: true });
  }

  tell(note) {
    if ((this.note ?? null) === note) return;
    this.note = note;
    touch();
  }

  /** Its panel, with these buttons while it is open, and a word about how to use it. */
  panel(buttons, hint, afterwards = nothing) {
    const isOver = this.state === "ended";
    const named = (text) => ({ label: `${text} the ${this.noun} of ${this.name}` });
    const actions = html`<div class="actions">
      ${isOver ? button("Open again", () => this.open(), named("Open again")) : buttons}
      ${isOver ? afterwards : nothing}
      ${button("Close", () => this.close(), named("Close"))}
    </div>`;
    const frame = html`<iframe class="screen of-${this.route}" title=${`${this.title} of ${this.name}`} sandbox="allow-scripts" src=${this.document} @load=${({ target }) => this.show(target)}></iframe>`;
    return panel(
      this.title,
      html`<p class="talk ${this.state}" aria-live="polite">${this.line}${this.note ? html` <span class="error">${this.note}</span>` : nothing}</p>
        ${this.refusal ? problem(this.refusal) : nothing}
        ${this.refusal && !this.wasOpen ? nothing : frame}
        ${isOver ? nothing : html`<p class="dim">${hint}</p>`}`,
      actions,
    );
  }
}
