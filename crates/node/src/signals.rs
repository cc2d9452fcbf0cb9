//! Signals: stop in order, stop at once, open the log anew.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{log::Log, stop::Stopper};

/// Exit status after a second signal: the stop was cut short.
const CUT_SHORT: u8 = 1;

/// Listens from now on: SIGTERM, SIGINT and SIGQUIT stop the daemon in order, another one of them at once; SIGHUP opens the log
/// file anew. To be called in a tokio runtime.
///
/// # Errors
/// If the kernel refuses to deliver signals.
pub fn listen(log: Log, stopper: Stopper) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    pvc_process::spawn(async move {
        let mut stopping = false;
        loop {
            let name = tokio::select! {
                biased;
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = quit.recv() => "SIGQUIT",
                _ = hang_up.recv() => {
                    log.reopen();
                    info!("SIGHUP: the log file was opened anew");
                    continue;
                }
            };
            if stopping {
                warn!("{name} again: exiting at once");
                log.finish(Duration::from_millis(200));
                pvc_host::ceph::exit_at_once(CUT_SHORT);
            }
            info!("{name}: stopping");
            stopping = true;
            stopper.stop();
        }
    });
    Ok(())
}
