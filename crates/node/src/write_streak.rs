//! For how long the store has taken whatever was written, as this node's own keepalives tell.

use std::time::Duration;

use pvc_core::plan::liveness::longest_gap;
use tokio::time::Instant;

/// A time in which no keepalive of this node was missed: others could have written theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteStreak {
    /// When it began …
    pub since: Instant,
    /// … and when the last keepalive that was acknowledged was sent.
    pub until: Instant,
}

impl WriteStreak {
    /// Goes on with a keepalive that was sent then and is acknowledged now, one of `every` so often; or begins with it, where one is missing
    /// before.
    pub fn go_on(before: Option<Self>, sent: Instant, every: Duration) -> Self {
        // Acknowledged late is late, too: nothing may have been taken meanwhile.
        let since = match before.filter(|before| before.lasts(every)) {
            Some(before) => before.since,
            None => Instant::now(),
        };
        Self { since, until: sent }
    }

    /// Whether it lasts: the next keepalive is not overdue.
    pub fn lasts(&self, every: Duration) -> bool {
        self.until.elapsed() <= longest_gap(every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn it_is_broken_by_a_keepalive_that_is_missing() {
        let began = Instant::now();
        let mut write_streak = WriteStreak::go_on(None, began, EVERY);
        for _ in 0..10 {
            tokio::time::sleep(EVERY).await;
            write_streak = WriteStreak::go_on(Some(write_streak), Instant::now(), EVERY);
        }
        assert_eq!((write_streak.since, write_streak.until), (began, began + EVERY * 10));
        tokio::time::sleep(EVERY * 3 / 2).await;
        assert!(write_streak.lasts(EVERY));
        tokio::time::sleep(EVERY / 2).await;
        assert!(!write_streak.lasts(EVERY));
        // Sent while nothing was taken, acknowledged much later: what was before says nothing about the time between.
        let write_streak = WriteStreak::go_on(Some(write_streak), Instant::now(), EVERY);
        tokio::time::sleep(EVERY).await;
        let sent = Instant::now();
        tokio::time::sleep(EVERY).await;
        let again = WriteStreak::go_on(Some(write_streak), sent, EVERY);
        assert_eq!((again.since, again.until), (sent + EVERY, sent));
    }
}
