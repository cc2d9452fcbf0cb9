//! Keeps a session: connects, follows its state, opens the next one when it has ended.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Options, Shared,
    client::{Client, Error, State, backoff::Backoff},
    trouble::{Line, Said},
};
use crate::store::Session;

/// First and longest pause between attempts to open a session.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// A connection that lasts so long is no part of the trouble before it.
const GOOD_AFTER: Duration = Duration::from_secs(5);
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
        let (mut backoff, mut said) = (Backoff::new(PAUSES), Said::default());
        loop {
            let client = self.connect(&mut backoff, &mut said).await;
            epoch += 1;
            let was_good = self.follow(client, epoch, &mut said).await;
            self.session.send_replace(Session::Connecting);
            self.client.send_replace(None);
            if was_good {
                backoff.reset();
            } else {
                // Somebody opens sessions only to end them.
                sleep(backoff.pause()).await;
            }
        }
    }

    /// Publishes a session's state until it ends; answers whether it was of use.
    async fn follow(&self, client: Client, epoch: u64, said: &mut Said) -> bool {
        let connect = &self.options.connect;
        let mut states = client.states();
        let mut state = *states.borrow_and_update();
        self.client.send_replace(Some(client.clone()));
        if said.is_due(Line::Connected) {
            info!("connected to ZooKeeper at {connect}, session time-out {:?}", client.session_timeout());
        }
        let (mut lost_at, mut granted, mut was_good) = (None, self.options.session_timeout, false);
        while !state.is_terminated() {
            if state == State::Connected {
                if let Some(at) = lost_at.take()
                    && said.is_due(Line::Again)
                {
                    let gap: Duration = Instant::now() - at;
                    info!(
                        "connected to ZooKeeper again after {:.1} s, the session has survived",
                        gap.as_secs_f32()
                    );
                }
                let timeout = client.session_timeout();
                if timeout < self.options.session_timeout && timeout != granted {
                    let asked = self.options.session_timeout;
                    warn!(
                        "ZooKeeper at {connect} grants sessions of {timeout:?}, where {asked:?} were asked for"
                    );
                }
                granted = timeout;
                self.session.send_replace(Session::Healthy { epoch });
                if let Ok(now) = tokio::time::timeout(GOOD_AFTER, next(&mut states)).await {
                    state = now;
                    continue;
                }
                said.reset();
                was_good = true;
            } else {
                lost_at.get_or_insert_with(Instant::now);
                let why = client.take_trouble().map(|why| format!(" ({why})")).unwrap_or_default();
                let trouble = format!("the connection to ZooKeeper at {connect} is lost{why}");
                if said.is_due(Line::Lost) {
                    warn!("{trouble}: reconnecting");
                }
                self.shared.set_trouble(trouble);
                self.session.send_replace(Session::Suspended { epoch });
            }
            state = next(&mut states).await;
        }
        if said.is_due(Line::Ended) {
            warn!("the ZooKeeper session has ended: opening a new one");
        }
        self.shared.set_trouble(format!("the session with {connect} has ended"));
        was_good
    }

    /// Tries until it succeeds.
    async fn connect(&self, backoff: &mut Backoff, said: &mut Said) -> Client {
        loop {
            let trouble = match self.attempt().await {
                Ok(client) => return client,
                Err(trouble) => trouble,
            };
            if said.is_due(Line::NoServer) {
                warn!("{trouble}: still trying");
            }
            self.shared.set_trouble(trouble);
            sleep(backoff.pause()).await;
        }
    }

    async fn attempt(&self) -> Result<Client, String> {
        let Options { connect, session_timeout, request_timeout } = &self.options;
        match Client::connect(connect, *session_timeout, *request_timeout).await {
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
