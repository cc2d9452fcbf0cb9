//! The signals that end a program which has taken its terminal, and which has to give that back first.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// They are heard from now on, and end nothing by themselves any more.
pub(crate) struct Ends([Signal; 4]);

impl Ends {
    /// To be called before the terminal is taken.
    pub(crate) fn hear() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    /// Returns at the first of them.
    pub(crate) async fn any(&mut self) {
        let [terminate, hangup, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
