// What this page has seen: figures of nodes for the plots, and what changed. Neither is the cluster's own memory: it begins when the page is opened.

const EVERY_MS = 10_000;
const MOST_POINTS = 1440; // four hours
const MOST_CHANGES = 300;

/** The last first: `{ at, kind, id, name, what }`. */
export const changes = [];

const series = new Map();

/** Points of a node, the oldest first: `{ at, load, memory }`, memory as a part of 1. */
export function points(node) {
  return series.get(node) || [];
}

/** Takes note of an answer. */
export function notice(path, now) {
  if (path === "/nodes") now.filter((node) => node.memory).forEach(record);
}

/** Takes note of what has changed, as the service says it in words. */
export function tell({ kind, id, name, what }) {
  changes.unshift({ at: new Date(), kind, id, name, what });
  changes.length = Math.min(changes.length, MOST_CHANGES);
}

function record(node) {
  const of = series.get(node.name) || [];
  series.set(node.name, of);
  const at = Date.now();
  if (of.length > 0 && at - of[of.length - 1].at < EVERY_MS) return;
  of.push({ at, load: node.load, memory: node.memory.total ? node.memory.used / node.memory.total : 0 });
  if (of.length > MOST_POINTS) of.shift();
}
