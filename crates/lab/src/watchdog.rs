//! The nodes' watchdogs: a pipe where a node expects `/dev/watchdog`. The first byte arms it, every further byte feeds it, a
//! `V` disarms it, and once it is armed and hungry its node is reset.
//!
//! Like the hardware it asks nobody, and power off disarms it. Unlike the hardware it knows no `ioctl` (a node gets ENOTTY),
//! has the time that the lab's options give it, and a `V` counts before the file is closed.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, mknodat},
};

use crate::layout::{Layout, NodeNumber};

/// What it leaves on its node's console.
pub const EXPIRED_LINE: &str = "=== watchdog expired";

/// Puts the pipe into the node's folder. It outlives power cycles.
pub fn make(layout: &Layout, node: NodeNumber) -> Result<()> {
    let path = layout.watchdog(node);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .with_context(|| format!("could not make {}", path.display()))
}

/// The hardware's side of the pipe.
pub struct Watchdog {
    pipe: File,
    time: Duration,
}

impl Watchdog {
    /// Opens it for reading and writing, so that it never ends when a daemon closes its side.
    pub fn open(layout: &Layout, node: NodeNumber, time: Duration) -> Result<Self> {
        let path = layout.watchdog(node);
        let pipe = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Self { pipe: pipe.with_context(|| format!("could not open {}", path.display()))?, time })
    }

    /// Returns when it was armed and then not fed for its time, with the node's `life` at the last byte.
    pub fn wait_until_hungry(&mut self, life: impl Fn() -> u64) -> Result<u64> {
        let mut armed: Option<(Instant, u64)> = None;
        loop {
            let left = armed.map(|(fed, _)| (fed + self.time).saturating_duration_since(Instant::now()));
            match (self.read(left)?, armed) {
                (Some(b'V'), _) => armed = None,
                (Some(_), _) => armed = Some((Instant::now(), life())),
                (None, Some((_, armed_in))) => return Ok(armed_in),
                (None, None) => {}
            }
        }
    }

    /// The last byte that arrives within `time`, or ever if there is none.
    fn read(&mut self, time: Option<Duration>) -> Result<Option<u8>> {
        let time = time.map(Timespec::try_from).transpose()?;
        match poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], time.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let mut bytes = [0; 256];
        let length = self.pipe.read(&mut bytes)?;
        Ok(bytes[..length].last().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::mpsc, thread};

    use super::*;

    /// A watchdog of 200 ms, the node's side of it, and a channel of its expirations.
    fn watchdog(name: &str) -> (File, mpsc::Receiver<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let node = OpenOptions::new().write(true).open(&path).unwrap();
        let (expired, expirations) = mpsc::channel();
        thread::spawn(move || {
            let mut watchdog = Watchdog { pipe, time: Duration::from_millis(200) };
            while expired.send(watchdog.wait_until_hungry(|| 7).unwrap()).is_ok() {}
        });
        (node, expirations)
    }

    #[test]
    fn a_watchdog_that_is_armed_and_not_fed_expires_once() {
        let (mut node, expirations) = watchdog("hungry");
        assert!(expirations.recv_timeout(Duration::from_millis(400)).is_err(), "it was never armed");
        node.write_all(b"x").unwrap();
        assert_eq!(expirations.recv_timeout(Duration::from_secs(20)), Ok(7));
        assert!(expirations.recv_timeout(Duration::from_millis(400)).is_err(), "it expired twice");
    }

    #[test]
    fn a_disarmed_watchdog_does_not_expire() {
        let (mut node, expirations) = watchdog("disarmed");
        node.write_all(b"x").unwrap();
        node.write_all(b"V").unwrap();
        assert!(expirations.recv_timeout(Duration::from_millis(600)).is_err());
    }
}
