//! The cluster that commands are carried out on, and those that are about it as a whole.

use std::{fmt, sync::Arc};

use pvc_core::{command::cluster, model::ClusterView};
use pvc_store::{
    Children, Kept, Store,
    mirror::Mirror,
    schema::{maintenance, network, node, root},
};
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Failure,
    definitions::Definitions,
    watched::{Figures, Watched},
};

/// What is kept of what was read of a watched cluster. Not nodes and VMs: those are the mirror's, and each keepalive and line of a console would tell.
const KEPT: [&str; 3] = [root::OURS, root::CEPH, network::ROOT];

/// A cluster, by its state store.
pub struct Cluster {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where it is, for messages.
    pub place: String,
    /// For who only looks: what is known without asking.
    pub(crate) watched: Option<Watched>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Whether maintenance is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Whether it is.
    pub maintenance: bool,
}

impl Cluster {
    /// The cluster in that store.
    pub fn new(store: Arc<dyn Store>, place: impl Into<String>) -> Self {
        Self { store, place: place.into(), watched: None }
    }

    /// The same for who only looks: nodes, VMs and networks are those of a mirror, and other keys are read when they have changed, whatever this store has
    /// committed before included. Needs a tokio runtime.
    #[must_use]
    pub fn watched(&self) -> Self {
        let watched = Watched::start(&self.store);
        let store = Kept::of(Arc::clone(&self.store), &KEPT);
        Self { store, place: self.place.clone(), watched: Some(watched) }
    }

    /// The mirror of one that is watched.
    pub fn its_mirror(&self) -> Option<&Mirror> {
        self.watched.as_ref().map(Watched::mirror)
    }

    /// What is known of definitions if it is watched.
    pub(crate) fn definitions_known(&self) -> Option<&Definitions> {
        self.watched.as_ref().map(Watched::definitions)
    }

    /// What is known of it now if it is watched.
    pub(crate) async fn known(&self, figures: Figures) -> Result<Option<Arc<ClusterView>>, Failure> {
        let Some(watched) = &self.watched else { return Ok(None) };
        let view = watched.view(&*self.store, figures).await?;
        if view.nodes.is_empty() {
            // There may be no cluster at all.
            self.children(node::ROOT).await?;
        }
        Ok(Some(view))
    }

    /// The names below a root key, which is there if there is a cluster.
    pub(crate) async fn children(&self, root: &str) -> Result<Children, Failure> {
        let children = self.store.children(root).await?;
        children.ok_or_else(|| Failure::Uninitialised { place: self.place.clone() })
    }

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
