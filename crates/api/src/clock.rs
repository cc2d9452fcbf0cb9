//! The wall clock, for what people are shown and for the end of sessions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

/// Clocks are set: a time that is awaited is looked at so often.
const LOOK: Duration = Duration::from_secs(30);

/// This machine's clock.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The same in milliseconds.
pub(crate) fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// Returns when it is that time, in seconds of UNIX time; `None`: never.
pub(crate) async fn until(end_unix_s: Option<u64>) {
    let Some(end) = end_unix_s else { return std::future::pending().await };
    loop {
        match end.saturating_sub(now_unix_s()) {
            0 => return,
            left => sleep(LOOK.min(Duration::from_secs(left))).await,
        }
    }
}
