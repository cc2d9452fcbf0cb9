//! `pvc network …`: the networks that guests live in.

mod acl;
mod dhcp;
mod explain;

use pvc_core::{
    command::network::{Settings, overlay_in_words},
    model::NodeName,
    text::some,
};
use pvc_operate::{
    Cluster,
    network::{self as command, Family, NetworkInfo, NetworkList, NetworkRow},
};

use super::confirm::{self, Otherwise};
use crate::{
    args::{self, Network, NetworkSettings},
    connect,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs, printable, table},
    },
};

pub(super) async fn run(command: args::Network, cluster: &Cluster, out: &Out) -> Result<(), Failure> {
    match command {
        Network::Add { kind, settings, vni } => {
            let own = connect::own_networks();
            out.answer(&command::add(cluster, &vni, kind, &settings.into(), &own).await?)
        }
        Network::Modify { settings, network } => {
            let own = connect::own_networks();
            out.answer(&command::modify(cluster, &network, &settings.into(), &own).await?)
        }
        Network::Remove { yes, network } => {
            let question = format!("Remove network {network}, with its rules and what is leased in it?");
            if !yes && !confirm::ask(&question, Otherwise::Go)? {
                return Err(Failure::Unconfirmed(format!("network {network} was not removed")));
            }
            out.answer(&command::remove(cluster, &network).await?)
        }
        Network::Overlay { overlay: Some(overlay) } => {
            out.answer(&command::set_overlay(cluster, overlay).await?)
        }
        Network::Overlay { overlay: None } => {
            let shown = command::overlay(cluster).await?;
            if out.is_json() {
                return out.json(&shown);
            }
            out.write(&format!("{}\n", overlay_in_words(shown.overlay)))
        }
        Network::Info { long: _, network } => info(&command::info(cluster, &network).await?, out),
        Network::Explain { network } => explain::run(&network, cluster, out).await,
        Network::Acl(command) => acl::run(command, cluster, out).await,
        Network::Dhcp(command) => dhcp::run(command, cluster, out).await,
        Network::List { limit } => {
            let matches = |text: &str| limit.as_ref().is_none_or(|limit| limit.is_match(text));
            let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> =
                if limit.is_some() { Some(&matches) } else { None };
            list(&command::list(cluster, wanted).await?, out)
        }
    }
}

impl From<NetworkSettings> for Settings {
    fn from(args: NetworkSettings) -> Self {
        Self {
            description: args.description,
            domain: args.domain,
            ip4_network: args.ipnet,
            ip4_gateway: args.gateway,
            guard: (args.guards.guard || args.guards.no_guard).then_some(args.guards.guard),
            dhcp4: (args.dhcp || args.no_dhcp).then_some(args.dhcp),
            dhcp4_start: args.dhcp_start,
            dhcp4_end: args.dhcp_end,
            ip6_network: args.ipnet6,
            ip6_gateway: args.gateway6,
        }
    }
}

const HEADER: [&str; 8] = ["vni", "description", "type", "domain", "IPv4", "gateway", "IPv6", "gateway"];

fn list(networks: &NetworkList, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&networks.networks);
    }
    let rows: Vec<Vec<Cell>> = networks.networks.iter().map(row).collect();
    out.write(&table(&HEADER, &rows, out.colour()))?;
    let problems = networks.networks.iter().flat_map(|network| network.problems.iter().cloned());
    for problem in problems.chain(networks.strays.iter().map(ToString::to_string)) {
        out.write(&format!("? {}\n", printable(&problem)))?;
    }
    Ok(())
}

fn row(network: &NetworkRow) -> Vec<Cell> {
    let text = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
    vec![
        network.vni.to_string().into(),
        Cell::from(&network.description),
        kind(network),
        domain(network),
        text(&network.ip4.network),
        text(&network.ip4.gateway),
        text(&network.ip6.network),
        text(&network.ip6.gateway),
    ]
}

fn shown(nodes: &[NodeName]) -> String {
    some(&nodes.iter().map(NodeName::as_str).collect::<Vec<_>>())
}

fn kind(network: &NetworkRow) -> Cell {
    network.kind.map_or_else(|| Cell::state("?"), |kind| kind.to_string().into())
}

fn domain(network: &NetworkRow) -> Cell {
    network.domain.as_ref().map(|domain| domain.as_str().to_owned()).unwrap_or_default().into()
}

fn info(shown: &NetworkInfo, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(shown);
    }
    let network = &shown.network;
    let mut lines = vec![
        ("vni", Cell::from(network.vni.to_string())),
        ("description", Cell::from(&network.description)),
        ("type", kind(network)),
        ("bridge", Cell::from(&shown.bridge)),
        ("domain", domain(network)),
    ];
    for (name, family) in [("IPv4", &network.ip4), ("IPv6", &network.ip6)] {
        lines.push((name, addresses(family)));
    }
    lines.push(("guards", Cell::from(if network.guard { "on" } else { "off" })));
    for guest in &shown.guests {
        let mac = if guest.mac.is_empty() { "a card without an address" } else { &guest.mac };
        let node = guest.node.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        lines.push(("guest", Cell::from(format!("{}, {mac}, on {node}", guest.name))));
    }
    lines.extend(network.problems.iter().map(|problem| ("broken key", Cell::new(problem, Look::Bad))));
    out.write(&pairs(&lines, out.colour()))
}

fn addresses(family: &Family) -> Cell {
    let Some(network) = &family.network else { return "none".into() };
    let gateway = family.gateway.as_ref().map_or_else(|| "no gateway".into(), |g| format!("gateway {g}"));
    let dhcp = match (family.dhcp_flag, &family.dhcp_start, &family.dhcp_end) {
        (false, ..) => "no DHCP".to_owned(),
        (true, Some(start), Some(end)) => format!("DHCP from {start} to {end}"),
        (true, ..) => "DHCP".to_owned(),
    };
    format!("{network}, {gateway}, {dhcp}").into()
}
