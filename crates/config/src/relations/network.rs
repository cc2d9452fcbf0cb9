//! `cluster.networks`: addresses inside their networks, nobody's twice; networks apart from each other.

use std::net::Ipv4Addr;

use crate::{
    config::{Network, PerNetwork},
    diagnostic::{Diagnostic, Severity},
    net::{Ipv4Interface, Ipv4Net},
    read::{Draft, DraftNetwork, DraftPerNetwork},
    walk::{Found, Setting, Told, Walk},
};

/// Checks `cluster.networks`.
pub(super) fn networks(walk: &mut Walk<'_>, draft: &Draft) -> Result<Option<PerNetwork<Network>>, Told> {
    let Some(networks) = draft.networks.as_ref().map_err(|told| *told)? else { return Ok(None) };
    let mut checked = Vec::new();
    for (_, network) in networks.iter() {
        checked.push(match network {
            Ok(network) => one_network(walk, network),
            Err(told) => Err(*told),
        });
    }
    let overlap = refuse_overlaps(walk, networks);
    let mut checked = checked.into_iter();
    let mut next = || checked.next().unwrap_or(Err(Told));
    let (upstream, cluster, storage) = (next(), next(), next());
    overlap?;
    Ok(Some(PerNetwork { upstream: upstream?, cluster: cluster?, storage: storage? }))
}

fn one_network(walk: &mut Walk<'_>, draft: &DraftNetwork) -> Result<Network, Told> {
    let mut refused = Ok(());
    let mut refuse = |told| refused = Err(told);
    if let Ok(network) = &draft.network {
        if let Ok(Some(floating)) = &draft.floating_ip {
            match inside(walk, network.as_ref(), &floating.at, floating.value.address) {
                Ok(network) => warn_of_another_prefix(walk, network, &floating.at, floating.value),
                Err(told) => refuse(told),
            }
        }
        if let Ok(Some(gateway)) = &draft.gateway
            && let Err(told) = inside(walk, network.as_ref(), &gateway.at, gateway.value)
        {
            refuse(told);
        }
    }
    if let (Ok(Some(floating)), Ok(Some(gateway))) = (&draft.floating_ip, &draft.gateway)
        && floating.value.address == gateway.value
    {
        refuse(taken(walk, &floating.at, "the gateway", &gateway.at));
    }
    let domain = draft.domain.clone();
    let value = |told: &Told| *told;
    let network = draft.network.as_ref().map(|f| f.as_ref().map(|f| f.value)).map_err(value);
    let floating_ip = draft.floating_ip.as_ref().map(|f| f.as_ref().map(|f| f.value)).map_err(value);
    let gateway = draft.gateway.as_ref().map(|f| f.as_ref().map(|f| f.value)).map_err(value);
    refused?;
    Ok(Network { domain: domain?, network: network?, floating_ip: floating_ip?, gateway: gateway? })
}

fn refuse_overlaps(walk: &mut Walk<'_>, networks: &DraftPerNetwork<DraftNetwork>) -> Result<(), Told> {
    let known: Vec<&Found<Ipv4Net>> =
        networks.iter().filter_map(|(_, n)| n.as_ref().ok()?.network.as_ref().ok()?.as_ref()).collect();
    let mut result = Ok(());
    for (index, later) in known.iter().enumerate() {
        for earlier in known[..index].iter().filter(|earlier| earlier.value.overlaps(later.value)) {
            let problem = format!("overlaps {}", earlier.at.path);
            let help = format!("that one is {} (line {})", earlier.value, earlier.at.line());
            let allowed = "networks that have no address in common".to_owned();
            let diagnostic = Diagnostic {
                allowed: Some(allowed),
                help: vec![help],
                ..walk.about(Severity::Error, &later.at, problem)
            };
            result = Err(walk.tell(diagnostic));
        }
    }
    result
}

/// Refuses an address that no machine can have in the network.
pub(super) fn inside<'n>(
    walk: &mut Walk<'_>,
    network: Option<&'n Found<Ipv4Net>>,
    at: &Setting,
    address: Ipv4Addr,
) -> Result<&'n Found<Ipv4Net>, Told> {
    let Some(network) = network else {
        let help = "set the network's 'network' in cluster.networks".to_owned();
        let diagnostic =
            Diagnostic { help: vec![help], ..walk.about(Severity::Error, at, "has no network to lie in") };
        return Err(walk.tell(diagnostic));
    };
    let net = network.value;
    if net.is_host(address) {
        return Ok(network);
    }
    let problem = match address {
        _ if !net.contains(address) => "is outside its network",
        _ if address == net.address() => "is the network's own address",
        _ => "is the network's broadcast address",
    };
    let range = match (net.host(1), u32::try_from(net.hosts()).ok().and_then(|last| net.host(last))) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (first, _) => first.unwrap_or(net.address()).to_string(),
    };
    let diagnostic = Diagnostic {
        allowed: Some(format!(
            "{range}, the addresses of {} ({net}, line {})",
            network.at.path,
            network.at.line()
        )),
        ..walk.about(Severity::Error, at, problem)
    };
    Err(walk.tell(diagnostic))
}

pub(super) fn warn_of_another_prefix(
    walk: &mut Walk<'_>,
    network: &Found<Ipv4Net>,
    at: &Setting,
    value: Ipv4Interface,
) {
    if value.prefix == network.value.prefix() {
        return;
    }
    let problem = format!("has another prefix length than {}", network.at.path);
    let help = format!(
        "the network is {} (line {}): is /{} meant?",
        network.value,
        network.at.line(),
        network.value.prefix()
    );
    let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Warning, at, problem) };
    walk.tell(diagnostic);
}

fn taken(walk: &mut Walk<'_>, at: &Setting, whose: &str, other: &Setting) -> Told {
    let help =
        format!("{} in line {} has the same address; each address has one holder", other.path, other.line());
    let problem = format!("is the address of {whose}");
    let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Error, at, problem) };
    walk.tell(diagnostic)
}
