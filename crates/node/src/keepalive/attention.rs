//! Whether the rest of the daemon gets its turn. The keepalive goes on without it, so the service manager must be told otherwise, or a
//! daemon that will never do anything again would be alive for ever.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

/// For how long the rest may be held up before the service manager is left to start the daemon anew. Much longer than anything takes that ends, since
/// whatever held it up may do so again.
const PATIENCE: Duration = Duration::from_mins(2);

/// From then on it is said.
const SAID_AFTER: Duration = Duration::from_secs(5);

/// Asks the tasks of one place for an answer, which needs no more than a turn.
pub(super) struct Attention {
    asked: watch::Sender<u64>,
    answered: watch::Receiver<u64>,
    /// When the question was asked that is not answered.
    since: Option<Instant>,
    said: bool,
}

impl Attention {
    /// Of where the caller runs.
    pub(super) fn of_here() -> Self {
        let (asked, mut questions) = watch::channel(0);
        let (answers, answered) = watch::channel(0);
        pvc_process::spawn(async move {
            while questions.changed().await.is_ok() {
                answers.send_replace(*questions.borrow_and_update());
            }
        });
        Self { asked, answered, since: None, said: false }
    }

    /// Asks anew, and says whether the questions so far were answered in time. Waits for nothing; to be called every few seconds.
    pub(super) fn lasts(&mut self) -> bool {
        let question = *self.asked.borrow();
        let waited = if *self.answered.borrow() == question {
            if self.said {
                info!("the daemon's other work goes on");
            }
            (self.since, self.said) = (Some(Instant::now()), false);
            self.asked.send_replace(question + 1);
            Duration::ZERO
        } else {
            self.since.map_or(Duration::ZERO, |since| since.elapsed())
        };
        if waited >= SAID_AFTER && !self.said {
            self.said = true;
            let (seconds, patience) = (waited.as_secs(), PATIENCE.as_secs());
            warn!(
                "the daemon's other work is held up for {seconds} s: keepalives go on, VMs here are not looked at meanwhile; after {patience} s the service manager starts the daemon anew"
            );
        }
        waited < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use pvc_process::OwnThread;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_while_questions_are_answered_within_two_minutes() {
        // Answered by a thread that this test can hold up, and whose time is not this one's.
        let other = OwnThread::start("other").unwrap();
        let mut attention = other.place().run(Attention::of_here);
        let answered = |attention: &Attention| {
            while *attention.answered.borrow() != *attention.asked.borrow() {
                std::thread::yield_now();
            }
        };
        for _ in 0..100 {
            assert!(attention.lasts());
            answered(&attention);
            advance(Duration::from_secs(10)).await;
        }
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let busy = other.place().spawn(async move { held.recv() });
        sleep(Duration::from_millis(1)).await;
        assert!(attention.lasts());
        advance(PATIENCE.saturating_sub(Duration::from_secs(1))).await;
        assert!(attention.lasts() && attention.said);
        advance(Duration::from_secs(1)).await;
        assert!(!attention.lasts() && !attention.lasts());
        hold.send(()).unwrap();
        busy.await.unwrap().unwrap();
        answered(&attention);
        assert!(attention.lasts() && !attention.said);
    }
}
