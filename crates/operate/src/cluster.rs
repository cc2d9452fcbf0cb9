//! The cluster that commands are carried out on, and those that are about it as a whole.

use std::sync::Arc;

use pvc_core::command::cluster;
use pvc_store::{
    Store,
    schema::{maintenance, root},
};
use serde::Serialize;

use crate::{Answer, Failure};

/// A cluster, by its state store.
pub struct Cluster {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where it is, for messages.
    pub place: String,
}

/// Whether maintenance is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Maintenance {
    /// Whether it is.
    pub maintenance: bool,
}

impl Cluster {
    /// Creates what is absent and never touches what exists: a second time does nothing.
    pub async fn init(&self) -> Result<Answer, Failure> {
        let created = root::init(&*self.store).await?;
        Ok(Answer::new(match created.len() {
            0 => format!("the state store at {} was initialised already; nothing was changed", self.place),
            keys => format!("the state store at {} is initialised: {keys} keys created", self.place),
        }))
    }

    /// Whether maintenance is on.
    pub async fn maintenance(&self) -> Result<Maintenance, Failure> {
        Ok(Maintenance { maintenance: self.view_without_vms().await?.maintenance })
    }

    /// Turns maintenance on or off.
    pub async fn set_maintenance(&self, on: bool) -> Result<Answer, Failure> {
        let accepted = cluster::maintenance(&self.view_without_vms().await?, on);
        if let Some(on) = accepted.change {
            maintenance::set(&*self.store, on).await?;
        }
        let message = if on { cluster::MAINTENANCE } else { "maintenance is off" };
        Ok(Answer { message: message.to_owned(), notes: accepted.notes })
    }
}
