//! Networks that are not this program's.

use std::{fs, os::fd::AsFd, thread};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `act` on a thread of its own that is in the network of the process `pid`. A socket stays in the network that it was opened in.
pub(crate) fn in_network_of<T: Send>(pid: i32, act: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).context("its network")?;
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("could not enter its network")?;
            Ok(act())
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
