//! `system.configuration.networking`: `by-id` resolved to the address that it means on this node, and no address or device
//! promised twice.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use pvc_core::model::name::NodeName;

use super::network::{inside, warn_of_another_prefix};
use crate::{
    config::{Interface, PerNetwork},
    coordinators::Coordinator,
    diagnostic::{Diagnostic, Severity},
    kind::AddressChoice,
    net::Family,
    read::{Draft, DraftInterface, DraftNetwork, DraftPerNetwork},
    walk::{Found, Setting, Told, Walk},
};

/// Below this, client networks (VXLAN: 50 bytes less) are below IPv6's minimum of 1280 (RFC 8200).
const MTU_FOR_VXLAN: u16 = 1330;

/// Below this, Linux takes IPv6 off a device (RFC 8200).
const MTU_FOR_IPV6: u16 = 1280;

/// Checks `system.configuration.networking` and resolves its addresses.
pub(super) fn interfaces(walk: &mut Walk<'_>, draft: &Draft) -> Result<Option<PerNetwork<Interface>>, Told> {
    let system = draft.system.as_ref().map_err(|told| *told)?;
    let Some(interfaces) = system.interfaces.as_ref().map_err(|told| *told)? else { return Ok(None) };
    let mut checked = Vec::new();
    for (name, interface) in interfaces.iter() {
        let interface = match interface {
            Ok(interface) => interface,
            Err(told) => {
                checked.push(Err(*told));
                continue;
            }
        };
        let network = match &draft.networks {
            Ok(Some(networks)) => networks
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(Err(Told), |(_, n)| n.as_ref().map(Some).map_err(|told| *told)),
            Ok(None) => Ok(None),
            Err(_) => Err(Told),
        };
        let address = match (&interface.address, network) {
            (Ok(choice), Ok(network)) => address(walk, draft, network, choice),
            _ => Err(Told),
        };
        let mtu = match (&interface.mtu, network) {
            (Ok(mtu), Ok(network)) => mtu_for(walk, network, mtu),
            _ => Err(Told),
        };
        checked.push(match (&interface.device, mtu, address) {
            (Ok(device), Ok(mtu), Ok(address)) => {
                Ok(Interface { device: device.value.clone(), mtu, address })
            }
            _ => Err(Told),
        });
    }
    let devices = refuse_two_mtus(walk, interfaces);
    let ids = refuse_equal_numbers(walk, draft, interfaces);
    if let Ok(DraftInterface { mtu: Ok(mtu), .. }) = &interfaces.cluster
        && mtu.value < MTU_FOR_VXLAN
    {
        let problem = "leaves client networks less than IPv6 needs";
        let help =
            format!("client networks have 50 bytes less than the cluster's; use {MTU_FOR_VXLAN} or more");
        let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Warning, &mtu.at, problem) };
        walk.tell(diagnostic);
    }
    let mut checked = checked.into_iter();
    let mut next = || checked.next().unwrap_or(Err(Told));
    let (upstream, cluster, storage) = (next(), next(), next());
    devices.and(ids)?;
    Ok(Some(PerNetwork { upstream: upstream?, cluster: cluster?, storage: storage? }))
}

/// A device's MTU, which must carry the families of its network.
fn mtu_for(walk: &mut Walk<'_>, network: Option<&DraftNetwork>, mtu: &Found<u16>) -> Result<u16, Told> {
    let Some(Ok(Some(network6))) = network.map(|n| &n.network6) else { return Ok(mtu.value) };
    if mtu.value >= MTU_FOR_IPV6 {
        return Ok(mtu.value);
    }
    let problem = format!("is too small for {} in line {}", network6.at.path, network6.at.line());
    let diagnostic = Diagnostic {
        allowed: Some(format!("at least {MTU_FOR_IPV6} on a device with IPv6 (RFC 8200)")),
        ..walk.about(Severity::Error, &mtu.at, problem)
    };
    Err(walk.tell(diagnostic))
}

/// The address that a choice means on this node.
fn address(
    walk: &mut Walk<'_>,
    draft: &Draft,
    network: Option<&DraftNetwork>,
    choice: &Found<AddressChoice>,
) -> Result<Option<Ipv4Net>, Told> {
    let net = match network.map(|n| &n.network) {
        Some(Ok(net)) => net.as_ref(),
        Some(Err(told)) => return Err(*told),
        None => None,
    };
    let own = match choice.value {
        AddressChoice::None => return Ok(None),
        AddressChoice::Static(own) => {
            // Without networks (a node that PVC does not network) there is nothing to compare a static address with.
            if let Some(net) = net {
                inside(walk, ("network", Some(net)), &choice.at, own.addr())?;
                warn_of_another_prefix(walk, net, &choice.at, own);
            }
            own
        }
        AddressChoice::ById => by_id(walk, draft, net, choice)?,
    };
    let mut result = Ok(Some(own));
    if let Some(network) = network {
        if let Ok(Some(floating)) = &network.floating_ip
            && floating.value.addr() == own.addr()
        {
            result = Err(taken_by_node(walk, draft, &choice.at, own, &floating.at));
        }
        if let Ok(Some(gateway)) = &network.gateway
            && gateway.value == own.addr()
        {
            result = Err(taken_by_node(walk, draft, &choice.at, own, &gateway.at));
        }
        if choice.value == AddressChoice::ById && result.is_ok() {
            refuse_coordinators_addresses(walk, draft, network)?;
        }
    }
    result
}

fn taken_by_node(walk: &mut Walk<'_>, draft: &Draft, at: &Setting, own: Ipv4Net, other: &Setting) -> Told {
    let node = draft.node.as_ref().map(|n| n.value.to_string()).unwrap_or_default();
    let problem = format!("gives this node the address of {}", other.path);
    let help = format!(
        "{} in line {} is {} too, node {node}'s own; each address has one holder",
        other.path,
        other.line(),
        own.addr()
    );
    let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Error, at, problem) };
    walk.tell(diagnostic)
}

fn by_id(
    walk: &mut Walk<'_>,
    draft: &Draft,
    net: Option<&Found<Ipv4Net>>,
    choice: &Found<AddressChoice>,
) -> Result<Ipv4Net, Told> {
    let node = draft.node.as_ref().map_err(|told| *told)?;
    let refuse = |walk: &mut Walk<'_>, problem: &str, help: String| {
        let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Error, &choice.at, problem) };
        Err(walk.tell(diagnostic))
    };
    let Some(net) = net else {
        let help =
            "set the network's 'network' in cluster.networks, or an address in CIDR notation here".to_owned();
        return refuse(walk, "has no network to take an address from", help);
    };
    let name = &node.value;
    let Some(number) = name.number() else {
        let help = format!(
            "by-id takes the last number in the node's name, and '{name}' has none that could be an address; give an address in CIDR notation"
        );
        return refuse(walk, "needs a number in the node's name", help);
    };
    if let Some(own) = net.value.host(number).and_then(|address| Family::new(address, net.value.prefix())) {
        return Ok(own);
    }
    let (path, line, last) = (&net.at.path, net.at.line(), net.value.host_count());
    let help = format!(
        "node '{name}' is number {number}; {path} ({}, line {line}) has addresses for numbers 1 to {last}",
        net.value
    );
    refuse(walk, "gives this node no address", help)
}

/// Where this node takes its address by its number, the coordinators do too: none of theirs may be a shared address.
fn refuse_coordinators_addresses(
    walk: &mut Walk<'_>,
    draft: &Draft,
    network: &DraftNetwork,
) -> Result<(), Told> {
    let (Ok(coordinators), Ok(Some(net))) = (&draft.coordinators, &network.network) else { return Ok(()) };
    let mut shared: Vec<(&Setting, Ipv4Addr)> = Vec::new();
    if let Ok(Some(floating)) = &network.floating_ip {
        shared.push((&floating.at, floating.value.addr()));
    }
    if let Ok(Some(gateway)) = &network.gateway {
        shared.push((&gateway.at, gateway.value));
    }
    let mut result = Ok(());
    for coordinator in coordinators {
        let Some(address) = number(&coordinator.value).and_then(|number| net.value.host(number)) else {
            continue;
        };
        for (at, _) in shared.iter().filter(|(_, other)| *other == address) {
            let problem = format!("is the by-id address of coordinator {}", coordinator.value.host);
            let help = format!("that one is in line {}; each address has one holder", coordinator.at.line());
            let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Error, at, problem) };
            result = Err(walk.tell(diagnostic));
        }
    }
    result
}

/// Two coordinators of one number would have one address.
fn refuse_equal_numbers(
    walk: &mut Walk<'_>,
    draft: &Draft,
    interfaces: &DraftPerNetwork<DraftInterface>,
) -> Result<(), Told> {
    let by_id = interfaces.iter().any(|(_, interface)| {
        let address = interface.as_ref().ok().and_then(|i| i.address.as_ref().ok());
        address.is_some_and(|a| a.value == AddressChoice::ById)
    });
    let (true, Ok(coordinators)) = (by_id, &draft.coordinators) else { return Ok(()) };
    let mut result = Ok(());
    for (index, later) in coordinators.iter().enumerate() {
        let Some(mine) = number(&later.value) else { continue };
        if let Some(earlier) = coordinators[..index].iter().find(|c| number(&c.value) == Some(mine)) {
            let problem =
                format!("has the same number as {} in line {}", earlier.value.host, earlier.at.line());
            let help = format!("both would have address number {mine} where address is by-id; rename one");
            let diagnostic =
                Diagnostic { help: vec![help], ..walk.about(Severity::Error, &later.at, problem) };
            result = Err(walk.tell(diagnostic));
        }
    }
    result
}

fn number(coordinator: &Coordinator) -> Option<u32> {
    coordinator.short_name()?.parse::<NodeName>().ok()?.number()
}

/// A device has one MTU, however many networks are on it.
fn refuse_two_mtus(walk: &mut Walk<'_>, interfaces: &DraftPerNetwork<DraftInterface>) -> Result<(), Told> {
    let known: Vec<(&Found<String>, &Found<u16>)> = interfaces
        .iter()
        .filter_map(|(_, i)| {
            let interface = i.as_ref().ok()?;
            Some((interface.device.as_ref().ok()?, interface.mtu.as_ref().ok()?))
        })
        .collect();
    let mut result = Ok(());
    for (index, (device, mtu)) in known.iter().enumerate() {
        let other = known[..index].iter().find(|(d, m)| d.value == device.value && m.value != mtu.value);
        if let Some((_, other)) = other {
            let problem = format!("contradicts {} in line {}", other.at.path, other.at.line());
            let help = format!(
                "that one says {}; both are on device {}, which has one MTU",
                other.value, device.value
            );
            let diagnostic = Diagnostic { help: vec![help], ..walk.about(Severity::Error, &mtu.at, problem) };
            result = Err(walk.tell(diagnostic));
        }
    }
    result
}
