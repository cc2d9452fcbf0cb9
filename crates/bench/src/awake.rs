//! Keeps the cores awake while CPU time is measured: on cores that sleep between two wakes the same work costs up to five times as much, and
//! another amount each time. What spins has idle priority, so it gives way to everything else.

use anyhow::Result;

use crate::program::{Running, command};

/// Until it is dropped.
#[derive(Debug)]
pub(crate) struct Awake {
    _spinners: Vec<Running>,
}

impl Awake {
    pub(crate) fn keep() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let spin =
            || Running::start(command("chrt").args(["--idle", "0", "bash", "-c", "while :; do :; done"]));
        Ok(Self { _spinners: (0..cores).map(|_| spin()).collect::<Result<_>>()? })
    }
}
