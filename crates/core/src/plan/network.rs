//! What this node does next about its own networks: devices, MTUs, the cluster bridge, addresses, the way out, kernel settings.
//!
//! ```text
//!   device up ─► brcluster, with the device's Ethernet address ─► the device's addresses also on the bridge ─► device into
//!   the bridge ─► its routes to the bridge ─► its addresses off the device ─► other addresses ─► settings ─► default route
//! ```
//!
//! In that order an address that the device already has answers all the time, so that a ZooKeeper connection over it
//! survives. A network on the cluster network's device lives on the bridge with it: a port of a bridge has no addresses.
//!
//! Only ever adds, except what this program made itself: addresses are moved with their device, not removed; a default
//! route that exists is not doubled; of the kernel's settings only those are changed that routing cannot do without.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{Diff, Plan, act, settled, wait};
use crate::model::link::{CLUSTER_BRIDGE, HostNetwork, Link, LinkChange};

/// This node's side of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The raw device.
    pub device: String,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// This node's own address there.
    pub address: Option<IpNet>,
}

/// What the configuration wants of this node's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Towards the world.
    pub upstream: Wanted,
    /// Between the nodes.
    pub cluster: Wanted,
    /// Between the nodes, for Ceph.
    pub storage: Wanted,
    /// The way out, through the upstream network.
    pub gateway: Option<IpAddr>,
    /// Whether this node may become the gateway of client networks: a coordinator.
    pub routes: bool,
}

impl Desired {
    /// Where the addresses of a network on `device` belong.
    pub fn home<'a>(&self, device: &'a str) -> &'a str {
        if device == self.cluster.device { CLUSTER_BRIDGE } else { device }
    }

    fn networks(&self) -> [(&'static str, &Wanted); 3] {
        [("upstream", &self.upstream), ("cluster", &self.cluster), ("storage", &self.storage)]
    }

    /// The kernel settings that [`plan`] looks at, by path below `/proc/sys`.
    pub fn sysctls(&self) -> Vec<String> {
        let mut paths = vec![RP_FILTER_ALL.to_owned()];
        paths.extend(FORWARDING.map(|(path, _)| path.to_owned()));
        for device in self.homes() {
            paths.extend([promote(device), rp_filter(device), accept_ra(device)]);
        }
        paths
    }

    fn homes(&self) -> Vec<&str> {
        let mut homes: Vec<&str> = self.networks().map(|(_, w)| self.home(&w.device)).into();
        homes.sort_unstable();
        homes.dedup();
        homes
    }
}

const RP_FILTER_ALL: &str = "net/ipv4/conf/all/rp_filter";

/// What a router needs; the last lets servers listen on addresses that are elsewhere now.
const FORWARDING: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/ip_nonlocal_bind", "1"),
    ("net/ipv6/ip_nonlocal_bind", "1"),
];

fn promote(device: &str) -> String {
    format!("net/ipv4/conf/{device}/promote_secondaries")
}

fn rp_filter(device: &str) -> String {
    format!("net/ipv4/conf/{device}/rp_filter")
}

fn accept_ra(device: &str) -> String {
    format!("net/ipv6/conf/{device}/accept_ra")
}

/// Changes that do not depend on each other's outcome, each with its reason: they are made one after another, and then it is looked again.
pub type Batch = Vec<(LinkChange, &'static str)>;

/// Decides the next batch. Waits, and says why, while it cannot be as desired until somebody changes the machine or the configuration.
pub fn plan(desired: &Desired, seen: &HostNetwork) -> Plan<Batch> {
    if let Some(reason) = refusal(desired, seen) {
        return wait(None, reason);
    }
    let stages = [devices, bridge, addresses, settings, way_out];
    let mut batches = stages.iter().map(|stage| stage(desired, seen));
    batches.find(|batch| !batch.is_empty()).map_or_else(settled, |batch| act(batch, "as configured"))
}

fn refusal(desired: &Desired, seen: &HostNetwork) -> Option<String> {
    let there = || {
        let names: Vec<&str> = seen.links.iter().map(|l| l.name.as_str()).filter(|n| *n != "lo").collect();
        if names.is_empty() { "none but lo".to_owned() } else { names.join(", ") }
    };
    for (network, wanted) in desired.networks() {
        if seen.link(&wanted.device).is_none() {
            return Some(format!(
                "the {network} network's device {} does not exist (setting \
                 system.configuration.networking.{network}.device); devices there are: {}",
                wanted.device,
                there()
            ));
        }
    }
    let device = seen.link(&desired.cluster.device)?;
    match (&device.master, device.is_bridge) {
        _ if device.name == CLUSTER_BRIDGE => Some(format!(
            "the cluster network's device must be the one below {CLUSTER_BRIDGE}, which this program makes itself"
        )),
        (_, true) => Some(format!(
            "the cluster network's device {} is a bridge and cannot be a port of {CLUSTER_BRIDGE}; name the device below it",
            device.name
        )),
        (Some(master), _) if master != CLUSTER_BRIDGE => Some(format!(
            "the cluster network's device {} is a port of {master}; take it out of it, or name {master} if that is a bond",
            device.name
        )),
        _ => match seen.link(CLUSTER_BRIDGE) {
            Some(other) if !other.is_bridge => {
                Some(format!("a device called {CLUSTER_BRIDGE} exists, and it is not a bridge"))
            }
            _ => None,
        },
    }
}

fn devices(desired: &Desired, seen: &HostNetwork) -> Batch {
    let mut batch = Batch::new();
    for (_, wanted) in desired.networks() {
        let Some(link) = seen.link(&wanted.device) else { continue };
        let device = || link.name.clone();
        if link.mtu != wanted.mtu {
            batch.push((LinkChange::SetMtu { device: device(), mtu: wanted.mtu }, "as configured"));
        }
        if !link.up {
            batch.push((LinkChange::SetUp { device: device() }, "a network is on it"));
        }
    }
    // Networks may share a device.
    let all = batch.clone();
    let mut index = 0..;
    batch.retain(|change| index.next().is_some_and(|i: usize| !all[..i].contains(change)));
    batch
}

fn bridge(desired: &Desired, seen: &HostNetwork) -> Batch {
    let Some(device) = seen.link(&desired.cluster.device) else { return Batch::new() };
    let Some(bridge) = seen.link(CLUSTER_BRIDGE) else {
        let change = LinkChange::AddBridge { name: CLUSTER_BRIDGE.into(), mac: device.mac };
        return vec![(
            change,
            "the cluster network is on it; neighbours keep the Ethernet address they know",
        )];
    };
    let (of, to) = (|| device.name.clone(), || bridge.name.clone());
    let enslaved = device.master.is_some();
    if enslaved && bridge.mtu != desired.cluster.mtu {
        let change = LinkChange::SetMtu { device: to(), mtu: desired.cluster.mtu };
        return vec![(change, "as configured for the cluster network")];
    }
    if !bridge.up {
        return vec![(LinkChange::SetUp { device: to() }, "the cluster network is on it")];
    }
    let promote = promote(CLUSTER_BRIDGE);
    if seen.sysctls.get(&promote).is_some_and(|v| v == "0") {
        return vec![(LinkChange::SetSysctl { path: promote, value: "1".into() }, KEEP_OTHERS)];
    }
    let moving: BTreeMap<IpNet, Option<u32>> =
        device.addresses.iter().filter(|a| moves(a)).map(|a| (a.cidr, a.lifetime_s)).collect();
    let diff = Diff::between(moving.keys().copied(), bridge.addresses.iter().map(|a| a.cidr));
    if !diff.add.is_empty() {
        let set = |cidr: IpNet| LinkChange::SetAddress { device: to(), cidr, lifetime_s: moving[&cidr] };
        let why = "its device is becoming a port of the bridge, and it must answer all the time";
        return diff.add.into_iter().map(|cidr| (set(cidr), why)).collect();
    }
    if !enslaved {
        let change = LinkChange::Enslave { device: of(), bridge: to() };
        return vec![(change, "the cluster network is on the bridge")];
    }
    if seen.routes.iter().any(|r| r.device == device.name) {
        let change = LinkChange::MoveRoutes { from: of(), to: to() };
        return vec![(change, "a port of a bridge has no routes")];
    }
    let remove = |cidr| (LinkChange::RemoveAddress { device: of(), cidr }, "it has moved to the bridge");
    diff.keep.into_iter().map(remove).collect()
}

const KEEP_OTHERS: &str = "removing one address of a network must not remove its others";

/// An IPv6 address that was learnt from a router is learnt again on the bridge; a link-local one belongs to its device.
fn moves(assigned: &crate::model::link::Assigned) -> bool {
    let learnt = assigned.cidr.addr().is_ipv6() && assigned.lifetime_s.is_some();
    assigned.is_global() && !learnt
}

fn addresses(desired: &Desired, seen: &HostNetwork) -> Batch {
    let missing = desired.networks().into_iter().filter_map(|(_, wanted)| {
        let cidr = wanted.address?;
        let home = seen.link(desired.home(&wanted.device))?;
        let permanent = home.addresses.iter().any(|a| a.cidr == cidr && a.lifetime_s.is_none());
        let change = LinkChange::SetAddress { device: home.name.clone(), cidr, lifetime_s: None };
        (!permanent).then_some((change, "this node's own address"))
    });
    missing.collect()
}

fn settings(desired: &Desired, seen: &HostNetwork) -> Batch {
    let is = |path: &str, value: &str| seen.sysctls.get(path).is_some_and(|v| v == value);
    let mut batch = Batch::new();
    let mut set = |path: String, value: &str, why| {
        batch.push((LinkChange::SetSysctl { path, value: value.into() }, why));
    };
    for device in desired.homes() {
        if is(&promote(device), "0") {
            set(promote(device), "1", KEEP_OTHERS);
        }
        if !desired.routes {
            continue;
        }
        // The larger of "all" and the device's own counts: 1 is strict, 2 is loose.
        let strict = is(&rp_filter(device), "1") || is(&rp_filter(device), "0") && is(RP_FILTER_ALL, "1");
        if strict && !is(RP_FILTER_ALL, "2") {
            set(rp_filter(device), "2", "answers may come in by another way than requests went out");
        }
        // 1 means "unless forwarding": an address and a way out learnt from a router would be lost.
        if is(&accept_ra(device), "1") {
            set(accept_ra(device), "2", "what routers announce counts although this node forwards");
        }
    }
    // Last: what routers announce is to count by then.
    for (path, value) in FORWARDING.iter().filter(|_| desired.routes) {
        if seen.sysctls.contains_key(*path) && !is(path, value) {
            set((*path).to_owned(), value, "a coordinator may become the gateway of client networks");
        }
    }
    batch
}

fn way_out(desired: &Desired, seen: &HostNetwork) -> Batch {
    route(desired, seen).into_iter().collect()
}

fn route(desired: &Desired, seen: &HostNetwork) -> Option<(LinkChange, &'static str)> {
    let defaults = || seen.routes.iter().filter(|r| r.destination.is_none());
    let reaches = |link: &Link, via: IpAddr| link.addresses.iter().any(|a| a.cidr.contains(&via));
    let stale = defaults().filter(|r| r.ours).find_map(|r| {
        let via = r.gateway?;
        let reachable = seen.link(&r.device).is_some_and(|link| reaches(link, via));
        (!reachable || desired.gateway != Some(via)).then_some((via, r.device.clone()))
    });
    if let Some((via, device)) = stale {
        let change = LinkChange::RemoveDefaultRoute { via, device };
        return Some((change, "it was made by this program, and its gateway is out of reach now"));
    }
    let via = desired.gateway?;
    let home = seen.link(desired.home(&desired.upstream.device))?;
    let other = defaults().any(|r| r.gateway.is_none_or(|g| g.is_ipv4() == via.is_ipv4()));
    // Without an address there (`address: None`) only the primary reaches the gateway, by the floating address.
    if other || !reaches(home, via) {
        return None;
    }
    let change = LinkChange::AddDefaultRoute { via, device: home.name.clone() };
    Some((change, "the upstream network's gateway, and there is no other way out"))
}
