//! Publishes why a subject is not as desired, for `explain`. Best effort: it never fails a reconciler.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::model::{Explanation, Subject};
use pvc_store::schema;
use tokio::time::timeout;
use tracing::debug;

use super::{Cluster, Reconciler};

/// How long a status may take to be written: nobody waits longer for it.
const WITHIN: Duration = Duration::from_secs(1);

/// What is published of a subject, without when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) doing: String,
    pub(super) because: String,
    pub(super) error: Option<String>,
}

impl Status {
    fn without_figures(&self) -> [String; 3] {
        let text = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect();
        [text(&self.doing), text(&self.because), text(self.error.as_deref().unwrap_or_default())]
    }
}

/// What this node has published.
#[derive(Default)]
pub(super) struct Statuses(Mutex<HashMap<Subject, Status>>);

impl Statuses {
    /// Takes over what an earlier run of this daemon left behind, so that it is removed when its subject is settled.
    pub(super) async fn take_over(&self, cluster: &Cluster, subjects: Vec<Subject>) {
        for subject in subjects {
            if let Ok(Some(Ok(left))) = schema::explain::read(&*cluster.store, &subject).await
                && left.by == cluster.me.as_str()
            {
                let status = Status { doing: left.doing, because: left.because, error: left.error };
                self.lock().insert(subject, status);
            }
        }
    }

    /// Publishes how a subject is, if that is news; `None`: there is nothing to explain.
    pub(super) async fn publish<R: Reconciler>(
        &self,
        kind: &R,
        cluster: &Cluster,
        subject: &Subject,
        status: Option<Status>,
    ) {
        let is_same = match (self.lock().get(subject), &status) {
            (None, None) => true,
            (Some(before), Some(now)) if R::FIGURES_ARE_NEWS => before == now,
            (Some(before), Some(now)) => before.without_figures() == now.without_figures(),
            _ => false,
        };
        if is_same {
            return;
        }
        let written = async {
            match &status {
                Some(status) => write(cluster, subject, status).await,
                None => kind.withdraw(subject).await,
            }
        };
        if timeout(WITHIN, written).await != Ok(true) {
            return debug!(%subject, "what its status is told by is as before");
        }
        let mut published = self.lock();
        match status {
            Some(status) => published.insert(subject.clone(), status),
            None => published.remove(subject),
        };
    }

    /// Whether something is published of it.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        self.lock().contains_key(subject)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(cluster: &Cluster, subject: &Subject, status: &Status) -> bool {
    let explanation = Explanation {
        by: cluster.me.to_string(),
        at_unix_s: cluster.machine.unix_s(),
        doing: status.doing.clone(),
        because: status.because.clone(),
        error: status.error.clone(),
    };
    let written = schema::explain::write(&*cluster.store, subject, Some(&explanation)).await;
    written.inspect_err(|error| debug!(%subject, %error, "its status could not be published")).is_ok()
}
