//! What this node's routing daemon (FRR) is told: where the cluster's overlay is `evpn`, that it tells other nodes which network cards are here
//! ([`Evpn`]); where the configuration names the site's routers, that it tells them which client networks are here ([`Announced`]).
//!
//! ```text
//!   router ◄── coordinator ◄──► coordinator        route reflectors, each with each
//!                   ▲    ▲
//!                   └────┴── hypervisor            speaks with each coordinator, and hears of other hypervisors from them
//! ```
//!
//! Nothing but bandwidth depends on the overlay's part: frames for everybody, and for cards that no entry names, go to every node by entries that
//! the daemon does not write (see [`super::client_network`]). Neighbours are named one by one, since any machine could claim to be one.

mod overlay;
mod site;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

pub use overlay::{Evpn, Role};
pub use site::{Announced, Bfd, Site};

use crate::model::{ClusterView, NodeName, Overlay, Trouble};

/// The autonomous system that the nodes are among themselves: one of the private numbers. A site's routers know the cluster by another, if they are
/// to.
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
    /// The routers that it tells of client networks; `None`: it tells none, as nodes that are no coordinators.
    pub site: Option<Site>,
    /// The networks that nodes live in, and routers: they are nobody's to announce.
    pub own_networks: Vec<IpNet>,
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
    /// Its name, and the address that it speaks with other nodes from.
    pub router: Ipv4Addr,
    /// What it has to do with other nodes; `None`: nothing.
    pub evpn: Option<Evpn>,
    /// What it tells the site's routers; `None`: nothing.
    pub site: Option<Announced>,
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
        /// Its neighbours among the nodes, by address or as it calls them otherwise, and whether there is a session.
        neighbours: BTreeMap<String, bool>,
        /// The same of those that are told of networks.
        routers: BTreeMap<String, bool>,
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
        /// What BFD says of routers; `None`: nobody has asked.
        bfd: Option<Bfd>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// The configuration that is written and told, and why.
    pub load: Option<(Routing, &'static str)>,
    /// What cannot be as desired, until somebody changes something.
    pub troubles: Vec<Trouble>,
    /// What is counted of it; `None`: it is not needed.
    pub counted: Option<Counted>,
}

/// What figures say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Whether it speaks as it shall.
    pub speaks: bool,
    /// Nodes that run and have no session with this one.
    pub nodes_missed: usize,
    /// Routers of the site that have none.
    pub routers_missed: usize,
}

/// Whether the routing daemon has to be asked what it does.
pub fn is_asked(ground: &Ground, view: &ClusterView, file: &File) -> bool {
    view.overlay == Overlay::Evpn || ground.site.is_some() || matches!(file, File::Ours(_))
}

/// Decides the next step.
pub fn plan(ground: &Ground, view: &ClusterView, seen: &Seen) -> Planned {
    let mut planned = Planned::default();
    // A node without an address has no tunnels, and has said so.
    let overlay = view.overlay == Overlay::Evpn && ground.address.is_some();
    let needs = Needs { overlay, site: ground.site.is_some() };
    let routing = Routing::desired(ground, view);
    let is_wanted = routing.speaker.is_some();
    if !is_wanted {
        planned.without(needs, "it needs IPv4 addresses of the nodes in the cluster network", None);
    }
    planned.counted = is_wanted.then(Counted::default);
    let (file, speaking, told, bfd) = match seen {
        Seen::Absent if is_wanted => {
            let todo = "on that node: apt install frr frr-pythontools, and: systemctl restart pvcd";
            planned.without(needs, "FRR is not installed", Some(todo));
            return planned;
        }
        Seen::Absent => return planned,
        Seen::Installed { file, speaking, told, bfd } => (file, speaking, told, bfd),
    };
    // It speaks by what was typed, or by another file.
    let is_anothers = matches!(speaking, Some(Speaking::As { asn, .. }) if *asn != ASN);
    let file = if *file == File::Blank && is_anothers { &File::Foreign } else { file };
    match file {
        File::Foreign if is_wanted => {
            let todo = "on that node, if nobody needs it: move frr.conf, and the files of single daemons, out of /etc/frr, \
                        empty its vtysh.conf, and: systemctl restart frr";
            let why = "FRR's configuration is an operator's, and is not written over";
            planned.without(needs, why, Some(todo));
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
                let todo = "on that node: set bgpd=yes in /etc/frr/daemons, and: systemctl restart frr";
                planned.without(needs, format!("FRR's bgpd does not run: {why}"), Some(todo));
            }
            true
        }
        _ => false,
    };
    let is_told = told.as_ref() == Some(&text);
    let is_so = speaking.as_ref().is_some_and(|speaking| routing.is_so(speaking));
    let why = match () {
        () if !is_written => Some("as the cluster's overlay, nodes and networks are"),
        // One that is started reads its file.
        () if is_gone => None,
        () if !is_told => Some("it may have been told otherwise"),
        () if !is_so => Some("it is not as it was told"),
        () => None,
    };
    if why.is_none()
        && let (Some(speaker), Some(Speaking::As { neighbours, routers, .. })) = (&routing.speaker, speaking)
    {
        let nodes = speaker.evpn.as_ref().map_or(vec![], |evpn| evpn.missed(neighbours, view));
        let site = speaker.site.as_ref().map_or(vec![], |site| site.missed(routers));
        let slow = speaker.site.as_ref().map_or(vec![], |site| site.slow(routers, bfd.as_ref()));
        planned.counted =
            Some(Counted { speaks: true, nodes_missed: nodes.len(), routers_missed: site.len() });
        planned.troubles.extend(nodes.into_iter().chain(site).chain(slow));
    } else if why.is_none() && is_so && is_wanted {
        planned.counted = Some(Counted { speaks: true, ..Counted::default() });
    }
    planned.load = why.map(|why| (routing, why));
    planned
}

impl Routing {
    /// What this node's is to be told.
    pub fn desired(ground: &Ground, view: &ClusterView) -> Self {
        let Some(IpAddr::V4(router)) = ground.address else { return Self::default() };
        let evpn = (view.overlay == Overlay::Evpn).then(|| Evpn::of(&ground.me, router, view));
        let site = ground.site.as_ref().map(|site| Announced::of(site, &ground.own_networks, view));
        let speaks = evpn.is_some() || site.is_some();
        Self { speaker: speaks.then_some(Speaker { router, evpn, site }) }
    }

    /// Whether that is what it says, as far as can be seen. Where the site's routers are not ours to tell, who else is told of networks is an
    /// operator's business.
    pub fn is_so(&self, speaking: &Speaking) -> bool {
        let has_site = self.speaker.as_ref().is_some_and(|speaker| speaker.site.is_some());
        match (&self.speaker, speaking) {
            (_, Speaking::Gone(_)) => false,
            (None, Speaking::Silent) => true,
            (None, Speaking::As { neighbours, .. }) => neighbours.is_empty(),
            // Without a neighbour it says nothing of itself.
            (Some(speaker), Speaking::Silent) => {
                speaker.nodes().next().is_none() && speaker.routers().next().is_none()
            }
            (Some(speaker), Speaking::As { neighbours, .. }) if !has_site && neighbours.is_empty() => {
                speaker.nodes().next().is_none()
            }
            (Some(speaker), Speaking::As { asn, router, neighbours, routers }) => {
                (*asn, *router) == (ASN, speaker.router)
                    && are(neighbours, speaker.nodes())
                    && (!has_site || are(routers, speaker.routers()))
            }
        }
    }
}

impl Speaker {
    /// The nodes that it speaks with.
    pub fn nodes(&self) -> impl Iterator<Item = IpAddr> {
        self.evpn.iter().flat_map(|evpn| evpn.neighbours.keys().copied().map(IpAddr::V4))
    }

    /// The routers that it speaks with.
    pub fn routers(&self) -> impl Iterator<Item = IpAddr> {
        self.site.iter().flat_map(|site| site.site.routers.iter().copied())
    }
}

/// Whether the sessions are with these, there or not.
fn are(sessions: &BTreeMap<String, bool>, desired: impl Iterator<Item = IpAddr>) -> bool {
    let desired: Vec<IpAddr> = desired.collect();
    sessions.len() == desired.len()
        && sessions.keys().all(|end| end.parse().is_ok_and(|end| desired.contains(&end)))
}

/// What it is needed for.
#[derive(Debug, Clone, Copy)]
struct Needs {
    overlay: bool,
    site: bool,
}

impl Planned {
    /// What is not so without it.
    fn without(&mut self, needs: Needs, why: impl fmt::Display, todo: Option<&str>) {
        let effects = [
            (needs.overlay, "frames of its guests, and for them, go to every node"),
            (needs.site, "the site's routers hear of no client network from it"),
        ];
        for (_, effect) in effects.into_iter().filter(|(is_so, _)| *is_so) {
            let trouble = Trouble::of_all(format!("{effect}: {why}"));
            self.troubles.push(match todo {
                Some(todo) => trouble.with_todo(todo),
                None => trouble,
            });
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
        let Self { router, evpn, site } = self;
        if let Some(site) = site {
            site.write_what_is_announced(f)?;
        }
        writeln!(f, "router bgp {ASN}\n bgp router-id {router}\n no bgp default ipv4-unicast")?;
        if let Some(evpn) = evpn {
            evpn.write_neighbours(f, *router)?;
        }
        if let Some(site) = site {
            site.write_neighbours(f)?;
        }
        if let Some(evpn) = evpn {
            evpn.write_family(f)?;
        }
        if let Some(site) = site {
            site.write_families(f)?;
        }
        writeln!(f, "exit")
    }
}
