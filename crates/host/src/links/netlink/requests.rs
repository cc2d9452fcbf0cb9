//! What the kernel is asked for so that a bridge or a tunnel is as a change says.
//!
//! Devices are called by their names wherever the kernel takes these: then a new one is set together with being made, and nobody asks for its number before.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use pvc_core::model::bridging::{BridgingChange, DeviceKind, Forward, VXLAN_PORT};
use rtnetlink::{
    LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan,
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        AddressFamily,
        RouteNetlinkMessage::{DelLink, DelNeighbour, GetLink, NewLink, NewNeighbour},
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkMessage},
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};

use super::trains::Request;

/// The group of our devices: the same number as our routes' protocol, which nobody else has in `/etc/iproute2/group`.
pub(super) const OURS: u32 = 112;

/// What an entry for everybody has for an address.
pub(super) const EVERYBODY: [u8; 6] = [0; 6];

/// The kernel's numbers of devices, by name.
pub(super) type Numbers = HashMap<String, u32>;

/// How many of the changes, from the first on, need no number of a device that one of them makes.
pub(super) fn independent(changes: &[BridgingChange]) -> usize {
    let mut made = HashSet::new();
    let needs_one = |change: &BridgingChange| {
        let needs_one = needs(change).any(|name| made.contains(name));
        if let BridgingChange::Add { name, .. } = change {
            made.insert(name.clone());
        }
        needs_one
    };
    changes.iter().position(needs_one).unwrap_or(changes.len())
}

/// The devices of which a change needs the numbers.
pub(super) fn needs(change: &BridgingChange) -> impl Iterator<Item = &str> {
    let (one, other) = match change {
        BridgingChange::Add { kind: DeviceKind::Vlan { over, .. }, master, .. } => {
            (Some(over), master.as_ref())
        }
        BridgingChange::Add { master, .. } | BridgingChange::Set { master, .. } => (None, master.as_ref()),
        BridgingChange::Forward(forward) | BridgingChange::Unforward(forward) => {
            (Some(&forward.device), None)
        }
        BridgingChange::Remove { .. } | BridgingChange::Address { .. } | BridgingChange::Learn { .. } => {
            (None, None)
        }
    };
    one.into_iter().chain(other).map(String::as_str)
}

/// What asks for a device's number.
pub(super) fn number(name: &str) -> Request {
    let message = LinkUnspec::new_with_name(name)
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
        .build();
    Request::new(GetLink(message), 0, &[libc::ENODEV])
}

/// What makes a change.
pub(super) struct Steps {
    /// One after another.
    pub(super) first: Vec<Request>,
    /// What is done only if all of that was.
    pub(super) then: Option<Request>,
}

impl From<Request> for Steps {
    fn from(one: Request) -> Self {
        Self { first: vec![one], then: None }
    }
}

/// What makes a change; or the device that it needs and that there is not.
pub(super) fn of<'a>(change: &'a BridgingChange, numbers: &Numbers) -> Result<Steps, &'a str> {
    let number = |name: &'a String| numbers.get(name).copied().ok_or(name.as_str());
    Ok(match change {
        BridgingChange::Add { name, kind, mtu, master } => {
            let message = match kind {
                DeviceKind::Vxlan { vni, local } => tunnel(name, vni.number(), *local),
                DeviceKind::Vlan { id, over } => marked(LinkVlan::new(name, number(over)?, *id)),
                DeviceKind::Bridge | DeviceKind::Other => marked(LinkBridge::new(name)),
            };
            let add = Request::new(NewLink(message), NLM_F_CREATE | NLM_F_EXCL, &[libc::EEXIST]);
            // It must not be up unless it is quiet: nobody would see that later.
            let up = set(name, *mtu, master.as_ref().map(number).transpose()?);
            Steps { first: vec![add, quiet(name)], then: Some(up) }
        }
        BridgingChange::Set { name, mtu, master } => {
            set(name, *mtu, master.as_ref().map(number).transpose()?).into()
        }
        BridgingChange::Remove { name } => {
            Request::new(DelLink(LinkUnspec::new_with_name(name).build()), 0, &[libc::ENODEV]).into()
        }
        BridgingChange::Address { name, mac } => {
            changed(LinkUnspec::new_with_name(name).address(mac.0.to_vec()).build()).into()
        }
        BridgingChange::Learn { name, learns } => {
            changed(LinkMessageBuilder::<LinkVxlan>::new(name).learning(*learns).build()).into()
        }
        BridgingChange::Forward(forward) => {
            let entry = entry(number(&forward.device)?, forward);
            // Entries for everybody are many; a card has one, which takes the place of another.
            let how = if forward.mac.is_some() { NLM_F_REPLACE } else { NLM_F_APPEND };
            Request::new(NewNeighbour(entry), NLM_F_CREATE | how, &[libc::EEXIST]).into()
        }
        BridgingChange::Unforward(forward) => removed(entry(number(&forward.device)?, forward)).into(),
    })
}

/// What removes all entries of the address that this one is of.
pub(super) fn unforward_all(device: u32, forward: &Forward) -> Request {
    let mut entry = entry(device, forward);
    entry.attributes.retain(|attribute| matches!(attribute, NeighbourAttribute::LinkLayerAddress(_)));
    removed(entry)
}

fn changed(message: LinkMessage) -> Request {
    Request::new(NewLink(message), 0, &[])
}

fn removed(entry: NeighbourMessage) -> Request {
    Request::new(DelNeighbour(entry), 0, &[libc::ENOENT])
}

/// Down: what it must not do while it is up is set first.
fn marked<T>(builder: LinkMessageBuilder<T>) -> LinkMessage {
    builder.link_group(OURS).down().build()
}

fn tunnel(name: &str, vni: u32, local: IpAddr) -> LinkMessage {
    let builder = LinkVxlan::new(name, vni).port(VXLAN_PORT).learning(false);
    marked(match local {
        IpAddr::V4(local) => builder.local(local),
        IpAddr::V6(local) => builder.local6(local),
    })
}

/// While it is down: a node has no address of its own among guests. The kernel takes this of devices that there are, and after all else that a
/// request says; one without IPv6 does not know of it, and gives nobody an address.
fn quiet(name: &str) -> Request {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let builder = LinkUnspec::new_with_name(name);
    let message = builder.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode])).build();
    Request::new(NewLink(message), 0, &[libc::EAFNOSUPPORT])
}

fn set(name: &str, mtu: u32, master: Option<u32>) -> Request {
    let builder = LinkUnspec::new_with_name(name).mtu(mtu).up();
    changed(match master {
        Some(master) => builder.controller(master).build(),
        None => builder.build(),
    })
}

fn entry(device: u32, forward: &Forward) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    let mac = forward.mac.map_or(EVERYBODY, |mac| mac.0);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(forward.to.into()));
    message.attributes.extend(forward.by.map(NeighbourAttribute::IfIndex));
    message
}
