//! What Ceph says of itself: for the log of this node's keepalives, and on the primary for the state tree.
//!
//! A task of its own: a Ceph that hangs holds up nobody, and what was last known stays, with its age.

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use pvc_core::model::{
    NodeName,
    ceph::{Figures, Refreshed},
};
use pvc_host::{ceph::Ceph, machine::Machine};
use pvc_store::{Store, mirror::Mirror, schema};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use crate::metrics;

/// What it stands on.
pub(crate) struct StorageFigures {
    pub(crate) me: NodeName,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) mirror: Mirror,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) ceph: Arc<dyn Ceph>,
    /// How often Ceph is asked: as often as this node speaks.
    pub(crate) every: Duration,
}

/// What was last known.
#[derive(Debug, Clone, Default)]
struct Known {
    figures: Option<(Figures, Instant)>,
    trouble: Option<String>,
}

/// For the log.
#[derive(Clone)]
pub struct Told(watch::Receiver<Known>);

impl Told {
    /// `Ceph: HEALTH_OK; 3 OSDs: 3 up, 3 in; 12 of 300 GiB used`, with how old that is and why, if it is.
    pub(crate) fn words(&self) -> String {
        let Known { figures, trouble } = &*self.0.borrow();
        let mut text = "Ceph: ".to_owned();
        let _ = match figures {
            Some((figures, _)) => write!(text, "{figures}"),
            None => write!(text, "nothing is known"),
        };
        if let Some(trouble) = trouble {
            let ago = figures.as_ref().map(|(_, at)| format!(" {} s ago", at.elapsed().as_secs()));
            let _ = write!(text, "{}; since then: {trouble}", ago.unwrap_or_default());
        }
        text
    }
}

impl StorageFigures {
    /// What tells the log, and the task, which runs for ever.
    pub(crate) fn follow(self) -> (Told, impl Future<Output = ()> + Send) {
        let (known, told) = watch::channel(Known::default());
        // Of OSDs the manager is asked: while it is away these figures stay as they were, and nothing else waits.
        (Told(told), async move { tokio::join!(self.run(known), self.run_osds()).0 })
    }

    /// The primary writes how each OSD is, for clients that look at the tree.
    async fn run_osds(&self) {
        let mut ticks = self.ticks();
        loop {
            ticks.tick().await;
            if !self.is_primary() {
                continue;
            }
            let outcome = match self.ceph.osd_stats().await {
                Ok(all) => schema::ceph::refresh_osds(&*self.store, &all).await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = outcome {
                debug!("how Ceph's OSDs are could not be written: {why}");
            }
        }
    }

    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    fn is_primary(&self) -> bool {
        self.mirror.view().primary_holder.as_ref() == Some(&self.me) && self.mirror.synced()
    }

    async fn run(&self, known: watch::Sender<Known>) {
        let mut ticks = self.ticks();
        let mut answered = None;
        loop {
            ticks.tick().await;
            let asked = self.ceph.figures().await;
            let trouble = asked.as_ref().err().map(ToString::to_string);
            say(known.borrow().trouble.as_deref(), trouble.as_deref());
            if asked.is_ok() {
                answered = Some(self.machine.unix_s());
            }
            let figures = asked.ok();
            metrics::storage(answered.unwrap_or_default(), figures.as_ref());
            self.write(
                figures.as_ref(),
                Refreshed { by: self.me.to_string(), at_unix_s: answered, trouble: trouble.clone() },
            )
            .await;
            known.send_modify(|known| {
                known.trouble = trouble;
                if let Some(figures) = figures {
                    known.figures = Some((figures, Instant::now()));
                }
            });
        }
    }

    /// The primary writes, for all.
    async fn write(&self, figures: Option<&Figures>, refreshed: Refreshed) {
        if !self.is_primary() {
            return;
        }
        if let Err(error) = schema::ceph::refresh(&*self.store, figures, &refreshed).await {
            debug!("what Ceph says could not be written: {error}");
        }
    }
}

fn say(before: Option<&str>, now: Option<&str>) {
    match (before, now) {
        (None, Some(why)) => warn!("storage: {why}; its figures stay as they were last known"),
        (Some(_), None) => info!("storage: Ceph answers again"),
        _ => {}
    }
}
