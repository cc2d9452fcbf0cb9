//! What has happened so far: stamps events, keeps truth and tree, has the checkers look, hashes all of it, and remembers the last
//! minutes for whoever has to understand a violation.

use std::{
    borrow::Cow,
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    checkers::{self, Checker, Timing, Violation},
    event::{Author, Change, Commit, Event, Stamped, VANDAL},
    keys,
    tree::Tree,
    truth::Truth,
};

/// How much of the past is remembered …
const REMEMBERED: Duration = Duration::from_mins(10);
/// … and at most so many events of it.
const AT_MOST: usize = 100_000;
/// More events in one instant than anything but a busy loop causes.
const BUSY: u32 = 20_000;

/// See the module's documentation.
pub struct Journal {
    origin: Instant,
    state: Mutex<State>,
    violated: watch::Sender<bool>,
    /// Signalled when a guest's process comes, goes, or turns.
    guests: watch::Sender<()>,
}

struct State {
    truth: Truth,
    tree: Tree,
    checkers: Vec<Box<dyn Checker>>,
    hash: DefaultHasher,
    events: u64,
    /// Events since time last moved.
    at_once: u32,
    recent: VecDeque<Stamped>,
    violation: Option<Violation>,
    print: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Account {
    /// How long it lasted, in its own time.
    pub lasted: Duration,
    /// The same for the same run.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// What went wrong.
    pub violation: Option<Violation>,
    /// The last minutes.
    pub recent: Vec<Stamped>,
}

impl Journal {
    /// Begins now, for checkers that know the cluster's timing. With `print`, every event is written to the standard output at once.
    pub fn new(timing: Timing, print: bool) -> Self {
        let state = State {
            truth: Truth::default(),
            tree: Tree::default(),
            checkers: checkers::all(timing),
            hash: DefaultHasher::new(),
            events: 0,
            at_once: 0,
            recent: VecDeque::new(),
            violation: None,
            print,
        };
        Self {
            origin: Instant::now(),
            state: Mutex::new(state),
            violated: watch::Sender::new(false),
            guests: watch::Sender::new(()),
        }
    }

    /// How late it is.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The instant of that time.
    pub fn instant(&self, at: Duration) -> Instant {
        self.origin + at
    }

    /// It has happened.
    pub fn tell(&self, event: Event) {
        let mut state = self.lock();
        if state.violation.is_some() {
            return;
        }
        let of_guest = matches!(event, Event::Guest { .. });
        let stamped = Stamped { at: self.now(), event };
        state.take(stamped);
        self.look(&state);
        if of_guest {
            self.guests.send_replace(());
        }
    }

    /// Something is wrong that no checker sees.
    pub fn blame(&self, violation: Violation) {
        let mut state = self.lock();
        state.violation.get_or_insert(violation);
        self.look(&state);
    }

    fn look(&self, state: &State) {
        if state.violation.is_some() {
            self.violated.send_replace(true);
        }
    }

    /// Returns when an invariant was violated.
    pub async fn violated(&self) {
        let mut violated = self.violated.subscribe();
        // The sender lives as long as `self`.
        let _ = violated.wait_for(|violated| *violated).await;
    }

    /// Changes whenever a guest's process does.
    pub fn guests(&self) -> watch::Receiver<()> {
        self.guests.subscribe()
    }

    /// Something that depends on the truth.
    pub fn truth<T>(&self, ask: impl FnOnce(&Truth) -> T) -> T {
        ask(&self.lock().truth)
    }

    /// Something that depends on the state tree.
    pub fn tree<T>(&self, ask: impl FnOnce(&Tree) -> T) -> T {
        ask(&self.lock().tree)
    }

    /// What it came to so far.
    pub fn account(&self) -> Account {
        let state = self.lock();
        Account {
            lasted: self.now(),
            hash: state.hash.finish(),
            events: state.events,
            violation: state.violation.clone(),
            recent: state.recent.iter().cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, stamped: Stamped) {
        if self.print {
            println!("{stamped}");
        }
        self.events += 1;
        self.at_once = if stamped.at > self.truth.now { 0 } else { self.at_once + 1 };
        if self.at_once > BUSY {
            let what = format!("a busy loop: {BUSY} events in one instant, the last: {stamped}");
            self.violation = Some(Violation { invariant: 0, what });
        }
        stamped.hash(&mut self.hash);
        self.truth.apply(&stamped);
        // For whoever judges, an unreadable value holds what it held before. A definition does not: what it needs nobody reserves as long as
        // nobody can read it (decision 89). Nor does a node's interval: while nobody can read it its silence is a slow node's (decision 79).
        let hidden = |commit: &Commit| {
            let seen = |change: &Change| {
                matches!(keys::of_vm(&change.path), Some((_, "xml")))
                    || matches!(keys::of_node(&change.path), Some((_, "keepalive_interval")))
            };
            commit.by == Author::Client(VANDAL) && !commit.changes.iter().all(seen)
        };
        let is_vandals = matches!(&stamped.event, Event::Commit(commit) if hidden(commit));
        let judged = as_it_held(&stamped, &self.tree);
        if let Event::Commit(commit) = &judged.event
            && !is_vandals
        {
            self.tree.apply(commit);
        }
        for checker in self.checkers.iter_mut().filter(|_| !is_vandals) {
            if let Err(what) = checker.step(&self.truth, &self.tree, &judged) {
                self.violation = Some(Violation { invariant: checker.invariant(), what });
                break;
            }
        }
        let horizon = stamped.at.saturating_sub(REMEMBERED);
        while self.recent.len() >= AT_MOST || self.recent.front().is_some_and(|first| first.at < horizon) {
            self.recent.pop_front();
        }
        self.recent.push_back(stamped);
    }
}

/// The event as checkers see it: what is written over an unreadable value is written over what the key held. Not where a VM is to run, and came
/// from: what nobody can read there the daemons choose anew, and cannot know better (decision 92).
fn as_it_held<'a>(stamped: &'a Stamped, tree: &Tree) -> Cow<'a, Stamped> {
    let Event::Commit(commit) = &stamped.event else { return Cow::Borrowed(stamped) };
    let held = |change: &Change| {
        if matches!(keys::of_vm(&change.path), Some((_, "node" | "lastnode"))) {
            return None;
        }
        let (before, held) = (change.before.as_ref()?, tree.key(&change.path)?);
        (before.data != held.data).then(|| held.data.clone())
    };
    if commit.changes.iter().all(|change| held(change).is_none()) {
        return Cow::Borrowed(stamped);
    }
    let mut commit = commit.clone();
    for change in &mut commit.changes {
        if let (Some(data), Some(before)) = (held(change), change.before.as_mut()) {
            before.data = data;
        }
    }
    Cow::Owned(Stamped { at: stamped.at, event: Event::Commit(commit) })
}
