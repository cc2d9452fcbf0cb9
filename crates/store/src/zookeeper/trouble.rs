//! What is logged of a connection: each line once while a trouble lasts, then ever less often. A server that misbehaves, or a network
//! that flaps, fills no log.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// First and longest interval of reminders.
const FIRST_REMINDER: Duration = Duration::from_secs(8);
const LONGEST_REMINDER: Duration = Duration::from_mins(1);

/// The lines that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    NoServer,
    Connected,
    Lost,
    Again,
    Ended,
}

/// What was said since all was well.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<Line, (Instant, Duration)>);

impl Said {
    /// Whether to say it now.
    pub(super) fn is_due(&mut self, line: Line) -> bool {
        let now = Instant::now();
        let Some((again_at, reminder)) = self.0.get_mut(&line) else {
            self.0.insert(line, (now + FIRST_REMINDER, FIRST_REMINDER));
            return true;
        };
        if now < *again_at {
            return false;
        }
        *reminder = (*reminder * 2).min(LONGEST_REMINDER);
        *again_at = now + *reminder;
        true
    }

    /// All is well: whatever comes next is another trouble.
    pub(super) fn reset(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_is_said_once_then_ever_less_often_and_anew_when_all_was_well() {
        let mut said = Said::default();
        let mut times = 0;
        for _ in 0..1200 {
            times += u32::from(said.is_due(Line::Lost));
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(times, 5, "at 0, 8, 24, 56 and 116 s of two minutes");
        assert!(said.is_due(Line::Again), "another line has not been said");
        said.reset();
        assert!(said.is_due(Line::Lost));
    }
}
