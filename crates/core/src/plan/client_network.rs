//! The client networks on this node: their bridges, what connects these to the other nodes, and where frames for guests elsewhere go.
//!
//! ```text
//!   managed                                        bridged
//!   guests ─► vmbr<vni> ◄─ vxlan<vni> ─► nodes     guests ─► vmbr<id> ◄─ vlan<id> ◄─ the cluster network's device, tagged
//! ```
//!
//! All of it is one set, which is changed in one batch. Never touches a device that this program did not make, but for using one of the
//! right name and kind; never takes away a bridge that has a guest, whoever has deleted its network.

mod forwards;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use self::forwards::{cards_here, forwards};
use super::Diff;
use crate::{
    model::{
        ClusterView, Mac, Network, NetworkKind, NodeName, Overlay, Trouble, VmId, Vni,
        bridging::{Bridging, BridgingChange, Device, DeviceKind, Forward},
        link::CLUSTER_BRIDGE,
    },
    sabotage::{self, Bug},
};

/// This node's side of the client networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// This node.
    pub me: NodeName,
    /// The cluster network's device, whose frames bridged networks tag.
    pub uplink: String,
    /// Its MTU.
    pub mtu: u32,
    /// This node's own address in the cluster network; `None`: it has none, and no tunnel ends here.
    pub address: Option<IpAddr>,
}

/// A guest's network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    /// Its address.
    pub mac: Mac,
    /// The network that it is in.
    pub vni: Vni,
}

/// The cards that definitions name, by VM.
pub type Cards = BTreeMap<VmId, Vec<Card>>;

const TAKE_ANOTHER: &str =
    "give the card another address in the VM's definition; those that begin with 52:54:00 are libvirt's";

/// Changes, each with its reason, in the order in which they are made. None needs another's success.
pub type Batch = Vec<(BridgingChange, &'static str)>;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// The changes that make it as desired.
    pub batch: Batch,
    /// What cannot be as desired, until somebody changes something.
    pub troubles: Vec<Trouble>,
}

/// What a device is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    kind: DeviceKind,
    mtu: u32,
    master: Option<String>,
    learns: bool,
    /// `None`: any.
    mac: Option<Mac>,
}

/// Decides the next batch.
pub fn plan(ground: &Ground, view: &ClusterView, cards: &Cards, seen: &Bridging) -> Planned {
    let mut planned = Planned::default();
    let mut wanted = BTreeMap::new();
    for network in view.networks.values() {
        match devices(ground, view.overlay, network) {
            Ok(devices) => wanted.extend(devices),
            Err((why, todo)) => planned.troubles.push(Trouble::of(network.vni, why).with_todo(todo)),
        }
    }
    let usable = |name: &str, wanted: &Wanted| {
        seen.device(name).is_none_or(|device| device.ours || device.kind == wanted.kind)
    };
    for name in wanted.iter().filter(|(name, wanted)| !usable(name, wanted)).map(|(name, _)| name) {
        let what = format!(
            "a device called {name} exists, is not what it should be, and was not made by this program"
        );
        let trouble = Trouble { network: network_of(name), ..Trouble::of_all(what) };
        planned
            .troubles
            .push(trouble.with_todo(format!("on that node, once nobody needs it: ip link delete {name}")));
    }
    wanted.retain(|name, wanted| usable(name, wanted));

    for device in seen.devices.iter().filter(|device| device.ours) {
        match wanted.get(&device.name) {
            Some(wanted) if wanted.kind == device.kind => {}
            Some(_) => planned.remove(device, "its settings are not those of its network"),
            None if stays(device, view, seen) => {}
            None => planned.remove(device, "there is no such network, and no guest in it"),
        }
    }
    // Bridges first: the others become ports of them.
    let (bridges, ports): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, wanted)| wanted.master.is_none());
    for (name, wanted) in bridges.into_iter().chain(ports) {
        planned.make(name, wanted, seen.device(name));
    }
    for (vm, cards) in cards {
        for Card { mac, vni } in cards.iter().filter(|card| card.mac.is_a_gateways()) {
            let what =
                format!("nothing that VM {vm} sends is taken: its card's address {mac} is a gateway's");
            planned.troubles.push(Trouble::of(*vni, what).with_todo(TAKE_ANOTHER));
        }
    }
    planned.forward(ground, view, cards, seen, &wanted);
    planned
}

/// Why something cannot be, and what would do.
type Refused = (&'static str, &'static str);

/// The devices of a network, by name.
fn devices(ground: &Ground, overlay: Overlay, network: &Network) -> Result<Vec<(String, Wanted)>, Refused> {
    let vni = network.vni;
    let (name, kind, mtu) = match network.kind {
        None => return Ok(Vec::new()),
        Some(NetworkKind::Managed) => {
            let local = ground.address.ok_or((
                "the node has no address of its own in the cluster network, so frames for its guests cannot be sent to it",
                "set system.configuration.networking.cluster.address in its pvcd.yaml",
            ))?;
            (tunnel(vni), DeviceKind::Vxlan { vni, local }, guest_mtu(ground.mtu, local))
        }
        Some(NetworkKind::Bridged) => {
            let id = vni.vlan().ok_or((
                "it is bridged, and a VLAN's number is at most 4094",
                "remove it, and add it with such a number",
            ))?;
            (format!("vlan{vni}"), DeviceKind::Vlan { id, over: ground.uplink.clone() }, ground.mtu)
        }
    };
    let mac = match kind {
        DeviceKind::Vxlan { local, .. } => Some(Mac::of_gateway(local)),
        _ => None,
    };
    let learns = overlay == Overlay::Flood && matches!(kind, DeviceKind::Vxlan { .. });
    let bridge = Wanted { kind: DeviceKind::Bridge, mtu, master: None, learns: false, mac };
    let way_out = Wanted { kind, mtu, master: Some(vni.bridge()), learns, mac: None };
    Ok(vec![(vni.bridge(), bridge), (name, way_out)])
}

fn tunnel(vni: Vni) -> String {
    format!("vxlan{vni}")
}

/// What is left for guests' packets: an outer Ethernet header is no part of the MTU, the inner one is, and the headers of IP, UDP and VXLAN.
pub fn guest_mtu(mtu: u32, local: IpAddr) -> u32 {
    let ip = if local.is_ipv4() { 20 } else { 40 };
    mtu.saturating_sub(14 + ip + 8 + 8)
}

/// The network that one of our devices belongs to, by its name.
pub fn network_of(device: &str) -> Option<Vni> {
    let numbered = |prefix| device.strip_prefix(prefix)?.parse().ok();
    Vni::of_bridge(device).or_else(|| numbered("vxlan")).or_else(|| numbered("vlan"))
}

/// Whether a device that no network asks for stays: the network cannot be read, or a guest is in it.
fn stays(device: &Device, view: &ClusterView, seen: &Bridging) -> bool {
    let Some(vni) = network_of(&device.name) else { return true };
    match view.networks.get(&vni) {
        Some(network) if network.kind.is_none() => return true,
        // It has become one of another type: its bridge is still asked for.
        Some(_) => return false,
        None => {}
    }
    let bridge = vni.bridge();
    let is_ours = |port: &Device| port.ours && network_of(&port.name) == Some(vni);
    seen.devices.iter().any(|port| port.master.as_deref() == Some(bridge.as_str()) && !is_ours(port))
}

impl Planned {
    fn remove(&mut self, device: &Device, why: &'static str) {
        self.batch.push((BridgingChange::Remove { name: device.name.clone() }, why));
    }

    fn make(&mut self, name: &str, wanted: &Wanted, seen: Option<&Device>) {
        let Wanted { kind, mtu, master, learns, mac } = wanted.clone();
        let (name, seen) = (name.to_owned(), seen.filter(|device| device.kind == kind));
        let change = match seen {
            None => Some((BridgingChange::Add { name: name.clone(), kind, mtu, master }, "a client network")),
            Some(device) if device.mtu != mtu || !device.up || device.master != master => {
                Some((BridgingChange::Set { name: name.clone(), mtu, master }, "as its network is"))
            }
            Some(_) => None,
        };
        self.batch.extend(change);
        if let Some(mac) = mac.filter(|mac| seen.is_none_or(|device| device.ours && device.mac != *mac)) {
            let why = "no guest may send from its address, and clients know their gateway by it";
            self.batch.push((BridgingChange::Address { name: name.clone(), mac }, why));
        }
        if seen.is_some_and(|device| device.learns) != learns {
            self.batch.push((BridgingChange::Learn { name, learns }, "as the cluster's overlay is"));
        }
    }

    fn forward(
        &mut self,
        ground: &Ground,
        view: &ClusterView,
        cards: &Cards,
        seen: &Bridging,
        wanted: &BTreeMap<String, Wanted>,
    ) {
        let Some(local) = ground.address else { return };
        let removed: BTreeSet<&str> = self.batch.iter().filter_map(|(change, _)| removed(change)).collect();
        let kept = seen.devices.iter().filter_map(|device| match device.kind {
            DeviceKind::Vxlan { vni, .. } if device.ours && !removed.contains(device.name.as_str()) => {
                Some(vni)
            }
            _ => None,
        });
        let asked = wanted.values().filter_map(|wanted| match wanted.kind {
            DeviceKind::Vxlan { vni, .. } => Some(vni),
            _ => None,
        });
        let tunnels: BTreeMap<Vni, String> = kept.chain(asked).map(|vni| (vni, tunnel(vni))).collect();
        let there =
            seen.forwards.iter().filter(|forward| tunnels.values().any(|name| *name == forward.device));
        // What is made anew begins without entries.
        let stays = |forward: &&Forward| !removed.contains(forward.device.as_str());
        let there = there.filter(stays).cloned();
        // A routing daemon takes away what it finds under a name that it would have given itself, and it names no device.
        let by = seen.device(CLUSTER_BRIDGE).map(|bridge| bridge.index);
        if by.is_none() && view.overlay == Overlay::Evpn && !tunnels.is_empty() {
            let what = format!(
                "there is no device {CLUSTER_BRIDGE}: when FRR on another node ends, frames for that node's guests may be lost"
            );
            self.troubles.push(Trouble::of_all(what));
        }
        let desired = forwards(&ground.me, local, view, cards, &tunnels, by);
        let mut diff = Diff::between(desired, there);
        if sabotage::commits(Bug::KeepForwards) {
            diff.remove.retain(|forward| forward.mac.is_none());
        }
        let foreign = [(Overlay::Flood, &seen.learnt), (Overlay::Evpn, &seen.routed)];
        for (_, entries) in foreign.into_iter().filter(|(overlay, _)| *overlay != view.overlay) {
            let ours = entries.iter().filter(|f| tunnels.values().any(|name| *name == f.device));
            diff.remove.extend(ours.filter(stays).cloned());
        }
        // A routing daemon leaves an entry behind for a guest that has come here before its old node said that it is gone.
        let here = cards_here(&ground.me, view, cards);
        let is_here = |forward: &&Forward| {
            let vni = tunnels.iter().find(|(_, name)| **name == forward.device).map(|(vni, _)| *vni);
            vni.zip(forward.mac).is_some_and(|card| here.contains(&card))
        };
        if view.overlay == Overlay::Evpn {
            diff.remove.extend(seen.routed.iter().filter(is_here).filter(stays).cloned());
        }
        // A card's new entry takes the place of the old one.
        let replaced: BTreeSet<(&str, Option<Mac>)> =
            diff.add.iter().filter(|f| f.mac.is_some()).map(|f| (f.device.as_str(), f.mac)).collect();
        let gone = diff.remove.iter().filter(|f| !replaced.contains(&(f.device.as_str(), f.mac)));
        let gone: Batch =
            gone.map(|f| (BridgingChange::Unforward(f.clone()), "nobody is there for whom it was")).collect();
        let added = diff
            .add
            .iter()
            .map(|f| (BridgingChange::Forward(f.clone()), "its guest, or the network, is there"));
        let added: Batch = added.collect();
        self.batch.extend(added);
        self.batch.extend(gone);
    }
}

fn removed(change: &BridgingChange) -> Option<&str> {
    match change {
        BridgingChange::Remove { name } => Some(name),
        _ => None,
    }
}
