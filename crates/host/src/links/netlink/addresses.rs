//! Addresses that come, are renewed, go and are announced, many at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError},
};

use pvc_core::model::link::Placed;
use rtnetlink::{
    AddressMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage::{DelAddress, NewAddress, NewLink},
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo},
    },
};
use tokio::time::Instant;

use super::{
    super::{
        LinksError,
        announce::{self, Announcer},
        seen,
    },
    Netlink, requests,
    trains::{Answer, MOST, Request, Why},
};

/// What the kernel calls a device by, and its wire.
#[derive(Clone, Copy)]
struct Device {
    index: u32,
    mac: [u8; 6],
}

/// The devices of some addresses, by name; `Ok(None)`: there is none.
type Devices<'a> = BTreeMap<&'a str, Result<Option<Device>, Why>>;

/// One of some addresses, and the number of its device.
type There<'a> = (&'a Placed, u32);

impl Netlink {
    /// `lifetime_s` is asked just before the kernel is; `Some(None)`: for ever, `None`: not any more.
    pub(super) async fn set_addresses(
        &self,
        addresses: &[Placed],
        lifetime_s: &(dyn Fn() -> Option<Option<u32>> + Send + Sync),
    ) -> Vec<Result<(), LinksError>> {
        let load = |some: &[There<'_>]| {
            let lifetime_s = lifetime_s()?;
            Some(some.iter().map(|(address, number)| set(address, *number, lifetime_s)).collect())
        };
        let outcomes = self.each(addresses, load).await;
        let told = addresses.iter().zip(outcomes).map(|(address, outcome)| {
            let (doing, device) = (|| address.set(None).to_string(), || address.device.clone());
            match outcome {
                Some(Ok(_)) => Ok(()),
                None | Some(Err(Why::Refused(libc::ENODEV))) => {
                    Err(LinksError::NoDevice { doing: doing(), device: device() })
                }
                Some(Err(why)) => Err(why.error(doing())),
            }
        });
        told.collect()
    }

    pub(super) async fn remove_addresses(&self, addresses: &[Placed]) -> Vec<Result<(), LinksError>> {
        let load = |some: &[There<'_>]| {
            Some(some.iter().map(|(address, number)| remove(address, *number)).collect())
        };
        let outcomes = self.each(addresses, load).await;
        let told = addresses.iter().zip(outcomes).map(|(address, outcome)| match outcome {
            // Without its device an address is gone.
            None | Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(why.error(address.remove().to_string())),
        });
        told.collect()
    }

    /// Sends what is made of each address whose device there is, as many as go together at a time; `None`: there is no such device.
    async fn each<'a>(
        &self,
        addresses: &'a [Placed],
        load: impl Fn(&[There<'a>]) -> Option<Vec<Request>>,
    ) -> Vec<Option<Answer>> {
        let mut outcomes = Vec::with_capacity(addresses.len());
        // Looked up by as many as go together: the first do not wait for the last ones' devices.
        for addresses in addresses.chunks(MOST) {
            let devices = self.devices(addresses).await;
            let (mut places, mut there) = (Vec::new(), Vec::new());
            for address in addresses {
                outcomes.push(match devices.get(address.device.as_str()) {
                    Some(Ok(Some(device))) => {
                        places.push(outcomes.len());
                        there.push((address, device.index));
                        None
                    }
                    Some(Err(why)) => Some(Err(why.clone())),
                    Some(Ok(None)) | None => None,
                });
            }
            if there.is_empty() {
                continue;
            }
            let answers = self.addresses.send_one(there.len(), || load(&there)).await;
            for (at, answer) in places.into_iter().zip(answers) {
                outcomes[at] = Some(answer);
            }
        }
        outcomes
    }

    pub(super) async fn announce_addresses(
        &self,
        addresses: &[Placed],
        not_after: Instant,
    ) -> Result<(), LinksError> {
        let doing = |address: &Placed| format!("announce {} on {}", address.cidr.addr(), address.device);
        let Some(first) = addresses.first() else { return Ok(()) };
        let devices = self.devices(addresses).await;
        if Instant::now() > not_after {
            return Err(LinksError::TooLate { doing: doing(first) });
        }
        let announcer =
            self.announcer().map_err(|cause| LinksError::Kernel { doing: doing(first), cause })?;
        let announce = |address: &Placed| match devices.get(address.device.as_str()) {
            Some(Ok(Some(device))) => {
                let frames = announce::frames(device.mac, address.cidr.addr());
                let sent = frames.iter().try_for_each(|frame| announcer.send(device.index, frame));
                sent.map_err(|cause| LinksError::Kernel { doing: doing(address), cause })
            }
            Some(Err(why)) => Err(why.error(doing(address))),
            Some(Ok(None)) | None => {
                Err(LinksError::NoDevice { doing: doing(address), device: address.device.clone() })
            }
        };
        addresses.iter().map(announce).fold(Ok(()), Result::and)
    }

    fn announcer(&self) -> io::Result<Arc<Announcer>> {
        let mut announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner);
        match &*announcer {
            Some(open) => Ok(Arc::clone(open)),
            None => Ok(Arc::clone(announcer.insert(Arc::new(Announcer::open()?)))),
        }
    }

    async fn devices<'a>(&self, addresses: &'a [Placed]) -> Devices<'a> {
        let names: BTreeSet<&str> = addresses.iter().map(|address| address.device.as_str()).collect();
        let asked: Vec<Request> = names.iter().map(|name| requests::number(name)).collect();
        let told = self.addresses.send(&asked).await.into_iter().map(|answer| {
            answer.map(|told| match told {
                Some(NewLink(link)) => Some(Device { index: link.header.index, mac: seen::mac(&link) }),
                _ => None,
            })
        });
        names.into_iter().zip(told).collect()
    }
}

fn set(address: &Placed, device: u32, lifetime_s: Option<u32>) -> Request {
    let mut message = message(address, device);
    if address.cidr.addr().is_ipv6() {
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_valid = lifetime_s.unwrap_or(u32::MAX);
    // Not preferred: it answers, but connections of this node's own do not come from it.
    let passing = lifetime_s.is_some() && address.cidr.addr().is_ipv6();
    lifetime.ifa_preferred = if passing { 0 } else { lifetime.ifa_valid };
    message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    Request::new(NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, &[])
}

/// A device without IPv6 has no such address: the kernel says `ENXIO` then.
fn remove(address: &Placed, device: u32) -> Request {
    let fine = &[libc::EADDRNOTAVAIL, libc::ENODEV, libc::ENXIO];
    Request::new(DelAddress(message(address, device)), 0, fine)
}

fn message(Placed { cidr, .. }: &Placed, device: u32) -> AddressMessage {
    match cidr.addr() {
        IpAddr::V4(address) => {
            let builder = AddressMessageBuilder::<Ipv4Addr>::new().index(device);
            builder.address(address, cidr.prefix_len()).build()
        }
        IpAddr::V6(address) => {
            let builder = AddressMessageBuilder::<Ipv6Addr>::new().index(device);
            builder.address(address, cidr.prefix_len()).build()
        }
    }
}
