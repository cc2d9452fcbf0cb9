//! The real bridges and tunnels of client networks. All changes of a batch go over one socket.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use pvc_core::model::{
    Mac,
    bridging::{Bridging, BridgingChange, Device, DeviceKind, Forward, VXLAN_PORT},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVlan, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use tokio::sync::watch;

use super::{
    super::{Bridges, LinksError, seen},
    Netlink, list,
    requests::{self, EVERYBODY, Numbers, OURS},
    trains::{Request, Why},
};

/// What is heard of for [`Bridges::changes`].
pub(super) const GROUPS: [MulticastGroup; 2] = [MulticastGroup::Link, MulticastGroup::Neigh];

/// Of neighbours the entries of tunnels only, and of these neither what is learnt nor what a routing daemon writes: others change all the time.
pub(super) fn concerns(kind: u16, message: &[u8]) -> bool {
    if !matches!(kind, libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH) {
        return true;
    }
    match NetlinkMessage::deserialize(message).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry),
        )) => {
            entry.header.family == AddressFamily::Bridge
                && entry.header.flags.contains(NeighbourFlags::Own)
                && whose(&entry) == Whose::Written
        }
        _ => true,
    }
}

#[async_trait]
impl Bridges for Netlink {
    async fn observe(&self) -> Result<Bridging, LinksError> {
        let (links, entries) = self
            .lists
            .request("read the bridges and tunnels", &[], async |handle| {
                let links: Vec<_> = list(&handle).try_collect().await?;
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
        let (mut rest, mut outcomes) = (changes, Vec::with_capacity(changes.len()));
        while !rest.is_empty() {
            let (now, later) = rest.split_at(requests::independent(rest));
            outcomes.extend(self.make(now).await);
            rest = later;
        }
        outcomes
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.bridged.clone()
    }
}

impl Netlink {
    /// Makes changes of which none needs the number of a device that another one makes.
    async fn make(&self, changes: &[BridgingChange]) -> Vec<Result<(), LinksError>> {
        let numbers = self.numbers(changes).await;
        let none = Numbers::default();
        let mut outcomes = Vec::with_capacity(changes.len());
        let (mut first, mut then) = (vec![], vec![]);
        for (at, change) in changes.iter().enumerate() {
            let doing = change.to_string();
            outcomes.push(match (requests::of(change, numbers.as_ref().unwrap_or(&none)), &numbers) {
                (Ok(steps), _) => {
                    first.extend(steps.first.into_iter().map(|request| (at, request)));
                    then.extend(steps.then.map(|request| (at, request)));
                    Ok(())
                }
                (Err(_), Err(why)) => Err(why.error(doing)),
                (Err(device), Ok(_)) => Err(LinksError::NoDevice { doing, device: device.to_owned() }),
            });
        }
        self.carry_out(changes, &numbers, first, &mut outcomes).await;
        then.retain(|(at, _)| outcomes[*at].is_ok());
        self.carry_out(changes, &numbers, then, &mut outcomes).await;
        outcomes
    }

    /// Sends requests, each of the change at that place, and notes there what fails.
    async fn carry_out(
        &self,
        changes: &[BridgingChange],
        numbers: &Result<Numbers, Why>,
        requests: Vec<(usize, Request)>,
        outcomes: &mut [Result<(), LinksError>],
    ) {
        let (whose, requests): (Vec<usize>, Vec<Request>) = requests.into_iter().unzip();
        for (at, answer) in whose.into_iter().zip(self.clients.send(&requests).await) {
            let why = match (&changes[at], answer) {
                (_, Ok(_)) => continue,
                // The device that it leaves by is gone, and the kernel takes its number from nobody. All that stand under that
                // address go with it: those that are wanted are missed by the next look.
                (BridgingChange::Unforward(forward), Err(Why::Refused(libc::EADDRNOTAVAIL))) => {
                    let number = numbers.as_ref().ok().and_then(|numbers| numbers.get(&forward.device));
                    let all = number.map(|number| requests::unforward_all(*number, forward));
                    match self.clients.send(all.as_slice()).await.pop() {
                        Some(Err(why)) => why,
                        _ => continue,
                    }
                }
                (_, Err(why)) => why,
            };
            // What fails first has the rest of a change fail.
            if outcomes[at].is_ok() {
                let (doing, device) = (changes[at].to_string(), changes[at].device().to_owned());
                outcomes[at] = Err(match (&changes[at], why) {
                    (BridgingChange::Add { .. }, why) => why.error(doing),
                    (_, Why::Refused(libc::ENODEV)) => LinksError::NoDevice { doing, device },
                    (_, why) => why.error(doing),
                });
            }
        }
    }

    /// The numbers of the devices that these changes need the numbers of, as far as there are such devices.
    async fn numbers(&self, changes: &[BridgingChange]) -> Result<Numbers, Why> {
        let names: BTreeSet<&str> = changes.iter().flat_map(requests::needs).collect();
        let asked: Vec<Request> = names.iter().map(|name| requests::number(name)).collect();
        let mut numbers = Numbers::new();
        for (name, answer) in names.into_iter().zip(self.clients.send(&asked).await) {
            match answer {
                Ok(Some(RouteNetlinkMessage::NewLink(link))) => {
                    numbers.insert(name.to_owned(), link.header.index);
                }
                Ok(_) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(numbers)
    }
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
