//! How much of the service one asker may hold at once. What a token holds is bounded, and of that what one address holds, so that nobody who has a token can
//! take everything from those who have others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{guesses::whose, session::Hash};

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// For all together.
    pub all: usize,
    /// For those with one token.
    pub token: usize,
    /// For those with one token and one address; of IPv6, one /64.
    pub address: usize,
    /// So many may wait for one; of those with one token a quarter.
    pub waiting: usize,
}

/// The places, and who has them.
pub(crate) struct Shares {
    of: Share,
    all: Arc<Semaphore>,
    /// Of a token, and of a token at an address: gone when nobody holds or awaits one of theirs.
    parts: Mutex<HashMap<Part, Weak<Semaphore>>>,
    waiting: Arc<Semaphore>,
}

type Part = (Hash, Of);

/// What of a token's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Places,
    PlacesAt(IpAddr),
    Waiting,
}

/// A place; it is free again when this is dropped.
pub(crate) struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
}

/// As many wait as may.
#[derive(Debug)]
pub(crate) struct Full;

impl Shares {
    pub(crate) fn new(of: Share) -> Self {
        let all = Arc::new(Semaphore::new(of.all));
        Self { of, all, parts: Mutex::default(), waiting: Arc::new(Semaphore::new(of.waiting)) }
    }

    /// A place for who has this token, at once or when one is free.
    pub(crate) async fn take(&self, token: Hash, from: IpAddr) -> Result<Place, Full> {
        let of_address = self.part((token, Of::PlacesAt(whose(from))), self.of.address);
        let of_token = self.part((token, Of::Places), self.of.token);
        // The narrowest first: whoever has taken all of their own wait among themselves.
        let bounds = [of_address, of_token, Arc::clone(&self.all)];
        let mut permits = Vec::with_capacity(bounds.len());
        for bound in &bounds {
            let Ok(permit) = Arc::clone(bound).try_acquire_owned() else { break };
            permits.push(permit);
        }
        if permits.len() < bounds.len() {
            // Nobody else's wait is shortened by those of one token who ask for more than they get.
            let of_token = self.part((token, Of::Waiting), (self.of.waiting / 4).max(1));
            let _waits = of_token.try_acquire_owned().map_err(|_| Full)?;
            let _waits_among_all = self.waiting.try_acquire().map_err(|_| Full)?;
            for bound in bounds.iter().skip(permits.len()) {
                permits.push(Arc::clone(bound).acquire_owned().await.map_err(|_| Full)?);
            }
        }
        Ok(Place { _permits: permits })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.of.all.saturating_sub(self.all.available_permits())
    }

    /// Returns when nobody holds a place, and nobody gets one any more.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(self.of.all).unwrap_or(u32::MAX);
        if let Ok(permits) = self.all.acquire_many(all).await {
            permits.forget();
        }
    }

    fn part(&self, part: Part, places: usize) -> Arc<Semaphore> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|_, semaphore| semaphore.strong_count() > 0);
        let known = parts.get(&part).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(places));
            parts.insert(part, Arc::downgrade(&new));
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const OF: Share = Share { all: 4, token: 3, address: 2, waiting: 1 };

    /// What is given at once; `None`: one has to wait.
    fn take(shares: &Shares, token: u8, from: &str) -> Option<Result<Place, Full>> {
        shares.take([token; 32], from.parse().unwrap()).now_or_never()
    }

    #[test]
    fn no_address_and_no_token_takes_more_than_its_share() {
        let shares = Shares::new(OF);
        let mut held: Vec<Place> = Vec::new();
        for (token, from, gets_one) in [
            (1, "10.0.0.1", true),
            (1, "10.0.0.1", true),
            (1, "10.0.0.1", false),
            (1, "10.0.0.2", true),
            (1, "10.0.0.3", false),
            (2, "10.0.0.1", true),
            (2, "10.0.0.1", false),
            (3, "10.0.0.4", false),
        ] {
            let place = take(&shares, token, from);
            assert_eq!(place.is_some(), gets_one, "{token} {from}");
            held.extend(place.map(Result::unwrap));
        }
        held.clear();
        assert!(take(&shares, 3, "10.0.0.4").is_some());
        assert_eq!(shares.parts.lock().unwrap().len(), 2, "who has gone is forgotten");
    }

    #[tokio::test]
    async fn one_token_takes_a_quarter_of_the_waiting_places() {
        let shares = Shares::new(Share { waiting: 8, ..OF });
        let held: Vec<Place> =
            ["::1", "1::1", "2::1"].map(|from| take(&shares, 1, from).unwrap().unwrap()).into();
        let wait = |token: u8, from: &str| Box::pin(shares.take([token; 32], from.parse().unwrap()));
        let mut waits: Vec<_> = (0..2).map(|_| wait(1, "3::1")).collect();
        for one in &mut waits {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(matches!(take(&shares, 1, "4::1"), Some(Err(Full))), "it has its quarter");
        let _other = take(&shares, 2, "::1").unwrap().unwrap();
        assert!(take(&shares, 2, "::1").is_none(), "another one waits");
        drop(held);
        for one in waits {
            one.await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_waits_has_its_turn_and_who_gives_up_waits_no_more() {
        let shares = Shares::new(OF);
        let held = [take(&shares, 1, "::1").unwrap().unwrap(), take(&shares, 1, "::2").unwrap().unwrap()];
        let mut waits = Box::pin(shares.take([1; 32], "::3".parse().unwrap()));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(matches!(take(&shares, 1, "::1"), Some(Err(Full))), "one waits already");
        assert!(matches!(take(&shares, 2, "::1"), Some(Ok(_))), "others need not wait");
        drop(held);
        waits.await.unwrap();
        let _held = [take(&shares, 1, "::1").unwrap().unwrap(), take(&shares, 1, "::1").unwrap().unwrap()];
        for _ in 0..3 {
            assert!(take(&shares, 1, "::1").is_none(), "it waits, and is dropped");
        }
    }
}
