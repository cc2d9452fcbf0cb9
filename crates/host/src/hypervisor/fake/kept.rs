//! Definitions that a fake keeps, as plain libvirt's users have them.

use std::collections::BTreeMap;

use pvc_core::model::VmId;

use super::{
    super::{Kept, Seen, Undefined},
    FakeHypervisor, State,
};

/// What is on the machine's disk, for its next life.
#[derive(Clone, Default)]
pub struct Disk(BTreeMap<VmId, Definition>);

impl Disk {
    /// What libvirt starts when the machine has booted.
    pub fn flagged(&self) -> Vec<Seen> {
        let flagged = self.0.values().filter(|definition| definition.autostart);
        flagged.map(|definition| definition.seen.clone()).collect()
    }
}

/// One of them.
#[derive(Clone)]
pub(super) struct Definition {
    seen: Seen,
    autostart: bool,
    holds: Option<String>,
}

impl FakeHypervisor {
    /// Keeps a definition from now on; with a flag it is started by [`boot`](Self::boot).
    pub fn define(&self, seen: Seen, autostart: bool) {
        self.state().kept.insert(seen.id, Definition { seen, autostart, holds: None });
    }

    /// Something would be lost with that definition.
    pub fn holds(&self, id: VmId, what: &str) {
        if let Some(definition) = self.state().kept.get_mut(&id) {
            definition.holds = Some(what.to_owned());
        }
    }

    /// What outlives this life of the machine.
    pub fn disk(&self) -> Disk {
        Disk(self.state().kept.clone())
    }

    /// Has an earlier life's disk.
    pub fn set_disk(&self, disk: Disk) {
        self.state().kept = disk.0;
    }

    /// What libvirt does when its machine has booted: starts what has the flag and is not active.
    pub fn boot(&self) {
        for seen in self.disk().flagged() {
            let mut state = self.state();
            if !state.active.contains_key(&seen.id) {
                state.insert(seen);
            }
        }
    }
}

impl State {
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.kept.iter().map(|(id, kept)| Kept { id: *id, autostart: kept.autostart }).collect()
    }

    pub(super) fn end_autostart(&mut self, id: VmId) {
        if let Some(definition) = self.kept.get_mut(&id) {
            definition.autostart = false;
        }
    }

    pub(super) fn undefine(&mut self, id: VmId) -> Undefined {
        match self.kept.get(&id).and_then(|definition| definition.holds.clone()) {
            Some(what) => Undefined::Holds(what),
            None => {
                self.kept.remove(&id);
                Undefined::Gone
            }
        }
    }
}
