//! What a daemon remembers of a flush: attempts, and since when there is no room. Lost with the daemon, which only means that
//! it tries as often again.

use std::collections::{BTreeMap, BTreeSet};

use super::{ATTEMPTS, RETRY_AFTER, ROOM_WITHIN};
use crate::{
    model::{DomainState, Moment, NodeName, VmId},
    sabotage::{self, Bug},
};

/// See the module's documentation. Belongs to one desired state: a new one starts over.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    desired: Option<DomainState>,
    /// Every VM that had to move at some time.
    seen: BTreeSet<VmId>,
    /// What was said to have to move before this daemon started.
    total_before: usize,
    sent: BTreeMap<VmId, Sent>,
    no_room_since: BTreeMap<VmId, Moment>,
    gave_up: BTreeMap<VmId, String>,
    refused: BTreeMap<VmId, Refused>,
}

/// A VM whose keys the store refuses to have written.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    times: u32,
    last: Moment,
    pub(super) why: String,
}

impl Refused {
    /// When it may be written again; `None`: it was tried often enough.
    pub(super) fn again_at(&self) -> Option<Moment> {
        let pause = RETRY_AFTER.saturating_mul(2_u32.saturating_pow(self.times.saturating_sub(1)));
        (self.times < ATTEMPTS).then(|| self.last + pause)
    }
}

/// A VM's attempts.
#[derive(Debug, Clone)]
struct Sent {
    times: u32,
    to: BTreeSet<NodeName>,
    last: Moment,
}

impl Attempts {
    /// Starts over if the desired state is another.
    pub fn desired_is(&mut self, desired: DomainState) {
        if self.desired != Some(desired) {
            *self = Self { desired: Some(desired), ..Self::default() };
        }
    }

    /// How many VMs an earlier life of this daemon had said to have to move.
    pub fn resume(&mut self, total: u32) {
        self.total_before = usize::try_from(total).unwrap_or(usize::MAX);
    }

    /// These have to move.
    pub fn noticed(&mut self, vms: &BTreeSet<VmId>) {
        self.seen.extend(vms);
    }

    /// These find no room now; all others do, or need none.
    pub fn no_capacity(&mut self, vms: &BTreeSet<VmId>, now: Moment) {
        self.no_room_since.retain(|vm, _| vms.contains(vm));
        for vm in vms {
            self.no_room_since.entry(*vm).or_insert(now);
        }
    }

    /// A VM was desired to go somewhere.
    pub fn sent(&mut self, vm: VmId, to: &NodeName, now: Moment) {
        let sent = self.sent.entry(vm).or_insert(Sent { times: 0, to: BTreeSet::new(), last: now });
        sent.times += 1;
        sent.to.insert(to.clone());
        sent.last = now;
    }

    /// A VM was left where it is, or shut down, because it could not go.
    pub fn gave_up(&mut self, vm: VmId, reason: &str) {
        self.gave_up.insert(vm, reason.to_owned());
    }

    /// The store refused what was to be written about a VM.
    pub fn refused(&mut self, vm: VmId, why: String, now: Moment) {
        let times = self.refused.get(&vm).map_or(0, |refused| refused.times) + 1;
        self.refused.insert(vm, Refused { times, last: now, why });
    }

    pub(super) fn refusal(&self, vm: VmId) -> Option<&Refused> {
        self.refused.get(&vm)
    }

    /// How many VMs had to move at some time.
    pub(super) fn total(&self, left: &BTreeSet<VmId>) -> usize {
        self.seen.union(left).count().max(self.total_before)
    }

    pub(super) fn reasons(&self) -> impl Iterator<Item = (&VmId, &String)> {
        self.gave_up.iter()
    }

    /// The VMs that this daemon sent under this desired state.
    pub(super) fn was_sent(&self, vm: VmId) -> bool {
        self.sent.contains_key(&vm)
    }

    pub(super) fn was_sent_to(&self, vm: VmId, node: &NodeName) -> bool {
        self.sent.get(&vm).is_some_and(|sent| sent.to.contains(node))
    }

    /// Whether the VM was sent as often as it is.
    pub(super) fn is_exhausted(&self, vm: VmId) -> bool {
        sabotage::commits(Bug::LeaveUntried) || self.sent.get(&vm).is_some_and(|sent| sent.times >= ATTEMPTS)
    }

    /// When a VM may be sent (again), if that is not now.
    pub(super) fn not_before(&self, vm: VmId, now: Moment) -> Option<Moment> {
        let sent = self.sent.get(&vm)?;
        let pause = RETRY_AFTER.saturating_mul(2_u32.saturating_pow(sent.times.saturating_sub(1)));
        let until = sent.last + pause;
        (until > now).then_some(until)
    }

    /// Until when room is waited for, if there has been none.
    pub(super) fn room_until(&self, vm: VmId, now: Moment) -> Moment {
        self.no_room_since.get(&vm).copied().unwrap_or(now) + ROOM_WITHIN
    }
}
