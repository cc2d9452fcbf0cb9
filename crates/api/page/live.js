// What is known of the cluster: answers by path, fetched anew when an event says that what they show has changed, or when their time has come.
// Only what the view that is shown has asked for is kept.

import { ask, refusal } from "./api.js";
import { tell } from "./history.js";

const QUIET_MS = 25_000; // The server says something every 15 s.
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8_000;
const HIDDEN_MS = 30_000;
const AT_MOST_EVERY_MS = 700;
const SPREAD_MS = 2_000;

/** `session`: `unknown`, `open` or `none`. `link`: `connecting`, `live`, `lost` or `resting`. `refusal`: why there are no events, if somebody said so. */
export const live = { session: "unknown", link: "connecting", lostAt: null, nextTry: null, refusal: null };

const known = new Map();
let changed = () => {};
let wanted = new Set();

/** Calls `render` soon after anything has changed. */
export function start(render) {
  let due = false;
  changed = () => {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      wanted = new Set();
      render();
      for (const path of known.keys()) if (!wanted.has(path)) known.delete(path);
      for (const entry of known.values()) fetchIfDue(entry);
    });
  };
  setInterval(() => {
    for (const entry of known.values()) fetchIfDue(entry);
  }, 250);
  document.addEventListener("visibilitychange", () => (document.hidden ? restSoon() : wake()));
  tabs.onmessage = () => reconnect();
  changed();
  listenForEver();
}

/** Something that is shown has changed. */
export function touch() {
  changed();
}

/** What an answer was last: `data`, `problem`, or neither yet. `on`: the kinds of events that make it old; `every`: after so many ms it is old anyway. */
export function look(path, { on = [], every = Infinity } = {}) {
  wanted.add(path);
  let entry = known.get(path);
  if (!entry) {
    entry = { path, on, every, data: undefined, problem: null, old: true, busy: false, asked: 0, took: 0 };
    known.set(path, entry);
  }
  return entry;
}

/** What is shown of these kinds is asked for anew. */
export function outdate(...kinds) {
  for (const entry of known.values()) {
    if (kinds.length === 0 || entry.on.some((kind) => kinds.includes(kind))) entry.old = true;
  }
  changed();
}

let reads = new AbortController();
let notBefore = 0;

/** What is waited for will not come from where it was asked. */
function giveUpReads() {
  reads.abort();
  reads = new AbortController();
}

function fetchIfDue(entry) {
  if (live.session === "none" || live.link === "lost" || live.link === "resting" || Date.now() < notBefore) return;
  const since = Date.now() - entry.asked;
  const due = entry.old || since >= entry.every;
  // A cluster whose answers are large is not asked all the time.
  if (!due || entry.busy || since < Math.max(AT_MOST_EVERY_MS, 10 * entry.took)) return;
  fetchNow(entry);
}

async function fetchNow(entry) {
  Object.assign(entry, { old: false, busy: true, asked: Date.now() });
  const { signal } = reads;
  try {
    const data = await ask("GET", entry.path, undefined, signal);
    Object.assign(entry, { data, problem: null, took: Date.now() - entry.asked });
    live.session = "open";
  } catch (problem) {
    if (signal.aborted) entry.old = true;
    else refused(entry, problem);
  }
  entry.busy = false;
  changed();
}

function refused(entry, problem) {
  entry.problem = problem;
  if (problem.status === 401) sessionIsOver();
  // Shown until it is asked again.
  else if (problem.status === 0 || problem.status >= 500) setTimeout(() => (entry.old = true), 2000);
  else if (problem.status === 429) setTimeout(() => (entry.old = true), 30_000);
}

// --- the session

const tabs = new BroadcastChannel("pvc");

function sessionIsOver() {
  live.session = "none";
  known.clear();
  changed();
}

/** The session has begun or ended here: the other tabs see for themselves. */
export function sessionChanged(open) {
  live.session = open ? "open" : "none";
  known.clear();
  tabs.postMessage("session");
  reconnect();
}

// --- the events

let stop = new AbortController();
let hurry = () => {};

/** Tries at once, whatever it waits for. */
export function reconnect() {
  stop.abort();
  giveUpReads();
  hurry();
}

let resting;
/** Since when this page hears nothing because nobody looks at it. */
let restedAt = null;
function restSoon() {
  // A browser has six connections to a server: pages that nobody looks at do not keep them.
  resting = setTimeout(() => {
    live.link = "resting";
    restedAt = new Date();
    stop.abort();
  }, HIDDEN_MS);
}

function wake() {
  clearTimeout(resting);
  if (live.link !== "live") {
    live.link = "connecting";
    reconnect();
  }
}

async function listenForEver() {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    stop = new AbortController();
    const heard = live.link === "resting" ? false : await listen(stop);
    if (heard) wait = FIRST_WAIT_MS;
    if (live.link !== "resting") {
      const lost = live.session !== "none";
      if (lost && live.link === "live") live.lostAt = new Date();
      live.link = lost && live.lostAt ? "lost" : "connecting";
      if (live.link === "lost") giveUpReads();
    }
    const pause = wait * (0.75 + Math.random() / 2);
    live.nextTry = Date.now() + pause;
    changed();
    await new Promise((done) => {
      hurry = done;
      if (live.link !== "resting") setTimeout(done, pause);
    });
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

/** Listens until the connection ends; whether anything was heard. */
async function listen(stopping) {
  let heard = false;
  let silence;
  const expectMore = () => {
    clearTimeout(silence);
    silence = setTimeout(() => stopping.abort(), QUIET_MS);
  };
  try {
    expectMore();
    const response = await fetch("/api/v2/events", { cache: "no-store", signal: stopping.signal });
    live.refusal = null;
    if (response.status === 401) sessionIsOver();
    else if (!response.ok) live.refusal = refusal(response, await response.text());
    if (!response.ok) return false;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      expectMore();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) heard = take(block) || heard;
    }
  } catch {
    // It ended, and is begun anew.
  } finally {
    clearTimeout(silence);
  }
  return heard;
}

function take(block) {
  const kind = /^event: (\w+)$/m.exec(block)?.[1];
  if (kind === "news") {
    tell(JSON.parse(/^data: (.*)$/m.exec(block)[1]));
    changed();
    return true;
  }
  if (kind === "ready") {
    // Every page that lost the primary comes back at the same time.
    const since = live.lostAt ?? restedAt;
    if (since) tell({ kind: "cluster", id: "", name: "", what: `this page heard nothing since ${since.toLocaleTimeString()}` });
    restedAt = null;
    if (live.lostAt) notBefore = Date.now() + Math.random() * SPREAD_MS;
    Object.assign(live, { session: "open", link: "live", lostAt: null });
    outdate();
  } else if (kind) {
    outdate(kind);
  }
  return kind !== undefined;
}
