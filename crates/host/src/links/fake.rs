//! A machine's network in memory, which does as Linux does in what the plans rely on: lifetimes end, a device's last address
//! takes its routes along, announcements reach a wire that remembers them. Time is tokio's.

mod bridges;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use pvc_core::model::link::{Assigned, HostNetwork, Link, LinkChange, Placed, Route};
use tokio::{sync::watch, time::Instant};

use super::{DEADLINE, Links, LinksError};

pub use bridges::FakeBridges;

/// A device with a smaller MTU has no IPv6.
const LEAST_IPV6: u32 = 1280;

/// The fake.
pub struct FakeLinks {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    network: HostNetwork,
    /// When lifetimes end.
    ends: Vec<(String, IpNet, Instant)>,
    announced: Vec<(Instant, String, IpAddr)>,
    /// Calls hang until their deadline.
    hangs: bool,
    /// Kinds of changes that fail.
    refused: BTreeSet<&'static str>,
    applied: u64,
    looks: u64,
}

impl FakeLinks {
    /// A machine with these Ethernet devices, up, and nothing on them.
    pub fn new(devices: &[&str]) -> Arc<Self> {
        let link = |(n, name): (usize, &&str)| Link {
            name: (*name).to_owned(),
            mac: [2, 0, 0, 0, 0, u8::try_from(n).unwrap_or(u8::MAX)],
            mtu: 1500,
            up: true,
            is_bridge: false,
            master: None,
            addresses: vec![],
        };
        let network =
            HostNetwork { links: devices.iter().enumerate().map(link).collect(), ..HostNetwork::default() };
        let state = State {
            network,
            ends: vec![],
            announced: vec![],
            hangs: false,
            refused: BTreeSet::new(),
            applied: 0,
            looks: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: watch::Sender::new(()) })
    }

    /// The network as it is, without counting as a call and whether or not calls are answered.
    pub fn network(&self) -> HostNetwork {
        self.lock().network.clone()
    }

    /// How often it was looked at so far.
    pub fn looks(&self) -> u64 {
        self.lock().looks
    }

    /// Whether any device has that address now.
    pub fn has(&self, address: IpAddr) -> bool {
        self.lock().network.links.iter().any(|l| l.addresses.iter().any(|a| a.cidr.addr() == address))
    }

    /// Changes something behind everybody's back, as an operator would.
    pub fn by_hand(&self, change: impl FnOnce(&mut HostNetwork)) {
        change(&mut self.lock().network);
        self.changed.send_replace(());
    }

    /// Calls hang from now on, or no longer do.
    pub fn hang(&self, hangs: bool) {
        self.lock().hangs = hangs;
    }

    /// Changes of that kind (`add-bridge`, `set-address`, `remove-address` …) are refused from now on, or no longer are.
    pub fn refuse(&self, kind: &'static str, refused: bool) {
        let mut state = self.lock();
        if refused {
            state.refused.insert(kind);
        } else {
            state.refused.remove(kind);
        }
    }

    /// What was announced, where and when.
    pub fn announced(&self) -> Vec<(Instant, String, IpAddr)> {
        self.lock().announced.clone()
    }

    /// How many changes were applied.
    pub fn applied(&self) -> u64 {
        self.lock().applied
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire();
        state
    }

    async fn answered(&self, doing: impl FnOnce() -> String) -> Result<(), LinksError> {
        if self.lock().hangs {
            tokio::time::sleep(DEADLINE).await;
            return Err(LinksError::Deadline { doing: doing() });
        }
        Ok(())
    }
}

impl State {
    /// Ends what has lived its time, and counts down the rest.
    fn expire(&mut self) {
        let now = Instant::now();
        for (device, cidr, end) in std::mem::take(&mut self.ends) {
            let Some(link) = self.network.links.iter_mut().find(|l| l.name == device) else { continue };
            let Some(i) = link.addresses.iter().position(|a| a.cidr == cidr) else { continue };
            if end <= now {
                link.addresses.remove(i);
                continue;
            }
            let left = (end - now).as_secs_f64().ceil();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a lifetime in whole seconds"
            )]
            let left = left as u32;
            link.addresses[i].lifetime_s = Some(left);
            self.ends.push((device, cidr, end));
        }
    }

    fn link(&mut self, doing: &LinkChange, device: &str) -> Result<&mut Link, LinksError> {
        self.network
            .links
            .iter_mut()
            .find(|l| l.name == device)
            .ok_or_else(|| LinksError::NoDevice { doing: doing.to_string(), device: device.to_owned() })
    }

    fn apply(&mut self, change: &LinkChange) -> Result<(), LinksError> {
        match change {
            LinkChange::AddBridge { name, mac } => {
                if self.network.link(name).is_none() {
                    self.network.links.push(Link {
                        name: name.clone(),
                        mac: *mac,
                        mtu: 1500,
                        up: true,
                        is_bridge: true,
                        master: None,
                        addresses: vec![],
                    });
                }
            }
            LinkChange::SetMtu { device, mtu } => self.link(change, device)?.mtu = *mtu,
            LinkChange::SetUp { device } => self.link(change, device)?.up = true,
            LinkChange::Enslave { device, bridge } => {
                self.link(change, bridge)?;
                self.link(change, device)?.master = Some(bridge.clone());
            }
            LinkChange::SetAddress { device, cidr, lifetime_s } => {
                let link = self.link(change, device)?;
                if cidr.addr().is_ipv6() && link.mtu < LEAST_IPV6 {
                    let cause = std::io::Error::from_raw_os_error(libc::EINVAL);
                    return Err(LinksError::Kernel { doing: change.to_string(), cause });
                }
                // An IPv6 address is there once, with the prefix that it came with.
                let is_it = |there: &IpNet| match there {
                    IpNet::V4(_) => there == cidr,
                    IpNet::V6(_) => there.addr() == cidr.addr(),
                };
                match link.addresses.iter_mut().find(|a| is_it(&a.cidr)) {
                    Some(there) => there.lifetime_s = *lifetime_s,
                    None => link.addresses.push(Assigned { cidr: *cidr, lifetime_s: *lifetime_s }),
                }
                self.ends.retain(|(d, c, _)| !(d == device && c == cidr));
                if let Some(lifetime_s) = lifetime_s {
                    let end = Instant::now() + Duration::from_secs((*lifetime_s).into());
                    self.ends.push((device.clone(), *cidr, end));
                }
            }
            LinkChange::RemoveAddress { device, cidr } => {
                let Ok(link) = self.link(change, device) else { return Ok(()) };
                link.addresses.retain(|a| a.cidr != *cidr);
                if !link.addresses.iter().any(|a| a.cidr.addr().is_ipv4()) {
                    self.network.routes.retain(|r| r.device != *device);
                }
            }
            LinkChange::MoveRoutes { from, to } => {
                self.link(change, to)?;
                self.network
                    .routes
                    .iter_mut()
                    .filter(|r| r.device == *from)
                    .for_each(|r| r.device.clone_from(to));
            }
            LinkChange::AddDefaultRoute { via, device } => {
                self.link(change, device)?;
                let route =
                    Route { destination: None, gateway: Some(*via), device: device.clone(), ours: true };
                if !self.network.routes.contains(&route) {
                    self.network.routes.push(route);
                }
            }
            LinkChange::RemoveDefaultRoute { via, device } => self.network.routes.retain(|r| {
                !(r.ours && r.destination.is_none() && r.gateway == Some(*via) && r.device == *device)
            }),
            LinkChange::SetSysctl { path, value } => {
                self.network.sysctls.insert(path.clone(), value.clone());
            }
        }
        self.applied += 1;
        Ok(())
    }
}

fn kind(change: &LinkChange) -> &'static str {
    match change {
        LinkChange::AddBridge { .. } => "add-bridge",
        LinkChange::SetMtu { .. } => "set-mtu",
        LinkChange::SetUp { .. } => "set-up",
        LinkChange::Enslave { .. } => "enslave",
        LinkChange::SetAddress { .. } => "set-address",
        LinkChange::RemoveAddress { .. } => "remove-address",
        LinkChange::MoveRoutes { .. } => "move-routes",
        LinkChange::AddDefaultRoute { .. } => "add-default-route",
        LinkChange::RemoveDefaultRoute { .. } => "remove-default-route",
        LinkChange::SetSysctl { .. } => "set-sysctl",
    }
}

#[async_trait]
impl Links for FakeLinks {
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError> {
        self.lock().looks += 1;
        self.answered(|| "read the network devices".into()).await?;
        let mut network = self.network();
        network.sysctls.retain(|path, _| sysctls.contains(path));
        Ok(network)
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        self.answered(|| change.to_string()).await?;
        {
            let mut state = self.lock();
            if state.refused.contains(kind(change)) {
                let cause = std::io::Error::other("the fake is told to refuse this");
                return Err(LinksError::Kernel { doing: change.to_string(), cause });
            }
            state.apply(change)?;
        }
        self.changed.send_replace(());
        Ok(())
    }

    async fn announce(&self, addresses: &[Placed], not_after: Instant) -> Result<(), LinksError> {
        let Some(first) = addresses.first() else { return Ok(()) };
        let doing = |address: &Placed| format!("announce {} on {}", address.cidr.addr(), address.device);
        self.answered(|| doing(first)).await?;
        let (mut state, now) = (self.lock(), Instant::now());
        if now > not_after {
            return Err(LinksError::TooLate { doing: doing(first) });
        }
        let announce = |address: &Placed| {
            let device = address.device.clone();
            if state.network.link(&device).is_none() {
                return Err(LinksError::NoDevice { doing: doing(address), device });
            }
            state.announced.push((now, device, address.cidr.addr()));
            Ok(())
        };
        addresses.iter().map(announce).fold(Ok(()), Result::and)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
