import { path } from "../api.js";
import { confirmed, isCutOff } from "../act.js";
import { look } from "../live.js";
import { button, html, nothing, panel, shown, table } from "../parts.js";

const OFTEN = { every: 5000 };

export function storage() {
  const [status, pools, volumes, snapshots, osds] = ["/storage", "/storage/pools", "/storage/volumes", "/storage/snapshots", "/storage/osds"].map((path) => look(path, OFTEN));
  const off = isCutOff();
  const removal = (what, name, to, text) => () => confirmed({ title: `Remove ${what} ${name}?`, text, retype: name, confirm: "Remove", dangerous: true }, () => ({ title: `Remove ${what} ${name}`, method: "DELETE", to }));
  const remove = (what, name, to, text) => button("Remove", removal(what, name, to, text), { needs: "admin", dangerous: true, off, label: `Remove ${what} ${name}` });
  const pool = (row) => [row.name, ...figures(row.stats, POOL), remove("pool", row.name, `/storage/pools${path(row.name)}`, "All its volumes and their data are lost for good.")];
  const volume = (row) => [
    `${row.pool}/${row.name}`,
    ...figures(row.stats, VOLUME),
    html`<div class="actions">${button("Snapshot", () => addSnapshot(row), { needs: "admin", off, label: `Snapshot ${row.pool}/${row.name}` })}${remove("volume", row.name, `/storage/volumes${path(row.pool, row.name)}`, "Its data is lost for good.")}</div>`,
  ];
  const snapshot = (row) => [`${row.pool}/${row.volume}@${row.snapshot}`, remove("snapshot", row.snapshot, `/storage/snapshots${path(row.pool, row.volume, row.snapshot)}`, "What it keeps of the volume is lost.")];
  return html`<h1 tabindex="-1">Storage</h1>
    ${panel("Ceph", shown(status, ceph))}
    ${panel("Pools", shown(pools, (all) => table("Pools", [["Name"], ...POOL.map(head), ["Actions", "actions"]], all.map(pool), html`<p>There is no pool.</p>`)), button("Add a pool", addPool, { needs: "admin", off }))}
    ${panel("Volumes", shown(volumes, (all) => table("Volumes", [["Name"], ...VOLUME.map(head), ["Actions", "actions"]], all.map(volume), html`<p>There is no volume.</p>`)), button("Add a volume", () => addVolume(pools.data || []), { needs: "admin", off }))}
    ${panel("Snapshots", shown(snapshots, (all) => table("Snapshots", [["Name"], ["Actions", "actions"]], all.map(snapshot), html`<p>There is no snapshot.</p>`)))}
    ${panel("OSDs", shown(osds, (all) => table("OSDs", [["OSD"], ...OSD.map(head)], all.map((row) => [row.id, ...figures(row.stats, OSD)]), html`<p>No OSD is known.</p>`)))}`;
}

function ceph(told) {
  const text = told.status || told.message;
  if (!text) return html`<div class="empty"><p>No Ceph is told of: with <code>enable_storage: True</code> the primary does.</p></div>`;
  return html`<pre tabindex="0">${text}</pre>${told.df ? html`<details><summary>Space</summary><pre tabindex="0">${told.df}</pre></details>` : nothing}`;
}

/** Names of the figures, as Ceph has them. */
const POOL = [["num_objects", "Objects"], ["used_bytes", "Used"], ["free_bytes", "Free"]];
const VOLUME = [["size", "Size"], ["objects", "Objects"]];
const OSD = [["up", "Up"], ["in", "In"], ["weight", "Weight"], ["util", "Use %"]];

const head = ([, text]) => [text, "number"];
const figures = (stats, names) => names.map(([name]) => show(name, stats?.[name]));

function show(name, value) {
  if (value === undefined || value === null) return "–";
  if (name.endsWith("_bytes") && typeof value === "number") return bytes(value);
  return String(value);
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) [count, at] = [count / 1024, at + 1];
  return `${count.toFixed(count < 10 && at > 0 ? 1 : 0)} ${units[at]}`;
}

function addPool() {
  const fields = [
    { name: "name", label: "Name", required: true },
    { name: "pgs", label: "Placement groups", kind: "number", value: "32", required: true },
  ];
  confirmed({ title: "Add a pool", fields, confirm: "Add" }, ({ name, pgs }) => ({ title: `Add pool ${name}`, to: "/storage/pools", body: { name, pgs: Number(pgs) } }));
}

function addVolume(pools) {
  const fields = [
    { name: "pool", label: "Pool", kind: "choice", options: pools.map((pool) => [pool.name, pool.name]) },
    { name: "name", label: "Name", required: true },
    { name: "size", label: "Size", required: true, note: "20G" },
  ];
  confirmed({ title: "Add a volume", fields, confirm: "Add" }, (body) => ({ title: `Add volume ${body.pool}/${body.name}`, to: "/storage/volumes", body }));
}

function addSnapshot({ pool, name }) {
  confirmed({ title: `A snapshot of ${pool}/${name}`, fields: [{ name: "snapshot", label: "Name", required: true }], confirm: "Make it" }, ({ snapshot }) => ({ title: `Snapshot ${pool}/${name}@${snapshot}`, to: "/storage/snapshots", body: { pool, volume: name, snapshot } }));
}
