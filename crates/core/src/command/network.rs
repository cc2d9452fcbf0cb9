//! Commands on client networks: definition, change, removal. Each setting is read once here, for the command line and the API alike.

pub mod acl;
mod check;
pub mod dhcp;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ipnet::IpNet;

pub use self::settings::Settings;
use super::{Accepted, Refusal};
use crate::{
    model::{Network, NetworkKind, Overlay, Vni},
    text::some,
};

/// The cluster's own networks, by name.
pub type Own = [(&'static str, IpNet)];

/// What else there is, for what a network must not be.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// All networks.
    pub networks: &'a BTreeMap<Vni, Network>,
    /// The cluster's own networks, by name, as far as they are known where the command is given.
    pub own: &'a Own,
}

/// The network that `reference`, a number or a description, means.
pub fn find<'a>(networks: &'a BTreeMap<Vni, Network>, reference: &str) -> Result<&'a Network, Refusal> {
    if let Some(network) = reference.parse().ok().and_then(|vni: Vni| networks.get(&vni)) {
        return Ok(network);
    }
    let called: Vec<&Network> = networks.values().filter(|n| n.description == reference).collect();
    match called[..] {
        [network] => Ok(network),
        [] => Err(Refusal::not_found(
            format!("there is no network {reference:?}"),
            "no network has this number or description",
            "`pvc network list` shows all networks",
        )),
        _ => Err(Refusal::refused(
            format!("{reference:?} is ambiguous"),
            format!("{} networks are called so", called.len()),
            format!(
                "use a number: {}",
                called.iter().map(|n| n.vni.to_string()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// What an overlay does, in the words of every place that shows it.
pub fn overlay_in_words(overlay: Overlay) -> &'static str {
    match overlay {
        Overlay::Declared => {
            "declared: each node sends a guest's frames to the node whose claim its VM has; tunnels learn nothing"
        }
        Overlay::Flood => {
            "flood: each node sends frames to every node until its tunnel has learnt where their network card is"
        }
        Overlay::Evpn => {
            "evpn: the nodes' FRR tells each other where network cards are; frames for others go to every node"
        }
    }
}

/// Changes the overlay of the cluster.
pub fn overlay(now: Overlay, desired: Overlay) -> Accepted<Overlay> {
    if now == desired {
        return Accepted::already(format!("the overlay is {now} already"));
    }
    Accepted::write(desired, Vec::new())
}

/// Defines a network.
pub fn add(
    vni: &str,
    kind: NetworkKind,
    settings: &Settings,
    ground: Ground<'_>,
) -> Result<Accepted<Network>, Refusal> {
    let what = || format!("network {vni} was not added");
    let refuse = |why: String, todo: &str| Refusal::refused(what(), why, todo);
    let number: Vni =
        vni.parse().map_err(|e: crate::model::NameError| refuse(e.to_string(), "choose such a number"))?;
    if let Some(there) = ground.networks.get(&number) {
        let why = format!("there is one with this number: {:?}", there.description);
        return Err(refuse(why, "choose another number, or change it by `pvc network modify`"));
    }
    let mut network = Network { kind: Some(kind), ..Network::bare(number) };
    settings.apply(&mut network, &what())?;
    settings.complete(&mut network);
    check::check(&network, ground).map_err(|(why, todo)| refuse(why, &todo))?;
    Ok(Accepted::write(network, None))
}

/// Changes a network; its type and its number stay.
pub fn modify(
    before: &Network,
    settings: &Settings,
    ground: Ground<'_>,
) -> Result<Accepted<Network>, Refusal> {
    let what = format!("network {} was not changed", before.vni);
    if *settings == Settings::default() {
        return Err(Refusal::refused(
            what,
            "nothing is to be changed",
            "name a setting: see `pvc network modify --help`",
        ));
    }
    let mut network = before.clone();
    settings.apply(&mut network, &what)?;
    // What cannot be read stays as it is until somebody says what it shall be.
    check::check(&network, ground).map_err(|(why, todo)| Refusal::refused(what, why, todo))?;
    if network == *before {
        return Ok(Accepted::already(format!("network {} is so already", network.vni)));
    }
    Ok(Accepted::write(network, None))
}

/// Whether a network can be removed; `guests` are the names of the VMs with a card in it.
pub fn remove(network: &Network, guests: &[&str]) -> Result<(), Refusal> {
    if guests.is_empty() {
        return Ok(());
    }
    let cards = if guests.len() == 1 { "a VM has" } else { "VMs have" };
    Err(Refusal::refused(
        format!("network {} was not removed", network.vni),
        format!("{cards} a network card in it: {}", some(guests)),
        format!("take {} out of the definitions of these VMs first", network.vni.bridge()),
    ))
}
