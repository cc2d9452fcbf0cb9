//! What this daemon did about one VM: the memory that back-offs and grace periods need. Everything else is observed anew.
//!
//! It belongs to one desired state, told by the version of the VM's `state`: a new desired state starts from nothing, so an operator's
//! `start` is never held up by an earlier crash loop. A restarted daemon starts from nothing, too; that only makes it more
//! patient.

use std::{
    collections::VecDeque,
    mem::{Discriminant, discriminant},
    time::Duration,
};

use super::peer::{LIVE_AGAIN, PeerState, TARGET_AGAIN, never_ends};
use crate::model::{Moment, NodeName, Progress, Vm};

/// So many starts within [`START_WINDOW`], and the VM is declared failed.
pub const START_LIMIT: usize = 10;

/// The time in which starts are counted.
pub const START_WINDOW: Duration = Duration::from_mins(10);

/// How long the word of another node's libvirt counts. The one step that follows from it is done at once.
const LOOK_IS_FRESH: Duration = Duration::from_millis(500);

/// How often a target is looked for.
pub(super) const CHOOSE_AGAIN: Duration = Duration::from_secs(5);

/// A start that the node's hypervisor refuses is tried again for so long: bridges and storage may come late after a power cut.
pub const REFUSED_FOR: Duration = Duration::from_hours(1);

/// After so long another node is looked for: what comes late after a power cut has come by then, as a rule.
pub const ELSEWHERE_AFTER: Duration = Duration::from_secs(30);

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_mins(1);

/// Memory of one VM.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    desired: Option<i32>,
    starts: VecDeque<Moment>,
    permit: Option<i32>,
    refused: Option<Refused>,
    asking: Option<Asking>,
    noticed: Option<Moment>,
    looked: Option<(NodeName, PeerState, Moment)>,
    word: Option<(NodeName, Result<(), String>)>,
    /// Since when each look has said this.
    peer_state_since: Option<(Discriminant<PeerState>, Moment)>,
    migration_permit: Option<i32>,
    sent: Option<(u64, Moment)>,
    aborted: Option<Moment>,
    left: Option<i32>,
    tries: Tries,
    no_target: Option<(String, Moment)>,
    /// This node's daemon had no session when the claim was to be shared with it.
    absent: Option<(NodeName, Moment)>,
    /// It executed here under its desired state while its claim could not be read.
    unclaimed: bool,
    /// Outlives the desired state.
    home: Option<NodeName>,
}

/// This node's hypervisor does not start it.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) since: Moment,
    pub(super) times: u32,
    pub(super) why: String,
    /// Not before then again.
    pub(super) again_at: Moment,
}

/// What became of live migrations.
#[derive(Debug, Clone, Default)]
pub(super) struct Tries {
    /// How often one failed.
    pub(super) failures: u32,
    /// It is no use to try again.
    pub(super) impossible: bool,
    /// Why the last one failed.
    pub(super) reason: Option<String>,
    /// When to try again.
    pub(super) again_at: Option<Moment>,
}

/// A guest that was asked to shut down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The first time.
    pub(super) since: Moment,
    /// The last time.
    pub(super) last: Moment,
    /// How often.
    pub(super) times: u32,
}

impl Attempts {
    /// Where the VM shall return to, as it is while it is not to move. A client's `unmigrate` and `move` clear that in the desired state
    /// itself.
    pub fn saw_home(&mut self, vm: &Vm) {
        self.home.clone_from(&vm.last_node.value);
    }

    /// Where the VM was to return to before it was to move.
    pub fn home(&self) -> Option<&NodeName> {
        self.home.as_ref()
    }

    /// No node could take it, for this reason.
    pub fn found_no_target(&mut self, vm: &Vm, why: String, now: Moment) {
        self.begin(vm);
        self.no_target = Some((why, now));
    }

    /// The desired state is seen; the first time counts.
    pub fn notice(&mut self, vm: &Vm, now: Moment) {
        self.begin(vm);
        self.noticed.get_or_insert(now);
    }

    /// Another node's libvirt was asked about the VM.
    pub fn looked(&mut self, vm: &Vm, node: &NodeName, peer_state: PeerState, now: Moment) {
        self.begin(vm);
        let kind = discriminant(&peer_state);
        if self.peer_state_since.is_none_or(|(before, _)| before != kind) {
            self.peer_state_since = Some((kind, now));
        }
        self.looked = Some((node.clone(), peer_state, now));
    }

    /// The daemon of the node that it is to go to has said whether it could be started there.
    pub fn heard(&mut self, vm: &Vm, node: &NodeName, word: Result<(), String>) {
        self.begin(vm);
        self.word = Some((node.clone(), word));
    }

    /// The claim was to be shared with that node, whose daemon had no session.
    pub fn found_absent(&mut self, vm: &Vm, node: &NodeName, now: Moment) {
        self.begin(vm);
        self.absent = Some((node.clone(), now));
    }

    /// The claim was shared: one migration is permitted, under exactly that claim.
    pub fn shared(&mut self, vm: &Vm) {
        self.begin(vm);
        self.looked = None;
        self.migration_permit = Some(vm.claim.version.map_or(0, |v| v.wrapping_add(1)));
    }

    /// A migration is begun: the permit is spent, and what was known of the target is old.
    pub fn migrates(&mut self, vm: &Vm, now: Moment) {
        self.begin(vm);
        (self.migration_permit, self.looked, self.aborted, self.left) = (None, None, None, None);
        self.sent = Some((0, now));
    }

    /// The migration under this very claim has brought all of it to the other side, as this node was told.
    pub fn leaves(&mut self, vm: &Vm) {
        self.left = vm.claim.version;
    }

    /// Whether it has; a new desired state changes nothing of that.
    pub fn has_left(&self, vm: &Vm) -> bool {
        self.left.is_some() && self.left == vm.claim.version
    }

    /// A migration that is under way has come so far.
    pub fn progressed(&mut self, vm: &Vm, progress: Progress, now: Moment) {
        self.begin(vm);
        self.looked = None;
        if self.sent.is_none_or(|(sent, _)| sent != progress.sent) {
            self.sent = Some((progress.sent, now));
        }
        if let Some(reason) = never_ends(progress) {
            self.tries.impossible = true;
            self.tries.reason = Some(reason);
        }
    }

    /// The migration was told to end.
    pub fn aborts(&mut self, vm: &Vm, now: Moment) {
        self.begin(vm);
        self.aborted = Some(now);
    }

    /// A migration did not take place, as far as this node was told.
    pub fn migration_failed(&mut self, vm: &Vm, reason: String, now: Moment) {
        self.begin(vm);
        self.looked = None;
        self.tries.failures = self.tries.failures.saturating_add(1);
        self.tries.again_at = Some(now + LIVE_AGAIN);
        // What is known of an endless one says more than that it was aborted.
        if !self.tries.impossible {
            self.tries.reason = Some(reason);
        }
    }

    /// The guest was asked to shut down.
    pub fn asked_to_shut_down(&mut self, vm: &Vm, now: Moment) {
        self.begin(vm);
        let asking = self.asking.get_or_insert(Asking { since: now, last: now, times: 0 });
        asking.last = now;
        asking.times += 1;
    }

    /// The claim was committed: one start is permitted, under exactly that claim.
    pub fn claimed(&mut self, vm: &Vm) {
        self.begin(vm);
        self.permit = Some(vm.claim.version.map_or(0, |v| v.wrapping_add(1)));
        self.unclaimed = false;
    }

    /// A start was attempted: the permit is spent.
    pub fn start_attempted(&mut self, vm: &Vm, now: Moment) {
        self.begin(vm);
        self.permit = None;
        self.starts.push_back(now);
        while self.starts.len() > START_LIMIT {
            self.starts.pop_front();
        }
    }

    /// The attempt was refused: it was no start that ended.
    pub fn start_refused(&mut self, vm: &Vm, why: String, now: Moment) {
        self.begin(vm);
        self.starts.pop_back();
        let (since, times) = self.refused.as_ref().map_or((now, 1), |r| (r.since, r.times.saturating_add(1)));
        self.refused = Some(Refused { since, times, why, again_at: now + back_off(times) });
    }

    /// The attempt succeeded.
    pub fn start_succeeded(&mut self) {
        self.refused = None;
    }

    /// Since when this desired state is known.
    pub(super) fn noticed(&self, vm: &Vm, now: Moment) -> Moment {
        self.noticed.filter(|_| self.is_of(vm)).unwrap_or(now)
    }

    /// Why there was no target for it just now.
    pub(super) fn no_target(&self, vm: &Vm, now: Moment) -> Option<&str> {
        let (why, at) = self.no_target.as_ref().filter(|_| self.is_of(vm))?;
        (now.since(*at) < CHOOSE_AGAIN).then_some(why)
    }

    /// It executes here, and its claim cannot be read: whoever puts that right starts nothing.
    pub fn runs_unclaimed(&mut self, vm: &Vm) {
        self.begin(vm);
        self.unclaimed = true;
    }

    pub(super) fn ran_unclaimed(&self, vm: &Vm) -> bool {
        self.is_of(vm) && self.unclaimed
    }

    /// Whether that node's daemon had no session just now.
    pub(super) fn is_absent(&self, vm: &Vm, node: &NodeName, now: Moment) -> bool {
        let absent = self.absent.as_ref().filter(|_| self.is_of(vm));
        absent.is_some_and(|(absent, at)| absent == node && now.since(*at) < TARGET_AGAIN)
    }

    /// What that node's libvirt has just said. Old words are none: the plan asks again.
    pub(super) fn peer_state(&self, vm: &Vm, node: &NodeName, now: Moment) -> Option<PeerState> {
        let (looked_at, peer_state, at) = self.looked.as_ref().filter(|_| self.is_of(vm))?;
        (looked_at == node && now.since(*at) < LOOK_IS_FRESH).then(|| peer_state.clone())
    }

    /// Whether it could be started on that node, as that has said about this desired state.
    pub(super) fn word_of(&self, vm: &Vm, node: &NodeName) -> Option<Result<(), &str>> {
        let (by, word) = self.word.as_ref().filter(|_| self.is_of(vm))?;
        (by == node).then(|| word.as_ref().copied().map_err(String::as_str))
    }

    /// Since when another node's libvirt has said what it says now.
    pub(super) fn peer_state_since(&self, vm: &Vm, now: Moment) -> Moment {
        self.peer_state_since.filter(|_| self.is_of(vm)).map_or(now, |(_, since)| since)
    }

    pub(super) fn may_migrate(&self, vm: &Vm) -> bool {
        self.is_of(vm) && self.migration_permit.is_some() && self.migration_permit == vm.claim.version
    }

    /// For how long a migration has sent nothing.
    pub(super) fn quiet_for(&self, vm: &Vm, now: Moment) -> Duration {
        self.sent.filter(|_| self.is_of(vm)).map_or(Duration::ZERO, |(_, at)| now.since(at))
    }

    pub(super) fn aborted(&self, vm: &Vm) -> Option<Moment> {
        self.aborted.filter(|_| self.is_of(vm))
    }

    pub(super) fn tries(&self, vm: &Vm) -> Tries {
        if self.is_of(vm) { self.tries.clone() } else { Tries::default() }
    }

    pub(super) fn asking(&self, vm: &Vm) -> Option<Asking> {
        self.asking.filter(|_| self.is_of(vm))
    }

    pub(super) fn may_start(&self, vm: &Vm) -> bool {
        self.is_of(vm) && self.permit.is_some() && self.permit == vm.claim.version
    }

    pub(super) fn starts(&self, vm: &Vm, now: Moment) -> usize {
        if !self.is_of(vm) {
            return 0;
        }
        self.starts.iter().filter(|&&at| now.since(at) < START_WINDOW).count()
    }

    pub(super) fn refused(&self, vm: &Vm) -> Option<&Refused> {
        self.refused.as_ref().filter(|_| self.is_of(vm))
    }

    /// The end of the back-off, if it is not over: 1 s after the first start, doubling to 60 s.
    pub(super) fn start_not_before(&self, vm: &Vm, now: Moment) -> Option<Moment> {
        let times = self.starts(vm, now);
        // At the limit nothing is started again: there is nothing to wait for.
        if times == 0 || times >= START_LIMIT {
            return None;
        }
        let until = *self.starts.back()? + back_off(u32::try_from(times).unwrap_or(u32::MAX));
        (until > now).then_some(until)
    }

    fn is_of(&self, vm: &Vm) -> bool {
        self.desired.is_some() && self.desired == vm.state.version
    }

    fn begin(&mut self, vm: &Vm) {
        if !self.is_of(vm) {
            *self = Self {
                desired: vm.state.version,
                left: self.left,
                home: self.home.take(),
                ..Self::default()
            };
        }
    }
}

/// The pause after so many attempts: a second, doubling to a minute.
fn back_off(times: u32) -> Duration {
    let doublings = times.saturating_sub(1);
    FIRST_BACK_OFF.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_BACK_OFF)
}
