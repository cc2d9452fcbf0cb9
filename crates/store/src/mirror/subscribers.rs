//! Who is told of which changes. What concerns somebody is asked where a change is published, so that nobody is woken by what
//! does not. Never holds a view, and never waits for anybody.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::{ClusterView, Subject};
use tokio::sync::{mpsc, watch};

/// Whether a change that the view shows concerns somebody.
type Concerns = Box<dyn Fn(&Subject, &ClusterView) -> bool + Send>;

/// See the module's documentation. Its lock also orders publishing a view and subscribing, so that no change falls between.
#[derive(Default)]
pub(super) struct Subscribers(Mutex<Vec<Subscriber>>);

struct Subscriber {
    concerns: Concerns,
    told: Told,
}

enum Told {
    /// Each subject.
    What(mpsc::UnboundedSender<Subject>),
    /// Only that there is something to look at; signals that were not heard yet are one.
    That(watch::Sender<()>),
}

impl Subscribers {
    /// No view is published while this is held.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The subscribers, while nothing is published.
pub(super) struct Locked<'a>(MutexGuard<'a, Vec<Subscriber>>);

impl Locked<'_> {
    /// Adds somebody who is told each subject, from those that there are on.
    pub(super) fn subjects(
        &mut self,
        view: &ClusterView,
        there_are: impl Iterator<Item = Subject>,
        concerns: Concerns,
    ) -> mpsc::UnboundedReceiver<Subject> {
        let (tx, rx) = mpsc::unbounded_channel();
        for subject in there_are.filter(|subject| concerns(subject, view)) {
            let _receiver_is_here = tx.send(subject);
        }
        self.0.push(Subscriber { concerns, told: Told::What(tx) });
        rx
    }

    /// Adds somebody who is told that there is something.
    pub(super) fn signal(&mut self, concerns: Concerns) -> watch::Receiver<()> {
        let (tx, rx) = watch::channel(());
        self.0.push(Subscriber { concerns, told: Told::That(tx) });
        rx
    }

    /// Tells of what has changed; whoever has gone is forgotten.
    pub(super) fn tell(&mut self, changed: &BTreeSet<Subject>, view: &ClusterView) {
        self.0.retain(|Subscriber { concerns, told }| {
            let mut news = changed.iter().filter(|subject| concerns(subject, view));
            match told {
                Told::What(tx) => news.all(|subject| tx.send(subject.clone()).is_ok()) && !tx.is_closed(),
                Told::That(tx) => {
                    if news.next().is_some() {
                        tx.send_replace(());
                    }
                    !tx.is_closed()
                }
            }
        });
    }

    /// What was known may not be current any more, or is again: whoever looks at the whole looks again.
    pub(super) fn tell_all(&mut self) {
        for subscriber in &*self.0 {
            if let Told::That(tx) = &subscriber.told {
                tx.send_replace(());
            }
        }
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers").finish_non_exhaustive()
    }
}
