//! A watchdog for tests and simulations: it tells whether the machine would have been reset. Its clock is tokio's.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::plan::selffence::Promise;
use tokio::time::Instant;

use super::{Armed, Watchdog, WatchdogError};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct FakeWatchdog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<(Duration, Instant)>,
    fired_at: Option<Instant>,
    feeds: u64,
    device_is_missing: bool,
}

impl State {
    fn look(&mut self) {
        if let Some((within, fed)) = self.armed
            && fed + within <= Instant::now()
        {
            self.fired_at.get_or_insert(fed + within);
        }
    }
}

impl FakeWatchdog {
    /// Not armed.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A machine without a device: nobody may count on its guard.
    pub fn without_device() -> Arc<Self> {
        let fake = Self::new();
        fake.lock().device_is_missing = true;
        fake
    }

    /// Whether it is armed.
    pub fn is_armed(&self) -> bool {
        self.lock().armed.is_some()
    }

    /// How often it was fed, arming included.
    pub fn feeds(&self) -> u64 {
        self.lock().feeds
    }

    /// When the machine was reset, if it was.
    pub fn fired_at(&self) -> Option<Instant> {
        self.lock().fired_at
    }

    /// When the machine will be reset if nobody feeds it.
    pub fn fires_at(&self) -> Option<Instant> {
        self.lock().armed.map(|(within, fed)| fed + within)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look();
        state
    }
}

#[async_trait]
impl Watchdog for FakeWatchdog {
    async fn arm(&self, within: Duration, age: Duration) -> Result<Armed, WatchdogError> {
        let mut state = self.lock();
        state.armed = Some((within, Instant::now() - age));
        state.feeds += 1;
        let seconds = u32::try_from(within.as_secs()).unwrap_or(u32::MAX);
        let promise = Promise((!state.device_is_missing).then_some(seconds));
        Ok(Armed { promise, by: "a fake".into() })
    }

    fn feed(&self, age: Duration) {
        let mut state = self.lock();
        state.feeds += 1;
        if let Some((_, fed)) = &mut state.armed {
            *fed = Instant::now() - age;
        }
    }

    async fn disarm(&self) -> Result<(), WatchdogError> {
        self.lock().armed = None;
        Ok(())
    }
}
