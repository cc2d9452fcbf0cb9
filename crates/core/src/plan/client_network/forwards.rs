//! Where a tunnel sends frames: to every node that has tunnels, whatever the overlay is, and what is known better.
//!
//! If that is declared, a guest's card is in its VM's definition, and its node in the VM's claim. What no definition names (broadcast,
//! multicast, the cards of guests inside guests) still goes to every node. If frames are flooded, tunnels learn the
//! rest by themselves; a routing daemon writes it itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Cards;
use crate::model::{ClusterView, Mac, NodeName, Overlay, Vm, Vni, bridging::Forward};

/// The entries that this node writes into its tunnels.
pub(super) fn forwards(
    me: &NodeName,
    local: IpAddr,
    view: &ClusterView,
    cards: &Cards,
    tunnels: &BTreeMap<Vni, String>,
    by: Option<u32>,
) -> BTreeSet<Forward> {
    let ends: BTreeMap<&NodeName, IpAddr> = view
        .all_nodes()
        .filter(|node| node.name != *me)
        .filter_map(|node| Some((&node.name, node.vtep?)))
        .filter(|(_, end)| *end != local && end.is_ipv4() == local.is_ipv4())
        .collect();
    let nodes: BTreeSet<IpAddr> = ends.values().copied().collect();
    let mut entries = BTreeSet::new();
    for device in tunnels.values() {
        entries.extend(nodes.iter().map(|to| Forward { device: device.clone(), mac: None, to: *to, by }));
    }
    if view.overlay != Overlay::Declared {
        return entries;
    }
    for ((vni, mac), place) in places(view, cards) {
        if let (Some(device), Place::At(node)) = (tunnels.get(&vni), place)
            && let Some(to) = ends.get(node)
        {
            entries.insert(Forward { device: device.clone(), mac: Some(mac), to: *to, by });
        }
    }
    entries
}

/// The cards of the guests that are with this node. No entry of a tunnel is for them.
pub(super) fn cards_here(me: &NodeName, view: &ClusterView, cards: &Cards) -> BTreeSet<(Vni, Mac)> {
    places(view, cards)
        .into_iter()
        .filter(|(_, place)| *place == Place::At(me))
        .map(|(card, _)| card)
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// All of its guests' VMs are with this node.
    At(&'a NodeName),
    /// Two VMs have it, and they are not together: it is looked for everywhere.
    Several,
}

fn places<'a>(view: &'a ClusterView, cards: &Cards) -> BTreeMap<(Vni, Mac), Place<'a>> {
    let mut places = BTreeMap::new();
    for (id, cards) in cards {
        let Some(node) = view.vm(*id).and_then(place) else { continue };
        for card in cards {
            let place = places.entry((card.vni, card.mac)).or_insert(Place::At(node));
            if *place != Place::At(node) {
                *place = Place::Several;
            }
        }
    }
    places
}

/// Where a VM executes. Of several claimants that is the first, until the migration's end names the other alone: it arrives there paused.
fn place(vm: &Vm) -> Option<&NodeName> {
    vm.claim.value.iter().next()
}
