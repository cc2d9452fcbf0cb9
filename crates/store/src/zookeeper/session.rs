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
use zookeeper_client::{Client, Error, SessionState};

use super::{Options, Shared};
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
        let mut states = client.state_watcher();
        let mut state = client.state();
        self.client.send_replace(Some(client));
        let mut lost_at = None;
        while !state.is_terminated() {
            if state == SessionState::SyncConnected {
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
            state = states.changed().await;
        }
        warn!("the ZooKeeper session has ended ({state}): opening a new one");
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
        let connector =
            Client::connector().with_session_timeout(self.options.session_timeout).with_fail_eagerly();
        // The library bounds each server's attempt by two fifths of the session time-out; this is the safety net.
        let within = self.options.session_timeout * 3;
        match timeout(within, connector.connect(connect)).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(Error::NoHosts)) => {
                Err(format!("cannot connect to ZooKeeper: no server of {connect} answers"))
            }
            Ok(Err(error)) => Err(format!("cannot connect to ZooKeeper at {connect}: {error}")),
            Err(_) => Err(format!("cannot connect to ZooKeeper at {connect}: no answer within {within:?}")),
        }
    }
}

/// Ends a session so that its ephemeral keys go at once.
async fn end(client: Client) {
    let mut states = client.state_watcher();
    let mut state = client.state();
    // The library closes the session when its last handle is gone; calls on their way have clones of it.
    drop(client);
    let closed = async {
        while !state.is_terminated() {
            state = states.changed().await;
        }
    };
    if timeout(CLOSE_WITHIN, closed).await.is_err() {
        warn!("ZooKeeper did not confirm the end of the session: its ephemeral keys stay until it expires");
    }
}
