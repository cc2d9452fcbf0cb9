//! A point on one node's monotonic clock. Never compared between nodes, never a wall clock.

use std::{ops::Add, ops::Sub, time::Duration};

/// Time since an origin that the runtime chose (daemon start, simulation start).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The origin plus whole seconds; for tests and tables.
    pub const fn secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }

    /// How long before `self` the moment `earlier` was; zero if it was not before.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(d))
    }
}
