//! What may be done to a machine. Faults of one kind that overlap count: the last of them to end is the end.

use std::sync::atomic::Ordering;

use pvc_core::model::VmId;
use pvc_host::hypervisor::{Activity, Halt, fake::Reach};

use super::Node;
use crate::event::{self, Event, Libvirt};

impl Node {
    /// `kill -9` of its daemon.
    pub fn kill_daemon(&self) {
        if let Some(daemon) = &self.lock().daemon {
            daemon.process.kill();
        }
    }

    /// `systemctl stop pvcd`, until [`start_daemon`](Self::start_daemon).
    pub fn stop_daemon(&self) {
        let mut state = self.lock();
        state.stopped += 1;
        if let Some(daemon) = &state.daemon {
            daemon.stopper.stop();
        }
    }

    /// `systemctl start pvcd`.
    pub fn start_daemon(&self) {
        let mut state = self.lock();
        state.stopped = state.stopped.saturating_sub(1);
        drop(state);
        self.turned.send_replace(());
    }

    /// `kill -STOP` of its daemon, or the end of that.
    pub fn freeze_daemon(&self, freeze: bool) {
        let before = self.is_daemon_frozen();
        count(&mut self.lock().daemon_frozen, freeze);
        self.daemon_turns(before);
    }

    /// Freezes all its programs, or lets them run on. Its kernel works.
    pub fn freeze(&self, freeze: bool) {
        let before = self.is_daemon_frozen();
        let frozen_before = {
            let mut state = self.lock();
            if state.boot.is_none() {
                return;
            }
            let frozen = state.frozen > 0;
            count(&mut state.frozen, freeze);
            frozen
        };
        let frozen = self.lock().frozen > 0;
        if frozen != frozen_before {
            self.around.ensemble.down(self.number, frozen);
            self.tell(if frozen { event::Machine::Frozen } else { event::Machine::Thawed });
            if let Some(ceph) = &self.around.ceph {
                ceph.freezes(self.number, frozen);
            }
        }
        self.daemon_turns(before);
        self.libvirt_turns();
        self.turned.send_replace(());
    }

    fn is_daemon_frozen(&self) -> bool {
        let state = self.lock();
        state.frozen > 0 || state.daemon_frozen > 0
    }

    fn daemon_turns(&self, before: bool) {
        let frozen = self.is_daemon_frozen();
        let state = self.lock();
        let Some(daemon) = state.daemon.as_ref().filter(|_| frozen != before) else { return };
        let process = daemon.process.clone();
        drop(state);
        let what = if frozen { event::Daemon::Frozen } else { event::Daemon::Thawed };
        self.around.journal.tell(Event::Daemon { node: self.name.clone(), what });
        if frozen {
            process.freeze();
        } else {
            process.thaw();
        }
    }

    /// Libvirt does not answer, or does again.
    pub fn freeze_libvirt(&self, freeze: bool) {
        count(&mut self.lock().libvirt_frozen, freeze);
        self.libvirt_turns();
    }

    /// Libvirt is not there, or is again. Guests go on.
    pub fn end_libvirt(&self, end: bool) {
        count(&mut self.lock().libvirt_down, end);
        self.libvirt_turns();
    }

    /// It lacks what every guest needs to be started here, or has it again; whether it has power makes no difference.
    pub fn lacks(&self, one_more: bool) {
        let (before, now) = {
            let mut state = self.lock();
            let before = state.lacks > 0;
            count(&mut state.lacks, one_more);
            (before, state.lacks > 0)
        };
        if before != now {
            self.around.journal.tell(Event::Lacks { node: self.name.clone(), lacks: now });
        }
    }

    pub(super) fn libvirt_turns(&self) {
        let (boot, reach, what) = {
            let state = self.lock();
            let Some(boot) = &state.boot else { return };
            let (reach, what) = if state.libvirt_down > 0 {
                (Reach::Down, Libvirt::Down)
            } else if state.libvirt_frozen > 0 || state.frozen > 0 {
                (Reach::Frozen, Libvirt::Frozen)
            } else {
                (Reach::Up, Libvirt::Up)
            };
            (boot.clone(), reach, what)
        };
        self.around.journal.tell(Event::Libvirt { node: self.name.clone(), what });
        boot.hypervisor.set_reach(reach);
    }

    /// A guest crashes.
    pub fn crash_guest(&self, vm: VmId) {
        let boot = self.lock().boot.clone();
        if let Some(boot) = boot {
            if let Some(ceph) = &self.around.ceph {
                ceph.crashes(self.number, vm);
            }
            boot.hypervisor.vanish(vm);
        }
    }

    /// A guest stops executing that this node alone claims, and its process stays.
    pub fn halt_guest(&self, vm: VmId, halt: Halt) {
        let boot = self.lock().boot.clone();
        if let Some(boot) = boot
            && boot.hypervisor.activity(vm) == Some(Activity::Running)
            && self.claims_alone(vm)
        {
            boot.hypervisor.turn(vm, Activity::Halted(halt));
        }
    }

    /// Somebody lets it go on, once this node alone claims it. Answers whether it still stands.
    pub fn let_go(&self, vm: VmId) -> bool {
        let boot = self.lock().boot.clone();
        let Some(boot) = boot else { return false };
        let stands =
            matches!(boot.hypervisor.activity(vm), Some(Activity::Halted(Halt::Paused | Halt::IoError)));
        if !stands || !self.claims_alone(vm) {
            return stands;
        }
        self.around.journal.tell(Event::LetGo { vm, node: self.name.clone() });
        boot.hypervisor.turn(vm, Activity::Running);
        false
    }

    fn claims_alone(&self, vm: VmId) -> bool {
        self.around.journal.tree(|tree| tree.claim(vm).eq([self.name.as_str()]))
    }

    /// Its next boot is that of a new installation on an empty disk.
    pub fn install_anew(&self) {
        self.lock().anew = true;
    }

    /// Sets its wall clock.
    pub fn jump_clock(&self, by_s: i64) {
        self.hardware.clock_offset_s.fetch_add(by_s, Ordering::Relaxed);
        self.tell(event::Machine::ClockJumped(by_s));
    }

    /// Its BMC may lie from now on, also of later boots; or does not any more, though what it has said may still be believed.
    pub fn bmc_lies(&self, lies: bool) {
        self.lock().bmc_lies = lies;
        if lies {
            self.tell(event::Machine::BmcLies(true));
        }
    }
}

fn count(faults: &mut u32, one_more: bool) {
    *faults = if one_more { *faults + 1 } else { faults.saturating_sub(1) };
}
