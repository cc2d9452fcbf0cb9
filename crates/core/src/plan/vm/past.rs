//! What this daemon did about one VM: the memory that back-offs and grace periods need. Everything else is observed anew.
//!
//! It belongs to one wish, told by the version of the VM's `state`: a new wish starts from nothing, so an operator's
//! `start` is never held up by an earlier crash loop. A restarted daemon starts from nothing, too; that only makes it more
//! patient.

use std::{collections::VecDeque, time::Duration};

use crate::model::{Moment, Vm};

/// So many starts within [`START_WINDOW`], and the VM is declared failed.
pub const START_LIMIT: usize = 10;

/// The time in which starts are counted.
pub const START_WINDOW: Duration = Duration::from_mins(10);

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_mins(1);

/// Memory of one VM.
#[derive(Debug, Clone, Default)]
pub struct Past {
    wish: Option<i32>,
    starts: VecDeque<Moment>,
    permit: Option<i32>,
    asking: Option<Asking>,
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

impl Past {
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

    /// The end of the back-off, if it is not over: 1 s after the first start, doubling to 60 s.
    pub(super) fn start_not_before(&self, vm: &Vm, now: Moment) -> Option<Moment> {
        let times = self.starts(vm, now);
        // At the limit nothing is started again: there is nothing to wait for.
        if times == 0 || times >= START_LIMIT {
            return None;
        }
        let doublings = u32::try_from(times - 1).unwrap_or(u32::MAX);
        let pause = FIRST_BACK_OFF.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_BACK_OFF);
        let until = *self.starts.back()? + pause;
        (until > now).then_some(until)
    }

    fn is_of(&self, vm: &Vm) -> bool {
        self.wish.is_some() && self.wish == vm.state.version
    }

    fn begin(&mut self, vm: &Vm) {
        if !self.is_of(vm) {
            *self = Self { wish: vm.state.version, ..Self::default() };
        }
    }
}
