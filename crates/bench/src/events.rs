//! When a guest began and ended to run, as libvirt tells everybody: the same clock for the daemon's starts and virsh's.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use crate::program::{Running, command};

/// How long an event may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// libvirt's lifecycle events, with the time at which they arrived here.
pub(crate) struct Events {
    lines: mpsc::UnboundedReceiver<(Instant, String)>,
    _virsh: Running,
}

impl Events {
    /// Subscribes.
    pub(crate) fn subscribe() -> Result<Self> {
        let (send, lines) = mpsc::unbounded_channel();
        let (reader, writer) = std::io::pipe()?;
        let mut virsh = command("virsh");
        virsh
            .args(["-c", "qemu:///system", "event", "--event", "lifecycle", "--loop"])
            .stdin(Stdio::null())
            .stdout(writer);
        let virsh = Running::start(&mut virsh)?;
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if send.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { lines, _virsh: virsh })
    }

    /// Waits for `what` (`Started`, `Stopped`) to happen to the domain `name`.
    pub(crate) async fn wait_for(&mut self, name: &str, what: &str) -> Result<Instant> {
        let wanted = format!("'{name}': {what}");
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let Ok(line) = tokio::time::timeout(left, self.lines.recv()).await else {
                bail!("no event \"{wanted}\" within {PATIENCE:?}");
            };
            let (at, text) = line.context("virsh event has ended")?;
            if text.contains(&wanted) {
                return Ok(at);
            }
        }
    }
}
