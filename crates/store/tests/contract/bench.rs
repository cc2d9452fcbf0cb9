//! What a case needs of the world in which it is run.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_store::Store;

/// A client and its faults.
#[async_trait]
pub(crate) trait Client: Send + Sync {
    fn store(&self) -> Arc<dyn Store>;
    /// Cuts this client's connection, others' are untouched.
    async fn cut(&self);
    /// Heals the connection; the session survives if it was cut for less than the session time-out.
    async fn heal(&self);
    /// From now on this client's connection swallows everything, without a word, until it is healed.
    async fn silence(&self);
    /// Cuts the connection until the servers have ended the session. The client does not know.
    async fn expire(&self, bench: &dyn Bench);
    /// The server that this client reads from misses what others commit, or no longer. Where that cannot be brought about, nothing.
    async fn lag(&self, _on: bool) {}
    /// How long a call may take at most.
    fn request_timeout(&self) -> Duration;
}

#[async_trait]
pub(crate) trait Bench: Send + Sync {
    /// A new client with a healthy session.
    async fn client(&self) -> Box<dyn Client>;
}
