//! What a desk reads and writes of the state tree: the leases of its network.

use std::{future::Future, time::Duration};

use pvc_core::{
    model::{Lease, Mac, Problem, dhcp6::Lease6},
    plan::{own_addresses::OwnAddresses, pace::Who},
    sabotage::{self, Bug},
};
use pvc_store::{
    CommitError, StoreError,
    schema::network::{leases, leases6},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{Desk, TRY_AGAIN};

/// How long all leases of a large network may take to be read.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// How long a lease may take to be written before its guest has to ask again.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

impl Desk {
    /// Reads all leases. No address is given out before they are known.
    pub(super) async fn read(&mut self) {
        while let Err(error) = self.reread().await {
            self.warn(&format!("no address is given out before its leases are read: {error}"));
            sleep(TRY_AGAIN).await;
        }
    }

    /// Whether the books have all that the state tree has. A write of which nothing was heard may have been done: what it gave to somebody is not given to
    /// another guest before that is known.
    pub(super) async fn is_sure(&mut self) -> bool {
        let Some(at) = self.unsure else { return true };
        if Instant::now() < at {
            return false;
        }
        let why = match timeout(READ_WITHIN, self.reread()).await {
            Ok(Ok(())) => {
                self.unsure = None;
                return true;
            }
            Ok(Err(error)) => format!("cannot be read: {error}"),
            Err(_) => "could not be read in time".to_owned(),
        };
        self.unsure = Some(Instant::now() + TRY_AGAIN);
        self.warn(&format!("no address is given out: its leases {why}"));
        false
    }

    async fn reread(&mut self) -> Result<(), StoreError> {
        let store = &*self.cluster.store;
        // Another server than the one that was written to may not have heard of it yet.
        store.sync().await?;
        let ((leases, problems), six) =
            tokio::try_join!(leases::read(store, self.vni), leases6::read(store, self.vni))?;
        if sabotage::commits(Bug::ForgetLeases) {
            return Ok(());
        }
        let problems: Vec<Problem> = problems.into_iter().chain(six.problems).collect();
        if let Some(first) = problems.first() {
            warn!(
                "network {}: {} keys of leases cannot be read, {} first: {}",
                self.vni,
                problems.len(),
                first.key,
                first.what
            );
        }
        self.book.reread(leases);
        self.book6.reread(six.leases);
        self.own = OwnAddresses::new(six.own);
        self.is_stale = true;
        Ok(())
    }

    /// Writes a lease; says whether it is written for certain.
    pub(super) async fn write(&mut self, lease: &Lease) -> bool {
        let cluster = self.cluster.clone();
        let write = leases::write(&*cluster.store, self.vni, lease, &cluster.me);
        let is_written = self.commit("a lease is not written", write).await;
        if is_written || sabotage::commits(Bug::TellUnwritten) {
            self.note(lease.mac, |desk| desk.book.note(lease.clone()));
        }
        is_written
    }

    /// Writes a lease of an IPv6 address; says whether it is written for certain.
    pub(super) async fn write6(&mut self, lease: &Lease6) -> bool {
        let cluster = self.cluster.clone();
        let write = leases6::write(&*cluster.store, self.vni, lease, &cluster.me);
        let is_written = self.commit("an IPv6 lease is not written", write).await;
        if is_written {
            self.note(lease.client.mac, |desk| desk.book6.note(lease.clone()));
        }
        is_written
    }

    pub(super) async fn remove(&mut self, lease: &Lease) {
        let cluster = self.cluster.clone();
        let remove = leases::remove(&*cluster.store, self.vni, lease, &cluster.me);
        if self.commit("a lease is not removed", remove).await {
            self.book.forget(lease.mac);
            self.is_stale = true;
        }
    }

    pub(super) async fn remove6(&mut self, lease: &Lease6) {
        let cluster = self.cluster.clone();
        let remove = leases6::remove(&*cluster.store, self.vni, lease, &cluster.me);
        if self.commit("an IPv6 lease is not removed", remove).await {
            self.book6.forget(&lease.client);
            self.is_stale = true;
        }
    }

    /// Says whether it is done for certain. What else became of it is read before the next address is given out.
    pub(super) async fn commit(
        &mut self,
        failure: &str,
        change: impl Future<Output = Result<(), CommitError>>,
    ) -> bool {
        match timeout(WRITE_WITHIN, change).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => {
                if matches!(error, CommitError::Unknown(_)) {
                    self.unsure = Some(Instant::now());
                }
                self.warn(&format!("{failure}: {error}"));
            }
            Err(_) => {
                self.unsure = Some(Instant::now());
                self.warn(&format!("{failure} in time"));
            }
        }
        false
    }

    /// Takes note of a lease that is written. One that was written before costs its card nothing.
    fn note(&mut self, mac: Mac, note: impl FnOnce(&mut Self) -> bool) {
        let who = self.who(mac);
        if note(self) {
            self.is_stale = true;
            self.pace.spend(who, self.elapsed_ms());
        }
    }

    /// Whether a card may have something written.
    pub(super) fn may_change(&mut self, mac: Mac) -> bool {
        let may = self.pace.may(self.who(mac), self.elapsed_ms());
        if !may {
            self.warn(&format!(
                "{mac}, or its network's guests, change their leases too often and have to wait"
            ));
        }
        may
    }

    /// It has something written.
    pub(super) fn spend(&mut self, mac: Mac) {
        self.pace.spend(self.who(mac), self.elapsed_ms());
    }

    fn who(&self, mac: Mac) -> Who {
        let has_one = self.book.leases().any(|lease| lease.mac == mac)
            || self.book6.leases().any(|lease| lease.client.mac == mac);
        if has_one { Who::Known(mac) } else { Who::New(mac) }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
