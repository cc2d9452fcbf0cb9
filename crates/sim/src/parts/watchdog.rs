//! A machine's watchdog, which resets it whatever has become of the daemon.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_host::watchdog::{Armed, Watchdog, WatchdogError, fake::FakeWatchdog};
use tokio::sync::Notify;

/// See the module's documentation.
pub struct SimWatchdog {
    /// What counts.
    pub fake: Arc<FakeWatchdog>,
    /// Signalled when it was armed.
    pub armed: Arc<Notify>,
}

#[async_trait]
impl Watchdog for SimWatchdog {
    async fn arm(&self, within: Duration, age: Duration) -> Result<Armed, WatchdogError> {
        let armed = self.fake.arm(within, age).await;
        self.armed.notify_one();
        armed
    }

    fn feed(&self, age: Duration) {
        self.fake.feed(age);
    }

    async fn disarm(&self) -> Result<(), WatchdogError> {
        self.fake.disarm().await
    }
}
