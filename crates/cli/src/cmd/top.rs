//! `pvc top`: the cluster as it is, live. Looks again when something has changed, and for the figures of keepalives, but never more than once a second: what is
//! seen costs requests only where something has changed, and a cluster in turmoil is not asked faster.

mod lines;
#[cfg(test)]
mod tests;

use std::{io::Read as _, sync::Arc, time::Duration};

use pvc_core::model::ClusterView;
use pvc_operate::{Cluster, top::Top};
use pvc_store::Session;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::now_unix_s;
use crate::{
    door::Door,
    failure::Failure,
    print::{
        Out,
        ends::Ends,
        screen::{Own, Screen, Terminal},
    },
};

/// No more often than this is looked …
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// … and at least so often: keepalives, whose figures are no change of the cluster, come every five seconds.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// So many VMs that wait are looked up, each of which may be a request.
const MOST: usize = 100;
/// How long a look may take before what was seen last is said to be old.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn top(door: &Door, out: &Out) -> Result<(), Failure> {
    let watched = match door {
        Door::Direct(cluster) => Some(Door::Direct(cluster.watched())),
        Door::Api(_) => None,
    };
    let door = watched.as_ref().unwrap_or(door);
    let failed = |cause| Failure::Machine { doing: "use this terminal".into(), cause };
    let ends = Ends::hear().map_err(failed)?;
    let own = if out.is_json() { None } else { Own::take().map_err(failed)? };
    let Some(own) = own else {
        let now = now_unix_s();
        let seen = door.top(MOST).await?;
        return if out.is_json() {
            out.json(&seen)
        } else {
            out.write(&(lines::all(&seen, now, out.colour()).join("\n") + "\n"))
        };
    };
    let size = signal(SignalKind::window_change()).map_err(failed)?;
    let screen = Screen::begin(own).map_err(failed)?;
    let mut live = Live {
        views: of_store(door).and_then(|cluster| Some(cluster.its_mirror()?.views())),
        session: of_store(door).map(|cluster| cluster.store.session()),
        keys: keys(),
        screen,
        colour: out.colour(),
        seen: None,
        trouble: None,
    };
    live.run(door, size, ends).await.map_err(failed)
}

/// The keys, one by one. The thread ends with the process: nobody can end a read of a terminal.
fn keys() -> mpsc::Receiver<u8> {
    let (pressed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes() {
            match key {
                Ok(key) if pressed.blocking_send(key).is_ok() => {}
                _ => return,
            }
        }
    });
    keys
}

/// Whether a key ends it: `q`, and what would have been Ctrl-C or Ctrl-D. Escape is not among them: every arrow begins with it.
fn ends(key: u8) -> bool {
    matches!(key, b'q' | b'Q' | 3 | 4)
}

struct Live<T: Terminal> {
    views: Option<watch::Receiver<Arc<ClusterView>>>,
    /// `None`, as above: that is the API's business.
    session: Option<watch::Receiver<Session>>,
    keys: mpsc::Receiver<u8>,
    screen: Screen<T>,
    colour: bool,
    /// What was seen last, and when.
    seen: Option<(Top, u64)>,
    /// Why nothing newer was.
    trouble: Option<String>,
}

impl<T: Terminal> Live<T> {
    /// Until somebody ends it.
    async fn run(&mut self, door: &Door, mut size: Signal, mut ends: Ends) -> std::io::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = ends.any() => return Ok(()),
                again = self.turn(door, &mut size) => if !again? { return Ok(()) },
            }
        }
    }

    /// Looks, shows, and waits until it is to look again; false: a key has ended it.
    async fn turn(&mut self, door: &Door, size: &mut Signal) -> std::io::Result<bool> {
        let began = Instant::now();
        if !self.look(door).await? {
            return Ok(false);
        }
        let (soonest, latest) = (began + AT_MOST_EVERY, began + AT_LEAST_EVERY);
        let mut changed = false;
        loop {
            self.show()?;
            let until = if changed { soonest } else { latest };
            tokio::select! {
                biased;
                key = self.keys.recv() => if key.is_none_or(ends) { return Ok(false) },
                _ = size.recv() => {}
                () = sleep_until(until) => return Ok(true),
                () = next(&mut self.views), if !changed => changed = true,
                lost = lost(&mut self.session) => {
                    changed = true;
                    self.trouble = lost.then(|| "the state store is out of reach".to_owned());
                }
            }
        }
    }

    /// What is seen now, or why nothing is. While that takes long, keys are heard; false: one has ended it.
    async fn look(&mut self, door: &Door) -> std::io::Result<bool> {
        if let Some(views) = &mut self.views {
            views.mark_unchanged();
        }
        let now = now_unix_s();
        let looking = door.top(MOST);
        tokio::pin!(looking);
        loop {
            let seen = tokio::select! {
                biased;
                key = self.keys.recv() => {
                    if key.is_none_or(ends) { return Ok(false) }
                    continue;
                }
                seen = timeout(PATIENCE, &mut looking) => seen,
            };
            match seen {
                Ok(Ok(seen)) => (self.seen, self.trouble) = (Some((seen, now)), None),
                Ok(Err(error)) => self.trouble = Some(error.to_string()),
                Err(_) => {
                    self.trouble.get_or_insert_with(|| "the state store has not answered yet".to_owned());
                    self.show()?;
                    continue;
                }
            }
            return Ok(true);
        }
    }

    fn show(&mut self) -> std::io::Result<()> {
        let rows = self.screen.size().rows;
        let lines = match &self.seen {
            Some((seen, at)) => lines::fitting(seen, *at, self.trouble.as_deref(), rows, self.colour),
            None => vec![lines::waiting(self.trouble.as_deref(), self.colour)],
        };
        self.screen.show(&lines)
    }
}

fn of_store(door: &Door) -> Option<&Cluster> {
    match door {
        Door::Direct(cluster) => Some(cluster),
        Door::Api(_) => None,
    }
}

/// Returns when the session has changed: whether it is lost.
async fn lost(session: &mut Option<watch::Receiver<Session>>) -> bool {
    match session {
        Some(session) => session.changed().await.is_err() || !session.borrow().is_healthy(),
        None => std::future::pending().await,
    }
}

/// Returns when the cluster has changed.
async fn next(views: &mut Option<watch::Receiver<Arc<ClusterView>>>) {
    let has_changed = match views {
        Some(views) => views.changed().await.is_ok(),
        None => false,
    };
    if !has_changed {
        // The cluster is not watched any more: the clock has it looked at.
        std::future::pending::<()>().await;
    }
}
