//! Waiting for a time that may never come.

use tokio::time::{Instant, sleep_until};

pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
