//! Client networks: what there is of them, and their definition, change and removal.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

pub mod acl;
pub mod dhcp;
pub mod explain;

use std::{collections::BTreeMap, fmt::Display};

use pvc_core::{
    command::network::{self as command, Ground, Own, Settings},
    model::{
        ClusterView, DomainDetails, Network, NetworkKind, Overlay, Problem, Vm, VmId, Vni,
        network::DomainName,
    },
};
use pvc_store::schema::{
    network::{self, Seen},
    overlay,
};
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Cluster, Failure,
    definitions::Definitions,
    watched::Figures,
    write::{ATTEMPTS, Tries},
};

/// A network, with the words of the API.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkRow {
    pub vni: Vni,
    pub description: String,
    /// `None`: it cannot be read.
    #[serde(rename = "type")]
    pub kind: Option<NetworkKind>,
    pub domain: Option<DomainName>,
    pub ip6: Family,
    pub ip4: Family,
    /// Whether guests' ports are guarded.
    pub guard: bool,
    /// Whether guests send from their own addresses only.
    pub filter: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The addresses of one family.
#[derive(Debug, Serialize, Deserialize)]
pub struct Family {
    pub network: Option<String>,
    pub gateway: Option<String>,
    /// Whether DHCP is served.
    pub dhcp_flag: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_end: Option<String>,
}

/// A list of networks.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkList {
    /// By number.
    pub networks: Vec<NetworkRow>,
    /// Keys below `/networks` that are no networks.
    pub strays: Vec<Problem>,
}

/// One network, and who is in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkInfo {
    #[serde(flatten)]
    pub network: NetworkRow,
    /// The device that its guests' network cards are connected to, in the definitions of VMs and on every node.
    pub bridge: String,
    /// By name.
    pub guests: Vec<Guest>,
}

/// A network card of a VM in a network.
#[derive(Debug, Serialize, Deserialize)]
pub struct Guest {
    pub name: String,
    pub uuid: VmId,
    /// As the definition says it; empty: it does not.
    pub mac: String,
    /// The node that is to run the VM; `None`: the VM is broken.
    pub node: Option<String>,
}

impl From<&Network> for NetworkRow {
    fn from(network: &Network) -> Self {
        let (ip4, ip6) = (network.ip4, network.ip6);
        Self {
            vni: network.vni,
            description: network.description.clone(),
            kind: network.kind,
            domain: network.domain.clone(),
            ip4: Family {
                network: text(ip4.network),
                gateway: text(ip4.gateway),
                dhcp_flag: ip4.dhcp.enabled,
                dhcp_start: text(ip4.dhcp.start),
                dhcp_end: text(ip4.dhcp.end),
            },
            ip6: Family {
                network: text(ip6.network),
                gateway: text(ip6.gateway),
                dhcp_flag: ip6.dhcp_enabled,
                dhcp_start: None,
                dhcp_end: None,
            },
            guard: network.is_guarded(),
            filter: network.is_filtered(),
            problems: network.problems.iter().map(ToString::to_string).collect(),
        }
    }
}

fn text(value: Option<impl Display>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// All networks whose number or description is wanted.
pub async fn list(
    cluster: &Cluster,
    wanted: Option<&(dyn Fn(&str) -> bool + Sync)>,
) -> Result<NetworkList, Failure> {
    let (networks, mut strays) = all(cluster).await?;
    let matches =
        |n: &Network| wanted.is_none_or(|wanted| wanted(&n.description) || wanted(&n.vni.to_string()));
    if wanted.is_some() {
        strays.clear();
    }
    let networks = networks.values().filter(|n| matches(n)).map(NetworkRow::from);
    Ok(NetworkList { networks: networks.collect(), strays })
}

/// One network, by its number or description.
pub async fn info(cluster: &Cluster, reference: &str) -> Result<NetworkInfo, Failure> {
    let (all, _) = all(cluster).await?;
    let network = command::find(&all, reference)?;
    let guests = guests(cluster, network.vni).await?;
    Ok(NetworkInfo { network: network.into(), bridge: network.vni.bridge(), guests })
}

/// What carries frames between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownOverlay {
    pub overlay: Overlay,
}

/// What carries frames between nodes in managed networks.
pub async fn overlay(cluster: &Cluster) -> Result<ShownOverlay, Failure> {
    let key = cluster.store.get(overlay::OVERLAY).await?;
    Ok(ShownOverlay { overlay: overlay::decode(key.as_ref()).0 })
}

/// Changes it, for all nodes.
pub async fn set_overlay(cluster: &Cluster, desired: Overlay) -> Result<Answer, Failure> {
    let accepted = command::overlay(self::overlay(cluster).await?.overlay, desired);
    if let Some(desired) = accepted.change {
        overlay::set(&*cluster.store, desired).await?;
    }
    Ok(Answer { message: command::overlay_in_words(desired).to_owned(), notes: accepted.notes })
}

/// Defines a network.
pub async fn add(
    cluster: &Cluster,
    vni: &str,
    kind: NetworkKind,
    settings: &Settings,
    own: &Own,
) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (_, all) = read(cluster).await?;
        let accepted = command::add(vni, kind, settings, Ground { networks: &all, own })?;
        let Some(network) = &accepted.change else { return Ok(Answer::default()) };
        if tries.wrote(cluster.store.commit(network::define(network)).await)? {
            let message = format!("network {vni} ({}) is added", network.description);
            return Ok(Answer { message, notes: accepted.notes });
        }
    }
}

/// Changes a network.
pub async fn modify(
    cluster: &Cluster,
    reference: &str,
    settings: &Settings,
    own: &Own,
) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (seen, all) = read(cluster).await?;
        let before = command::find(&all, reference)?;
        let accepted = command::modify(before, settings, Ground { networks: &all, own })?;
        let message = format!("network {} is changed", before.vni);
        let (Some(network), Some(seen)) = (&accepted.change, seen.get(&before.vni)) else {
            return Ok(Answer {
                message: format!("network {} stays as it is", before.vni),
                notes: accepted.notes,
            });
        };
        if tries.wrote(cluster.store.commit(network::modify(seen, network)).await)? {
            return Ok(Answer { message, notes: accepted.notes });
        }
    }
}

/// Removes a network with all that is below it, unless a VM has a card in it.
pub async fn remove(cluster: &Cluster, reference: &str) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (seen, all) = read(cluster).await?;
        let network = command::find(&all, reference)?;
        let guests = guests(cluster, network.vni).await?;
        let mut names: Vec<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
        names.dedup();
        command::remove(network, &names)?;
        let Some(seen) = seen.get(&network.vni) else { continue };
        if tries.wrote(network::remove(&*cluster.store, seen).await)? {
            return Ok(Answer::new(format!("network {} ({}) is removed", network.vni, network.description)));
        }
    }
}

type Networks = (BTreeMap<Vni, Seen>, BTreeMap<Vni, Network>);

/// All there are for who looks, and the keys that are none.
async fn all(cluster: &Cluster) -> Result<(BTreeMap<Vni, Network>, Vec<Problem>), Failure> {
    if let Some(view) = cluster.known(Figures::Any).await? {
        let is_below = |stray: &&Problem| stray.key.starts_with(&format!("{}/", network::ROOT));
        let networks = view.networks.iter().map(|(vni, network)| (*vni, (**network).clone())).collect();
        return Ok((networks, view.strays.iter().filter(is_below).cloned().collect()));
    }
    let (seen, strays) = network::read_all(&*cluster.store).await?;
    Ok((seen.into_iter().map(|(vni, seen)| (vni, seen.network)).collect(), strays))
}

async fn read(cluster: &Cluster) -> Result<Networks, Failure> {
    let (seen, _) = network::read_all(&*cluster.store).await?;
    let networks = seen.iter().map(|(vni, seen)| (*vni, seen.network.clone())).collect();
    Ok((seen, networks))
}

/// The network cards that definitions connect to the network's bridge.
async fn guests(cluster: &Cluster, vni: Vni) -> Result<Vec<Guest>, Failure> {
    if let (Some(known), Some(view)) = (cluster.definitions_known(), cluster.known(Figures::Any).await?) {
        return guests_known(cluster, known, &view, vni).await;
    }
    let vms = cluster.listing(false).await?.vms;
    let texts = cluster.definition_texts(&vms.iter().map(|listed| listed.id).collect::<Vec<_>>()).await?;
    let mut guests = Vec::new();
    for (vm, text) in vms.into_iter().zip(texts) {
        let node = vm.entry.good().map(|vm| vm.node.value.to_string());
        guests.extend(cards(text, vni).map(|mac| Guest {
            name: vm.name.clone(),
            uuid: vm.id,
            mac,
            node: node.clone(),
        }));
    }
    Ok(guests)
}

/// The same of a cluster that is watched.
async fn guests_known(
    cluster: &Cluster,
    known: &Definitions,
    view: &ClusterView,
    vni: Vni,
) -> Result<Vec<Guest>, Failure> {
    let vms: Vec<Option<&Vm>> = view.good_vms().map(Some).collect();
    let mut guests = Vec::new();
    for (vm, said) in view.good_vms().zip(known.of(&*cluster.store, &vms, false).await?) {
        let digest = said.digest.ok_or_else(Failure::unwatched)?;
        let cards = digest.cards.iter().filter(|(network, _)| *network == vni);
        guests.extend(cards.map(|(_, mac)| Guest {
            name: vm.name.to_string(),
            uuid: vm.id,
            mac: mac.to_string(),
            node: Some(vm.node.value.to_string()),
        }));
    }
    // Of those that are not in order, each definition is read: they are few.
    let broken = view.vms.iter().filter(|(_, entry)| entry.good().is_none());
    let ids: Vec<VmId> = broken.map(|(id, _)| *id).collect();
    for (uuid, text) in ids.iter().zip(cluster.definition_texts(&ids).await?) {
        let cards = cards(text, vni).map(|mac| Guest { name: String::new(), uuid: *uuid, mac, node: None });
        guests.extend(cards);
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name).then(a.uuid.cmp(&b.uuid)));
    Ok(guests)
}

/// The addresses of the cards that a definition connects to the network's bridge.
fn cards(text: Result<String, String>, vni: Vni) -> impl Iterator<Item = String> {
    let details = text.ok().and_then(|xml| DomainDetails::parse(&xml).ok()).unwrap_or_default();
    let is_in = move |source: &str| Vni::of_bridge(source) == Some(vni);
    details.networks.into_iter().filter(move |card| is_in(&card.source)).map(|card| card.mac)
}

#[cfg(test)]
mod tests {
    use pvc_store::{Op, Transaction, schema::vm};

    use super::*;
    use crate::testing::{Fake, id};

    fn settings(description: &str, ip4_network: &str) -> Settings {
        Settings {
            description: Some(description.into()),
            ip4_network: Some(ip4_network.into()),
            ..Settings::default()
        }
    }

    #[tokio::test]
    async fn a_network_is_added_shown_changed_and_removed() {
        let cluster = Fake::with(&[]).await.cluster;
        let own = [("cluster", "10.255.1.0/24".parse().unwrap())];
        let add =
            async |vni, net| add(&cluster, vni, NetworkKind::Managed, &settings("web", net), &own).await;
        let refusal = add("100", "10.255.1.0/25").await.unwrap_err().to_string();
        assert!(refusal.contains("the cluster's own cluster network"), "{refusal}");
        assert_eq!(add("100", "10.1.0.0/24").await.unwrap().message, "network 100 (web) is added");
        assert!(add("100", "10.2.0.0/24").await.is_err(), "it is there");
        assert!(add("101", "10.1.0.0/16").await.is_err(), "they would overlap");
        let shown = info(&cluster, "web").await.unwrap();
        assert_eq!((shown.network.vni.number(), shown.bridge.as_str()), (100, "vmbr100"));
        modify(&cluster, "web", &settings("www", "10.3.0.0/24"), &own).await.unwrap();
        let listed = list(&cluster, Some(&|text: &str| text == "www")).await.unwrap().networks;
        assert_eq!(listed[0].ip4.network.as_deref(), Some("10.3.0.0/24"));
        remove(&cluster, "100").await.unwrap();
        assert_eq!(list(&cluster, None).await.unwrap().networks.len(), 0);
        assert!(remove(&cluster, "100").await.is_err());
    }

    #[tokio::test]
    async fn the_overlay_is_shown_and_changed_and_what_nobody_understands_is_the_default() {
        let cluster = Fake::with(&[]).await.cluster;
        let shown = async || overlay(&cluster).await.unwrap().overlay;
        assert_eq!(shown().await, Overlay::Declared);
        set_overlay(&cluster, Overlay::Flood).await.unwrap();
        assert_eq!(shown().await, Overlay::Flood);
        let again = set_overlay(&cluster, Overlay::Flood).await.unwrap();
        assert_eq!(again.notes, ["the overlay is flood already"]);
        let mut txn = Transaction::default();
        txn.ops.push(Op::Set { path: overlay::OVERLAY.into(), data: "evpn?".into(), version: None });
        cluster.store.commit(txn).await.unwrap();
        assert_eq!(shown().await, Overlay::Declared);
        set_overlay(&cluster, Overlay::Flood).await.unwrap();
        assert_eq!(shown().await, Overlay::Flood);
    }

    #[tokio::test]
    async fn a_network_with_a_vms_card_in_it_is_not_removed() {
        let fake = Fake::with(&["hv1"]).await;
        add(&fake.cluster, "100", NetworkKind::Managed, &settings("web", "10.1.0.0/24"), &[]).await.unwrap();
        fake.define(1, "web1", "hv1").await;
        let card = "<domain><devices><interface type='bridge'><source bridge='vmbr100'/></interface></devices></domain>";
        let mut txn = Transaction::default();
        txn.ops.push(Op::Set { path: vm::xml_path(id(1)), data: card.into(), version: None });
        fake.cluster.store.commit(txn).await.unwrap();
        let refusal = remove(&fake.cluster, "100").await.unwrap_err().to_string();
        assert!(refusal.contains("web1"), "{refusal}");
        assert_eq!(info(&fake.cluster, "100").await.unwrap().guests[0].uuid, id(1));
    }
}
