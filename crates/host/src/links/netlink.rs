//! The real thing: rtnetlink over one long-lived socket, and another that hears of changes. Both are opened anew if they break.

mod bridges;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use pvc_core::model::link::{HostNetwork, LinkChange};
use rtnetlink::{
    AddressMessageBuilder, Error, Handle, LinkBridge, LinkUnspec, MulticastGroup, RouteMessageBuilder,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo},
        route::{RouteAttribute, RouteFlags, RouteMessage},
    },
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    DEADLINE, Links, LinksError, announce,
    seen::{self, OURS},
    sysctl,
};

/// The pause before a socket that broke is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// This machine's network, or rather that of the network namespace it was started in.
pub struct Netlink {
    handle: Mutex<Option<Handle>>,
    /// Requests take turns: the kernel answers a second list on the same socket with "busy".
    turn: tokio::sync::Mutex<()>,
    changes: watch::Receiver<()>,
    bridged: watch::Receiver<()>,
    listeners: [JoinHandle<()>; 2],
}

impl Netlink {
    /// Opens the sockets. Needs a tokio runtime.
    pub fn start() -> io::Result<Arc<Self>> {
        let ((signal, changes), (entries, bridged)) = (watch::channel(()), watch::channel(()));
        let handle = Mutex::new(Some(open()?));
        let listeners = [
            tokio::spawn(listen(signal, &NETWORK, |_| true)),
            tokio::spawn(listen(entries, &bridges::GROUPS, bridges::concerns)),
        ];
        Ok(Arc::new(Self { handle, turn: tokio::sync::Mutex::default(), changes, bridged, listeners }))
    }

    fn handle(&self) -> io::Result<Handle> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        match &*handle {
            Some(open) => Ok(open.clone()),
            None => Ok(handle.insert(open()?).clone()),
        }
    }

    /// Does a request within the deadline. `fine`: the error codes that mean "already so".
    async fn request<T: Default>(
        &self,
        doing: &str,
        fine: &[i32],
        work: impl AsyncFnOnce(Handle) -> Result<T, Error>,
    ) -> Result<T, LinksError> {
        let kernel = |cause| LinksError::Kernel { doing: doing.to_owned(), cause };
        let handle = self.handle().map_err(kernel)?;
        let in_turn = async {
            let _turn = self.turn.lock().await;
            work(handle).await
        };
        match timeout(DEADLINE, in_turn).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let cause = self.cause(error);
                let is_fine = cause.raw_os_error().is_some_and(|code| fine.contains(&code));
                if is_fine { Ok(T::default()) } else { Err(kernel(cause)) }
            }
            Err(_) => {
                self.forget();
                Err(LinksError::Deadline { doing: doing.to_owned() })
            }
        }
    }

    /// Netlink's error codes are negative errno values.
    fn cause(&self, error: Error) -> io::Error {
        match error {
            Error::NetlinkError(message) => io::Error::from_raw_os_error(message.raw_code().saturating_abs()),
            other => {
                self.forget();
                io::Error::other(other.to_string())
            }
        }
    }

    fn forget(&self) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn index(&self, doing: &str, device: &str) -> Result<u32, LinksError> {
        let found = self
            .request(doing, &[libc::ENODEV], async |handle| {
                let mut links = handle.link().get().match_name(device.to_owned()).execute();
                Ok(links.try_next().await?.map(|link| link.header.index))
            })
            .await?;
        found.ok_or_else(|| LinksError::NoDevice { doing: doing.to_owned(), device: device.to_owned() })
    }

    async fn move_routes(&self, doing: &str, from: &str, to: &str) -> Result<(), LinksError> {
        let (from, to) = (self.index(doing, from).await?, self.index(doing, to).await?);
        let routes = self.request(doing, &[], async |handle| routes(&handle).await).await?;
        for mut route in routes.into_iter().filter(seen::is_chosen) {
            if !route.attributes.contains(&RouteAttribute::Oif(from)) {
                continue;
            }
            route.attributes.retain(|a| !matches!(a, RouteAttribute::Oif(_) | RouteAttribute::CacheInfo(_)));
            route.attributes.push(RouteAttribute::Oif(to));
            route.header.flags = RouteFlags::empty();
            self.request(doing, &[], async |handle| handle.route().add(route).replace().execute().await)
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

/// A connection ends with its last handle.
fn open() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// What is heard of for [`Links::changes`].
const NETWORK: [MulticastGroup; 4] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Ipv4Route];

/// Signals each message of these groups that concerns the listener.
async fn listen(
    changed: watch::Sender<()>,
    groups: &[MulticastGroup],
    concerns: fn(&NetlinkPayload<RouteNetlinkMessage>) -> bool,
) {
    loop {
        match rtnetlink::new_multicast_connection(groups) {
            Ok((connection, _handle, mut messages)) => {
                let connection = tokio::spawn(connection);
                while let Some((message, _)) = messages.next().await {
                    if concerns(&message.payload) {
                        changed.send_replace(());
                    }
                }
                connection.abort();
                debug!("the socket that hears of network changes has ended: opening another");
            }
            Err(error) => warn!("cannot hear of network changes: {error}; looking now and then instead"),
        }
        sleep(REOPEN_AFTER).await;
        changed.send_replace(());
    }
}

async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>, Error> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut found: Vec<RouteMessage> = handle.route().get(v4).execute().try_collect().await?;
    found.extend(handle.route().get(v6).execute().try_collect::<Vec<_>>().await?);
    Ok(found)
}

fn address(index: u32, cidr: IpNet) -> AddressMessage {
    match cidr.addr() {
        IpAddr::V4(a) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(a, cidr.prefix_len()).build()
        }
        IpAddr::V6(a) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(a, cidr.prefix_len()).build()
        }
    }
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
            .request(doing, &[], async |handle| {
                let links: Vec<_> = handle.link().get().execute().try_collect().await?;
                let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
                Ok((links, addresses, routes(&handle).await?))
            })
            .await?;
        Ok(seen::network(&links, &addresses, &routes, sysctl::read(sysctls)))
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        let doing = change.to_string();
        let set = async |device: &str, change: fn(LinkUnspecBuilder) -> LinkUnspecBuilder| {
            let index = self.index(&doing, device).await?;
            let message = change(LinkUnspec::new_with_index(index)).build();
            self.request(&doing, &[], async |handle| handle.link().change(message).execute().await).await
        };
        match change {
            LinkChange::AddBridge { name, mac } => {
                let message = LinkBridge::new(name).address(mac.to_vec()).up().build();
                self.request(&doing, &[libc::EEXIST], async |h| h.link().add(message).execute().await).await
            }
            LinkChange::SetUp { device } => set(device, LinkUnspecBuilder::up).await,
            LinkChange::SetMtu { device, mtu } => {
                let message = LinkUnspec::new_with_index(self.index(&doing, device).await?).mtu(*mtu).build();
                self.request(&doing, &[], async |handle| handle.link().change(message).execute().await).await
            }
            LinkChange::Enslave { device, bridge } => {
                let bridge = self.index(&doing, bridge).await?;
                let index = self.index(&doing, device).await?;
                let message = LinkUnspec::new_with_index(index).controller(bridge).build();
                self.request(&doing, &[], async |handle| handle.link().change(message).execute().await).await
            }
            LinkChange::SetAddress { device, cidr, lifetime_s } => {
                let index = self.index(&doing, device).await?;
                let mut message = address(index, *cidr);
                if cidr.addr().is_ipv6() {
                    message.header.flags |= AddressHeaderFlags::Nodad;
                }
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_valid = lifetime_s.unwrap_or(u32::MAX);
                // Not preferred: it answers, but connections of this node's own do not come from it.
                let passing = lifetime_s.is_some() && cidr.addr().is_ipv6();
                lifetime.ifa_preferred = if passing { 0 } else { lifetime.ifa_valid };
                message.attributes.push(AddressAttribute::CacheInfo(lifetime));
                self.request(&doing, &[], async |handle| {
                    let mut request = handle.address().add(index, cidr.addr(), cidr.prefix_len()).replace();
                    *request.message_mut() = message;
                    request.execute().await
                })
                .await
            }
            LinkChange::RemoveAddress { device, cidr } => {
                let index = match self.index(&doing, device).await {
                    Err(LinksError::NoDevice { .. }) => return Ok(()),
                    other => other?,
                };
                let message = address(index, *cidr);
                self.request(&doing, &[libc::EADDRNOTAVAIL], async |h| {
                    h.address().del(message).execute().await
                })
                .await
            }
            LinkChange::MoveRoutes { from, to } => self.move_routes(&doing, from, to).await,
            LinkChange::AddDefaultRoute { via, device } => {
                let route = default_route(*via, self.index(&doing, device).await?);
                self.request(&doing, &[libc::EEXIST], async |h| h.route().add(route).execute().await).await
            }
            LinkChange::RemoveDefaultRoute { via, device } => {
                let route = default_route(*via, self.index(&doing, device).await?);
                self.request(&doing, &[libc::ESRCH], async |h| h.route().del(route).execute().await).await
            }
            LinkChange::SetSysctl { path, value } => {
                sysctl::write(path, value).map_err(|cause| LinksError::Kernel { doing: doing.clone(), cause })
            }
        }
    }

    async fn announce(&self, device: &str, addresses: &[IpAddr]) -> Result<(), LinksError> {
        let doing = format!("announce addresses on {device}");
        let found = self
            .request(&doing, &[libc::ENODEV], async |handle| {
                let mut links = handle.link().get().match_name(device.to_owned()).execute();
                Ok(links.try_next().await?.map(|link| (link.header.index, seen::mac(&link))))
            })
            .await?;
        let (index, mac) =
            found.ok_or_else(|| LinksError::NoDevice { doing: doing.clone(), device: device.to_owned() })?;
        let frames: Vec<Vec<u8>> = addresses.iter().flat_map(|a| announce::frames(mac, *a)).collect();
        announce::send(index, &frames).map_err(|cause| LinksError::Kernel { doing, cause })
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }
}

type LinkUnspecBuilder = rtnetlink::LinkMessageBuilder<LinkUnspec>;
