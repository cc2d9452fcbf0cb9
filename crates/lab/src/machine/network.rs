//! Networks that are not this program's.

use std::{fs, os::fd::AsFd, path::Path, thread};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `act` on a thread of its own that is in the network of the process `pid`.
pub(crate) fn in_network_of<T: Send>(pid: i32, act: impl FnOnce() -> T + Send) -> Result<T> {
    in_network(Path::new(&format!("/proc/{pid}/ns/net")), act)
}

/// Runs `act` on a thread of its own that is in this network namespace. A socket stays in the network that it was opened in.
pub(crate) fn in_network<T: Send>(namespace: &Path, act: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = fs::File::open(namespace).with_context(|| format!("no {}", namespace.display()))?;
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("could not enter the network")?;
            Ok(act())
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
