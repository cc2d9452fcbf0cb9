//! What this node's routing daemon (FRR) is told, where the cluster's overlay is `evpn`: whom it speaks with, and that it tells them which network
//! cards are here.
//!
//! ```text
//!   coordinator ◄──► coordinator        route reflectors, each with each
//!        ▲    ▲
//!        └────┴── hypervisor            speaks with each coordinator, and hears of other hypervisors from them
//! ```
//!
//! Nothing but bandwidth depends on it: frames for everybody, and for cards that no entry names, go to every node by entries that the daemon does
//! not write (see [`super::client_network`]). Neighbours are named one by one, since any machine in the cluster network could claim to be a node.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use crate::model::{ClusterView, DaemonMode, DaemonState, NodeName, Overlay, Trouble};

/// The autonomous system that the nodes are: one of the private numbers, since nobody else hears of it.
pub const ASN: u32 = 65_500;

/// What the first line of a file says that this program has written.
pub const MARK: &str = "! Written by pvcd. What is changed here is written over.";

/// This node's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// This node.
    pub me: NodeName,
    /// Where its tunnels end; `None`: it has none.
    pub address: Option<IpAddr>,
}

/// What a neighbour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A route reflector: it is told what is here, and what our clients have told.
    Coordinator,
    /// It is told what everybody has told.
    Hypervisor,
}

/// A configuration of the routing daemon. As a text it is the whole of its file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routing {
    /// `None`: it speaks with nobody.
    pub speaker: Option<Speaker>,
}

/// One that speaks BGP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Its name, and the address that it speaks from.
    pub router: Ipv4Addr,
    /// Whether it is a route reflector.
    pub reflects: bool,
    /// Whom it speaks with.
    pub neighbours: BTreeMap<Ipv4Addr, (NodeName, Role)>,
}

/// The file that the routing daemon reads when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// There is none, or one that configures nothing, as Debian's.
    Blank,
    /// This program has written it.
    Ours(String),
    /// An operator has.
    Foreign,
}

/// What the routing daemon is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speaking {
    /// It does not run, and why that is known.
    Gone(String),
    /// It runs, and speaks with nobody.
    Silent,
    /// It speaks.
    As {
        /// The autonomous system.
        asn: u32,
        /// Its name.
        router: Ipv4Addr,
        /// Its neighbours, by address or as it calls them otherwise, and whether there is a session.
        neighbours: BTreeMap<String, bool>,
    },
}

/// What there is of it on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is not installed.
    Absent,
    /// It is.
    Installed {
        /// Its file.
        file: File,
        /// What it is doing; `None`: nobody has asked, since neither the overlay nor the file say that it is ours.
        speaking: Option<Speaking>,
        /// What it was told last since this program has started, as a text.
        told: Option<String>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// The configuration that is written and told, and why.
    pub load: Option<(Routing, &'static str)>,
    /// What cannot be as desired, until somebody changes something.
    pub troubles: Vec<Trouble>,
}

/// Whether the routing daemon has to be asked what it does.
pub fn is_asked(view: &ClusterView, file: &File) -> bool {
    view.overlay == Overlay::Evpn || matches!(file, File::Ours(_))
}

/// Decides the next step.
pub fn plan(ground: &Ground, view: &ClusterView, seen: &Seen) -> Planned {
    let mut planned = Planned::default();
    let routing = Routing::desired(ground, view);
    let is_wanted = routing.speaker.is_some();
    // A node without an address has no tunnels, and has said so.
    if view.overlay == Overlay::Evpn && ground.address.is_some() && !is_wanted {
        planned.trouble("EVPN needs IPv4 addresses of the nodes in the cluster network", None);
    }
    let (file, speaking, told) = match seen {
        Seen::Absent if is_wanted => {
            planned.trouble(
                "FRR is not installed",
                Some("on that node: apt install frr frr-pythontools, and: systemctl restart pvcd"),
            );
            return planned;
        }
        Seen::Absent => return planned,
        Seen::Installed { file, speaking, told } => (file, speaking, told),
    };
    // It speaks by what was typed, or by another file.
    let is_anothers = matches!(speaking, Some(Speaking::As { asn, .. }) if *asn != ASN);
    let file = if *file == File::Blank && is_anothers { &File::Foreign } else { file };
    match file {
        File::Foreign if is_wanted => {
            planned.trouble(
                "FRR's configuration is an operator's, and is not written over",
                Some(
                    "on that node, if nobody needs it: move frr.conf, and the files of single daemons, out of /etc/frr, \
                     empty its vtysh.conf, and: systemctl restart frr",
                ),
            );
            return planned;
        }
        File::Blank | File::Foreign if !is_wanted => return planned,
        File::Blank | File::Foreign | File::Ours(_) => {}
    }
    let text = routing.to_string();
    let is_written = matches!(file, File::Ours(written) if *written == text);
    let is_gone = match speaking {
        Some(Speaking::Gone(why)) => {
            if is_wanted {
                planned.trouble(
                    format!("FRR's bgpd does not run: {why}"),
                    Some("on that node: set bgpd=yes in /etc/frr/daemons, and: systemctl restart frr"),
                );
            }
            true
        }
        _ => false,
    };
    let is_told = told.as_ref() == Some(&text);
    let is_so = speaking.as_ref().is_some_and(|speaking| routing.is_so(speaking));
    let why = match () {
        () if !is_written => Some("as the cluster's overlay and nodes are"),
        // One that is started reads its file.
        () if is_gone => None,
        () if !is_told => Some("it may have been told otherwise"),
        () if !is_so => Some("it is not as it was told"),
        () => None,
    };
    if why.is_none()
        && let (Some(speaker), Some(Speaking::As { neighbours, .. })) = (&routing.speaker, speaking)
    {
        planned.miss(speaker, neighbours, view);
    }
    planned.load = why.map(|why| (routing, why));
    planned
}

fn speaker(me: &NodeName, router: Ipv4Addr, view: &ClusterView) -> Speaker {
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
    Speaker { router, reflects, neighbours }
}

impl Routing {
    /// What this node's is to be told.
    pub fn desired(ground: &Ground, view: &ClusterView) -> Self {
        let speaker = match ground.address {
            Some(IpAddr::V4(router)) if view.overlay == Overlay::Evpn => {
                Some(speaker(&ground.me, router, view))
            }
            _ => None,
        };
        Self { speaker }
    }

    /// Whether that is what it says, as far as can be seen.
    pub fn is_so(&self, speaking: &Speaking) -> bool {
        match (&self.speaker, speaking) {
            (None, speaking) => *speaking == Speaking::Silent,
            (Some(speaker), Speaking::As { asn, router, neighbours }) => {
                let is_neighbour =
                    |end: &String| end.parse().is_ok_and(|end| speaker.neighbours.contains_key(&end));
                (*asn, *router) == (ASN, speaker.router)
                    && neighbours.len() == speaker.neighbours.len()
                    && neighbours.keys().all(is_neighbour)
            }
            // Without a neighbour it says nothing of itself.
            (Some(speaker), Speaking::Silent) => speaker.neighbours.is_empty(),
            (Some(_), Speaking::Gone(_)) => false,
        }
    }
}

impl Planned {
    fn trouble(&mut self, why: impl fmt::Display, todo: Option<&str>) {
        let trouble = Trouble::of_all(format!("frames of its guests, and for them, go to every node: {why}"));
        self.troubles.push(match todo {
            Some(todo) => trouble.with_todo(todo),
            None => trouble,
        });
    }

    /// Tells of those that run and cannot be spoken with.
    fn miss(&mut self, speaker: &Speaker, sessions: &BTreeMap<String, bool>, view: &ClusterView) {
        for (end, (name, _)) in &speaker.neighbours {
            let runs = view.node(name).is_some_and(|node| node.daemon_state.value == DaemonState::Run);
            if runs && sessions.get(&end.to_string()) != Some(&true) {
                let what = format!("FRR has no session with that of {name} ({end})");
                self.troubles.push(Trouble::of_all(what).with_todo(format!("pvc node explain {name}")));
            }
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MARK}\nlog syslog informational")?;
        match &self.speaker {
            Some(speaker) => write!(f, "!\n{speaker}"),
            None => Ok(()),
        }
    }
}

/// Addresses, numbers, and no word of an operator.
impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { router, reflects, neighbours } = self;
        writeln!(f, "router bgp {ASN}\n bgp router-id {router}\n no bgp default ipv4-unicast")?;
        for role in [Role::Coordinator, Role::Hypervisor] {
            writeln!(f, " neighbor {role} peer-group\n neighbor {role} remote-as {ASN}")?;
            // Beside a session that has gone, frames are flooded: nothing is gained by noticing it within less.
            writeln!(f, " neighbor {role} timers 3 9\n neighbor {role} timers connect 2")?;
            writeln!(f, " neighbor {role} update-source {router}")?;
        }
        for (end, (_, role)) in neighbours {
            writeln!(f, " neighbor {end} peer-group {role}")?;
        }
        writeln!(f, " !\n address-family l2vpn evpn")?;
        for role in [Role::Coordinator, Role::Hypervisor] {
            writeln!(f, "  neighbor {role} activate")?;
        }
        if *reflects {
            writeln!(f, "  neighbor {} route-reflector-client", Role::Hypervisor)?;
        }
        // The entries for everybody are ours: a second one each would double frames. A card is with one node, as claims say: one that moves
        // often is no mistake.
        writeln!(f, "  advertise-all-vni\n  flooding disable\n  no dup-addr-detection")?;
        writeln!(f, " exit-address-family\nexit")
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
