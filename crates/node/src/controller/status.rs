//! Publishes why a subject is not as desired, for `explain`. Best effort: it never fails a reconciler.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::{Explanation, Subject};
use pvc_store::schema;
use tracing::debug;

use super::Cluster;

/// What is published of a subject, without when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) doing: String,
    pub(super) because: String,
    pub(super) error: Option<String>,
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
    pub(super) async fn publish(&self, cluster: &Cluster, subject: &Subject, status: Option<Status>) {
        if self.lock().get(subject) == status.as_ref() {
            return;
        }
        let explanation = status.as_ref().map(|status| Explanation {
            by: cluster.me.to_string(),
            at_unix_s: cluster.machine.unix_s(),
            doing: status.doing.clone(),
            because: status.because.clone(),
            error: status.error.clone(),
        });
        match schema::explain::write(&*cluster.store, subject, explanation.as_ref()).await {
            Ok(()) => {
                let mut published = self.lock();
                match status {
                    Some(status) => published.insert(subject.clone(), status),
                    None => published.remove(subject),
                };
            }
            Err(error) => debug!(%subject, %error, "its status could not be published"),
        }
    }

    /// Whether something is published of it.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        self.lock().contains_key(subject)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
