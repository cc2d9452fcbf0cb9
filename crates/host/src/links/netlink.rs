//! The real thing: rtnetlink over long-lived sockets, and others that hear of changes. All are opened anew if they break.

mod addresses;
mod bridges;
mod channel;
mod listen;
mod requests;
mod trains;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures_util::{Stream, TryStreamExt as _};
use pvc_core::model::link::{HostNetwork, LinkChange, Placed};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkUnspec, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::{LinkExtentMask, LinkMessage},
        route::{RouteAttribute, RouteFlags, RouteMessage},
    },
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use self::{channel::Channel, listen::listen, trains::Trains};
use super::{
    Lifetime, Links, LinksError,
    announce::Announcer,
    seen::{self, OURS},
    sysctl,
};

/// This machine's network, or rather that of the network namespace it was started in.
pub struct Netlink {
    host: Channel,
    /// For what changes devices of client networks, which are many.
    clients: Trains,
    /// For addresses, so that they wait for none of these.
    addresses: Trains,
    announcer: Mutex<Option<Arc<Announcer>>>,
    /// For what lists them all: neither changes nor the host's addresses wait for that.
    lists: Channel,
    changes: watch::Receiver<()>,
    bridged: watch::Receiver<()>,
    listeners: [JoinHandle<()>; 2],
}

impl Netlink {
    /// Opens the sockets. Needs a tokio runtime.
    pub fn start() -> io::Result<Arc<Self>> {
        let ((signal, changes), (entries, bridged)) = (watch::channel(()), watch::channel(()));
        let (host, lists) = (Channel::open()?, Channel::open()?);
        let (clients, addresses) = (Trains::lay()?, Trains::lay()?);
        let listeners = [
            tokio::spawn(listen(signal, &NETWORK, |_, _| true)),
            tokio::spawn(listen(entries, &bridges::GROUPS, bridges::concerns)),
        ];
        Ok(Arc::new(Self {
            host,
            clients,
            addresses,
            announcer: Mutex::default(),
            lists,
            changes,
            bridged,
            listeners,
        }))
    }

    async fn move_routes(&self, doing: &str, from: &str, to: &str) -> Result<(), LinksError> {
        let (from, to) = (self.host.index(doing, from).await?, self.host.index(doing, to).await?);
        let routes = self.host.request(doing, &[], async |handle| routes(&handle).await).await?;
        for mut route in routes.into_iter().filter(seen::is_chosen) {
            if !route.attributes.contains(&RouteAttribute::Oif(from)) {
                continue;
            }
            route.attributes.retain(|a| !matches!(a, RouteAttribute::Oif(_) | RouteAttribute::CacheInfo(_)));
            route.attributes.push(RouteAttribute::Oif(to));
            route.header.flags = RouteFlags::empty();
            self.host
                .request(doing, &[], async |handle| handle.route().add(route).replace().execute().await)
                .await?;
        }
        Ok(())
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

/// What is heard of for [`Links::changes`].
const NETWORK: [MulticastGroup; 4] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Ipv4Route];

/// All devices. What they count is long, and nobody here wants it.
fn list(handle: &Handle) -> impl Stream<Item = Result<LinkMessage, Error>> + use<> {
    handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]).execute()
}

async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>, Error> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut found: Vec<RouteMessage> = handle.route().get(v4).execute().try_collect().await?;
    found.extend(handle.route().get(v6).execute().try_collect::<Vec<_>>().await?);
    Ok(found)
}

fn default_route(via: IpAddr, index: u32) -> RouteMessage {
    match via {
        IpAddr::V4(via) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(via);
            route.output_interface(index).protocol(OURS).build()
        }
        IpAddr::V6(via) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(via);
            route.output_interface(index).protocol(OURS).build()
        }
    }
}

#[async_trait]
impl Links for Netlink {
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError> {
        let doing = "read the network devices";
        let (links, addresses, routes) = self
            .host
            .request(doing, &[], async |handle| {
                let links: Vec<_> = list(&handle).try_collect().await?;
                let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
                Ok((links, addresses, routes(&handle).await?))
            })
            .await?;
        Ok(seen::network(&links, &addresses, &routes, sysctl::read(sysctls)))
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        let doing = change.to_string();
        let set = async |device: &str, change: fn(LinkUnspecBuilder) -> LinkUnspecBuilder| {
            let index = self.host.index(&doing, device).await?;
            let message = change(LinkUnspec::new_with_index(index)).build();
            self.host.request(&doing, &[], async |handle| handle.link().change(message).execute().await).await
        };
        match change {
            LinkChange::AddBridge { name, mac } => {
                let message = LinkBridge::new(name).address(mac.to_vec()).up().build();
                self.host
                    .request(&doing, &[libc::EEXIST], async |h| h.link().add(message).execute().await)
                    .await
            }
            LinkChange::SetUp { device } => set(device, LinkUnspecBuilder::up).await,
            LinkChange::SetMtu { device, mtu } => {
                let message =
                    LinkUnspec::new_with_index(self.host.index(&doing, device).await?).mtu(*mtu).build();
                self.host
                    .request(&doing, &[], async |handle| handle.link().change(message).execute().await)
                    .await
            }
            LinkChange::Enslave { device, bridge } => {
                let bridge = self.host.index(&doing, bridge).await?;
                let index = self.host.index(&doing, device).await?;
                let message = LinkUnspec::new_with_index(index).controller(bridge).build();
                self.host
                    .request(&doing, &[], async |handle| handle.link().change(message).execute().await)
                    .await
            }
            LinkChange::SetAddress { device, cidr, lifetime_s } => {
                let address = Placed { device: device.clone(), cidr: *cidr };
                only(self.set_addresses(&[address], &|| Some(*lifetime_s)).await, doing)
            }
            LinkChange::RemoveAddress { device, cidr } => {
                only(self.remove(&[Placed { device: device.clone(), cidr: *cidr }]).await, doing)
            }
            LinkChange::MoveRoutes { from, to } => self.move_routes(&doing, from, to).await,
            LinkChange::AddDefaultRoute { via, device } => {
                let route = default_route(*via, self.host.index(&doing, device).await?);
                self.host
                    .request(&doing, &[libc::EEXIST], async |h| h.route().add(route).execute().await)
                    .await
            }
            LinkChange::RemoveDefaultRoute { via, device } => {
                let route = default_route(*via, self.host.index(&doing, device).await?);
                self.host
                    .request(&doing, &[libc::ESRCH], async |h| h.route().del(route).execute().await)
                    .await
            }
            LinkChange::SetSysctl { path, value } => {
                sysctl::write(path, value).map_err(|cause| LinksError::Kernel { doing: doing.clone(), cause })
            }
        }
    }

    async fn hold(&self, addresses: &[Placed], lifetime_s: Lifetime<'_>) -> Vec<Result<(), LinksError>> {
        self.set_addresses(addresses, &|| lifetime_s().map(Some)).await
    }

    async fn remove(&self, addresses: &[Placed]) -> Vec<Result<(), LinksError>> {
        self.remove_addresses(addresses).await
    }

    async fn announce(&self, addresses: &[Placed], not_after: Instant) -> Result<(), LinksError> {
        self.announce_addresses(addresses, not_after).await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }
}

type LinkUnspecBuilder = rtnetlink::LinkMessageBuilder<LinkUnspec>;

/// The outcome of the only one.
fn only(mut outcomes: Vec<Result<(), LinksError>>, doing: String) -> Result<(), LinksError> {
    outcomes.pop().unwrap_or(Err(LinksError::TooLate { doing }))
}
