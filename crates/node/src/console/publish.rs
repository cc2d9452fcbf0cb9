//! The task that writes consoles to the store: at once after a quiet second, then at most once a second for each VM, a few VMs at a
//! time. While the store is away nothing is written and nothing is lost: what is written next is the tail as it is then.

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
use tracing::{debug, warn};

use super::Console;

/// The shortest time between two writes of one console.
const BETWEEN: Duration = Duration::from_secs(1);

/// So many consoles are written at a time: they may be large, and keepalives use the same connection.
const AT_ONCE: usize = 4;

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
pub(super) fn start(store: Arc<dyn Store>) -> Publisher {
    let (sender, messages) = mpsc::unbounded_channel();
    let session = store.session();
    pvc_process::spawn(
        Publishing { store, consoles: BTreeMap::new(), writes: JoinSet::new() }.run(messages, session),
    );
    Publisher(sender)
}

struct Publishing {
    store: Arc<dyn Store>,
    consoles: BTreeMap<VmId, Published>,
    writes: JoinSet<(VmId, Outcome)>,
}

#[allow(clippy::struct_excessive_bools, reason = "independent facts; their combinations are no states")]
struct Published {
    console: Arc<Console>,
    /// Nothing was written yet in this following: what is stored may be the same already.
    first: bool,
    /// There is news, or the last write did not succeed.
    due: bool,
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
                    if let Ok((id, outcome)) = done {
                        self.written(id, outcome);
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
                let (not_before, writing) = before.map_or((None, false), |b| (b.not_before, b.writing));
                let new = Published {
                    console,
                    first: true,
                    due: false,
                    not_before,
                    writing,
                    last: false,
                    refused: false,
                };
                self.consoles.insert(new.console.id, new);
            }
            Message::News(id) => {
                if let Some(published) = self.consoles.get_mut(&id) {
                    published.due = true;
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
        for (&id, published) in &mut self.consoles {
            if !published.due || published.writing {
                continue;
            }
            if let Some(later) = published.not_before.filter(|at| *at > now) {
                next = Some(next.map_or(later, |next| next.min(later)));
            } else if self.writes.len() < AT_ONCE {
                published.due = false;
                published.writing = true;
                published.not_before = Some(now + BETWEEN);
                let write = write(Arc::clone(&self.store), Arc::clone(&published.console), published.first);
                self.writes.spawn(async move { (id, write.await) });
            }
        }
        next
    }

    fn written(&mut self, id: VmId, outcome: Outcome) {
        let Some(published) = self.consoles.get_mut(&id) else {
            return;
        };
        published.writing = false;
        match outcome {
            Outcome::Written => {
                published.first = false;
                published.refused = false;
            }
            Outcome::Gone => debug!(vm = %published.console.name, "its console log has no key: not written"),
            Outcome::Again => {
                published.console.news.store(true, Ordering::Release);
                published.due = true;
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
        if self.consoles.get(&id).is_some_and(|p| p.last && !p.due && !p.writing) {
            self.consoles.remove(&id);
        }
    }
}

async fn write(store: Arc<dyn Store>, console: Arc<Console>, first: bool) -> Outcome {
    let Some(text) = console.take_news() else {
        return Outcome::Written;
    };
    if first {
        match schema::vm::read_console_log(&*store, console.id).await {
            Ok(stored) if stored == text => return Outcome::Written,
            Ok(_) => {}
            Err(error) => return failed(error),
        }
    }
    match store.commit(schema::vm::console_log(console.id, &text)).await {
        Ok(_) => Outcome::Written,
        Err(CommitError::Conflict { .. }) => Outcome::Gone,
        Err(CommitError::Unknown(error) | CommitError::Failed(error)) => failed(error),
    }
}

fn failed(error: StoreError) -> Outcome {
    match error {
        StoreError::Unavailable(_) | StoreError::SessionLost => Outcome::Again,
        StoreError::Refused { .. } => Outcome::Refused(error.to_string()),
    }
}
