//! The order in which the tasks of simulated processes run: one at a time, chosen among all that want to.
//!
//! Tokio's own order depends on chance (a `watch` channel wakes its receivers in a random one), so that two runs from one seed would
//! differ. Here it is the chooser's, and a chooser that takes another one with each seed finds what depends on the order.
//!
//! ```text
//!   woken ──► wants a turn ──► chosen ──► polled by tokio ──► the next is chosen
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
};

use tokio::sync::Notify;

/// Chooses. Clones are the same one.
#[derive(Clone)]
pub struct Scheduler {
    order: Arc<Order>,
}

struct Order {
    state: Mutex<State>,
    /// Signalled if somebody wants a turn and nobody has it.
    idle: Notify,
}

struct State {
    choose: Box<dyn FnMut(usize) -> usize + Send>,
    turns: u64,
    /// Tasks that want a turn, by their numbers.
    wanting: BTreeMap<u64, Waker>,
    has_it: Option<u64>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}

impl Scheduler {
    /// One that asks `choose` for a number below the one that it gives. To be called in a tokio runtime of one thread.
    pub fn new(choose: impl FnMut(usize) -> usize + Send + 'static) -> Self {
        let state = State { choose: Box::new(choose), turns: 0, wanting: BTreeMap::new(), has_it: None };
        let order = Arc::new(Order { state: Mutex::new(state), idle: Notify::new() });
        tokio::spawn(start(Arc::clone(&order)));
        Self { order }
    }

    pub(crate) fn turn(&self) -> Arc<Turn> {
        let mut state = self.order.lock();
        state.turns += 1;
        Arc::new(Turn { number: state.turns, order: Arc::clone(&self.order), task: Mutex::default() })
    }
}

/// Gives the first turn of a burst; each later one is given by the one before.
async fn start(order: Arc<Order>) {
    loop {
        order.idle.notified().await;
        order.next();
    }
}

impl Order {
    /// If nobody has the turn, whoever is chosen gets it.
    fn next(&self) {
        let mut state = self.lock();
        if state.has_it.is_some() || state.wanting.is_empty() {
            return;
        }
        let count = state.wanting.len();
        let chosen = (state.choose)(count).min(count - 1);
        let Some(number) = state.wanting.keys().nth(chosen).copied() else { return };
        let waker = state.wanting.remove(&number);
        state.has_it = Some(number);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's place in the order.
pub(crate) struct Turn {
    number: u64,
    order: Arc<Order>,
    /// Has tokio poll the task.
    task: Mutex<Option<Waker>>,
}

impl Turn {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the task that is polled has the turn; if not, it wants one.
    pub(crate) fn has_come(&self, cx: &Context<'_>) -> bool {
        {
            let mut task = self.task();
            if !task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        if self.order.lock().has_it == Some(self.number) {
            return true;
        }
        self.want();
        false
    }

    /// The turn itself: when this is dropped, it is the next one's.
    pub(crate) fn take(self: &Arc<Self>) -> Has {
        Has(Arc::clone(self))
    }

    /// Asks for a turn.
    pub(crate) fn want(&self) {
        // Before its first poll tokio polls it without being asked.
        let Some(waker) = self.task().clone() else { return };
        let mut state = self.order.lock();
        state.wanting.insert(self.number, waker);
        if state.has_it.is_none() {
            self.order.idle.notify_one();
        }
    }

    fn end(&self) {
        let mut state = self.order.lock();
        if state.has_it == Some(self.number) {
            state.has_it = None;
        }
        drop(state);
        self.order.next();
    }

    /// Its task is dropped: it wants nothing any more.
    pub(crate) fn give_up(&self) {
        *self.task() = None;
        self.order.lock().wanting.remove(&self.number);
        self.end();
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.want();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.want();
    }
}

/// See [`Turn::take`].
pub(crate) struct Has(Arc<Turn>);

impl Drop for Has {
    fn drop(&mut self) {
        self.0.end();
    }
}
