//! The request to stop, as everybody in the daemon may wait for it.

use tokio::sync::watch;

/// Makes the request. A daemon whose stopper is gone stops too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Learns of the request.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A request that was not made yet.
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Returns when the daemon shall stop, at once if it was asked before.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

impl Stopper {
    /// Asks the daemon to stop in order.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
