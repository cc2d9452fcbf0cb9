// What has changed since this page was opened, as the service says it in words. It is not the cluster's own memory.

const MOST_CHANGES = 300;

/** The last first: `{ at, kind, id, name, what }`. */
export const changes = [];

/** Takes note of what has changed. */
export function tell({ kind, id, name, what }) {
  changes.unshift({ at: new Date(), kind, id, name, what });
  changes.length = Math.min(changes.length, MOST_CHANGES);
}
