//! What libvirt has written down about a guest's last run: how it ended.
//!
//! libvirt forgets a transient guest with its process, but first it writes a line into the guest's log, before it ends the process; a
//! source that finds `reason=migrated` there ends the process after every crash of its own (its phase is saved before). This is the
//! only trace that outlives our daemon of whether a guest that is gone has arrived elsewhere. A log that is missing, cut or rotated
//! away says nothing.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Where libvirt keeps the guests' logs.
pub(super) const LOGS: &str = "/var/log/libvirt/qemu";

/// What follows the end of a run is QEMU's farewell, of a few lines.
const TAIL: u64 = 4096;

/// Whether the last thing that the log tells of the guest's life is that it has migrated away.
pub(super) fn says_left(log: &Path) -> bool {
    tail(log).is_ok_and(|text| ends_with_a_departure(&text))
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn ends_with_a_departure(text: &str) -> bool {
    let event = |line: &&str| line.contains(": shutting down, reason=") || line.contains(": starting up ");
    text.lines().rev().find(event).is_some_and(|line| line.ends_with(": shutting down, reason=migrated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIGRATED: &str = "2026-11-28 00:51:18.393+0000: shutting down, reason=migrated\n\
        2026-11-28T00:51:18.394435Z qemu-system-x86_64: terminating on signal 15 from pid 11 (libvirtd)\n";
    const STARTING: &str = "2026-11-28 00:51:12.101+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4\n\
        LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=web1\n";
    const INITIATING: &str = "2026-11-28 00:51:18.226+0000: initiating migration\n";

    #[test]
    fn only_the_last_run_counts_and_only_if_it_ended_so() {
        for (parts, left) in [
            (&[STARTING, INITIATING, MIGRATED][..], true),
            (&[STARTING, INITIATING, MIGRATED, STARTING], false),
            (&[STARTING, INITIATING], false),
            (&[STARTING, INITIATING, &MIGRATED.replace("migrated", "destroyed")], false),
            (&[STARTING, MIGRATED, STARTING, &MIGRATED.replace("migrated", "crashed")], false),
            (&[STARTING, &MIGRATED[..50]], false),
            (&[MIGRATED], true),
            (&[], false),
        ] {
            assert_eq!(ends_with_a_departure(&parts.concat()), left, "{parts:?}");
        }
    }

    #[test]
    fn the_end_of_a_long_log_is_read_and_a_missing_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web1.log");
        assert!(!says_left(&log));
        std::fs::write(&log, STARTING.repeat(1000) + MIGRATED).unwrap();
        assert!(says_left(&log));
        std::fs::write(&log, MIGRATED.to_owned() + &STARTING.repeat(1000)).unwrap();
        assert!(!says_left(&log));
    }
}
