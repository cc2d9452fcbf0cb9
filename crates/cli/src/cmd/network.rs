//! `pvc network …`: the networks that guests live in.

mod acl;
mod dhcp;
mod explain;

use pvc_core::{
    command::network::{Settings, overlay_in_words},
    model::NodeName,
    text::some,
};
use pvc_operate::network::{Family, NetworkInfo, NetworkList, NetworkRow};

use super::confirm::{self, Otherwise};
use crate::{
    args::{self, Network, NetworkSettings},
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs, printable, table},
    },
};

pub(super) async fn run(command: args::Network, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Network::Add { kind, settings, vni } => {
            out.answer(&door.add_network(&vni, kind, settings.into()).await?)
        }
        Network::Modify { settings, network } => {
            out.answer(&door.modify_network(&network, settings.into()).await?)
        }
        Network::Remove { yes, network } => {
            let question = format!("Remove network {network}, with its rules and what is leased in it?");
            if !yes && !confirm::ask(&question, Otherwise::Go)? {
                return Err(Failure::Unconfirmed(format!("network {network} was not removed")));
            }
            out.answer(&door.remove_network(&network).await?)
        }
        Network::Overlay { overlay: Some(overlay) } => out.answer(&door.set_overlay(overlay).await?),
        Network::Overlay { overlay: None } => {
            let shown = door.overlay().await?;
            if out.is_json() {
                return out.json(&shown);
            }
            out.write(&format!("{}\n", overlay_in_words(shown.overlay)))
        }
        Network::Info { long: _, network } => info(&door.network(&network).await?, out),
        Network::Explain { network } => explain::run(&network, door, out).await,
        Network::Acl(command) => acl::run(command, door, out).await,
        Network::Dhcp(command) => dhcp::run(command, door, out).await,
        Network::List { limit } => list(&door.networks(limit.as_ref()).await?, out),
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
            filter: (args.filters.filter || args.filters.no_filter).then_some(args.filters.filter),
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
    let filter = if network.filter { "on: guests send from their own addresses only" } else { "off" };
    lines.push(("filter", filter.into()));
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
