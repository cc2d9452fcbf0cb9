//! What is the matter with Ceph. Faults of one kind that overlap count: the last of them to end is the end.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::physics::network::Number;

/// What is the matter with Ceph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CephFault {
    /// Its monitors do not answer.
    Down,
    /// They take so many milliseconds more, at most.
    Slow(u64),
    /// Some of what it answers does not arrive.
    AnswersAreLost,
    /// It lets nobody be shut out.
    RefusesBlocklist,
    /// An OSD takes so many milliseconds more, at most.
    SlowOsd(usize, u64),
    /// OSDs learn late of what the monitors have decided.
    OldMaps,
    /// A node does not reach it.
    Cut(usize),
}

/// All that is the matter now.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    faults: Vec<CephFault>,
    /// Since when each machine does not reach Ceph.
    cut: BTreeMap<Number, Duration>,
}

impl Trouble {
    pub(super) fn begin(&mut self, fault: CephFault, now: Duration) {
        self.faults.push(fault);
        if let CephFault::Cut(machine) = fault {
            self.cut.entry(machine).or_insert(now);
        }
    }

    pub(super) fn end(&mut self, fault: CephFault) {
        if let Some(place) = self.faults.iter().position(|one| *one == fault) {
            self.faults.remove(place);
        }
        if let CephFault::Cut(machine) = fault
            && !self.faults.contains(&fault)
        {
            self.cut.remove(&machine);
        }
    }

    /// Whether that is the matter now.
    pub(super) fn is(&self, fault: CephFault) -> bool {
        self.faults.contains(&fault)
    }

    /// Since when a machine does not reach Ceph; `None`: it does.
    pub(super) fn cut_since(&self, machine: Number) -> Option<Duration> {
        self.cut.get(&machine).copied()
    }

    /// The longest that the monitors take.
    pub(super) fn monitors_take(&self) -> Duration {
        let of = |fault: &CephFault| if let CephFault::Slow(ms) = fault { *ms } else { 0 };
        Duration::from_millis(self.faults.iter().map(of).max().unwrap_or(0))
    }

    /// The longest that an OSD takes.
    pub(super) fn osd_takes(&self, osd: usize) -> Duration {
        let of = |fault: &CephFault| match fault {
            CephFault::SlowOsd(slow, ms) if *slow == osd => *ms,
            _ => 0,
        };
        Duration::from_millis(self.faults.iter().map(of).max().unwrap_or(0))
    }
}
