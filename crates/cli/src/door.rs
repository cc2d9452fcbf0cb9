//! The way to the cluster: its state store, or its HTTP API. Each operation that the command line needs is here once for both: by [`pvc_operate`] on the store, or as a request
//! whose answer is of the same type. Whoever prints, asks and follows does not know which it is.

pub(crate) mod client;
mod cluster;
pub(crate) mod console;
pub(crate) mod endpoint;
mod events;
mod network;
mod node;
pub(crate) mod own;
mod pending;
pub(crate) mod screen;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
mod vm;

use std::time::{SystemTime, UNIX_EPOCH};

use pvc_core::model::Problem;
use pvc_operate::Cluster;
use serde::Deserialize;

pub(crate) use self::{
    client::{Call, Client},
    node::Prepared,
    pending::Pending,
    vm::{Destination, Filter},
};

/// The way to the cluster.
#[derive(Debug)]
pub(crate) enum Door {
    /// Its state store.
    Direct(Cluster),
    /// Its API.
    Api(Client),
}

/// A list, and what is wrong with what is not in it.
#[derive(Deserialize)]
struct Listing<T> {
    rows: Vec<T>,
    problems: Vec<Problem>,
}

impl<T> From<Listing<T>> for (Vec<T>, Vec<Problem>) {
    fn from(listing: Listing<T>) -> Self {
        (listing.rows, listing.problems)
    }
}

/// A list with what there is to say beside it.
fn whole(parts: &[&str]) -> Call {
    Call::get(parts).query("whole", "true")
}

#[cfg(test)]
impl From<&pvc_operate::testing::Fake> for Door {
    fn from(fake: &pvc_operate::testing::Fake) -> Self {
        Self::Direct(Cluster::new(fake.cluster.store.clone(), fake.cluster.place.clone()))
    }
}

/// This machine's clock.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
