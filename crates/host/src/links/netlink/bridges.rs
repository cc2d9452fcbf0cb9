//! The real bridges and tunnels of client networks. All changes of a batch go over one socket.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use pvc_core::model::{
    Mac,
    bridging::{Bridging, BridgingChange, Device, DeviceKind, Forward, VXLAN_PORT},
};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan, MulticastGroup,
    packet_core::{
        NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVlan, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use tokio::sync::watch;

use super::{
    super::{Bridges, LinksError, seen, sysctl},
    Netlink,
};

/// The group of our devices: the same number as our routes' protocol, which nobody else has in `/etc/iproute2/group`.
const OURS: u32 = 112;

/// What an entry for everybody has for an address.
const EVERYBODY: [u8; 6] = [0; 6];

/// What is heard of for [`Bridges::changes`].
pub(super) const GROUPS: [MulticastGroup; 2] = [MulticastGroup::Link, MulticastGroup::Neigh];

/// Of neighbours the entries of tunnels only, and of these neither what is learnt nor what a routing daemon writes: others change all the time.
pub(super) fn concerns(message: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match message {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry),
        ) => {
            entry.header.family == AddressFamily::Bridge
                && entry.header.flags.contains(NeighbourFlags::Own)
                && whose(entry) == Whose::Written
        }
        _ => true,
    }
}

#[async_trait]
impl Bridges for Netlink {
    async fn observe(&self) -> Result<Bridging, LinksError> {
        let (links, entries) = self
            .request("read the bridges and tunnels", &[], async |handle| {
                let links: Vec<_> = handle.link().get().execute().try_collect().await?;
                let entries = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
                Ok((links, entries.try_collect::<Vec<_>>().await?))
            })
            .await?;
        let names: HashMap<u32, String> =
            links.iter().filter_map(|l| Some((l.header.index, seen::name(l)?))).collect();
        let devices: Vec<Device> = links.iter().filter_map(|link| device(link, &names)).collect();
        let is_tunnel =
            |name: &str| devices.iter().any(|d| d.name == name && matches!(d.kind, DeviceKind::Vxlan { .. }));
        let of = |whose: Whose| -> BTreeSet<Forward> {
            let entries = entries.iter().filter(|entry| self::whose(entry) == whose);
            entries.filter_map(|e| forward(e, &names)).filter(|f| is_tunnel(&f.device)).collect()
        };
        let (forwards, learnt, routed) = (of(Whose::Written), of(Whose::Learnt), of(Whose::Routed));
        Ok(Bridging { devices, forwards, learnt, routed })
    }

    async fn apply(&self, changes: &[BridgingChange]) -> Vec<Result<(), LinksError>> {
        let (mut outcomes, mut known) = (Vec::with_capacity(changes.len()), HashMap::new());
        for change in changes {
            outcomes.push(self.change(change, &mut known).await);
        }
        outcomes
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.bridged.clone()
    }
}

impl Netlink {
    async fn change(
        &self,
        change: &BridgingChange,
        known: &mut HashMap<String, u32>,
    ) -> Result<(), LinksError> {
        let doing = change.to_string();
        match change {
            BridgingChange::Add { name, kind, mtu, master } => {
                known.remove(name);
                let message = match kind {
                    DeviceKind::Vxlan { vni, local } => tunnel(name, vni.number(), *local),
                    DeviceKind::Vlan { id, over } => {
                        let over = self.known(&doing, over, known).await?;
                        marked(LinkVlan::new(name, over, *id))
                    }
                    DeviceKind::Bridge | DeviceKind::Other => marked(LinkBridge::new(name)),
                };
                let add = async |handle: Handle| handle.link().add(message).execute().await;
                self.request(&doing, &[libc::EEXIST], add).await?;
                // While it is down: a node has no address of its own among guests.
                let quiet = sysctl::write(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1");
                if let Err(cause) = quiet.or_else(absent) {
                    return Err(LinksError::Kernel { doing, cause });
                }
                self.set(&doing, name, *mtu, master.as_deref(), known).await
            }
            BridgingChange::Set { name, mtu, master } => {
                self.set(&doing, name, *mtu, master.as_deref(), known).await
            }
            BridgingChange::Remove { name } => {
                let index = match self.known(&doing, name, known).await {
                    Err(LinksError::NoDevice { .. }) => return Ok(()),
                    index => index?,
                };
                known.remove(name);
                let del = async |handle: Handle| handle.link().del(index).execute().await;
                self.request(&doing, &[libc::ENODEV], del).await
            }
            BridgingChange::Address { name, mac } => {
                let index = self.known(&doing, name, known).await?;
                let message = LinkUnspec::new_with_index(index).address(mac.0.to_vec()).build();
                let change = async |handle: Handle| handle.link().change(message).execute().await;
                self.request(&doing, &[], change).await
            }
            BridgingChange::Learn { name, learns } => {
                let index = self.known(&doing, name, known).await?;
                let message =
                    LinkMessageBuilder::<LinkVxlan>::new(name).index(index).learning(*learns).build();
                let change = async |handle: Handle| handle.link().change(message).execute().await;
                self.request(&doing, &[], change).await
            }
            BridgingChange::Forward(forward) => {
                let entry = entry(self.known(&doing, &forward.device, known).await?, forward);
                // Entries for everybody are many; a card has one, which takes the place of another.
                let how = if forward.mac.is_some() { NLM_F_REPLACE } else { NLM_F_APPEND };
                let add = async |handle| send(handle, entry, NLM_F_CREATE | how).await;
                self.request(&doing, &[libc::EEXIST], add).await
            }
            BridgingChange::Unforward(forward) => {
                let entry = entry(self.known(&doing, &forward.device, known).await?, forward);
                match self.delete(&doing, entry.clone()).await {
                    // The device that it leaves by is gone, and the kernel takes its number from nobody. All that stand under that
                    // address go with it: those that are wanted are missed by the next look.
                    Err(LinksError::Kernel { cause, .. })
                        if cause.raw_os_error() == Some(libc::EADDRNOTAVAIL) =>
                    {
                        self.delete(&doing, of_any_end(entry)).await
                    }
                    outcome => outcome,
                }
            }
        }
    }

    async fn delete(&self, doing: &str, entry: NeighbourMessage) -> Result<(), LinksError> {
        let del = async |handle: Handle| handle.neighbours().del(entry).execute().await;
        self.request(doing, &[libc::ENOENT], del).await
    }

    async fn set(
        &self,
        doing: &str,
        name: &str,
        mtu: u32,
        master: Option<&str>,
        known: &mut HashMap<String, u32>,
    ) -> Result<(), LinksError> {
        let mut message = LinkUnspec::new_with_index(self.known(doing, name, known).await?).mtu(mtu).up();
        if let Some(master) = master {
            message = message.controller(self.known(doing, master, known).await?);
        }
        let message = message.build();
        self.request(doing, &[], async |handle| handle.link().change(message).execute().await).await
    }

    async fn known(
        &self,
        doing: &str,
        name: &str,
        known: &mut HashMap<String, u32>,
    ) -> Result<u32, LinksError> {
        if let Some(index) = known.get(name) {
            return Ok(*index);
        }
        let index = self.index(doing, name).await?;
        known.insert(name.to_owned(), index);
        Ok(index)
    }
}

/// A kernel without IPv6 gives nobody an address of it.
fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
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

fn device(link: &LinkMessage, names: &HashMap<u32, String>) -> Option<Device> {
    let mut device = Device {
        name: seen::name(link)?,
        index: link.header.index,
        kind: DeviceKind::Other,
        mac: Mac(seen::mac(link)),
        mtu: 0,
        up: link.header.flags.contains(LinkFlags::Up),
        master: None,
        ours: false,
        learns: false,
    };
    let mut over = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Group(group) => device.ours = *group == OURS,
            LinkAttribute::Controller(index) => device.master = names.get(index).cloned(),
            LinkAttribute::Link(index) => over = names.get(index).cloned(),
            _ => {}
        }
    }
    for info in link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    }) {
        device.kind = kind(info, over.as_deref());
        device.learns = info.iter().any(
            |info| matches!(info, LinkInfo::Data(InfoData::Vxlan(settings)) if settings.contains(&InfoVxlan::Learning(true))),
        );
    }
    Some(device)
}

fn kind(info: &[LinkInfo], over: Option<&str>) -> DeviceKind {
    if info.contains(&LinkInfo::Kind(InfoKind::Bridge)) {
        return DeviceKind::Bridge;
    }
    let data = info.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    let kind = match data {
        Some(InfoData::Vxlan(settings)) => vxlan(settings),
        Some(InfoData::Vlan(settings)) => settings.iter().find_map(|setting| match setting {
            InfoVlan::Id(id) => Some(DeviceKind::Vlan { id: *id, over: over?.to_owned() }),
            _ => None,
        }),
        _ => None,
    };
    kind.unwrap_or(DeviceKind::Other)
}

/// A tunnel as we make them; one that uses another port is another thing.
fn vxlan(settings: &[InfoVxlan]) -> Option<DeviceKind> {
    let (mut vni, mut local) = (None, None);
    for setting in settings {
        match setting {
            InfoVxlan::Id(id) => vni = id.to_string().parse().ok(),
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(port) if *port != VXLAN_PORT => return None,
            _ => {}
        }
    }
    Some(DeviceKind::Vxlan { vni: vni?, local: local? })
}

fn forward(entry: &NeighbourMessage, names: &HashMap<u32, String>) -> Option<Forward> {
    if !entry.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let (mut mac, mut to, mut by) = (None, None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => {
                mac = <[u8; 6]>::try_from(address.as_slice()).ok();
            }
            NeighbourAttribute::Destination(address) => to = address_of(address),
            NeighbourAttribute::IfIndex(index) => by = Some(*index),
            _ => {}
        }
    }
    let mac = Some(mac?).filter(|mac| *mac != EVERYBODY).map(Mac);
    Some(Forward { device: names.get(&entry.header.ifindex)?.clone(), mac, to: to?, by })
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// It was written to stay.
    Written,
    /// The tunnel has learnt it from a frame.
    Learnt,
    /// A routing daemon has written it.
    Routed,
}

fn whose(entry: &NeighbourMessage) -> Whose {
    if entry.header.flags.contains(NeighbourFlags::ExtLearned) {
        Whose::Routed
    } else if entry.header.state == NeighbourState::Permanent {
        Whose::Written
    } else {
        Whose::Learnt
    }
}

fn address_of(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
            _ => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        },
        _ => None,
    }
}

fn entry(index: u32, forward: &Forward) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    let mac = forward.mac.map_or(EVERYBODY, |mac| mac.0);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(forward.to.into()));
    message.attributes.extend(forward.by.map(NeighbourAttribute::IfIndex));
    message
}

/// All entries of the same address.
fn of_any_end(mut entry: NeighbourMessage) -> NeighbourMessage {
    entry.attributes.retain(|attribute| matches!(attribute, NeighbourAttribute::LinkLayerAddress(_)));
    entry
}

async fn send(mut handle: Handle, entry: NeighbourMessage, how: u16) -> Result<(), Error> {
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | how;
    let mut answers = handle.request(message)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(Error::NetlinkError(error));
        }
    }
    Ok(())
}
