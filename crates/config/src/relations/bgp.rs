//! `coordinator.bgp`: routers that this node can reach, and numbers that tell them from the cluster.

use std::net::IpAddr;

use pvc_core::plan::routing::{ASN, Site};

use crate::{
    config::{Interface, PerNetwork},
    diagnostic::{Diagnostic, Severity},
    read::Draft,
    walk::{Found, Told, Walk},
};

type Interfaces = Result<Option<PerNetwork<Interface>>, Told>;

/// Checks `coordinator.bgp`.
pub(super) fn site(
    walk: &mut Walk<'_>,
    draft: &Draft,
    interfaces: &Interfaces,
) -> Result<Option<Site>, Told> {
    let Some(site) = draft.bgp.as_ref().map_err(|told| *told)? else { return Ok(None) };
    let mut refused = None;
    if let Ok(theirs) = &site.routers_asn {
        let problem = match theirs.value {
            asn if site.asn.as_ref().is_ok_and(|ours| *ours == asn) => "is the cluster's own",
            ASN => "is what the nodes are among themselves",
            _ => "",
        };
        if !problem.is_empty() {
            let diagnostic = Diagnostic {
                allowed: Some(format!("another than asn and than {ASN}")),
                ..walk.about(Severity::Error, &theirs.at, problem)
            };
            refused = Some(walk.tell(diagnostic));
        }
    }
    if let (Ok(routers), Ok(Some(interfaces)), true) =
        (&site.routers, interfaces, is_coordinator(draft, interfaces))
    {
        for router in routers {
            refused = reached(walk, router, interfaces).err().or(refused);
        }
    }
    refused.map_or(Ok(()), Err)?;
    let routers = site.routers.as_ref().map_err(|told| *told)?;
    Ok(Some(Site {
        asn: site.asn?,
        routers_asn: site.routers_asn.as_ref().map_err(|told| *told)?.value,
        routers: routers.iter().map(|found| found.value).collect(),
        bfd: site.bfd?,
    }))
}

fn is_coordinator(draft: &Draft, interfaces: &Interfaces) -> bool {
    let (Ok(coordinators), Ok(node), Ok(interfaces)) = (&draft.coordinators, &draft.node, interfaces) else {
        return false;
    };
    let own = |address| {
        interfaces
            .iter()
            .flat_map(PerNetwork::iter)
            .any(|(_, i)| i.address.is_some_and(|a| a.addr() == address))
    };
    coordinators.iter().any(|c| c.value.is_node(&node.value) || c.value.address().is_some_and(own))
}

/// Nodes' own addresses are IPv4: of others nobody knows.
fn reached(
    walk: &mut Walk<'_>,
    router: &Found<IpAddr>,
    interfaces: &PerNetwork<Interface>,
) -> Result<(), Told> {
    let IpAddr::V4(address) = router.value else { return Ok(()) };
    let own = || interfaces.iter().filter_map(|(_, interface)| interface.address);
    let (problem, help) = if own().any(|own| own.addr() == address) {
        ("is this node's own address", "name the routers of the site")
    } else if own().any(|own| own.contains(&address)) {
        return Ok(());
    } else {
        (
            "is on no wire on which this node has an address",
            "give the node an 'address' in the routers' network, below system.configuration.networking",
        )
    };
    let diagnostic =
        Diagnostic { help: vec![help.to_owned()], ..walk.about(Severity::Error, &router.at, problem) };
    Err(walk.tell(diagnostic))
}
