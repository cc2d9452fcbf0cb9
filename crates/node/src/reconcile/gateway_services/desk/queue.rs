//! What waits at a desk: requests for leases, and apart from them what any guest sends at any time.
//!
//! Noise never takes a request's place, and is attended to when no request waits.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::{Mac, dhcp::Request, dhcp6::Request6};
use pvc_host::dhcp::{Asker, Envelope};
use tokio::{sync::mpsc, time::Instant};

/// So many requests of a network wait. Who is not answered asks again.
const MOST_REQUESTS: usize = 256;

/// So much noise waits: who looks for a router, or has made an address for itself.
const MOST_NOISE: usize = 32;

/// What a guest has sent.
pub(super) enum Asked {
    Four(Request, Envelope),
    Six(Request6, [u8; 3], Asker),
    Router(Asker),
    Has(Mac, Ipv6Addr),
}

/// The own addresses of which there is nothing to do, by card.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<BTreeMap<Mac, Ipv6Addr>>>);

impl Known {
    pub(super) fn insert(&self, mac: Mac, address: Ipv6Addr) {
        self.lock().insert(mac, address);
    }

    pub(super) fn remove(&self, mac: Mac) {
        self.lock().remove(&mac);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn has(&self, mac: Mac, address: Ipv6Addr) -> bool {
        self.lock().get(&mac) == Some(&address)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Mac, Ipv6Addr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is queued.
pub(super) struct Queue {
    requests: mpsc::Sender<(Asked, Instant)>,
    noise: mpsc::Sender<(Asked, Instant)>,
    pub(super) known: Known,
}

/// What waits, and since when.
pub(super) struct Waiting {
    requests: mpsc::Receiver<(Asked, Instant)>,
    noise: mpsc::Receiver<(Asked, Instant)>,
}

pub(super) fn open() -> (Queue, Waiting) {
    let (requests, waiting) = mpsc::channel(MOST_REQUESTS);
    let (noise, heard) = mpsc::channel(MOST_NOISE);
    (Queue { requests, noise, known: Known::default() }, Waiting { requests: waiting, noise: heard })
}

impl Queue {
    /// What comes when too many wait is lost.
    pub(super) fn push(&self, what: Asked) {
        let queue = match &what {
            Asked::Four(..) | Asked::Six(..) => &self.requests,
            Asked::Has(mac, address) if self.known.has(*mac, *address) => return,
            Asked::Has(..) | Asked::Router(_) => &self.noise,
        };
        let _ = queue.try_send((what, Instant::now()));
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.noise.is_empty()
    }

    /// What is to be attended to next; `None`: nothing comes any more.
    pub(super) async fn next(&mut self) -> Option<(Asked, Instant)> {
        tokio::select! {
            biased;
            request = self.requests.recv() => request,
            heard = self.noise.recv() => heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_core::model::dhcp6::Asks6;

    use super::*;

    #[tokio::test]
    async fn noise_takes_no_requests_place_and_is_attended_to_after_it() {
        let (queue, mut waiting) = open();
        let (mac, own) = (Mac([0x52, 0x54, 0, 0, 0, 1]), "fd00:5::5054:ff:fe00:1".parse().unwrap());
        queue.known.insert(mac, own);
        queue.push(Asked::Has(mac, own));
        assert!(waiting.is_empty(), "of what is known there is nothing to do");
        queue.known.remove(mac);
        queue.push(Asked::Has(mac, own));
        let asker = || Asker { device: "vmbr5".into(), address: None };
        (0..2 * MOST_REQUESTS).for_each(|_| queue.push(Asked::Router(asker())));
        let (client, server, name) = (None, None, None);
        let request = Request6 { mac, client, server, asks: Asks6::Discover, wants: Vec::new(), name };
        queue.push(Asked::Six(request, [1, 2, 3], asker()));
        assert_eq!((waiting.requests.len(), waiting.noise.len()), (1, MOST_NOISE));
        let (first, second) = (waiting.next().await.unwrap().0, waiting.next().await.unwrap().0);
        assert!(matches!((first, second), (Asked::Six(..), Asked::Has(..))));
    }
}
