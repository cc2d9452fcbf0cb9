//! How each port of a bridge is treated, and from what the guest behind it may send.
//!
//! libvirt gives a guest's device the address of the guest's card, with another first byte. That tells whose port it is, from the moment at which there is
//! one, without asking anybody.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv6Net;

use super::{Known, Port, Sender};
use crate::model::{
    ClusterView, LINK_LOCAL, Mac, Network, Trouble, Vni,
    bridging::{Bridging, Device, DeviceKind},
};

/// What the names of guests' devices begin with, unless a definition says another.
const GUESTS: &str = "vnet";

/// Ports whose treatment is not that of a port that nobody knows yet; all guests' if `all`.
pub(super) fn ports(
    view: &ClusterView,
    seen: &Bridging,
    known: &Known,
    all: bool,
) -> (BTreeMap<String, Port>, Vec<Trouble>) {
    let (mut ports, mut troubles) = (BTreeMap::new(), Vec::new());
    for device in &seen.devices {
        // On its way to a bridge, which may be a filtered network's.
        let Some(master) = device.master.as_deref() else { continue };
        let Some(vni) = Vni::of_bridge(master) else {
            if all && device.name.starts_with(GUESTS) {
                ports.insert(device.name.clone(), Port::Guarded);
            }
            continue;
        };
        let is_way_out = matches!(device.kind, DeviceKind::Vxlan { .. } | DeviceKind::Vlan { .. });
        let network = view.networks.get(&vni);
        let port = match network {
            _ if is_way_out => Port::Open,
            Some(network) if network.is_filtered() => {
                let sender = sender(network, device, known);
                if let Some(net) = network.ip6.network.filter(|_| sender.ip6.is_none()) {
                    let what = format!(
                        "its IPv6 network {net} is left out of the filter, since it overlaps {LINK_LOCAL}: guests send from addresses of {LINK_LOCAL} only"
                    );
                    let todo = format!("give it another: `pvc network modify {vni}`");
                    troubles.push(Trouble::of(vni, what).with_todo(todo));
                }
                if sender.cards.is_empty() {
                    let what = format!(
                        "nothing that the guest at port {} sends is taken: no definition has a card whose address ends in {}",
                        device.name,
                        end(device.mac)
                    );
                    let todo = format!(
                        "give its card an address in the VM's definition, and start the VM anew; or `pvc network modify --no-filter {vni}`"
                    );
                    troubles.push(Trouble::of(vni, what).with_todo(todo));
                }
                Port::Filtered(sender)
            }
            Some(network) if !network.is_guarded() => Port::Open,
            _ => Port::Guarded,
        };
        ports.insert(device.name.clone(), port);
    }
    (ports, troubles)
}

fn sender(network: &Network, device: &Device, known: &Known) -> Sender {
    let all = known.cards.values().flatten().filter(|card| card.vni == network.vni);
    let cards: BTreeSet<Mac> =
        all.map(|card| card.mac).filter(|mac| mac.0[1..] == device.mac.0[1..]).collect();
    let senders = known.senders.get(&network.vni);
    let given = |card: &Mac| senders.and_then(|senders| senders.get(card)).into_iter().flatten().copied();
    let ip4 = cards.iter().flat_map(|card| given(card).map(|address| (*card, address))).collect();
    // What overlaps the addresses that all have cannot stand beside them.
    let overlaps = |net: &Ipv6Net| net.contains(&LINK_LOCAL) || LINK_LOCAL.contains(net);
    Sender { cards, ip4, ip6: network.ip6.network.filter(|net| !overlaps(&net.trunc())) }
}

/// All but the first byte.
fn end(mac: Mac) -> String {
    mac.to_string().split_once(':').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}
