//! Guests that no daemon has started: by libvirt's autostart, or by hand.

use pvc_core::model::VmId;
use pvc_host::hypervisor::{Activity, Seen};

use super::{Boot, Node};
use crate::event::Event;

impl Node {
    /// `virsh define` and `virsh autostart`.
    pub fn leave_autostart(&self, guest: Seen) {
        let boot = self.lock().boot.clone();
        if let Some(boot) = boot {
            boot.hypervisor.define(guest, true);
        }
    }

    /// `virsh create`, which is refused where the guest is already. Answers whether it was not.
    pub fn start_by_hand(&self, guest: Seen) -> bool {
        let boot = self.lock().boot.clone();
        boot.is_some_and(|boot| self.start_stranger(&boot, guest))
    }

    /// The next boot takes some seconds.
    pub fn boots_quickly(&self) {
        self.lock().quick = true;
    }

    /// As libvirtd, once a boot.
    pub(super) fn autostart(&self, boot: &Boot) {
        let disk = self.lock().disk.clone();
        boot.hypervisor.set_disk(disk.clone());
        for guest in disk.flagged() {
            self.start_stranger(boot, guest);
        }
    }

    fn start_stranger(&self, boot: &Boot, guest: Seen) -> bool {
        if boot.hypervisor.running().contains(&guest.id) {
            return false;
        }
        // What its claim says that this node may be executing is nothing strange; a target may not before it is the only claimant.
        let may_execute = |vm: VmId| {
            self.around
                .journal
                .tree(|tree| tree.claim(vm).next().is_some_and(|name| name == self.name.as_str()))
        };
        let claimed = may_execute(guest.id);
        if let Some(ceph) = &self.around.ceph {
            ceph.comes_by_hand(self.number, guest.id);
        }
        self.around.journal.tell(Event::Stranger { vm: guest.id, node: self.name.clone(), claimed });
        boot.hypervisor.put(Seen { activity: Activity::Running, ..guest });
        true
    }
}
