//! The tokens of the state tree as this service knows them: read at its start, and again whenever one of them changes. While the state store is away those that
//! were known last go on counting; nothing can be read or changed with them then.

use std::{convert::Infallible, sync::Arc, time::Duration};

use pvc_core::model::token::{AccessToken, TokenName};
use pvc_store::{
    Store, StoreError,
    schema::token::{self, Tokens},
};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tracing::warn;

use crate::who::{Known, Who};

/// The pause after a reading that failed.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// How long to trust that no event was missed.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);

/// `None`: not read yet.
type Read = Option<Arc<Vec<Known>>>;

pub(crate) struct Book {
    read: watch::Sender<Read>,
    /// Held from a reading to its publication, so that no older one follows a newer one.
    turn: Mutex<Tokens>,
}

impl Default for Book {
    fn default() -> Self {
        Self { read: watch::Sender::new(None), turn: Mutex::default() }
    }
}

impl Book {
    /// Those that are known, also such that have expired.
    pub(crate) fn known(&self) -> Read {
        self.read.borrow().clone()
    }

    /// Returns when they have been read once.
    pub(crate) async fn is_read(&self) {
        let _ = self.read.subscribe().wait_for(Option::is_some).await;
    }

    /// Hears when they are others.
    pub(crate) fn changes(&self) -> watch::Receiver<Read> {
        self.read.subscribe()
    }

    /// Reads them now: whoever has just removed one is told so when it is good for nothing.
    pub(crate) async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut last = self.turn.lock().await;
        let tokens = token::read_all(store).await?;
        if *last == tokens && self.read.borrow().is_some() {
            return Ok(());
        }
        for problem in tokens.bad.iter().filter(|problem| !last.bad.contains(problem)) {
            warn!("nobody gets in by what is no token: {problem}");
        }
        self.read.send_replace(Some(Arc::new(tokens.good.iter().map(known).collect())));
        *last = tokens;
        Ok(())
    }

    /// Reads them whenever they change, for ever.
    pub(crate) async fn keep(&self, store: &dyn Store) -> Infallible {
        let mut watch = store.watch(token::ROOT);
        let mut is_said = false;
        loop {
            match self.refresh(store).await {
                Ok(()) => {
                    is_said = false;
                    let event = timeout(LOOK_ANYWAY, watch.recv()).await;
                    if matches!(event, Ok(None)) {
                        // The store is closed; so is this service, soon.
                        sleep(LOOK_ANYWAY).await;
                    }
                    while watch.try_recv().is_ok() {}
                }
                Err(error) => {
                    if !is_said {
                        warn!("the tokens of the state tree cannot be read; those known last count: {error}");
                        is_said = true;
                    }
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }
}

/// In the log and the audit it cannot be taken for one of the configuration.
fn known((name, token): &(TokenName, AccessToken)) -> Known {
    Known {
        who: Who {
            name: format!("token:{name}"),
            role: token.role,
            token: token.sha256.0,
            vms: token.vms.clone().map(Arc::new),
        },
        expires_unix_s: token.expires_unix_s,
    }
}
