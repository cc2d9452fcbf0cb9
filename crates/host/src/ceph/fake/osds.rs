//! OSDs in the fake: their daemons are the fake nodes'.

use pvc_core::model::{
    ceph::OsdId,
    osd::{ObservedOsd, OsdUuid},
    storage::CephChange,
};

use super::{FakeCeph, State, admin::NONE};

impl FakeCeph {
    /// An OSD is written to a device; the UUID that it has from then on.
    pub(crate) fn writes_osd(&self, osd: OsdId) -> Option<OsdUuid> {
        let mut state = self.state();
        let uuid = state.next_uuid();
        let there = state.known.all.get_mut(&osd)?;
        (there.uuid, there.is_destroyed) = (uuid.clone(), false);
        Some(uuid)
    }

    /// Its daemon is heard from there, or from nowhere any more.
    pub fn hears_osd(&self, osd: OsdId, host: Option<&str>) {
        let mut state = self.state();
        if let Some(there) = state.known.all.get_mut(&osd) {
            there.is_up = host.is_some();
            if let Some(host) = host {
                there.is_in |= !there.was_up;
                (there.was_up, there.host) = (true, Some(host.to_owned()));
            }
        }
    }

    /// There is an OSD on that host, with so many placement groups.
    pub fn has_osd(&self, osd: OsdId, host: &str, pgs: u64) -> OsdUuid {
        let mut state = self.state();
        let uuid = state.next_uuid();
        let there = ObservedOsd {
            uuid: uuid.clone(),
            is_in: true,
            is_up: true,
            was_up: true,
            is_destroyed: false,
            weight: Some(1.0),
            host: Some(host.to_owned()),
            pgs,
            kib: 4 << 20,
            kib_used: 1 << 10,
            kib_data: 1 << 9,
        };
        state.known.all.insert(osd, there);
        uuid
    }

    /// The most copies that a pool keeps.
    pub fn keeps_copies(&self, copies: u32) {
        self.state().known.most_copies = Some((copies, "vms".to_owned()));
    }

    /// So many placement groups are on it by now.
    pub fn moves_data(&self, osd: OsdId, pgs: u64) {
        if let Some(there) = self.state().known.all.get_mut(&osd) {
            there.pgs = pgs;
        }
    }

    /// What is known of an OSD.
    pub fn osd(&self, osd: OsdId) -> Option<ObservedOsd> {
        self.state().known.all.get(&osd).cloned()
    }
}

impl State {
    pub(super) fn next_uuid(&mut self) -> OsdUuid {
        self.made += 1;
        let text = format!("00000000-0000-4000-8000-{:012x}", self.made);
        #[allow(clippy::expect_used, reason = "it has the form")]
        text.try_into().expect("a UUID")
    }

    pub(super) fn change_osd(&mut self, change: &CephChange) -> Result<(), &'static str> {
        match change {
            // As Ceph does: of one that there is not, nothing is said.
            CephChange::UseOsd { osd, is_in } => {
                self.osds.is_in.entry(*osd).and_modify(|known| *known = *is_in);
                if let Some(there) = self.known.all.get_mut(osd) {
                    there.is_in = *is_in;
                }
            }
            CephChange::WeighOsd { osd, weight } => {
                self.known.all.get_mut(osd).ok_or(NONE)?.weight = Some(weight.value());
            }
            CephChange::DestroyOsd { osd } => {
                let there = self.known.all.get_mut(osd).ok_or(NONE)?;
                if there.is_up {
                    return Err("it is not down");
                }
                there.is_destroyed = true;
                // As Ceph does: the UUID is nobody's from then on.
                there.uuid = OsdUuid::none();
            }
            CephChange::PurgeOsd { osd, was_up } => {
                if !was_up && self.known.all.get(osd).is_some_and(|osd| osd.was_up) {
                    return Err("it is not new");
                }
                if self.known.all.get(osd).is_some_and(|osd| osd.is_up || osd.pgs > 0) {
                    return Err("it is not safe to destroy");
                }
                self.known.all.remove(osd);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn take_number(&mut self, uuid: &OsdUuid) {
        if self.known.all.values().any(|osd| osd.uuid == *uuid) {
            return;
        }
        let free = (0..=u32::MAX).map(OsdId).find(|id| !self.known.all.contains_key(id)).unwrap_or(OsdId(0));
        let new = ObservedOsd {
            uuid: uuid.clone(),
            is_in: true,
            is_up: false,
            was_up: false,
            is_destroyed: false,
            weight: None,
            host: None,
            pgs: 0,
            kib: 0,
            kib_used: 0,
            kib_data: 0,
        };
        self.known.all.insert(free, new);
    }
}
