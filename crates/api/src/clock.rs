//! The wall clock, for what people are shown and for the end of sessions.

use std::time::{SystemTime, UNIX_EPOCH};

/// This machine's clock.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
