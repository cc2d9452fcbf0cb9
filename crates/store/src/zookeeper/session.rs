//! Keeps a session: connects, follows its state, opens the next one when it has ended.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Options, Shared,
    client::{Client, Error, State},
};
use crate::store::Session;

/// First pause between attempts to connect; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// First and longest interval of reminders that there is still no connection.
const FIRST_REMINDER: Duration = Duration::from_secs(8);
const LONGEST_REMINDER: Duration = Duration::from_mins(1);
/// How long an orderly end may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Task {
    pub(super) options: Options,
    pub(super) client: watch::Sender<Option<Client>>,
    pub(super) session: watch::Sender<Session>,
    pub(super) shared: Arc<Shared>,
}

impl Task {
    /// Runs until the store is closed or dropped.
    pub(super) async fn run(self, mut closing: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep() => {}
            // An error is the drop of the store: the same.
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.session.send_replace(Session::Connecting);
        if let Some(client) = self.client.send_replace(None) {
            end(client).await;
        }
    }

    async fn keep(&self) {
        let mut epoch = 0;
        loop {
            let client = self.connect().await;
            epoch += 1;
            let timeout = client.session_timeout();
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            self.shared.negotiated_ms.store(ms, Ordering::Relaxed);
            info!("connected to ZooKeeper at {}, session time-out {timeout:?}", self.options.connect);
            self.follow(client, epoch).await;
            self.session.send_replace(Session::Connecting);
            self.client.send_replace(None);
        }
    }

    /// Publishes a session's state until it ends.
    async fn follow(&self, client: Client, epoch: u64) {
        let mut states = client.states();
        let mut state = *states.borrow_and_update();
        self.client.send_replace(Some(client));
        let mut lost_at = None;
        while !state.is_terminated() {
            if state == State::Connected {
                if let Some(at) = lost_at.take() {
                    let gap: Duration = Instant::now() - at;
                    info!(
                        "connected to ZooKeeper again after {:.1} s, the session has survived",
                        gap.as_secs_f32()
                    );
                }
                self.session.send_replace(Session::Healthy { epoch });
            } else {
                if lost_at.is_none() {
                    warn!("the connection to ZooKeeper at {} is lost: reconnecting", self.options.connect);
                    lost_at = Some(Instant::now());
                }
                self.shared.set_trouble(format!("the connection to {} is lost", self.options.connect));
                self.session.send_replace(Session::Suspended { epoch });
            }
            state = next(&mut states).await;
        }
        warn!("the ZooKeeper session has ended: opening a new one");
        self.shared.set_trouble(format!("the session with {} has ended", self.options.connect));
    }

    /// Tries until it succeeds. Says so at the first failure, then ever less often, and once when it is over.
    async fn connect(&self) -> Client {
        let mut pause = FIRST_PAUSE;
        let mut reminder = FIRST_REMINDER;
        let mut remind_at = Instant::now();
        loop {
            let trouble = match self.attempt().await {
                Ok(client) => return client,
                Err(trouble) => trouble,
            };
            if Instant::now() >= remind_at {
                warn!("{trouble}: still trying");
                remind_at = Instant::now() + reminder;
                reminder = (reminder * 2).min(LONGEST_REMINDER);
            }
            self.shared.set_trouble(trouble);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self) -> Result<Client, String> {
        let connect = &self.options.connect;
        match Client::connect(connect, self.options.session_timeout).await {
            Ok(client) => Ok(client),
            Err(Error::NoHosts) => {
                Err(format!("cannot connect to ZooKeeper: no server of {connect} answers"))
            }
            Err(error) => Err(format!("cannot connect to ZooKeeper at {connect}: {error}")),
        }
    }
}

/// Ends a session so that its ephemeral keys go at once.
async fn end(client: Client) {
    let mut states = client.states();
    let mut state = *states.borrow_and_update();
    // The session is closed when its last handle is gone; calls on their way have clones of it.
    drop(client);
    let closed = async {
        while !state.is_terminated() {
            state = next(&mut states).await;
        }
    };
    if timeout(CLOSE_WITHIN, closed).await.is_err() {
        warn!("ZooKeeper did not confirm the end of the session: its ephemeral keys stay until it expires");
    }
}

/// The session's next state.
async fn next(states: &mut watch::Receiver<State>) -> State {
    match states.changed().await {
        Ok(()) => *states.borrow_and_update(),
        // Its task has ended, and with it the session.
        Err(_) => State::Closed,
    }
}
