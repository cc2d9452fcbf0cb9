//! What is brought to agree with what is desired, a folder a kind of object. [`crate::controller`] is the engine that they share.

pub mod fence;
pub mod flush;
pub mod network;
pub mod primary;
pub mod vm;

use tokio::time::{Instant, sleep_until};

/// Waits for a moment that may never come.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
