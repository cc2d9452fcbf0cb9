//! What is known of the other end of a migration, and what both its plan and the memory of it count by.

use std::time::Duration;

use crate::model::Progress;

/// The pause before it is tried again.
pub const LIVE_AGAIN: Duration = Duration::from_secs(5);

/// How often the keys of a target that takes no VMs are looked at again.
pub(super) const TARGET_AGAIN: Duration = Duration::from_secs(1);

/// A guest whose memory was sent so many times over changes it faster than it can be sent: auto-converge has slowed it down
/// to a hundredth by then.
pub const COPIES: u64 = 12;

/// What another node's libvirt says about the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerState {
    /// It executes there, or has.
    Active,
    /// Its process is there and does not execute: brought by a migration, or being made ready for one.
    Held,
    /// Confirmed: it is not there.
    Off,
    /// It did not answer, for this reason: nothing may be concluded.
    Unknown(String),
}

/// Why this migration has no end, if it has none.
pub fn never_ends(progress: Progress) -> Option<String> {
    let over = progress.total > 0 && progress.sent / progress.total >= COPIES;
    over.then(|| {
        format!("the guest changes its memory faster than it can be sent: {COPIES} times over by now")
    })
}
