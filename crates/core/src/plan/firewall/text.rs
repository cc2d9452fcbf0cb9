//! A ruleset as `nft` reads it. Each text is one transaction.
//!
//! What changes with networks are elements of sets and chains of their own, so that a change touches nothing else: counters go on counting. A
//! change's text is as long as what changes, not as what stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Display, Write as _},
    net::IpAddr,
};

use super::{Line, Port, Ruleset, Sender};
use crate::model::{LINK_LOCAL, Mac, Vni, bridging::VXLAN_PORT, rule::Direction};

/// The tables' names: those of other programs are never touched.
pub const TABLES: [(&str, &str); 2] = [("inet", "pvc"), ("bridge", "pvc")];

/// Never changes while a daemon runs. A packet that one chain accepts is still seen by those of later priorities, so a network's rules cannot
/// open another's.
const ROUTED: &str = "
  set ends4 { type ipv4_addr; }
  set ends6 { type ipv6_addr; }
  set closed4 { type ipv4_addr; flags interval; auto-merge; }
  set closed6 { type ipv6_addr; flags interval; auto-merge; }
  set bridged { type ifname . ifname; }
  set gateways4 { type ifname . ipv4_addr; }
  set gateways6 { type ifname . ipv6_addr; }
  map out { type ifname : verdict; }
  map in { type ifname : verdict; }
  chain input {
    type filter hook input priority filter; policy accept;
    udp dport 4789 jump tunnels
    iifname \"vmbr*\" goto node
  }
  chain tunnels {
    ip saddr @ends4 return
    ip6 saddr @ends6 return
    counter drop
  }
  chain node {
    meta l4proto icmp iifname . ip daddr @gateways4 counter accept
    meta l4proto ipv6-icmp iifname . ip6 daddr @gateways6 counter accept
    meta l4proto ipv6-icmp ip6 daddr { fe80::/10, ff02::/16 } counter accept
    meta l4proto { tcp, udp } th dport 53 iifname . ip daddr @gateways4 counter accept
    meta l4proto { tcp, udp } th dport 53 iifname . ip6 daddr @gateways6 counter accept
    udp dport 67 ip daddr 255.255.255.255 counter accept
    udp dport 67 iifname . ip daddr @gateways4 counter accept
    udp dport 547 ip6 daddr { fe80::/10, ff02::/16 } counter accept
    udp dport 123 iifname . ip daddr @gateways4 counter accept
    udp dport 123 iifname . ip6 daddr @gateways6 counter accept
    counter drop
  }
  chain from_clients {
    type filter hook forward priority filter - 1; policy accept;
    iifname . oifname @bridged accept
    iifname \"vmbr*\" ip daddr @closed4 counter drop
    iifname \"vmbr*\" ip6 daddr @closed6 counter drop
    iifname vmap @out
    iifname \"vmbr*\" counter drop
  }
  chain to_clients {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @bridged accept
    oifname vmap @in
    oifname \"vmbr*\" counter drop
  }
";

/// A port that appears is guarded from its first frame: nobody has to know it. What is known of ports only opens some. Frames with tags of
/// VLANs could hide in them what is looked for. A neighbour advertisement has its target at the bits from 64 on, a request for an address its card at
/// those from 288 on, unless it is cut into fragments, whose first might end before. A guest that has moved is announced by QEMU with RARP (0x8035).
const BRIDGED: &str = "
  set gateways4 { type ipv4_addr; }
  set gateways6 { type ipv6_addr; }
  set targets6 { typeof @th,64,128; }
  set cards { type ifname . ether_addr; }
  set clients { typeof iifname . @th,288,48; }
  set senders4 { type ifname . ether_addr . ipv4_addr; }
  set senders6 { type ifname . ipv6_addr; flags interval; }
  set muted { type ifname; flags interval; }
  map ports { type ifname : verdict; }
  chain prerouting {
    type filter hook prerouting priority filter; policy accept;
    iifname vmap @ports
    iifname @muted counter drop
    iifname \"vnet*\" goto guard
  }
  chain guard {
    ether type { 8021q, 8021ad } counter drop
    ether saddr & ff:ff:00:00:00:00 == 0a:70:00:00:00:00 counter drop
    arp saddr ip @gateways4 counter drop
    ip saddr @gateways4 counter drop
    ip6 saddr @gateways6 counter drop
    icmpv6 type nd-neighbor-advert @th,64,128 @targets6 counter drop
    icmpv6 type nd-router-advert counter drop
    meta l4proto udp udp sport 67 counter drop
    meta l4proto udp udp sport 547 counter drop
    meta l4proto udp udp dport 4789 counter drop
  }
  chain filter {
    iifname . ether saddr != @cards counter drop
    iifname . arp saddr ether != @cards counter drop
    meta l4proto udp udp dport 67 iifname . @th,288,48 != @clients counter drop
    ip frag-off & 0x3fff != 0 meta l4proto udp udp dport 67 counter drop
    arp saddr ip 0.0.0.0 goto guard
    ip saddr 0.0.0.0 udp sport 68 udp dport 67 goto guard
    ip6 saddr :: goto guard
    iifname . ether saddr . arp saddr ip != @senders4 counter drop
    iifname . ether saddr . ip saddr != @senders4 counter drop
    iifname . ip6 saddr != @senders6 counter drop
    ether type != { arp, ip, ip6, 0x8035 } counter drop
    goto guard
  }
";

/// A set or a map.
struct Set {
    kind: &'static str,
    name: &'static str,
    /// What it holds; of a map also to which verdict each leads.
    elements: BTreeMap<String, Option<String>>,
    /// What was added cannot be taken out one by one: the kernel has merged it.
    is_merged: bool,
}

impl Ruleset {
    /// Both tables, in place of whatever is called so.
    pub fn whole(&self) -> String {
        let mut text = String::new();
        for ((family, name), body) in TABLES.into_iter().zip([ROUTED, BRIDGED]) {
            let _ = write!(
                text,
                "table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{{body}}}\n"
            );
        }
        text + &self.change_from(&Self::default())
    }

    /// What makes a ruleset that stands into this one; empty if they are the same.
    pub fn change_from(&self, before: &Self) -> String {
        let (old, new) = (before.chains(), self.chains());
        let mut text = String::new();
        for (name, lines) in &new {
            let there = old.get(name);
            if there == Some(lines) {
                continue;
            }
            let _ = writeln!(text, "{} chain inet pvc {name}", if there.is_some() { "flush" } else { "add" });
            for line in *lines {
                let _ = writeln!(text, "add rule inet pvc {name} {}", rule(line));
            }
        }
        for (old, new) in before.sets().iter().zip(self.sets()) {
            new.change_from(old, &mut text);
        }
        // No verdict leads there any more.
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            let _ = writeln!(text, "flush chain inet pvc {name}\ndelete chain inet pvc {name}");
        }
        text
    }

    /// What each chain of a network holds.
    fn chains(&self) -> BTreeMap<String, &[Line]> {
        let mut chains = BTreeMap::new();
        for (vni, wall) in &self.networks {
            for direction in Direction::ALL {
                let lines = wall.lines.get(&direction).map_or(&[][..], Vec::as_slice);
                chains.insert(chain(*vni, direction), lines);
            }
        }
        chains
    }

    /// All sets, always in the same order.
    fn sets(&self) -> [Set; 18] {
        let networks = || self.networks.iter();
        let gateways = |is_mine: fn(&IpAddr) -> bool| {
            networks().flat_map(move |(vni, wall)| {
                wall.gateways.iter().filter(move |g| is_mine(g)).map(move |g| (vni.bridge(), *g))
            })
        };
        let with_bridge = |is_mine| gateways(is_mine).map(|(bridge, g)| format!("\"{bridge}\" . {g}"));
        let claimed: BTreeSet<IpAddr> =
            networks().flat_map(|(_, wall)| wall.gateways.iter().copied()).collect();
        let targets = claimed.iter().filter_map(|gateway| match gateway {
            IpAddr::V6(gateway) => Some(format!("{:#034x}", u128::from(*gateway))),
            IpAddr::V4(_) => None,
        });
        let verdicts = |direction| {
            networks().map(move |(vni, _)| {
                (format!("\"{}\"", vni.bridge()), format!("goto {}", chain(*vni, direction)))
            })
        };
        let ports = self.ports.iter().filter(|(name, _)| is_harmless(name)).map(|(name, port)| {
            let verdict = match port {
                Port::Open => "accept",
                Port::Guarded => "goto guard",
                Port::Filtered(_) => "goto filter",
            };
            (format!("\"{name}\""), verdict.to_owned())
        });
        let filtered: Vec<(&String, &Sender)> = self
            .ports
            .iter()
            .filter_map(|(name, port)| match port {
                Port::Filtered(sender) if is_harmless(name) => Some((name, sender)),
                _ => None,
            })
            .collect();
        let cards = || filtered.iter().flat_map(|(name, of)| of.cards.iter().map(move |card| (name, *card)));
        let addresses = filtered.iter().flat_map(|(name, of)| of.ip4.iter().map(move |of| (name, of)));
        let chosen = filtered.iter().flat_map(|(name, of)| {
            [Some(LINK_LOCAL), of.ip6].into_iter().flatten().map(move |net| (name, net))
        });
        let client = |card: Mac| card.to_string().replace(':', "");
        let closed = |is_mine: fn(&IpAddr) -> bool| {
            self.closed.iter().filter(move |net| is_mine(&net.addr())).map(ipnet::IpNet::trunc)
        };
        let muted = self.mutes_unknown.then_some("\"vnet*\"");
        [
            Set::of("inet pvc ends4", self.tunnel_ends.iter().filter(|end| end.is_ipv4())),
            Set::of("inet pvc ends6", self.tunnel_ends.iter().filter(|end| end.is_ipv6())),
            Set::of("inet pvc closed4", closed(IpAddr::is_ipv4)).merged(),
            Set::of("inet pvc closed6", closed(IpAddr::is_ipv6)).merged(),
            Set::of(
                "inet pvc bridged",
                self.bridges.iter().map(|vni| format!("\"{0}\" . \"{0}\"", vni.bridge())),
            ),
            Set::of("inet pvc gateways4", with_bridge(IpAddr::is_ipv4)),
            Set::of("inet pvc gateways6", with_bridge(IpAddr::is_ipv6)),
            Set::map("inet pvc out", verdicts(Direction::Out)),
            Set::map("inet pvc in", verdicts(Direction::In)),
            Set::of("bridge pvc gateways4", claimed.iter().filter(|gateway| gateway.is_ipv4())),
            Set::of("bridge pvc gateways6", claimed.iter().filter(|gateway| gateway.is_ipv6())),
            Set::of("bridge pvc targets6", targets),
            Set::of("bridge pvc cards", cards().map(|(name, card)| format!("\"{name}\" . {card}"))),
            Set::of(
                "bridge pvc clients",
                cards().map(|(name, card)| format!("\"{name}\" . 0x{}", client(card))),
            ),
            Set::of(
                "bridge pvc senders4",
                addresses.map(|(name, (card, address))| format!("\"{name}\" . {card} . {address}")),
            ),
            Set::of("bridge pvc senders6", chosen.map(|(name, net)| format!("\"{name}\" . {}", net.trunc()))),
            Set::of("bridge pvc muted", muted.into_iter()).merged(),
            Set::map("bridge pvc ports", ports),
        ]
    }
}

impl Set {
    fn of(name: &'static str, elements: impl Iterator<Item: Display>) -> Self {
        let elements = elements.map(|element| (element.to_string(), None)).collect();
        Self { kind: "set", name, elements, is_merged: false }
    }

    fn map(name: &'static str, elements: impl Iterator<Item = (String, String)>) -> Self {
        let elements = elements.map(|(key, verdict)| (key, Some(verdict))).collect();
        Self { kind: "map", name, elements, is_merged: false }
    }

    fn merged(self) -> Self {
        Self { is_merged: true, ..self }
    }

    /// Writes what makes another that stands into this one: what is in both is not said again.
    fn change_from(&self, before: &Self, text: &mut String) {
        let Self { kind, name, .. } = self;
        debug_assert_eq!(before.name, *name, "the sets are always the same");
        if self.elements == before.elements {
            return;
        }
        let not_in = |other: &Self, (key, verdict): &(&String, &Option<String>)| {
            other.elements.get(*key) != Some(*verdict)
        };
        let gone: Vec<&str> =
            before.elements.iter().filter(|e| not_in(self, e)).map(|(key, _)| key.as_str()).collect();
        let is_refilled = self.is_merged || gone.len() == before.elements.len();
        if is_refilled && !before.elements.is_empty() {
            let _ = writeln!(text, "flush {kind} {name}");
        } else if !gone.is_empty() {
            let _ = writeln!(text, "delete element {name} {{ {} }}", gone.join(", "));
        }
        let come = self.elements.iter().filter(|e| is_refilled || not_in(before, e));
        let come: Vec<String> = come
            .map(|(key, verdict)| match verdict {
                Some(verdict) => format!("{key} : {verdict}"),
                None => key.clone(),
            })
            .collect();
        if !come.is_empty() {
            let _ = writeln!(text, "add element {name} {{ {} }}", come.join(", "));
        }
    }
}

/// The chain of a network's rules.
pub fn chain(vni: Vni, direction: Direction) -> String {
    format!("n{vni}_{direction}")
}

/// A rule counts what it matches.
fn rule(line: &Line) -> String {
    match &line.body {
        None => "counter drop".to_owned(),
        Some(body) => {
            let words = [body.matches(), "counter", body.verdict()];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Whether a device's name can stand in quotes: the kernel allows nearly everything in one.
fn is_harmless(name: &str) -> bool {
    (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

const _: () = assert!(VXLAN_PORT == 4789, "the texts say so");
const _: () = assert!(matches!(Mac::OF_GATEWAYS, [0x0a, 0x70]), "the texts say so");
