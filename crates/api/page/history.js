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

/** Takes note of an answer and the one before. */
export function notice(path, before, now) {
  if (path === "/nodes") {
    compare("node", before, now, (node) => node.name, nodeFacts);
    now.filter((node) => node.memory).forEach(record);
  } else if (path === "/vms") {
    compare("vm", before, now, (vm) => vm.uuid, vmFacts);
  } else if (path === "/networks") {
    compare("network", before, now, (network) => String(network.vni), (network) => ({ description: network.description }));
  } else if (path === "/status") {
    const facts = (status) => ({ primary: status.primary || "nobody", maintenance: status.maintenance ? "on" : "off" });
    compare("cluster", before && [before], [now], () => "", facts);
  }
}

function nodeFacts(node) {
  return { daemon: node.daemon_state, coordinator: node.coordinator_state, VMs: node.domain_state };
}

function vmFacts(vm) {
  return { asked: vm.state, node: vm.node, "runs on": (vm.running_on || []).join(" and ") || "no node" };
}

function compare(kind, before, now, key, facts) {
  if (!before) return;
  const old = new Map(before.map((object) => [key(object), object]));
  for (const object of now) {
    const id = key(object);
    const name = object.name || id;
    const was = old.get(id);
    old.delete(id);
    if (!was) {
      say(kind, id, name, "is new");
      continue;
    }
    const [then, here] = [facts(was), facts(object)];
    const told = Object.keys(here).filter((fact) => then[fact] !== here[fact]).map((fact) => `${fact}: ${then[fact]} → ${here[fact]}`);
    if (told.length > 0) say(kind, id, name, told.join(", "));
  }
  for (const [id, object] of old) say(kind, id, object.name || id, "is gone");
}

function say(kind, id, name, what) {
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
