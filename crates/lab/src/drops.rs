//! Frames that vanish on the switch: nobody sees a carrier go. Everything of a node, or only what it has to do with one other, or
//! only one kind of traffic: a node can be cut off from ZooKeeper and from nothing else, or from everything else.
//! Names ports of the capsule's switch; never touches a node's own rules.

use std::{fmt, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    layout::{ZOOKEEPER_PEER_PORTS, ZOOKEEPER_PORT},
    program::{command, output},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// What is dropped, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The number of the node.
    pub node: u8,
    /// Between it and whom.
    pub peer: Peer,
    /// Of these frames.
    pub traffic: Traffic,
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
        match self.peer {
            Peer::Everybody => write!(f, "{traffic} of node{node} are dropped"),
            Peer::Node(peer) => write!(f, "{traffic} between node{node} and node{peer} are dropped"),
            Peer::Bmcs => write!(f, "{traffic} between node{node} and the BMCs are dropped"),
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
        for Dropped { node, peer, traffic } in dropped {
            let node = node_ports(*node);
            for matches in traffic.matches() {
                match peer.ports() {
                    Some(peer) if hook == "forward" => {
                        let _ = writeln!(text, "  iifname {node} oifname {peer} {matches} drop");
                        let _ = writeln!(text, "  iifname {peer} oifname {node} {matches} drop");
                    }
                    Some(_) => {}
                    None => {
                        if hook != "output" {
                            let _ = writeln!(text, "  iifname {node} {matches} drop");
                        }
                        if hook != "input" {
                            let _ = writeln!(text, "  oifname {node} {matches} drop");
                        }
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

    fn rules_of(node: u8, peer: Peer, traffic: Traffic) -> String {
        rules(&[Dropped { node, peer, traffic }])
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
        let dropped = Dropped { node: 1, peer: Peer::Node(2), traffic: Traffic::ZooKeeper };
        assert_eq!(dropped.to_string(), "ZooKeeper's frames between node1 and node2 are dropped");
    }
}
