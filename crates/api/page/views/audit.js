import { look } from "../live.js";
import { html, shown, state, table, time } from "../parts.js";

/** Who has changed what over the API, the last first. */
export function auditList() {
  const audit = look("/audit?lines=512", { on: ["cluster", "node", "vm", "network"], every: 5000 });
  const row = (entry) => [time(entry.at_unix_s), entry.by, entry.from, html`<code>${entry.what}</code>`, entry.status ?? state("broke off"), entry.said];
  return html`<h1 tabindex="-1">Audit</h1>
    <p class="dim">The last 512 changes over the API. What was refused, and what was before, is in the journals of the nodes that were primary.</p>
    ${shown(audit, (all) => table("Audit", [["When"], ["By"], ["From"], ["What"], ["Answer", "number"], ["Said"]], all.map(row), html`<p>Nothing was changed over the API yet.</p>`))}`;
}
