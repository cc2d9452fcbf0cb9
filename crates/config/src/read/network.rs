//! `cluster.networks` and `system.configuration.networking`: the three networks, in general and on this node.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::optional_unless;
use crate::{
    config::PerNetwork,
    kind::{self, AddressChoice},
    walk::{Found, ReadOptional, Section, Told, Walk},
};

/// One value for each network; `Err` for those that were wrong.
pub(crate) type DraftPerNetwork<T> = PerNetwork<Result<T, Told>>;

/// An entry of `cluster.networks`.
pub(crate) struct DraftNetwork {
    pub(crate) domain: Result<Option<String>, Told>,
    pub(crate) network: ReadOptional<Ipv4Net>,
    pub(crate) floating_ip: ReadOptional<Ipv4Net>,
    pub(crate) gateway: ReadOptional<Ipv4Addr>,
    pub(crate) network6: ReadOptional<Ipv6Net>,
    pub(crate) floating_ip6: ReadOptional<Ipv6Net>,
}

/// An entry of `system.configuration.networking`.
pub(crate) struct DraftInterface {
    pub(crate) device: Result<Found<String>, Told>,
    pub(crate) mtu: Result<Found<u16>, Told>,
    pub(crate) address: Result<Found<AddressChoice>, Told>,
}

/// The smallest MTU every IPv4 host must take (RFC 791), and the largest an IPv4 packet can fill.
const MTU: std::ops::RangeInclusive<u16> = 576..=65535;

pub(super) fn networks(
    walk: &mut Walk<'_>,
    cluster: &Section,
    networking: Option<bool>,
) -> Result<Option<DraftPerNetwork<DraftNetwork>>, Told> {
    per_network(walk, cluster, "networks", networking, |walk, section| DraftNetwork {
        domain: walk.required(section, "domain", &kind::domain().or_none()).map(|f| f.value),
        network: walk.optional(section, "network", &kind::network()),
        floating_ip: walk.optional(section, "floating_ip", &kind::interface()),
        gateway: walk.optional(section, "gateway", &kind::address()),
        network6: walk.optional(section, "network6", &kind::network6()),
        floating_ip6: walk.optional(section, "floating_ip6", &kind::interface6()),
    })
}

pub(super) fn interfaces(
    walk: &mut Walk<'_>,
    configuration: &Section,
    networking: Option<bool>,
) -> Result<Option<DraftPerNetwork<DraftInterface>>, Told> {
    per_network(walk, configuration, "networking", networking, |walk, section| DraftInterface {
        device: walk.required(section, "device", &kind::device()),
        mtu: walk.required(section, "mtu", &kind::short(MTU, " of bytes")),
        address: walk.required(section, "address", &kind::address_choice()),
    })
}

fn per_network<T>(
    walk: &mut Walk<'_>,
    parent: &Section,
    name: &str,
    networking: Option<bool>,
    read: impl Fn(&mut Walk<'_>, &Section) -> T,
) -> Result<Option<DraftPerNetwork<T>>, Told> {
    let Some(all) = optional_unless(walk, parent, name, networking)? else {
        return Ok(None);
    };
    let mut one = |name| walk.section(&all, name).map(|section| read(walk, &section));
    Ok(Some(PerNetwork { upstream: one("upstream"), cluster: one("cluster"), storage: one("storage") }))
}
