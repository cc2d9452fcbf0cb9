//! Client networks: what there is of them, and their definition, change and removal.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

pub mod acl;
pub mod dhcp;
pub mod explain;

use std::{collections::BTreeMap, fmt::Display};

use pvc_core::{
    command::network::{self as command, Ground, Own, Settings},
    model::{
        DomainDetails, Network, NetworkKind, NodeName, Overlay, Problem, VmId, Vni, network::DomainName,
    },
};
use pvc_store::schema::{
    network::{self, Seen},
    overlay,
};
use serde::Serialize;

use crate::{
    Answer, Cluster, Failure,
    write::{ATTEMPTS, Tries},
};

/// A network, with the words of the API.
#[derive(Debug, Serialize)]
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The addresses of one family.
#[derive(Debug, Serialize)]
pub struct Family {
    pub network: Option<String>,
    pub gateway: Option<String>,
    /// Whether DHCP is served.
    pub dhcp_flag: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_end: Option<String>,
}

/// A list of networks.
#[derive(Debug)]
pub struct NetworkList {
    /// By number.
    pub networks: Vec<NetworkRow>,
    /// Keys below `/networks` that are no networks.
    pub strays: Vec<Problem>,
}

/// One network, and who is in it.
#[derive(Debug, Serialize)]
pub struct NetworkInfo {
    #[serde(flatten)]
    pub network: NetworkRow,
    /// The device that its guests' network cards are connected to, in the definitions of VMs and on every node.
    pub bridge: String,
    /// By name.
    pub guests: Vec<Guest>,
}

/// A network card of a VM in a network.
#[derive(Debug, Serialize)]
pub struct Guest {
    pub name: String,
    pub uuid: VmId,
    /// As the definition says it; empty: it does not.
    pub mac: String,
    /// The node that is to run the VM; `None`: the VM is broken.
    pub node: Option<NodeName>,
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
    let (networks, mut strays) = network::read_all(&*cluster.store).await?;
    let matches =
        |n: &Network| wanted.is_none_or(|wanted| wanted(&n.description) || wanted(&n.vni.to_string()));
    if wanted.is_some() {
        strays.clear();
    }
    let networks = networks.values().map(|seen| &seen.network).filter(|n| matches(n)).map(NetworkRow::from);
    Ok(NetworkList { networks: networks.collect(), strays })
}

/// One network, by its number or description.
pub async fn info(cluster: &Cluster, reference: &str) -> Result<NetworkInfo, Failure> {
    let (_, all) = read(cluster).await?;
    let network = command::find(&all, reference)?;
    let guests = guests(cluster, network.vni).await?;
    Ok(NetworkInfo { network: network.into(), bridge: network.vni.bridge(), guests })
}

/// What carries frames between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

async fn read(cluster: &Cluster) -> Result<Networks, Failure> {
    let (seen, _) = network::read_all(&*cluster.store).await?;
    let networks = seen.iter().map(|(vni, seen)| (*vni, seen.network.clone())).collect();
    Ok((seen, networks))
}

/// The network cards that definitions connect to the network's bridge.
async fn guests(cluster: &Cluster, vni: Vni) -> Result<Vec<Guest>, Failure> {
    let vms = cluster.listing(false).await?.vms;
    let texts = cluster.definition_texts(&vms.iter().map(|listed| listed.id).collect::<Vec<_>>()).await?;
    let mut guests = Vec::new();
    for (vm, text) in vms.into_iter().zip(texts) {
        let details = text.ok().and_then(|xml| DomainDetails::parse(&xml).ok()).unwrap_or_default();
        let node = vm.entry.good().map(|vm| vm.node.value.clone());
        let cards = details.networks.into_iter().filter(|card| Vni::of_bridge(&card.source) == Some(vni));
        guests.extend(cards.map(|card| Guest {
            name: vm.name.clone(),
            uuid: vm.id,
            mac: card.mac,
            node: node.clone(),
        }));
    }
    Ok(guests)
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
