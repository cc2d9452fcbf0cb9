//! What is known of a cluster that is watched. For who only looks: whoever writes decides from what is read anew.
//!
//! Never silently old: who looks waits until the mirror holds whatever this store has committed and shown before, or is told that it does not.

use std::{fmt::Display, sync::Arc, time::Duration};

use pvc_core::model::ClusterView;
use pvc_store::{
    Store, StoreError,
    mirror::{Mirror, NotCaughtUp},
};
use tokio::time::{Instant, timeout_at};

use crate::definitions::Definitions;

/// How long who looks waits until what is known is as new as it has to be: the first listing of ten thousand VMs takes seconds.
pub(crate) const WITHIN: Duration = Duration::from_secs(15);

/// A mirror, and when it may be believed.
pub(crate) struct Watched {
    mirror: Mirror,
    definitions: Definitions,
}

/// What of nodes is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figures {
    /// Also what each keepalive says anew, such as the load: read if somebody has spoken since it was looked at last.
    Newest,
    /// Not that.
    Any,
}

impl Watched {
    pub(crate) fn start(store: &Arc<dyn Store>) -> Self {
        Self { mirror: Mirror::start(Arc::clone(store)), definitions: Definitions::default() }
    }

    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    pub(crate) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The view, when it is as new as it has to be.
    pub(crate) async fn view(
        &self,
        store: &dyn Store,
        figures: Figures,
    ) -> Result<Arc<ClusterView>, StoreError> {
        let deadline = Instant::now() + WITHIN;
        let late = |why: &dyn Display| StoreError::Unavailable(why.to_string());
        let mut session = store.session();
        loop {
            // A connection that is lost for a moment is waited for, as by any read.
            let healthy = session.wait_for(|session| session.is_healthy());
            match timeout_at(deadline, healthy).await.map(|session| session.map(drop)) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(late(&"it is closed")),
                Err(_) => {
                    return Err(late(&"there is no connection, and what was known last may be old"));
                }
            }
            // Nor is it older than what an answer has shown before.
            store.show_events().await;
            match self.caught_up(figures, deadline - Instant::now()).await {
                Ok(()) => return Ok(self.mirror.view()),
                Err(why) if !session.has_changed().unwrap_or(false) => return Err(late(&why)),
                Err(_) => {}
            }
        }
    }

    async fn caught_up(&self, figures: Figures, within: Duration) -> Result<(), NotCaughtUp> {
        match figures {
            Figures::Newest => self.mirror.figures(within).await,
            Figures::Any => self.mirror.caught_up(within).await,
        }
    }
}
