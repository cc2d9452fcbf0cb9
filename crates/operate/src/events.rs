//! What becomes of the cluster from now on. What it says is [`pvc_core::command::news`]'s business.

use std::sync::Arc;

use pvc_core::{
    command::news::{self, News},
    model::ClusterView,
};
use pvc_store::{Session, mirror::Mirror};
use tokio::sync::watch;

use crate::{Cluster, Failure};

/// What a listener hears.
#[derive(Debug)]
pub enum Heard {
    /// Something has changed.
    News(Vec<News>),
    /// The state store is out of reach: nothing is told until it answers.
    Lost,
    /// It answers again.
    Back,
}

/// Who listens. Nothing is queued: who is slow hears of the sum of several changes.
pub struct Listener {
    _mirror: Mirror,
    views: watch::Receiver<Arc<ClusterView>>,
    seen: Arc<ClusterView>,
    session: watch::Receiver<Session>,
    lost: bool,
}

impl Listener {
    /// Begins to listen.
    pub async fn begin(cluster: &Cluster) -> Result<Self, Failure> {
        let mirror = cluster.mirror().await?;
        let mut views = mirror.views();
        let seen = Arc::clone(&views.borrow_and_update());
        let mut session = cluster.store.session();
        let lost = !session.borrow_and_update().is_healthy();
        Ok(Self { _mirror: mirror, views, seen, session, lost })
    }

    /// What is next; `None`: the cluster is not watched any more.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            tokio::select! {
                biased;
                session = self.session.changed() => {
                    session.ok()?;
                    let lost = !self.session.borrow_and_update().is_healthy();
                    if std::mem::replace(&mut self.lost, lost) != lost {
                        return Some(if lost { Heard::Lost } else { Heard::Back });
                    }
                }
                view = self.views.changed() => {
                    view.ok()?;
                    let now = Arc::clone(&self.views.borrow_and_update());
                    let news = news::between(&self.seen, &now);
                    self.seen = now;
                    if !news.is_empty() {
                        return Some(Heard::News(news));
                    }
                }
            }
        }
    }
}
