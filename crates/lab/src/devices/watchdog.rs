//! The nodes' watchdogs: what a node finds as `/dev/watchdog`, in the manner of the kernel's `watchdog-api`. Opening it starts it,
//! each write feeds it, a `V` in the last write before closing stops it, and once it was started and is hungry its node is reset.
//!
//! Like the hardware it asks nobody, and power off stops it. Never acts itself: see `switch`.

mod files;
#[cfg(test)]
mod tests;

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use files::Mounted;

/// What it leaves on its node's console.
pub const EXPIRED_LINE: &str = "=== watchdog expired";

/// What softdog has until it is told otherwise.
const FIRST_TIMEOUT: Duration = Duration::from_mins(1);
/// The most that softdog takes.
const LONGEST_S: u32 = 65535;

/// One node's watchdog.
pub struct Watchdog {
    timer: Mutex<Timer>,
    changed: Condvar,
}

struct Timer {
    timeout: Duration,
    /// When it was fed last; `None`: it is stopped.
    fed: Option<Instant>,
    /// Who has it open; only one may.
    opener: Option<u64>,
    openings: u64,
    /// The last write had a `V`.
    may_stop: bool,
}

impl Timer {
    fn end(&self) -> Option<Instant> {
        self.fed.map(|fed| fed + self.timeout)
    }

    fn is_hungry(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| now >= end)
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        let timer = Timer { timeout: FIRST_TIMEOUT, fed: None, opener: None, openings: 0, may_stop: false };
        Self { timer: Mutex::new(timer), changed: Condvar::new() }
    }
}

impl Watchdog {
    /// Returns when it was started and then not fed for its time.
    pub fn wait_until_hungry(&self) {
        let mut timer = self.timer();
        while !timer.is_hungry(Instant::now()) {
            timer = match timer.end() {
                None => self.changed.wait(timer).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(timer, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Whether that is so now.
    pub fn is_hungry(&self) -> bool {
        self.timer().is_hungry(Instant::now())
    }

    /// The node's power is off.
    pub fn power_off(&self) {
        let mut timer = self.timer();
        // Whoever had it open is gone; its closing may be told later.
        *timer = Timer {
            openings: timer.openings,
            timeout: FIRST_TIMEOUT,
            fed: None,
            opener: None,
            may_stop: false,
        };
    }

    /// Opens and so starts it; `None` if somebody has it open.
    fn open(&self) -> Option<u64> {
        let mut timer = self.timer();
        if timer.opener.is_some() {
            return None;
        }
        timer.openings += 1;
        timer.opener = Some(timer.openings);
        timer.may_stop = false;
        self.feed(&mut timer);
        timer.opener
    }

    fn write(&self, bytes: &[u8]) {
        let mut timer = self.timer();
        timer.may_stop = bytes.contains(&b'V');
        self.feed(&mut timer);
    }

    fn close(&self, opening: u64) {
        let mut timer = self.timer();
        if timer.opener != Some(opening) {
            return;
        }
        timer.opener = None;
        if timer.may_stop {
            timer.fed = None;
        }
    }

    /// What it is then, in seconds; `None`: it cannot be that.
    fn set_timeout(&self, seconds: i32) -> Option<i32> {
        let wanted = u32::try_from(seconds).ok().filter(|s| (1..=LONGEST_S).contains(s))?;
        let mut timer = self.timer();
        timer.timeout = Duration::from_secs(wanted.into());
        self.feed(&mut timer);
        Some(seconds)
    }

    fn timeout_s(&self) -> i32 {
        i32::try_from(self.timer().timeout.as_secs()).unwrap_or(i32::MAX)
    }

    fn feed(&self, timer: &mut Timer) {
        timer.fed = Some(Instant::now());
        self.changed.notify_all();
    }

    fn timer(&self) -> MutexGuard<'_, Timer> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
