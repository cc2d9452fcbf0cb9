//! An OSD: it judges by the map that it has, and does what it is asked in the order in which it is asked.

use std::time::Duration;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Osd {
    epoch: u64,
    /// Maps that are on their way, and when they arrive.
    learns: Vec<(Duration, u64)>,
    /// When the last thing that it was asked is done.
    busy_until: Duration,
}

impl Osd {
    /// A map arrives then.
    pub(super) fn will_learn(&mut self, at: Duration, epoch: u64) {
        self.learns.push((at, epoch));
    }

    /// The map that it judges a client by: one that knows a newer one is not judged before the OSD has it, too.
    pub(super) fn judges_by(&mut self, now: Duration, client_knows: u64) -> u64 {
        let arrived = self.learns.iter().filter(|(at, _)| *at <= now).map(|(_, epoch)| *epoch).max();
        self.learns.retain(|(at, _)| *at > now);
        self.epoch = self.epoch.max(arrived.unwrap_or(0)).max(client_knows);
        self.epoch
    }

    /// When it has done what arrives now and takes so long.
    pub(super) fn done_at(&mut self, now: Duration, takes: Duration) -> Duration {
        self.busy_until = self.busy_until.max(now + takes);
        self.busy_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_of_a_map_in_its_time_or_from_whoever_knows_it() {
        let (mut osd, s) = (Osd::default(), Duration::from_secs);
        osd.will_learn(s(10), 5);
        assert_eq!(osd.judges_by(s(9), 3), 3);
        assert_eq!(osd.judges_by(s(10), 3), 5);
        assert_eq!(osd.judges_by(s(11), 7), 7);
    }

    #[test]
    fn what_comes_later_is_done_later() {
        let (mut osd, s) = (Osd::default(), Duration::from_secs);
        assert_eq!(
            [osd.done_at(s(0), s(60)), osd.done_at(s(1), s(1)), osd.done_at(s(70), s(1))],
            [s(60), s(60), s(71)]
        );
    }
}
