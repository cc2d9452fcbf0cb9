//! A live migration that is under way, as the hypervisor reports it.

use std::time::Duration;

/// Which way a VM is moving, seen from one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// From here to elsewhere.
    Leaving(Progress),
    /// From elsewhere to here: how far, only its source knows.
    Arriving,
}

/// How far a migration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Since its beginning.
    pub elapsed: Duration,
    /// Bytes there are to copy at all: the guest's memory.
    pub total: u64,
    /// Bytes sent so far. Memory that the guest changes meanwhile is sent again, so this may pass `total`.
    pub sent: u64,
    /// Bytes that have still to be sent as of now.
    pub remaining: u64,
}

impl Progress {
    /// How much of it is there, in percent.
    pub fn percent(&self) -> u64 {
        let done = self.total.saturating_sub(self.remaining);
        done.saturating_mul(100).checked_div(self.total).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_nothing_is_no_division_by_zero() {
        assert_eq!(Progress::default().percent(), 0);
        let half = Progress { total: 200, remaining: 100, sent: 900, ..Progress::default() };
        assert_eq!(half.percent(), 50);
    }
}
