//! Deliberate bugs, by which the simulator shows that its checkers would catch real ones.
//!
//! Each is asked for at the one place where its rule is carried out. Without the feature `sabotage`, which nothing but the simulator
//! turns on, the answer is a constant `false`, and the compiler removes the question. Never part of what is shipped: the daemon
//! refuses to start where bugs are [`POSSIBLE`].

use std::{fmt, str::FromStr};

use crate::model::NameError;

/// Whether this was built with bugs that can be committed.
pub const POSSIBLE: bool = cfg!(feature = "sabotage");

/// A rule of docs/protocols.md that can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A VM is started without its claim (section 2, rule 1).
    StartWithoutClaim,
    /// Silence is told by comparing wall clocks (section 1).
    TrustWallClock,
    /// What was measured before a gap in the observer's session still counts after it (section 1).
    CountGapAsSilence,
    /// A node is reset instead of powered off, and the BMC's acceptance is taken for its death (section 6.4).
    ResetAsProof,
    /// A node is shut out of the storage and its locks broken before it is proven dead (section 6.6).
    BreakLocksFirst,
    /// A fence whose fencer died is nobody's business (section 6.3).
    ForgetDeadFencer,
    /// An answer is written whatever has been desired meanwhile (section 9, invariant 4).
    AnswerUnchecked,
    /// The floating addresses outlive the session (section 8).
    KeepAddresses,
    /// Only memory that is in use counts as taken (section 5).
    IgnoreReservations,
    /// The claim is given up before libvirt has confirmed that the VM is off (section 2, rule 2).
    ReleaseFirst,
    /// The `stop` that every definition begins with is carried out on a guest that runs already (section 3).
    AdoptThenStop,
    /// What executes here and belongs elsewhere goes on until the daemon has its node's name (section 2, rule 6).
    LeaveStrangersRunning,
    /// What executes in a new boot goes on while nobody has read the tree in it (section 2, rule 6).
    TrustTheNewBoot,
    /// A node's silence is measured in the observer's intervals, not in its own (section 1).
    OwnInterval,
    /// A node with a key that cannot be read is left alone (section 6.1).
    UnreadableIsUnfenced,
    /// An operator's word that a node is dead, or is to be fenced, outlives the life that it was said about (section 6.5).
    WordOutlivesLife,
    /// A promise of a reset whose answer was lost was never given (section 7).
    ForgetTold,
    /// What a migration brings executes as soon as all of it has arrived (section 4).
    ArriveRunning,
    /// A VM that is defined anew is claimed by nobody (section 2).
    ClaimDiesWithItsVm,
    /// A VM is started while another node's last word is that it executes it (section 2).
    IgnoreLastWord,
    /// A primary's addresses live from whatever a server answers, also one that has lost its leader (section 8).
    ReadsFeedPrimary,
    /// A guest is ended for what the node's own server says, which may be behind (section 2, rule 5).
    EndForAStaleClaim,
    /// A node whose daemon has stopped in order is taken for one that is off, whatever its BMC says (section 6.1).
    StoppedIsOff,
    /// Any machine may have a node's name, and with it what that claims (section 2).
    AnyMachine,
    /// A guest that has crashed and whose process stays is left as it is (section 3).
    LeaveCrashed,
    /// A silent node's VMs are given new homes before it is proven dead (section 6.7).
    RecoverUnproven,
    /// A recovery takes the dead node out of the claim now, and gives the VM its new home later (section 6.7).
    RecoverInHalves,
    /// Who has begun to shoot does not look again whether the node is back (section 6.4).
    KeepShooting,
    /// A guest that is not on the target when its migration is over is ended (section 4).
    EndAtTheSource,
    /// A migration begins to a node whose daemon has no session (section 2, rule 3).
    MigrateToTheAbsent,
    /// What was stopped while a flush had it shut down starts at the unflush (section 9, invariant 15).
    ForgetTheStop,
    /// A flush leaves a VM where it is without trying to move it (section 5).
    LeaveUntried,
    /// A flush ends over a VM whose claim nobody can read, and does not say that it stays (section 5).
    FlushInSilence,
    /// A node says that it is primary before it has the addresses (section 8).
    SayPrimaryFirst,
    /// A node is given VMs though it says that it can start none (section 5).
    PlaceAtTheUnable,
    /// A node that can start no VMs keeps what shall run on it (section 5).
    KeepTheUnable,
    /// What a node's hypervisor refuses to start is tried there for ever, and nowhere else (section 3).
    KeepTheRefused,
    /// A guest is shut down for its move before its target has said that it could start it (section 4).
    MoveUnasked,
    /// A coordinator is powered off whether or not the others' ZooKeeper servers are a quorum (section 6.2).
    ShootTheLast,
    /// A gateway of a client network stays where it is when its node is no longer primary (section 8).
    LeaveGateways,
    /// A guest is told of its address whether or not the lease was written (section 8).
    TellUnwritten,
    /// A new primary begins without the leases that there are (section 8).
    ForgetLeases,
    /// Frames for a card still go where its guest was (section 9, invariant 16).
    KeepForwards,
    /// Locks are broken before the blocklist stands, and that is taken for a fence (section 6.6).
    LocksBeforeBlocklist,
    /// A client that is shut out is let in before its machine has booted anew (section 6.6).
    LiftEarly,
    /// A node that is declared dead claims what runs on it before it has said that it lives (section 2, rule 5).
    ClaimWhileDead,
    /// A VM of a dead node is moved on a proof of any age (section 6.7).
    OldProof,
}

impl Bug {
    /// All of them, in the order of the list in the simulator's documentation.
    pub const ALL: [Self; 47] = [
        Self::StartWithoutClaim,
        Self::TrustWallClock,
        Self::CountGapAsSilence,
        Self::ResetAsProof,
        Self::BreakLocksFirst,
        Self::ForgetDeadFencer,
        Self::AnswerUnchecked,
        Self::KeepAddresses,
        Self::IgnoreReservations,
        Self::ReleaseFirst,
        Self::AdoptThenStop,
        Self::LeaveStrangersRunning,
        Self::TrustTheNewBoot,
        Self::OwnInterval,
        Self::UnreadableIsUnfenced,
        Self::WordOutlivesLife,
        Self::ForgetTold,
        Self::ArriveRunning,
        Self::ClaimDiesWithItsVm,
        Self::IgnoreLastWord,
        Self::ReadsFeedPrimary,
        Self::EndForAStaleClaim,
        Self::StoppedIsOff,
        Self::AnyMachine,
        Self::LeaveCrashed,
        Self::RecoverUnproven,
        Self::RecoverInHalves,
        Self::KeepShooting,
        Self::EndAtTheSource,
        Self::MigrateToTheAbsent,
        Self::ForgetTheStop,
        Self::LeaveUntried,
        Self::FlushInSilence,
        Self::SayPrimaryFirst,
        Self::PlaceAtTheUnable,
        Self::KeepTheUnable,
        Self::KeepTheRefused,
        Self::MoveUnasked,
        Self::ShootTheLast,
        Self::LeaveGateways,
        Self::TellUnwritten,
        Self::ForgetLeases,
        Self::KeepForwards,
        Self::LocksBeforeBlocklist,
        Self::LiftEarly,
        Self::ClaimWhileDead,
        Self::OldProof,
    ];

    /// Its name on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartWithoutClaim => "start-without-claim",
            Self::TrustWallClock => "trust-wall-clock",
            Self::CountGapAsSilence => "count-gap-as-silence",
            Self::ResetAsProof => "reset-as-proof",
            Self::BreakLocksFirst => "break-locks-first",
            Self::ForgetDeadFencer => "forget-dead-fencer",
            Self::AnswerUnchecked => "answer-unchecked",
            Self::KeepAddresses => "keep-addresses",
            Self::IgnoreReservations => "ignore-reservations",
            Self::ReleaseFirst => "release-first",
            Self::AdoptThenStop => "adopt-then-stop",
            Self::LeaveStrangersRunning => "leave-strangers-running",
            Self::TrustTheNewBoot => "trust-the-new-boot",
            Self::OwnInterval => "own-interval",
            Self::UnreadableIsUnfenced => "unreadable-is-unfenced",
            Self::WordOutlivesLife => "word-outlives-life",
            Self::ForgetTold => "forget-told",
            Self::ArriveRunning => "arrive-running",
            Self::ClaimDiesWithItsVm => "claim-dies-with-its-vm",
            Self::IgnoreLastWord => "ignore-last-word",
            Self::ReadsFeedPrimary => "reads-feed-primary",
            Self::EndForAStaleClaim => "end-for-a-stale-claim",
            Self::StoppedIsOff => "stopped-is-off",
            Self::AnyMachine => "any-machine",
            Self::LeaveCrashed => "leave-crashed",
            Self::RecoverUnproven => "recover-unproven",
            Self::RecoverInHalves => "recover-in-halves",
            Self::KeepShooting => "keep-shooting",
            Self::EndAtTheSource => "end-at-the-source",
            Self::MigrateToTheAbsent => "migrate-to-the-absent",
            Self::ForgetTheStop => "forget-the-stop",
            Self::LeaveUntried => "leave-untried",
            Self::FlushInSilence => "flush-in-silence",
            Self::SayPrimaryFirst => "say-primary-first",
            Self::PlaceAtTheUnable => "place-at-the-unable",
            Self::KeepTheUnable => "keep-the-unable",
            Self::KeepTheRefused => "keep-the-refused",
            Self::MoveUnasked => "move-unasked",
            Self::ShootTheLast => "shoot-the-last",
            Self::LeaveGateways => "leave-gateways",
            Self::TellUnwritten => "tell-unwritten",
            Self::ForgetLeases => "forget-leases",
            Self::KeepForwards => "keep-forwards",
            Self::LocksBeforeBlocklist => "locks-before-blocklist",
            Self::LiftEarly => "lift-early",
            Self::ClaimWhileDead => "claim-while-dead",
            Self::OldProof => "old-proof",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Bug {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|bug| bug.as_str() == text).ok_or_else(|| NameError {
            what: "deliberate bug",
            found: text.to_owned(),
            allowed: "one of those that `cargo xtask sim --help` lists",
        })
    }
}

#[cfg(feature = "sabotage")]
thread_local! {
    static COMMITTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this thread's daemons commit that bug.
#[cfg(feature = "sabotage")]
pub fn commits(bug: Bug) -> bool {
    COMMITTED.get() == Some(bug)
}

/// Whether this build's daemons commit that bug: never.
#[cfg(not(feature = "sabotage"))]
pub const fn commits(_: Bug) -> bool {
    false
}

/// From now on the daemons of this thread commit that bug; `None`: none.
#[cfg(feature = "sabotage")]
pub fn commit(bug: Option<Bug>) {
    COMMITTED.set(bug);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_are_read_as_they_are_written() {
        for bug in Bug::ALL {
            assert_eq!(bug.to_string().parse(), Ok(bug));
        }
        assert!("none".parse::<Bug>().is_err());
    }

    #[cfg(not(feature = "sabotage"))]
    #[test]
    fn a_build_without_the_feature_commits_none() {
        assert!(Bug::ALL.into_iter().all(|bug| !commits(bug)));
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn one_bug_is_committed_at_a_time_and_only_by_this_thread() {
        commit(Some(Bug::KeepAddresses));
        assert!(commits(Bug::KeepAddresses) && !commits(Bug::ReleaseFirst));
        assert!(!std::thread::spawn(|| commits(Bug::KeepAddresses)).join().unwrap());
        commit(None);
        assert!(Bug::ALL.into_iter().all(|bug| !commits(bug)));
    }
}
