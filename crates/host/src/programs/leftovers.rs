//! Finds and ends what a daemon started and could not end. Each program has a mark in its environment, from its first instruction on: a
//! random number that only this node's root knows, so that nobody else's process is ever taken for one of ours.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// What holds the mark in a program's environment.
pub(super) const VARIABLE: &str = "PVC_PROGRAM";

/// So much of an environment is looked at: ours are smaller.
const LOOKED_AT: u64 = 64 * 1024;

/// The folder's mark; made if there is none.
pub(super) fn mark(folder: &Path) -> io::Result<String> {
    let file = folder.join("mark");
    match fs::read_to_string(&file) {
        Ok(text) if uuid::Uuid::parse_str(&text).is_ok() => return Ok(text),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let (mark, new) = (uuid::Uuid::new_v4().to_string(), folder.join("mark.new"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(mark.as_bytes())?;
    fs::rename(new, file)?;
    Ok(mark)
}

/// Kills every process with this mark and waits until they have ended; answers their names.
pub(super) fn end(mark: &str, within: Duration) -> io::Result<Vec<String>> {
    let deadline = Instant::now() + within;
    let mut ended = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !bears(pid, mark) {
            continue;
        }
        // It is the same process from here on; whether it is ours is looked at again.
        let Some(Ok(process)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            continue;
        };
        if !bears(pid, mark) {
            continue;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        match pidfd_send_signal(&process, Signal::KILL) {
            // It has ended by itself.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left))? == 0 {
            return Err(io::Error::other(format!("process {pid} of an earlier daemon does not end")));
        }
        ended.push(format!("{} (process {pid})", pvc_core::text::one_line(name.trim_end())));
    }
    Ok(ended)
}

fn bears(pid: i32, mark: &str) -> bool {
    let mut environment = Vec::new();
    // A process that ends meanwhile is none, and a kernel's thread has none.
    let read = fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(LOOKED_AT).read_to_end(&mut environment));
    let wanted = format!("{VARIABLE}={mark}");
    read.is_ok() && environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}
