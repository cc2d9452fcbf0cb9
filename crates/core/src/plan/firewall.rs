//! The walls around client networks: whose VXLAN frames are taken, what clients may ask of a node, where their packets are routed, and what a
//! guest may send into its own network.
//!
//! ```text
//!   table inet pvc                                   table bridge pvc
//!   to this node:  UDP 4789 from nodes only          from a guest's port: not as the gateway, no DHCP, no router
//!                  from vmbr*: what a gateway serves                       advertisements, no VXLAN
//!   routed:        n<vni>_out, then n<vni>_in          where a network is filtered: only from its own addresses
//! ```
//!
//! The text is the same on every node, whoever is primary: a wall that had to change at a hand-over would be late. Nobody but the
//! primary has a gateway's address, so elsewhere what is let in for it reaches nobody.

mod ports;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv6Net};

use super::{client_network::Cards, primary::gateways};
use crate::model::{
    ClusterView, Mac, NetworkKind, Trouble, Vni,
    bridging::Bridging,
    rule::{Body, BodyError, Direction, Rule},
};

pub use self::text::{TABLES, chain};

/// The most rules of a network's direction: more are not read. Nobody writes so many by hand.
pub const MOST_RULES: usize = 1000;

/// This node's side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ground {
    /// The cluster's and the storage's networks: no packet of a client is routed there.
    pub closed: Vec<IpNet>,
    /// The networks that nodes live in: a gateway of a network that overlaps one of them is nobody's.
    pub own: Vec<IpNet>,
}

/// The rules of all networks, as the state tree has them.
pub type Rules = BTreeMap<Vni, Vec<Rule>>;

/// The addresses that a network's cards may send from.
pub type Senders = BTreeMap<Mac, BTreeSet<Ipv4Addr>>;

/// What is known of the guests of filtered networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The cards that definitions name.
    pub cards: Cards,
    /// What they were given.
    pub senders: BTreeMap<Vni, Senders>,
}

/// Everything that is to stand on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Whose VXLAN frames are taken.
    pub tunnel_ends: BTreeSet<IpAddr>,
    /// Where no packet of a client is routed.
    pub closed: BTreeSet<IpNet>,
    /// All bridges of client networks: what they pass on between their own ports is not routed.
    pub bridges: BTreeSet<Vni>,
    /// The managed networks.
    pub networks: BTreeMap<Vni, Wall>,
    /// Ports of bridges that are not guarded as an unknown guest's is.
    pub ports: BTreeMap<String, Port>,
    /// A guest's port that is not in `ports` sends nothing until it is: it might be in a filtered network.
    pub mutes_unknown: bool,
}

/// Of one managed network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wall {
    /// Its gateways, which no guest may claim to be.
    pub gateways: BTreeSet<IpAddr>,
    /// What its rules say, by direction, in their order.
    pub lines: BTreeMap<Direction, Vec<Line>>,
}

/// One rule as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The rule's name.
    pub name: String,
    /// What it does; `None`: it is refused, and nothing passes it.
    pub body: Option<Body>,
}

/// How a port of a bridge is treated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// It leads to other machines, which guard their guests themselves, or its network is not guarded.
    Open,
    /// A guest's.
    Guarded,
    /// A guest's that sends from nothing else, and is guarded.
    Filtered(Sender),
}

/// From what a guest may send.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sender {
    /// Its card, as definitions name it: one, unless two differ in nothing that its port shows.
    pub cards: BTreeSet<Mac>,
    /// What was given to it.
    pub ip4: BTreeSet<(Mac, Ipv4Addr)>,
    /// The network from which it chooses its own.
    pub ip6: Option<Ipv6Net>,
}

/// What is to stand, and what cannot be as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// All of it.
    pub ruleset: Ruleset,
    /// What cannot, until somebody changes it.
    pub troubles: Vec<Trouble>,
}

/// Decides what is to stand. `refused` are bodies that `nft` does not take.
pub fn plan(
    ground: &Ground,
    view: &ClusterView,
    rules: &Rules,
    seen: &Bridging,
    known: &Known,
    refused: &BTreeMap<Body, String>,
) -> Planned {
    let mut planned = Planned::default();
    let ruleset = &mut planned.ruleset;
    // A node that names no end has no tunnels that we know: its frames are not ours to take.
    ruleset.tunnel_ends = view.all_nodes().filter_map(|node| node.vtep).collect();
    ruleset.closed = ground.closed.iter().copied().collect();
    ruleset.bridges = seen.devices.iter().filter_map(|device| Vni::of_bridge(&device.name)).collect();
    ruleset.bridges.extend(view.networks.keys());
    ruleset.mutes_unknown = view.networks.values().any(|network| network.is_filtered());
    let (ports, troubles) = ports::ports(view, seen, known, ruleset.mutes_unknown);
    ruleset.ports = ports;
    planned.troubles.extend(troubles);
    // Where one network claims the addresses of others, no primary has them, and the others' guests may send from them.
    let mut gateways: BTreeMap<Vni, BTreeSet<IpAddr>> = gateways(&ground.own, view)
        .0
        .into_iter()
        .map(|of| (of.vni, of.addresses.iter().map(IpNet::addr).collect()))
        .collect();
    for network in view.networks.values().filter(|network| network.kind == Some(NetworkKind::Managed)) {
        let gateways = gateways.remove(&network.vni).unwrap_or_default();
        let mut wall = Wall { gateways, ..Wall::default() };
        let (lines, troubles) =
            lines(network.vni, rules.get(&network.vni).map_or(&[], Vec::as_slice), refused);
        wall.lines = lines;
        planned.troubles.extend(troubles);
        ruleset.networks.insert(network.vni, wall);
    }
    planned
}

type Lines = BTreeMap<Direction, Vec<Line>>;

/// The rules in their order. In the place of one that is refused nothing passes, unless it could only have let more pass.
fn lines(vni: Vni, rules: &[Rule], refused: &BTreeMap<Body, String>) -> (Lines, Vec<Trouble>) {
    let (mut lines, mut troubles) = (Lines::new(), Vec::new());
    let mut trouble = |rule: &Rule, what: String| {
        // Nothing is open between the two.
        let todo =
            format!("add it anew under another name, then `pvc network acl remove {vni} {:?}`", rule.name);
        troubles.push(Trouble::of(vni, what).with_todo(todo));
    };
    for direction in Direction::ALL {
        let mut ordered: Vec<&Rule> = rules.iter().filter(|rule| rule.direction == direction).collect();
        ordered.sort_by_key(|rule| (rule.place(), &rule.name));
        for pair in ordered.windows(2) {
            if let [first, second] = pair
                && let Some(order) = first.order.filter(|order| second.order == Some(*order))
            {
                let what = format!(
                    "the {direction} rules {:?} and {:?} both have the order {order}: they stand by name",
                    first.name, second.name
                );
                trouble(second, what);
            }
        }
        let mut standing = Vec::new();
        for rule in ordered {
            let name = rule.name.clone();
            let why = match &rule.body {
                Err(why) => why.clone(),
                Ok(body) => match refused.get(body) {
                    Some(why) => BodyError::Nft(why.clone()),
                    None => {
                        if rule.order.is_none() {
                            let what = format!(
                                "the {direction} rule {name:?} has no readable order: it stands last"
                            );
                            trouble(rule, what);
                        }
                        standing.push(Line { name, body: Some(body.clone()) });
                        continue;
                    }
                },
            };
            if rule.only_accepts() {
                trouble(rule, format!("the {direction} rule {name:?} is left out: {why}"));
            } else {
                let what = format!(
                    "the {direction} rule {name:?} is refused, and nothing passes in its place: {why}"
                );
                trouble(rule, what);
                standing.push(Line { name, body: None });
            }
        }
        lines.insert(direction, standing);
    }
    (lines, troubles)
}
