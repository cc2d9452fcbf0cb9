//! Watches that survive reconnections and sessions.
//!
//! Every watch is set anew after a reconnection, and a `Resync` reported then: ZooKeeper does not report to recursive watches
//! what happened meanwhile (ZOOKEEPER-4698). The watch is set first, then the store synchronised with the leader, then
//! `Resync` sent: a listing made after it misses nothing.
//!
//! ```text
//! no session ─▶ add watch, sync ─▶ Resync ─▶ events ─┬─ disconnected ─▶ Interrupted ─┬─ connected ─▶ add watch anew
//!      ▲                                             │                              └─ ended ─▶ no session
//!      └───────────────────────────── ended ─────────┘
//! ```

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_process::Place;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::client::{Client, Event, State};
use crate::store::{Watch, WatchEvent};

/// Pause before a watch that could not be set is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What the client tells of a watch.
type Events = mpsc::UnboundedReceiver<Event>;
/// A request to forward all events that have arrived; answered by its drop.
type Flush = oneshot::Sender<()>;

/// The tasks that carry events from the client's watches to ours.
#[derive(Debug)]
pub(super) struct Forwarders {
    /// Where they run. Commits wait for them ([`Self::flush`]), so whoever subscribes, from wherever, must not decide when they get a turn.
    place: Place,
    flush: Arc<Mutex<Vec<mpsc::UnboundedSender<Flush>>>>,
}

impl Forwarders {
    /// Those of a store whose tasks run there.
    pub(super) fn new(place: Place) -> Self {
        Self { place, flush: Arc::default() }
    }

    pub(super) fn start(
        &self,
        path: &str,
        clients: watch::Receiver<Option<Client>>,
        within: Duration,
    ) -> Watch {
        let (events, watch) = mpsc::unbounded_channel();
        let (flush_tx, flush) = mpsc::unbounded_channel();
        let mut registered = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        registered.retain(|f| !f.is_closed());
        registered.push(flush_tx);
        let forwarder = Forwarder { path: path.to_owned(), events, flush, within };
        self.place.spawn(forwarder.run(clients));
        watch
    }

    /// Returns when every event that the client has received is in its [`Watch`]. It receives a transaction's
    /// events before its answer, so after an answer this makes them visible. Forwarders only move messages; the deadline is the
    /// safety net.
    pub(super) async fn flush(&self, deadline: Instant) {
        let forwarders = Arc::clone(&self.flush);
        // Asked and awaited where they run: a caller elsewhere would cross threads twice for each.
        let all = self.place.spawn(async move {
            for done in ask(&forwarders) {
                let _dropped_when_done = done.await;
            }
        });
        if timeout_at(deadline, all).await.is_err() {
            tracing::warn!("events of a transaction are late: a watch does not run");
        }
    }
}

/// Asks all forwarders to forward what has arrived; each answers by dropping its end.
fn ask(forwarders: &Mutex<Vec<mpsc::UnboundedSender<Flush>>>) -> Vec<oneshot::Receiver<()>> {
    let registered = forwarders.lock().unwrap_or_else(PoisonError::into_inner);
    let ask = |forwarder: &mpsc::UnboundedSender<Flush>| {
        let (flush, done) = oneshot::channel();
        forwarder.send(flush).is_ok().then_some(done)
    };
    registered.iter().filter_map(ask).collect()
}

struct Forwarder {
    path: String,
    events: mpsc::UnboundedSender<WatchEvent>,
    flush: mpsc::UnboundedReceiver<Flush>,
    within: Duration,
}

impl Forwarder {
    /// Runs until the subscriber or the store is gone.
    async fn run(mut self, mut clients: watch::Receiver<Option<Client>>) {
        let subscriber = self.events.clone();
        tokio::select! {
            () = self.forward(&mut clients) => {}
            () = subscriber.closed() => {}
        }
    }

    async fn forward(&mut self, clients: &mut watch::Receiver<Option<Client>>) {
        let alive = |c: &Option<Client>| c.as_ref().is_some_and(|c| !c.state().is_terminated());
        loop {
            let Ok(client) = self.meanwhile(async { clients.wait_for(alive).await.map(|c| c.clone()) }).await
            else {
                return;
            };
            let Some(client) = client else { continue };
            let watcher = self.set(&client).await;
            // A session is closed by dropping its last handle: hold none for longer than a request.
            drop(client);
            match watcher {
                Some(watcher) => {
                    self.report(WatchEvent::Resync);
                    self.pass_on(watcher).await;
                }
                None => self.meanwhile(sleep(RETRY)).await,
            }
        }
    }

    /// Sets the watch and synchronises; `None` if that did not succeed now.
    async fn set(&mut self, client: &Client) -> Option<Events> {
        let path = self.path.clone();
        let within = self.within;
        self.meanwhile(async {
            let events = timeout(within, client.watch(&path)).await.ok()?.ok()?;
            timeout(within, client.sync()).await.ok()?.ok()?;
            Some(events)
        })
        .await
    }

    /// Passes events on until the connection has come back or the session is over: then the watch must be set anew.
    async fn pass_on(&mut self, mut events: Events) {
        let mut interrupted = false;
        loop {
            let event = tokio::select! {
                // Events first: a flush is answered only when none is left.
                biased;
                event = events.recv() => event,
                Some(flush) = self.flush.recv() => {
                    drop(flush);
                    continue;
                }
            };
            let state = match event {
                Some(Event::Changed(path)) => {
                    self.report(WatchEvent::Changed(path));
                    continue;
                }
                Some(Event::Session(state)) => state,
                None => State::Closed,
            };
            if !interrupted {
                self.report(WatchEvent::Interrupted);
                interrupted = true;
            }
            if state != State::Disconnected {
                return;
            }
        }
    }

    fn report(&self, event: WatchEvent) {
        // A subscriber that is gone ends this task.
        let _ = self.events.send(event);
    }

    /// Waits for something else than events; until then there is nothing to flush.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(flush) = self.flush.recv() => drop(flush),
            }
        }
    }
}
