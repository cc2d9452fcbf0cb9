//! The task that writes consoles to the store: at once after a quiet second, then at most once a second for each VM, or as often as its
//! budget and the node's permit, a few VMs at a time. While the store is away nothing is written and nothing is lost: what is written next is the tail as it is then.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pvc_core::model::VmId;
use pvc_process::JoinSet;
use pvc_store::{CommitError, Session, Store, StoreError, schema};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    Console,
    budget::{Budget, Rates},
};
use crate::metrics;

/// The shortest time between two writes of one console.
const BETWEEN: Duration = Duration::from_secs(1);

/// So many consoles are written at a time: they may be large, and keepalives use the same connection.
const AT_ONCE: usize = 4;

/// What was written so long ago makes nobody wait for those who were written less.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(2);

/// How often it is said of a console that it is written less often.
const SAID_EVERY: Duration = Duration::from_hours(1);

/// Tells the task about consoles. The task ends when this is dropped.
#[derive(Debug)]
pub(super) struct Publisher(mpsc::UnboundedSender<Message>);

#[derive(Debug)]
enum Message {
    Follow(Arc<Console>),
    News(VmId),
    Forget(VmId),
}

impl Publisher {
    pub(super) fn follow(&self, console: Arc<Console>) {
        let _ = self.0.send(Message::Follow(console));
    }

    /// To be called once for each time that `news` became true.
    pub(super) fn news(&self, id: VmId) {
        let _ = self.0.send(Message::News(id));
    }

    pub(super) fn forget(&self, id: VmId) {
        let _ = self.0.send(Message::Forget(id));
    }
}

/// Starts the task.
pub(super) fn start(store: Arc<dyn Store>, rates: Rates) -> Publisher {
    let (sender, messages) = mpsc::unbounded_channel();
    let session = store.session();
    let budget = Budget::new(rates.node, Instant::now());
    let publishing = Publishing { store, rates, budget, consoles: BTreeMap::new(), writes: JoinSet::new() };
    pvc_process::spawn(publishing.run(messages, session));
    Publisher(sender)
}

struct Publishing {
    store: Arc<dyn Store>,
    rates: Rates,
    /// The node's.
    budget: Budget,
    consoles: BTreeMap<VmId, Published>,
    writes: JoinSet<(VmId, Outcome, usize)>,
}

#[allow(clippy::struct_excessive_bools, reason = "independent facts; their combinations are no states")]
struct Published {
    console: Arc<Console>,
    /// Nothing was written yet in this following: what is stored may be the same already.
    first: bool,
    /// Since when there is news that was not written, or the last write did not succeed.
    due: Option<Instant>,
    budget: Budget,
    /// What the last write was thought to weigh.
    weight: usize,
    /// A budget holds up what is due.
    held: bool,
    said: Option<Instant>,
    not_before: Option<Instant>,
    writing: bool,
    /// Ends after what is due.
    last: bool,
    refused: bool,
}

enum Outcome {
    Written,
    /// The VM has no such key: undefined meanwhile, or defined by somebody who left it out.
    Gone,
    Again,
    Refused(String),
}

impl Publishing {
    async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Message>,
        mut session: watch::Receiver<Session>,
    ) {
        loop {
            let healthy = session.borrow_and_update().is_healthy();
            let next = if healthy { self.write_what_is_due() } else { None };
            tokio::select! {
                biased;
                changed = session.changed() => if changed.is_err() { return },
                Some(done) = self.writes.join_next() => {
                    if let Ok((id, outcome, bytes)) = done {
                        self.written(id, outcome, bytes);
                    }
                }
                message = messages.recv() => match message {
                    Some(message) => self.hear(message),
                    None => return,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Follow(console) => {
                let before = self.consoles.remove(&console.id);
                let new = match before {
                    Some(before) => {
                        Published { console, first: true, due: None, last: false, refused: false, ..before }
                    }
                    None => Published::new(console, self.rates.vm),
                };
                self.consoles.insert(new.console.id, new);
            }
            Message::News(id) => {
                if let Some(published) = self.consoles.get_mut(&id) {
                    published.due.get_or_insert_with(Instant::now);
                }
            }
            Message::Forget(id) => {
                if let Some(published) = self.consoles.get_mut(&id) {
                    published.last = true;
                    self.drop_if_done(id);
                }
            }
        }
    }

    /// Starts the writes whose time has come; answers when the next one's will.
    fn write_what_is_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut by = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        // Nobody overtakes: a heavy one would never have its turn.
        let mut others_wait = false;
        for id in self.in_turn(now) {
            let Some(published) = self.consoles.get_mut(&id) else { continue };
            if let Some(later) = published.not_before.filter(|at| *at > now) {
                by(later);
                continue;
            }
            let weight = published.console.tail().weight();
            let own = published.budget.admits_at(weight, now);
            let all = self.budget.admits_at(weight, now);
            if own > now || (all > now && !others_wait) {
                others_wait |= own <= now;
                published.hold(weight, own.max(all), now);
                by(own.max(all));
            } else if !others_wait && self.writes.len() < AT_ONCE {
                published.begin(weight, now);
                self.budget.spend(weight, now);
                let write = write(Arc::clone(&self.store), Arc::clone(&published.console), published.first);
                self.writes.spawn(async move {
                    let (outcome, bytes) = write.await;
                    (id, outcome, bytes)
                });
            }
        }
        next
    }

    /// What is due and not being written: first those of whom least was written lately, then those who wait for longest.
    fn in_turn(&self, now: Instant) -> Vec<VmId> {
        let due = self.consoles.iter().filter(|(_, published)| !published.writing);
        let mut due: Vec<_> = due
            .filter_map(|(&id, published)| Some((published.written_lately(now), published.due?, id)))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, _, id)| id).collect()
    }

    fn written(&mut self, id: VmId, outcome: Outcome, bytes: usize) {
        metrics::console_written(bytes);
        let Some(published) = self.consoles.get_mut(&id) else {
            return;
        };
        published.writing = false;
        let now = Instant::now();
        for budget in [&mut published.budget, &mut self.budget] {
            budget.give_back(published.weight, now);
            budget.spend(bytes, now);
        }
        match outcome {
            Outcome::Written => {
                published.first = false;
                published.refused = false;
            }
            Outcome::Gone => debug!(vm = %published.console.name, "its console log has no key: not written"),
            Outcome::Again => {
                published.console.news.store(true, Ordering::Release);
                published.due.get_or_insert(now);
            }
            Outcome::Refused(why) => {
                if !published.refused {
                    published.refused = true;
                    warn!(vm = %published.console.name, error = why, "cannot write its console log");
                }
            }
        }
        self.drop_if_done(id);
    }

    fn drop_if_done(&mut self, id: VmId) {
        if self.consoles.get(&id).is_some_and(|p| p.last && p.due.is_none() && !p.writing) {
            self.consoles.remove(&id);
        }
    }
}

impl Published {
    fn new(console: Arc<Console>, rate: u64) -> Self {
        Self {
            console,
            first: true,
            due: None,
            budget: Budget::new(rate, Instant::now()),
            weight: 0,
            held: false,
            said: None,
            not_before: None,
            writing: false,
            last: false,
            refused: false,
        }
    }

    /// Bytes, the less the longer ago.
    fn written_lately(&self, now: Instant) -> u128 {
        let ago = self.not_before.map_or(FORGOTTEN_AFTER, |at| (now + BETWEEN).duration_since(at));
        let bytes = u128::try_from(self.weight).unwrap_or(u128::MAX);
        bytes.saturating_mul(FORGOTTEN_AFTER.saturating_sub(ago).as_millis())
    }

    fn begin(&mut self, weight: usize, now: Instant) {
        (self.due, self.held, self.writing) = (None, false, true);
        self.not_before = Some(now + BETWEEN);
        self.weight = weight;
        self.budget.spend(weight, now);
    }

    /// It must wait until then.
    fn hold(&mut self, weight: usize, until: Instant, now: Instant) {
        if !std::mem::replace(&mut self.held, true) {
            metrics::console_held();
        }
        if self.said.is_none_or(|said| now.duration_since(said) >= SAID_EVERY) {
            self.said = Some(now);
            let (kib, seconds) = (weight / 1024, until.duration_since(now).as_secs_f32());
            info!(
                vm = %self.console.name,
                "its console log weighs {kib} KiB and is written less often than each second, next in {seconds:.0} s: the budget for console logs is spent (console_log_vm_rate, console_log_node_rate)"
            );
        }
    }
}

/// Answers also how many bytes were sent.
async fn write(store: Arc<dyn Store>, console: Arc<Console>, first: bool) -> (Outcome, usize) {
    let Some(text) = console.take_news() else {
        return (Outcome::Written, 0);
    };
    if first {
        match schema::vm::read_console_log(&*store, console.id).await {
            Ok(stored) if stored == text => return (Outcome::Written, 0),
            Ok(_) => {}
            Err(error) => return (failed(error), 0),
        }
    }
    let outcome = match store.commit(schema::vm::console_log(console.id, &text)).await {
        Ok(_) => Outcome::Written,
        Err(CommitError::Conflict { .. }) => Outcome::Gone,
        Err(CommitError::Unknown(error) | CommitError::Failed(error)) => failed(error),
    };
    (outcome, text.len())
}

fn failed(error: StoreError) -> Outcome {
    match error {
        StoreError::Unavailable(_) | StoreError::SessionLost => Outcome::Again,
        StoreError::Refused { .. } => Outcome::Refused(error.to_string()),
    }
}
