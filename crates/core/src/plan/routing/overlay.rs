//! What the nodes' routing daemons have to do with each other, where the overlay is EVPN.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::ASN;
use crate::model::{ClusterView, DaemonMode, DaemonState, NodeName, Trouble};

/// What a neighbour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A route reflector: it is told what is here, and what our clients have told.
    Coordinator,
    /// It is told what everybody has told.
    Hypervisor,
}

/// One that tells where cards are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evpn {
    /// Whether it is a route reflector.
    pub reflects: bool,
    /// Whom it speaks with.
    pub neighbours: BTreeMap<Ipv4Addr, (NodeName, Role)>,
}

impl Evpn {
    /// That of a node, which speaks from `router`.
    pub(super) fn of(me: &NodeName, router: Ipv4Addr, view: &ClusterView) -> Self {
        let role = |mode| match mode {
            DaemonMode::Coordinator => Role::Coordinator,
            DaemonMode::Hypervisor => Role::Hypervisor,
        };
        let reflects = view.node(me).is_some_and(|node| role(node.mode) == Role::Coordinator);
        let others = view.all_nodes().filter(|node| node.name != *me);
        let neighbours = others.filter_map(|node| match node.vtep? {
            IpAddr::V4(end) if end != router => Some((end, (node.name.clone(), role(node.mode)))),
            _ => None,
        });
        let neighbours = neighbours.filter(|(_, (_, role))| reflects || *role == Role::Coordinator).collect();
        Self { reflects, neighbours }
    }

    /// Those that run and cannot be spoken with.
    pub(super) fn missed(&self, sessions: &BTreeMap<String, bool>, view: &ClusterView) -> Vec<Trouble> {
        let is_missed = |end: &Ipv4Addr, name: &NodeName| {
            let runs = view.node(name).is_some_and(|node| node.daemon_state.value == DaemonState::Run);
            runs && sessions.get(&end.to_string()) != Some(&true)
        };
        let missed = self.neighbours.iter().filter(|(end, (name, _))| is_missed(end, name));
        missed
            .map(|(end, (name, _))| {
                let what = format!("FRR has no session with that of {name} ({end})");
                Trouble::of_all(what).with_todo(format!("pvc node explain {name}"))
            })
            .collect()
    }

    pub(super) fn write_neighbours(&self, f: &mut fmt::Formatter<'_>, router: Ipv4Addr) -> fmt::Result {
        for role in [Role::Coordinator, Role::Hypervisor] {
            writeln!(f, " neighbor {role} peer-group\n neighbor {role} remote-as {ASN}")?;
            // Beside a session that has gone, frames are flooded: nothing is gained by noticing it within less.
            writeln!(f, " neighbor {role} timers 3 9\n neighbor {role} timers connect 2")?;
            writeln!(f, " neighbor {role} update-source {router}")?;
        }
        for (end, (_, role)) in &self.neighbours {
            writeln!(f, " neighbor {end} peer-group {role}")?;
        }
        Ok(())
    }

    pub(super) fn write_family(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, " !\n address-family l2vpn evpn")?;
        for role in [Role::Coordinator, Role::Hypervisor] {
            writeln!(f, "  neighbor {role} activate")?;
        }
        if self.reflects {
            writeln!(f, "  neighbor {} route-reflector-client", Role::Hypervisor)?;
        }
        // The entries for everybody are ours: a second one each would double frames. A card is with one node, as claims say: one that moves
        // often is no mistake.
        writeln!(f, "  advertise-all-vni\n  flooding disable\n  no dup-addr-detection")?;
        writeln!(f, " exit-address-family")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "COORDINATORS",
            Self::Hypervisor => "HYPERVISORS",
        })
    }
}
