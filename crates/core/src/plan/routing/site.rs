//! What the site's routers are told: the client networks' address networks, by the node that has their gateways, and nothing else.
//!
//! Every coordinator speaks with them, and may announce the same. Which of them does is decided by the kernel's addresses alone: FRR announces a
//! network while its gateway is on this node's bridge of it. The same network on another device is announced by nobody. So a hand-over changes no configuration, and who loses the gateways by any way (also by
//! their lifetime's end) announces nothing. Routers' own routes are not taken: the way out is the configuration's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use super::{super::primary::gateways, ASN};
use crate::model::{ClusterView, LINK_GATEWAY, Trouble, Vni};

/// The site's routers, as a node's configuration has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The autonomous system that they know the cluster by.
    pub asn: u32,
    /// Theirs.
    pub routers_asn: u32,
    /// Their addresses. Over IPv4 they are told of IPv4, over IPv6 of IPv6.
    pub routers: BTreeSet<IpAddr>,
    /// Whether BFD finds out that they are dead.
    pub bfd: bool,
}

/// What they may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Whom.
    pub site: Site,
    /// The address networks: one of each family a client network, at most.
    pub prefixes: BTreeSet<(Vni, IpNet)>,
}

/// What BFD says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bfd {
    /// FRR's bfdd does not run, and why that is known.
    Gone(String),
    /// Whom it watches, by address, and whether they answer.
    Watches(BTreeMap<String, bool>),
}

/// The names of what it is told for routers of one family: of the group, of the map that takes networks by their bridges, as FRR says the family.
struct Words {
    group: &'static str,
    map: &'static str,
    ip: &'static str,
    family: &'static str,
}

const FOUR: Words = Words { group: "ROUTERS4", map: "GATEWAYS4", ip: "ip", family: "ipv4" };
const SIX: Words = Words { group: "ROUTERS6", map: "GATEWAYS6", ip: "ipv6", family: "ipv6" };

/// The last number of a map's entries: that of the one which takes nothing, so that there always is a map.
const LAST: u32 = 65_535;

fn words(address: IpAddr) -> &'static Words {
    if address.is_ipv4() { &FOUR } else { &SIX }
}

impl Announced {
    /// The networks of gateways that the primary has. `own` are the networks that nodes live in.
    pub(super) fn of(site: &Site, own: &[IpNet], view: &ClusterView) -> Self {
        let (gateways, _) = gateways(own, view);
        let prefixes = gateways.into_iter().flat_map(|gateways| {
            let nets = gateways.addresses.into_iter().filter(|net| net.addr() != IpAddr::from(LINK_GATEWAY));
            nets.map(move |net| (gateways.vni, net.trunc()))
        });
        Self { site: site.clone(), prefixes: prefixes.collect() }
    }

    /// Routers that cannot be spoken with.
    pub(super) fn missed(&self, sessions: &BTreeMap<String, bool>) -> Vec<Trouble> {
        let Site { asn, routers_asn, routers, .. } = &self.site;
        let missed = routers.iter().filter(|router| sessions.get(&router.to_string()) != Some(&true));
        missed
            .map(|router| {
                let what = format!("FRR has no session with the site's router {router}: it hears of no client network from here");
                Trouble::of_all(what).with_todo(format!(
                    "ping {router} from that node; the router must be AS {routers_asn} and expect AS {asn} at the node's own address"
                ))
            })
            .collect()
    }

    /// Routers whose death would be noticed late. Of those without a session that is not said, too.
    pub(super) fn slow(&self, sessions: &BTreeMap<String, bool>, bfd: Option<&Bfd>) -> Vec<Trouble> {
        let late = "a router or node that dies is noticed after 9 s";
        match bfd {
            Some(Bfd::Gone(why)) => vec![
                Trouble::of_all(format!("{late}: FRR's bfdd does not run: {why}"))
                    .with_todo("on that node: set bfdd=yes in /etc/frr/daemons, and: systemctl restart frr"),
            ],
            Some(Bfd::Watches(peers)) => {
                let has_session = |router: &&IpAddr| sessions.get(&router.to_string()) == Some(&true);
                let unseen = self.site.routers.iter().filter(has_session);
                unseen
                    .filter(|router| peers.get(&router.to_string()) != Some(&true))
                    .map(|router| {
                        Trouble::of_all(format!("{late}: the site's router {router} does not answer BFD"))
                            .with_todo("switch BFD on at the router, or coordinator.bgp.bfd off")
                    })
                    .collect()
            }
            None => vec![],
        }
    }

    fn families(&self) -> impl Iterator<Item = &'static Words> {
        let has =
            |family: &Words| self.site.routers.iter().any(|router| words(*router).group == family.group);
        [&FOUR, &SIX].into_iter().filter(move |family| has(family))
    }

    pub(super) fn write_what_is_announced(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (vni, net) in &self.prefixes {
            // Numbered by their networks: one that comes or goes moves no other.
            writeln!(f, "{} prefix-list CLIENTS seq {vni} permit {net}", words(net.addr()).ip)?;
        }
        for words in [FOUR, SIX] {
            self.write_map(f, &words)?;
        }
        for (number, Words { ip, .. }) in [(10, FOUR), (20, SIX)] {
            writeln!(f, "route-map CLIENTS permit {number}\n match {ip} address prefix-list CLIENTS\nexit")?;
        }
        // A change is to be told within a second, and not five.
        writeln!(f, "route-map NOTHING deny 10\nexit\nbgp route-map delay-timer 1")
    }

    /// The map of one family: an entry a network, which takes it from its own bridge.
    fn write_map(&self, f: &mut fmt::Formatter<'_>, words: &Words) -> fmt::Result {
        let Words { map, ip, family, .. } = words;
        let is_of_it = |net: &IpNet| net.addr().is_ipv4() == (*family == FOUR.family);
        let mut taken = BTreeSet::new();
        for (vni, _) in self.prefixes.iter().filter(|(_, net)| is_of_it(net)) {
            let number = entry_number(*vni, &taken);
            taken.extend(number);
            let Some(number) = number else { continue };
            writeln!(f, "route-map {map} permit {number}\n match interface {}", vni.bridge())?;
            writeln!(f, " match {ip} address prefix-list CLIENTS\nexit")?;
        }
        writeln!(f, "route-map {map} deny {LAST}\nexit")
    }

    pub(super) fn write_neighbours(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { asn, routers_asn, routers, bfd } = &self.site;
        for Words { group, .. } in self.families() {
            writeln!(f, " neighbor {group} peer-group\n neighbor {group} remote-as {routers_asn}")?;
            if *asn != ASN {
                writeln!(f, " neighbor {group} local-as {asn} no-prepend replace-as")?;
            }
            if *bfd {
                writeln!(f, " neighbor {group} bfd")?;
            }
            writeln!(f, " neighbor {group} timers 3 9\n neighbor {group} timers connect 2")?;
        }
        for router in routers {
            writeln!(f, " neighbor {router} peer-group {}", words(*router).group)?;
        }
        Ok(())
    }

    pub(super) fn write_families(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Words { group, map, family, .. } in self.families() {
            writeln!(f, " !\n address-family {family} unicast\n  redistribute connected route-map {map}")?;
            writeln!(f, "  neighbor {group} activate\n  neighbor {group} route-map NOTHING in")?;
            writeln!(f, "  neighbor {group} route-map CLIENTS out\n exit-address-family")?;
        }
        Ok(())
    }
}

/// The number of a network's entry: its own if that is one, so that a network which comes or goes moves no other; `None`: all are taken.
fn entry_number(vni: Vni, taken: &BTreeSet<u32>) -> Option<u32> {
    let first = u32::from(vni).saturating_sub(1) % (LAST - 1);
    (0..LAST - 1).map(|next| (first + next) % (LAST - 1) + 1).find(|number| !taken.contains(number))
}
