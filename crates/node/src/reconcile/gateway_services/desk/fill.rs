//! How full the networks' ranges of addresses are: for Prometheus.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use pvc_core::{
    model::{Lease, Vni},
    plan::{dhcp::Book, gateway_services::Served4},
};

use crate::metrics;

/// By network: how many are given out, and how many there are.
#[derive(Default)]
pub(super) struct Fill(Mutex<BTreeMap<Vni, (u64, u64)>>);

impl Fill {
    pub(super) fn tell(&self, vni: Vni, now: (u64, u64)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.insert(vni, now) != Some(now) {
            Self::sum(&all);
        }
    }

    pub(super) fn forget(&self, vni: Vni) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&vni);
        Self::sum(&all);
    }

    #[allow(clippy::cast_precision_loss, reason = "a network has thousands")]
    fn sum(all: &BTreeMap<Vni, (u64, u64)>) {
        let share = |(given, of): &(u64, u64)| *given as f64 / (*of).max(1) as f64;
        let fullest = all.values().map(share).fold(0.0, f64::max);
        let (given, of) = all.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        metrics::pools(given, of, fullest);
    }
}

/// This node gives out none any more.
impl Drop for Fill {
    fn drop(&mut self) {
        metrics::pools(0, 0, 0.0);
    }
}

/// How many of the range are given out, and how many it has.
pub(super) fn given(served: Option<&Served4>, book: &Book, now_s: u64) -> (u64, u64) {
    let Some(served) = served else { return (0, 0) };
    let counts = |lease: &&Lease| lease.expires_s > now_s && served.pool.is_for_anyone(lease.address);
    (book.leases().filter(counts).count() as u64, served.pool.size())
}
