//! A ruleset as `nft` reads it. Each text is one transaction.
//!
//! What changes with networks are elements of sets and chains of their own, so that a change touches nothing else: counters go on counting.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Display, Write as _},
    net::IpAddr,
};

use super::{Line, Port, Ruleset};
use crate::model::{Mac, Vni, bridging::VXLAN_PORT, rule::Direction};

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
/// VLANs could hide in them what is looked for. A neighbour advertisement has its target at the bits from 64 on.
const BRIDGED: &str = "
  set gateways4 { type ipv4_addr; }
  set gateways6 { type ipv6_addr; }
  set targets6 { typeof @th,64,128; }
  map ports { type ifname : verdict; }
  chain prerouting {
    type filter hook prerouting priority filter; policy accept;
    iifname vmap @ports
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
";

/// Elements of a set or a map, by which of the two it is, and its place.
type Elements = BTreeMap<(&'static str, &'static str), Vec<String>>;

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
        for ((old_set, old), (set, new)) in before.elements().into_iter().zip(self.elements()) {
            debug_assert_eq!(old_set, set, "the sets are always the same");
            if old == new {
                continue;
            }
            let (kind, name) = set;
            if !old.is_empty() {
                let _ = writeln!(text, "flush {kind} {name}");
            }
            if !new.is_empty() {
                let _ = writeln!(text, "add element {name} {{ {} }}", new.join(", "));
            }
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

    /// What each set holds.
    fn elements(&self) -> Elements {
        let networks = || self.networks.iter();
        let gateways = |is_mine: fn(&IpAddr) -> bool| {
            networks().flat_map(move |(vni, wall)| {
                wall.gateways.iter().filter(move |g| is_mine(g)).map(move |g| (vni.bridge(), *g))
            })
        };
        let with_bridge = |is_mine| texts(gateways(is_mine).map(|(bridge, g)| format!("\"{bridge}\" . {g}")));
        let claimed: BTreeSet<IpAddr> =
            networks().flat_map(|(_, wall)| wall.gateways.iter().copied()).collect();
        let claimed4 = texts(claimed.iter().filter(|gateway| gateway.is_ipv4()));
        let claimed6 = texts(claimed.iter().filter(|gateway| gateway.is_ipv6()));
        let targets = claimed.iter().filter_map(|gateway| match gateway {
            IpAddr::V6(gateway) => Some(format!("{:#034x}", u128::from(*gateway))),
            IpAddr::V4(_) => None,
        });
        let verdicts = |direction| {
            texts(
                networks()
                    .map(move |(vni, _)| format!("\"{}\" : goto {}", vni.bridge(), chain(*vni, direction))),
            )
        };
        let ports = self.ports.iter().filter(|(name, _)| is_harmless(name)).map(|(name, port)| match port {
            Port::Open => format!("\"{name}\" : accept"),
            Port::Guarded => format!("\"{name}\" : goto guard"),
        });
        [
            (("set", "inet pvc ends4"), texts(self.tunnel_ends.iter().filter(|end| end.is_ipv4()))),
            (("set", "inet pvc ends6"), texts(self.tunnel_ends.iter().filter(|end| end.is_ipv6()))),
            (
                ("set", "inet pvc closed4"),
                texts(self.closed.iter().filter(|net| net.addr().is_ipv4()).map(ipnet::IpNet::trunc)),
            ),
            (
                ("set", "inet pvc closed6"),
                texts(self.closed.iter().filter(|net| net.addr().is_ipv6()).map(ipnet::IpNet::trunc)),
            ),
            (
                ("set", "inet pvc bridged"),
                texts(self.bridges.iter().map(|vni| format!("\"{0}\" . \"{0}\"", vni.bridge()))),
            ),
            (("set", "inet pvc gateways4"), with_bridge(IpAddr::is_ipv4)),
            (("set", "inet pvc gateways6"), with_bridge(IpAddr::is_ipv6)),
            (("map", "inet pvc out"), verdicts(Direction::Out)),
            (("map", "inet pvc in"), verdicts(Direction::In)),
            (("set", "bridge pvc gateways4"), claimed4),
            (("set", "bridge pvc gateways6"), claimed6),
            (("set", "bridge pvc targets6"), texts(targets)),
            (("map", "bridge pvc ports"), texts(ports)),
        ]
        .into()
    }
}

fn texts(of: impl Iterator<Item: Display>) -> Vec<String> {
    of.map(|item| item.to_string()).collect()
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
