//! Which subject is looked at next.
//!
//! Pokes say *look again* and are merged; a subject is never looked at twice at once (a poke meanwhile is kept for
//! afterwards); a look can be booked for later. The order is first come, first served. Looks have places, of which there are only so many; one that
//! waits for its turn gives its place away. Never knows what a look does.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::Subject;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

/// The queue; one a kind of object.
pub(super) struct Queue {
    state: Mutex<State>,
    /// So many subjects are looked at side by side.
    at_once: usize,
    wake: Notify,
    /// A look is over.
    over: Notify,
    /// What is being looked at was poked, or nothing is taken up any more.
    news: Notify,
}

#[derive(Default)]
struct State {
    closed: bool,
    ready: VecDeque<Subject>,
    waiting: HashSet<Subject>,
    /// Being looked at; `true`: was poked meanwhile.
    busy: HashMap<Subject, bool>,
    /// Those of them that wait for their turn.
    without_place: usize,
    /// Booked looks, by time; at most one a subject.
    booked: BTreeSet<(Instant, Subject)>,
    booked_at: HashMap<Subject, Instant>,
}

/// A subject being looked at; nobody else gets it until this is dropped.
pub(super) struct Look {
    queue: Arc<Queue>,
    subject: Subject,
}

impl Queue {
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            state: Mutex::default(),
            at_once,
            wake: Notify::new(),
            over: Notify::new(),
            news: Notify::new(),
        }
    }

    /// Look at the subject as soon as possible.
    pub(super) fn poke(&self, subject: Subject) {
        let mut state = self.lock();
        if let Some(poked) = state.busy.get_mut(&subject) {
            *poked = true;
            drop(state);
            self.news.notify_waiters();
        } else {
            state.make_ready(subject);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Look at the subject at that time, unless it is looked at earlier for another reason and booked anew then. Replaces
    /// an earlier booking; `None` cancels it.
    pub(super) fn book(&self, subject: &Subject, at: Option<Instant>) {
        let mut state = self.lock();
        state.unbook(subject);
        if let Some(at) = at {
            state.booked.insert((at, subject.clone()));
            state.booked_at.insert(subject.clone(), at);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The next subject; waits for one, and for a place. `None`: the queue is closed.
    pub(super) async fn next(self: &Arc<Self>) -> Option<Look> {
        loop {
            let notified = self.wake.notified();
            let booked = {
                let mut state = self.lock();
                state.move_due(Instant::now());
                if state.closed {
                    return None;
                }
                let has_place = state.busy.len() - state.without_place < self.at_once;
                if has_place && let Some(subject) = state.ready.pop_front() {
                    state.waiting.remove(&subject);
                    state.unbook(&subject);
                    state.busy.insert(subject.clone(), false);
                    return Some(Look { queue: Arc::clone(self), subject });
                }
                // Without a place nothing is done when the time has come; a look that ends wakes this.
                state.booked.first().map(|(at, _)| *at).filter(|_| has_place)
            };
            match booked {
                Some(at) => tokio::select! {
                    biased;
                    () = notified => {}
                    () = sleep_until(at) => {}
                },
                None => notified.await,
            }
        }
    }

    /// Nothing is taken from it any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
        self.news.notify_waiters();
    }

    /// Waits until no subject is being looked at, or until the deadline.
    pub(super) async fn idle(&self, deadline: Instant) {
        loop {
            let over = self.over.notified();
            if self.busy() == 0 {
                return;
            }
            tokio::select! {
                biased;
                () = over => {}
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// How many subjects are being looked at.
    pub(super) fn busy(&self) -> usize {
        self.lock().busy.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state consistent, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_ready(&mut self, subject: Subject) {
        if self.waiting.insert(subject.clone()) {
            self.ready.push_back(subject);
        }
    }

    fn unbook(&mut self, subject: &Subject) {
        if let Some(at) = self.booked_at.remove(subject) {
            self.booked.remove(&(at, subject.clone()));
        }
    }

    fn move_due(&mut self, now: Instant) {
        while self.booked.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, subject)) = self.booked.pop_first()
        {
            self.booked_at.remove(&subject);
            if let Some(poked) = self.busy.get_mut(&subject) {
                *poked = true;
            } else {
                self.make_ready(subject);
            }
        }
    }
}

impl Look {
    /// What to look at.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Waits for a turn, without a place; `None`: there is news of the subject, or nothing is taken up any more.
    pub(super) async fn turn(&self, turns: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let _without_place = WithoutPlace::new(&self.queue);
        let mut turn = pin!(Arc::clone(turns).acquire_owned());
        loop {
            let news = self.queue.news.notified();
            {
                let state = self.queue.lock();
                if state.closed || state.busy.get(&self.subject) == Some(&true) {
                    return None;
                }
            }
            tokio::select! {
                biased;
                turn = &mut turn => return turn.ok(),
                () = news => {}
            }
        }
    }

    /// Books the next look at the same subject.
    pub(super) fn again_at(&self, at: Option<Instant>) {
        self.queue.book(&self.subject, at);
    }
}

/// A look that waits for its turn.
struct WithoutPlace<'a>(&'a Queue);

impl<'a> WithoutPlace<'a> {
    fn new(queue: &'a Queue) -> Self {
        queue.lock().without_place += 1;
        queue.wake.notify_one();
        Self(queue)
    }
}

impl Drop for WithoutPlace<'_> {
    fn drop(&mut self) {
        self.0.lock().without_place -= 1;
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        if state.busy.remove(&self.subject) == Some(true) {
            state.make_ready(self.subject.clone());
        }
        drop(state);
        self.queue.wake.notify_one();
        self.queue.over.notify_one();
    }
}
