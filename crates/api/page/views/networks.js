import { path } from "../api.js";
import { confirmed, isCutOff } from "../act.js";
import { look } from "../live.js";
import { button, explanation, facts, html, link, nodeLink, nothing, panel, problem, shown, state, table } from "../parts.js";

export function networkList({ networks }) {
  const row = (network) => [
    html`${link(["networks", String(network.vni)])}${network.problems?.length ? html` ${state("unreadable")}` : nothing}`,
    network.description,
    network.kind ?? network.type ?? "–",
    network.ip4?.network ?? "–",
    network.ip4?.gateway ?? "–",
    network.ip4?.dhcp_flag ? `${network.ip4.dhcp_start} – ${network.ip4.dhcp_end}` : "no",
    network.ip6?.network ?? "–",
  ];
  return html`<div class="title"><h1 tabindex="-1">Networks</h1>${button("Add a network", add, { needs: "admin", main: true, off: isCutOff() })}</div>
    ${shown(networks, (all) => table("Networks", [["Number"], ["Description"], ["Type"], ["IPv4"], ["Gateway"], ["DHCP"], ["IPv6"]], all.map(row), html`<p>There is no client network yet. Guests can be in bridges of the nodes without one.</p>`))}`;
}

function add() {
  const fields = [
    { name: "vni", label: "Number (VNI, or VLAN if bridged)", kind: "number", required: true },
    { name: "description", label: "Description", required: true },
    { name: "type", label: "Type", kind: "choice", options: [["managed", "managed: VXLAN, gateway, DHCP, names"], ["bridged", "bridged: a VLAN of the site"]] },
    { name: "domain", label: "Domain", note: "names of guests end with it" },
    { name: "network", label: "IPv4 network", note: "10.1.0.0/24; managed only" },
    { name: "gateway", label: "IPv4 gateway" },
    { name: "dhcp_flag", label: "Give out IPv4 addresses by DHCP", kind: "flag" },
    { name: "dhcp_start", label: "First address" },
    { name: "dhcp_end", label: "Last address" },
  ];
  confirmed({ title: "Add a network", fields, confirm: "Add" }, (values) => {
    const body = { vni: Number(values.vni), description: values.description, type: values.type };
    if (values.domain) body.domain = values.domain;
    const ip4 = {};
    for (const name of ["network", "gateway", "dhcp_start", "dhcp_end"]) if (values[name]) ip4[name] = values[name];
    if (values.dhcp_flag) ip4.dhcp_flag = true;
    if (Object.keys(ip4).length > 0) body.ip4 = ip4;
    return { title: `Add network ${values.vni}`, to: "/networks", body };
  });
}

export function networkPage(_, vni) {
  const to = `/networks${path(vni)}`;
  const network = look(to, { on: ["network", "vm"] });
  const remove = () =>
    confirmed({ title: `Remove network ${vni}?`, text: "Its bridge, leases and rules go from every node.", retype: vni, confirm: "Remove", dangerous: true }, () => ({
      title: `Remove network ${vni}`,
      method: "DELETE",
      to,
      then: () => (location.hash = "#/networks"),
    }));
  return html`<nav class="crumbs" aria-label="Where this is">${link(["networks"], "Networks")}</nav>
    <div class="title"><h1 tabindex="-1">Network ${vni}</h1>${network.data ? button("Remove", remove, { needs: "admin", dangerous: true, off: isCutOff(), label: `Remove network ${vni}` }) : nothing}</div>
    ${shown(network, (network) => {
      const leases = look(`${to}/leases`, { on: ["network"], every: 5000 });
      const rules = look(`${to}/rules`, { on: ["network"], every: 5000 });
      const why = look(`${to}/explanation`, { on: ["network"], every: 5000 });
      return html`<p class="description">${network.description}</p>
        ${(network.problems || []).map((text) => problem({ message: text }))}
        ${why.problem?.status === 404 ? nothing : panel("How it is", explanation(why))}
        ${panel("State", facts([
          ["Type", network.type],
          ["Domain", network.domain],
          ["Bridge", html`<code>${network.bridge}</code>`],
          ["IPv4", network.ip4?.network],
          ["IPv4 gateway", network.ip4?.gateway],
          ["DHCP", network.ip4?.dhcp_flag ? `${network.ip4.dhcp_start} – ${network.ip4.dhcp_end}` : "no"],
          ["IPv6", network.ip6?.network],
          ["IPv6 gateway", network.ip6?.gateway],
          ["Guards guests' ports", network.guard ? "yes" : "no"],
          ["Guests send from their own addresses only", network.filter ? "yes" : "no"],
        ]))}
        ${panel("Guests", table("Guests", [["VM"], ["MAC"], ["Node"]], network.guests.map((guest) => [link(["vms", guest.uuid], guest.name), guest.mac, nodeLink(guest.node)]), html`<p>No VM has a card in it.</p>`))}
        ${panel("Addresses", shown(leases, ({ leases, leases6, pool }) => html`${pool ? html`<p>${pool.given} of ${pool.size} are given out over IPv4.</p>` : nothing}
          ${table("Addresses", [["Address"], ["Name"], ["MAC"], ["VM"], ["Until", ""]], [...leases, ...(leases6 ?? [])].map((lease) => [lease.ip4_address ?? lease.ip6_address, lease.hostname ?? "–", lease.mac_address, lease.vm ?? "–", lease.timestamp]), html`<p>No address is given out or reserved.</p>`)}`), button("Reserve", () => reserve(to), { needs: "admin", off: isCutOff() }))}
        ${panel("Rules", shown(rules, (rules) => table("Rules", [["Description"], ["Direction"], ["Order", "number"], ["Rule"], ["Actions", "actions"]], rules.map((rule) => [rule.description, rule.direction, rule.order ?? "–", html`<code>${rule.rule}</code>${rule.problem ? html`<br><span class="error">${rule.problem}</span>` : nothing}`, button("Remove", () => removeRule(to, rule), { needs: "admin", dangerous: true, off: isCutOff(), label: `Remove rule ${rule.description}` })]), html`<p>There are no rules: what is routed passes.</p>`)), button("Add a rule", () => addRule(to), { needs: "admin", off: isCutOff() }))}`;
    })}`;
}

function reserve(to) {
  const fields = [
    { name: "ip4_address", label: "Address", required: true },
    { name: "mac_address", label: "MAC", required: true },
    { name: "hostname", label: "Name" },
  ];
  confirmed({ title: "Reserve an address", fields, confirm: "Reserve" }, (values) => ({
    title: `Reserve ${values.ip4_address}`,
    to: `${to}/leases`,
    body: Object.fromEntries(Object.entries(values).filter(([, value]) => value)),
  }));
}

function addRule(to) {
  const fields = [
    { name: "description", label: "Description", required: true },
    { name: "direction", label: "Direction", kind: "choice", options: [["in", "in: to the network"], ["out", "out: from the network"]] },
    { name: "order", label: "Order", kind: "number", note: "empty: the last" },
    { name: "rule", label: "Rule", required: true, note: "as nft has it: ip saddr 10.0.0.0/8 tcp dport 22 counter accept" },
  ];
  confirmed({ title: "Add a rule", fields, confirm: "Add" }, ({ order, ...rest }) => ({ title: `Add rule ${rest.description}`, to: `${to}/rules`, body: { ...rest, ...(order === "" ? {} : { order: Number(order) }) } }));
}

function removeRule(to, rule) {
  confirmed({ title: `Remove the rule ${rule.description}?`, text: rule.rule, confirm: "Remove", dangerous: true }, () => ({ title: `Remove rule ${rule.description}`, method: "DELETE", to: `${to}/rules${path(rule.description)}` }));
}
