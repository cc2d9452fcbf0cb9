//! `cluster.networks`: addresses inside their networks, nobody's twice; networks apart from each other.

use crate::{
    config::{Network, PerNetwork},
    diagnostic::{Diagnostic, Severity},
    net::Family,
    read::{Draft, DraftNetwork, DraftPerNetwork},
    walk::{Found, ReadOptional, Setting, Told, Walk},
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
    let overlap = refuse_overlaps(walk, networks, |n| &n.network);
    let overlap6 = refuse_overlaps(walk, networks, |n| &n.network6);
    let mut checked = checked.into_iter();
    let mut next = || checked.next().unwrap_or(Err(Told));
    let (upstream, cluster, storage) = (next(), next(), next());
    overlap.and(overlap6)?;
    Ok(Some(PerNetwork { upstream: upstream?, cluster: cluster?, storage: storage? }))
}

fn one_network(walk: &mut Walk<'_>, draft: &DraftNetwork) -> Result<Network, Told> {
    let mut refused = floating(walk, "network", &draft.network, &draft.floating_ip);
    if let Err(told) = floating(walk, "network6", &draft.network6, &draft.floating_ip6) {
        refused = Err(told);
    }
    if let (Ok(network), Ok(Some(gateway))) = (&draft.network, &draft.gateway)
        && let Err(told) = inside(walk, ("network", network.as_ref()), &gateway.at, gateway.value)
    {
        refused = Err(told);
    }
    if let (Ok(Some(floating)), Ok(Some(gateway))) = (&draft.floating_ip, &draft.gateway)
        && floating.value.addr() == gateway.value
    {
        refused = Err(taken(walk, &floating.at, "the gateway", &gateway.at));
    }
    refused?;
    Ok(Network {
        domain: draft.domain.clone()?,
        network: value(&draft.network)?,
        floating_ip: value(&draft.floating_ip)?,
        gateway: value(&draft.gateway)?,
        network6: value(&draft.network6)?,
        floating_ip6: value(&draft.floating_ip6)?,
    })
}

fn value<T: Copy>(read: &ReadOptional<T>) -> Result<Option<T>, Told> {
    read.as_ref().map(|found| found.as_ref().map(|f| f.value)).map_err(|told| *told)
}

/// A floating address lies in its family's network, which the setting `name` gives.
fn floating<N: Family>(
    walk: &mut Walk<'_>,
    name: &str,
    network: &ReadOptional<N>,
    floating: &ReadOptional<N>,
) -> Result<(), Told> {
    let (Ok(network), Ok(Some(floating))) = (network, floating) else { return Ok(()) };
    let network = inside(walk, (name, network.as_ref()), &floating.at, floating.value.address())?;
    warn_of_another_prefix(walk, network, &floating.at, floating.value);
    Ok(())
}

fn refuse_overlaps<N: Family>(
    walk: &mut Walk<'_>,
    networks: &DraftPerNetwork<DraftNetwork>,
    of: impl Fn(&DraftNetwork) -> &ReadOptional<N>,
) -> Result<(), Told> {
    let known: Vec<&Found<N>> =
        networks.iter().filter_map(|(_, n)| of(n.as_ref().ok()?).as_ref().ok()?.as_ref()).collect();
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

/// Refuses an address that no machine can have in the network, which the setting of that name gives.
pub(super) fn inside<'n, N: Family>(
    walk: &mut Walk<'_>,
    (name, network): (&str, Option<&'n Found<N>>),
    at: &Setting,
    address: N::Address,
) -> Result<&'n Found<N>, Told> {
    let Some(network) = network else {
        let help = format!("set the network's '{name}' in cluster.networks");
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
    let (first, last) = net.hosts();
    let range = if first == last { first.to_string() } else { format!("{first} to {last}") };
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

pub(super) fn warn_of_another_prefix<N: Family>(
    walk: &mut Walk<'_>,
    network: &Found<N>,
    at: &Setting,
    value: N,
) {
    if value.prefix() == network.value.prefix() {
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
