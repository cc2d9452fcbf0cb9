//! Frames that vanish on the switch: nobody sees a carrier go. Everything of a node, or only what it has to do with one other, or
//! only one kind of traffic: a node can be cut off from ZooKeeper and from nothing else, or from everything else. Or only one way, so
//! that it speaks and hears nothing; or only some of them, at random.
//! Names ports of the capsule's switch; never touches a node's own rules.

use std::{fmt, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    layout::{NodeNumber, ZOOKEEPER_PEER_PORTS, ZOOKEEPER_PORT},
    program::{command, output},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The number of the node.
    pub node: u8,
    /// Between it and whom.
    pub peer: Peer,
    /// Of these frames.
    pub traffic: Traffic,
    /// Which way they go.
    pub way: Way,
    /// How many of a hundred.
    pub percent: u8,
}

impl Dropped {
    /// All that a node sends and all that is sent to it.
    pub fn all_of(node: NodeNumber) -> Self {
        Self { node: node.get(), peer: Peer::Everybody, traffic: Traffic::All, way: Way::Both, percent: 100 }
    }
}

/// A node's other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Whoever it is.
    Everybody,
    /// One node.
    Node(u8),
    /// All BMCs.
    Bmcs,
}

/// A direction, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From it and to it.
    Both,
    /// What it sends: it hears, and nobody hears it.
    From,
    /// What is sent to it: it is heard, and hears nobody.
    To,
}

/// A kind of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// All of them.
    All,
    /// What ZooKeeper's clients and servers say to each other.
    ZooKeeper,
    /// All but that, and but the questions for hardware addresses.
    AllButZooKeeper,
}

impl Peer {
    fn ports(self) -> Option<String> {
        match self {
            Self::Everybody => None,
            Self::Node(number) => Some(node_ports(number)),
            Self::Bmcs => Some("\"bmc*\"".into()),
        }
    }
}

fn node_ports(number: u8) -> String {
    format!("\"n{number}-*\"")
}

impl Traffic {
    /// The beginnings of nft rules that match it.
    fn matches(self) -> Vec<String> {
        let [peers, elections] = ZOOKEEPER_PEER_PORTS;
        let ports = format!("{{ {ZOOKEEPER_PORT}, {peers}, {elections} }}");
        match self {
            Self::All => vec![String::new()],
            Self::ZooKeeper => vec![format!("tcp dport {ports}"), format!("tcp sport {ports}")],
            Self::AllButZooKeeper => vec![
                "ether type { ip, ip6 } meta l4proto != tcp".into(),
                format!("tcp dport != {ports} tcp sport != {ports}"),
            ],
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = match self.traffic {
            Traffic::All => "all frames",
            Traffic::ZooKeeper => "ZooKeeper's frames",
            Traffic::AllButZooKeeper => "all frames but ZooKeeper's",
        };
        let node = self.node;
        if self.percent < 100 {
            write!(f, "{} % of ", self.percent)?;
        }
        write!(f, "{traffic} ")?;
        match (self.way, self.peer) {
            (Way::Both, Peer::Everybody) => write!(f, "of node{node}"),
            (Way::Both, peer) => write!(f, "between node{node} and {peer}"),
            (Way::From, peer) => write!(f, "from node{node} to {peer}"),
            (Way::To, peer) => write!(f, "from {peer} to node{node}"),
        }?;
        write!(f, " are dropped")
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => write!(f, "everybody"),
            Self::Node(number) => write!(f, "node{number}"),
            Self::Bmcs => write!(f, "the BMCs"),
        }
    }
}

/// Drops exactly these. Runs in the capsule.
pub fn set(dropped: &[Dropped]) -> Result<()> {
    let mut nft = command("/usr/sbin/nft");
    nft.args(["-f", "-"]);
    output(nft, rules(dropped).as_bytes(), DEADLINE)?.ok()?;
    Ok(())
}

fn rules(dropped: &[Dropped]) -> String {
    use std::fmt::Write;
    // Adding before deleting makes the deletion succeed the first time too.
    let mut text = String::from("add table bridge pvc_lab\ndelete table bridge pvc_lab\n");
    if dropped.is_empty() {
        return text;
    }
    text.push_str("table bridge pvc_lab {\n");
    // What the switch itself sends and receives passes it by other ways than what it forwards.
    for hook in ["forward", "input", "output"] {
        let _ = writeln!(text, " chain {hook}_frames {{\n  type filter hook {hook} priority 0");
        for Dropped { node, peer, traffic, way, percent } in dropped {
            let node = node_ports(*node);
            let (from, to) = (*way != Way::To, *way != Way::From);
            for matches in traffic.matches() {
                let what = match percent {
                    100 => format!("{matches} drop"),
                    percent => format!("{matches} numgen random mod 100 < {percent} drop"),
                };
                let mut rule = |wanted: bool, ports: &str| {
                    if wanted {
                        let _ = writeln!(text, "  {ports} {what}");
                    }
                };
                match peer.ports() {
                    Some(peer) if hook == "forward" => {
                        rule(from, &format!("iifname {node} oifname {peer}"));
                        rule(to, &format!("iifname {peer} oifname {node}"));
                    }
                    Some(_) => {}
                    None => {
                        rule(from && hook != "output", &format!("iifname {node}"));
                        rule(to && hook != "input", &format!("oifname {node}"));
                    }
                }
            }
        }
        text.push_str(" }\n");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(node: u8) -> Dropped {
        Dropped::all_of(node.to_string().parse().unwrap())
    }

    fn rules_of(node: u8, peer: Peer, traffic: Traffic) -> String {
        rules(&[Dropped { peer, traffic, ..all_of(node) }])
    }

    #[test]
    fn a_pair_is_dropped_in_both_directions_and_only_when_forwarded() {
        let rules = rules_of(1, Peer::Node(2), Traffic::All);
        assert!(rules.contains("iifname \"n1-*\" oifname \"n2-*\"  drop"), "{rules}");
        assert!(rules.contains("iifname \"n2-*\" oifname \"n1-*\"  drop"), "{rules}");
        assert_eq!(rules.matches(" drop").count(), 2);
        let all = rules_of(10, Peer::Everybody, Traffic::All);
        assert_eq!(all.matches(" drop").count(), 4, "{all}");
        assert!(!super::rules(&[]).contains("chain"));
    }

    #[test]
    fn what_goes_the_other_way_is_not_dropped() {
        let from = rules(&[Dropped { way: Way::From, ..all_of(1) }]);
        assert_eq!(from.matches(" drop").count(), from.matches("iifname \"n1-*\"  drop").count(), "{from}");
        let to = rules(&[Dropped { way: Way::To, ..all_of(1) }]);
        assert_eq!(to.matches(" drop").count(), to.matches("  oifname \"n1-*\"  drop").count(), "{to}");
        // Forwarded, and from or to the switch itself.
        assert_eq!((from.matches(" drop").count(), to.matches(" drop").count()), (2, 2));
    }

    #[test]
    fn a_part_of_the_frames_is_chosen_at_random() {
        let some = rules(&[Dropped { way: Way::From, percent: 30, ..all_of(1) }]);
        assert!(some.contains("iifname \"n1-*\"  numgen random mod 100 < 30 drop"), "{some}");
    }

    #[test]
    fn zookeeper_is_known_by_its_ports() {
        let only = rules_of(1, Peer::Bmcs, Traffic::ZooKeeper);
        assert!(
            only.contains("iifname \"n1-*\" oifname \"bmc*\" tcp dport { 2181, 2888, 3888 } drop"),
            "{only}"
        );
        let others = rules_of(1, Peer::Node(3), Traffic::AllButZooKeeper);
        assert!(others.contains("tcp dport != { 2181, 2888, 3888 } tcp sport != { 2181, 2888, 3888 } drop"));
    }

    #[test]
    fn a_drop_can_be_told_to_people() {
        let dropped = Dropped { peer: Peer::Node(2), traffic: Traffic::ZooKeeper, ..all_of(1) };
        assert_eq!(dropped.to_string(), "ZooKeeper's frames between node1 and node2 are dropped");
        assert_eq!(all_of(1).to_string(), "all frames of node1 are dropped");
        let lost = Dropped { way: Way::To, percent: 30, ..all_of(1) };
        assert_eq!(lost.to_string(), "30 % of all frames from everybody to node1 are dropped");
    }
}
