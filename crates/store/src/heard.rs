//! Since when the leader certainly counts a session's time: from what was answered, and when.
//!
//! A server answers reads, and its client's signs of life, by itself, also when it has lost its leader; and it tells the leader which
//! sessions it has heard of only when the leader asks, which is every half tick. A write is answered after the leader and a quorum
//! took part. So: whatever was answered [`TOLD_WITHIN`] before an acknowledged write was *sent*, the leader had been told of.
//! Source: `LearnerHandler` and `Learner.ping` of ZooKeeper 3.8. (A write itself does not count on the leader.)

use std::{collections::VecDeque, time::Duration};

use pvc_core::sabotage::{self, Bug};
use tokio::time::Instant;

/// Half a tick of 2 s, which is the servers' default and what the manual asks for …
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// … or less, since no server grants a session of less than two ticks.
const PART_OF_A_SESSION: u32 = 4;
/// Answers closer together than this are one.
const APART: Duration = Duration::from_millis(250);
/// More than there can be between two writes of a client that lives.
const KEPT: usize = 64;

/// See the module's documentation. Of one session.
#[derive(Debug, Default)]
pub struct Heard {
    certain: Option<Instant>,
    /// When a request was sent and answered, oldest first.
    answered: VecDeque<(Instant, Instant)>,
}

impl Heard {
    /// The session was opened by a request sent then, which is a write.
    pub fn opened(sent: Instant) -> Self {
        Self { certain: Some(sent), ..Self::default() }
    }

    /// Some request was answered now; that a server took the session over is no more than that (its leader may have no followers).
    pub fn answered(&mut self, sent: Instant) {
        self.answered_at(sent, Instant::now());
    }

    /// As [`Self::answered`], then.
    pub(crate) fn answered_at(&mut self, sent: Instant, now: Instant) {
        if sabotage::commits(Bug::ReadsFeedPrimary) {
            self.certain = self.certain.max(Some(sent));
        }
        let is_news = self.answered.back().is_none_or(|(_, last)| now >= *last + APART);
        if is_news && self.answered.len() < KEPT {
            self.answered.push_back((sent, now));
        }
    }

    /// A write was acknowledged now.
    pub fn acknowledged(&mut self, sent: Instant, session_timeout: Duration) {
        let told_within = TOLD_WITHIN.min(session_timeout / PART_OF_A_SESSION);
        while let Some((earlier, answered)) = self.answered.front().copied()
            && answered + told_within <= sent
        {
            self.certain = self.certain.max(Some(earlier));
            self.answered.pop_front();
        }
        self.answered(sent);
    }

    /// The session cannot end before its time-out has passed from here on. `None`: nothing is certain.
    pub fn at(&self) -> Option<Instant> {
        self.certain
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const SESSION: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn answers_count_once_a_later_write_was_acknowledged() {
        let begin = Instant::now();
        let mut heard = Heard::opened(begin);
        for _ in 0..20 {
            sleep(Duration::from_millis(500)).await;
            heard.answered(Instant::now());
        }
        assert_eq!(heard.at(), Some(begin), "whoever answers reads may have no leader");
        let write = Instant::now();
        heard.acknowledged(write, SESSION);
        assert_eq!(heard.at(), Some(write - TOLD_WITHIN), "what came later may not have been told");
        heard.acknowledged(write, SESSION);
        assert_eq!(heard.at(), Some(write - TOLD_WITHIN), "not by itself");
        sleep(Duration::from_millis(1250)).await;
        heard.acknowledged(Instant::now(), SESSION);
        assert_eq!(heard.at(), Some(write));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_counts_from_when_it_was_asked_for() {
        let mut heard = Heard::default();
        let sent = Instant::now();
        sleep(Duration::from_secs(3)).await;
        heard.acknowledged(sent, SESSION);
        sleep(Duration::from_millis(900)).await;
        heard.acknowledged(Instant::now(), SESSION);
        assert_eq!(heard.at(), None, "it was answered less than a second ago");
        sleep(Duration::from_millis(200)).await;
        heard.acknowledged(Instant::now(), SESSION);
        assert_eq!(heard.at(), Some(sent));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_answers_take_no_more_room_than_some() {
        let mut heard = Heard::default();
        for _ in 0..1000 {
            sleep(APART).await;
            heard.answered(Instant::now());
        }
        assert!(heard.answered.len() <= KEPT);
        let sent = Instant::now();
        heard.acknowledged(sent, SESSION);
        assert!(heard.at().is_some() && heard.answered.len() <= 1);
    }
}
