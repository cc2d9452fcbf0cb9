//! Making and unmaking in the fake.

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{Figures, ImageName, OsdId, PoolName, Space, VolumeStats},
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap},
};

use super::{FakeCeph, Image, State};
use crate::ceph::{CephAdmin, CephError, OnlyIf};

/// An object of an image has 2^22 bytes.
const ORDER: u8 = 22;

impl FakeCeph {
    /// It has room for what is made.
    pub fn has_room(&self) {
        let space = Space { total_bytes: 1 << 40, ..Space::default() };
        self.say(Figures { space, ..Figures::default() });
    }

    /// Puts something into a pool that it does not list.
    pub fn hide(&self, pool: &PoolName, hidden: Hidden) {
        self.state().hidden.insert(pool.clone(), hidden);
    }

    /// Adds OSDs, all of them in use.
    pub fn add_osds(&self, count: u32) {
        let mut state = self.state();
        for id in 0..count {
            state.osds.is_in.insert(OsdId(id), true);
        }
    }
}

#[async_trait]
impl CephAdmin for FakeCeph {
    async fn pool(&self, pool: &PoolName) -> Result<Option<ObservedPool>, CephError> {
        Ok(self.answering().await?.pools.get(pool).cloned())
    }

    async fn images(&self, pool: &PoolName) -> Result<Vec<String>, CephError> {
        let state = self.answering().await?;
        let of_pool = state.images.keys().filter(|image| image.pool == *pool);
        Ok(of_pool.map(|image| image.volume.to_string()).collect())
    }

    async fn image(&self, image: &ImageName) -> Result<Option<ObservedImage>, CephError> {
        Ok(self.answering().await?.images.get(image).map(|image| image.observed.clone()))
    }

    async fn osds(&self) -> Result<OsdMap, CephError> {
        Ok(self.answering().await?.osds.clone())
    }

    async fn hidden(&self, pool: &PoolName) -> Result<Hidden, CephError> {
        Ok(self.answering().await?.hidden.get(pool).cloned().unwrap_or_default())
    }

    async fn change(&self, change: &CephChange, only_if: OnlyIf<'_>) -> Result<(), CephError> {
        drop(self.answering().await?);
        only_if.warrant.holds().await?;
        let mut state = self.state();
        state.calls.push(change.to_string());
        let refused = |why: &str| CephError::Refused { doing: change.to_string(), why: why.to_owned() };
        if let Some(there) = change.of_image().and_then(|image| state.images.get(image))
            && there.observed.id.as_deref() != only_if.image
        {
            return Err(refused("another image has that name since it was looked at"));
        }
        state.make(change).map_err(refused)
    }
}

impl State {
    fn make(&mut self, change: &CephChange) -> Result<(), &'static str> {
        const NONE: &str = "No such file or directory";
        const EXISTS: &str = "File exists";
        const BUSY: &str = "somebody has it open";
        let is_removal = matches!(change, CephChange::RemoveImage { .. });
        if let Some(image) = change.of_image().and_then(|image| self.images.get(image))
            && !is_removal
            && image.users.watchers.iter().any(|watcher| self.frozen.contains(watcher))
        {
            return Err("whoever has it open does not answer");
        }
        match change {
            CephChange::CreatePool { pool, pgs } => {
                let observed =
                    ObservedPool { pgs: pgs.0, copies: 1, min_copies: 1, ..ObservedPool::default() };
                self.pools.entry(pool.clone()).or_insert(observed);
            }
            CephChange::KeepCopies { pool, copies, min_copies } => {
                let pool = self.pools.get_mut(pool).ok_or(NONE)?;
                (pool.copies, pool.min_copies) = (*copies, *min_copies);
            }
            CephChange::MarkForImages { pool } => self.pools.get_mut(pool).ok_or(NONE)?.is_for_images = true,
            CephChange::RemovePool { pool } => {
                self.pools.remove(pool);
                self.images.retain(|image, _| image.pool != *pool);
            }
            CephChange::CreateImage { image, size } => {
                if self.images.contains_key(image) {
                    return Err(EXISTS);
                }
                if !self.pools.contains_key(&image.pool) {
                    return Err(NONE);
                }
                let mut new = Image::default();
                new.observed.stats = VolumeStats {
                    order: ORDER,
                    format: 2,
                    features: vec!["layering".into(), "exclusive-lock".into()],
                    ..VolumeStats::default()
                };
                new.observed.id = Some(self.next_id());
                new.resize(size.0);
                self.images.insert(image.clone(), new);
            }
            CephChange::ResizeImage { image, size } => {
                let image = self.images.get_mut(image).ok_or(NONE)?;
                if size.0 < image.observed.stats.size && !image.users.watchers.is_empty() {
                    return Err(BUSY);
                }
                image.resize(size.0);
            }
            CephChange::RenameImage { image, to } => {
                let renamed = ImageName { pool: image.pool.clone(), volume: to.clone() };
                if self.images.contains_key(&renamed) {
                    return Err(EXISTS);
                }
                let moved = self.images.remove(image).ok_or(NONE)?;
                self.images.insert(renamed, moved);
            }
            CephChange::RemoveImage { image } => {
                let there = self.images.get(image).ok_or(NONE)?;
                if !there.users.watchers.is_empty() {
                    return Err(BUSY);
                }
                if !there.observed.snapshots.is_empty() {
                    return Err("it has snapshots");
                }
                self.images.remove(image);
            }
            CephChange::CreateSnapshot { image, snapshot } => {
                let snapshots = &mut self.images.get_mut(image).ok_or(NONE)?.observed.snapshots;
                if snapshots.iter().any(|name| name == snapshot.as_str()) {
                    return Err(EXISTS);
                }
                snapshots.push(snapshot.to_string());
            }
            CephChange::RenameSnapshot { image, snapshot, to } => {
                let snapshots = &mut self.images.get_mut(image).ok_or(NONE)?.observed.snapshots;
                if snapshots.iter().any(|name| name == to.as_str()) {
                    return Err(EXISTS);
                }
                *snapshots.iter_mut().find(|name| *name == snapshot.as_str()).ok_or(NONE)? = to.to_string();
            }
            CephChange::RemoveSnapshot { image, snapshot } => {
                let snapshots = &mut self.images.get_mut(image).ok_or(NONE)?.observed.snapshots;
                let at = snapshots.iter().position(|name| name == snapshot.as_str()).ok_or(NONE)?;
                snapshots.remove(at);
            }
            // As Ceph does: of one that there is not, nothing is said.
            CephChange::UseOsd { osd, is_in } => {
                self.osds.is_in.entry(*osd).and_modify(|known| *known = *is_in);
            }
            CephChange::Flag { flag, is_set: true } => drop(self.osds.flags.insert(flag.as_str().to_owned())),
            CephChange::Flag { flag, is_set: false } => drop(self.osds.flags.remove(flag.as_str())),
        }
        Ok(())
    }
}

/// The image whose users must execute for a change.
impl Image {
    fn resize(&mut self, size: u64) {
        let stats = &mut self.observed.stats;
        (stats.size, stats.objects) = (size, size.div_ceil(1 << stats.order));
    }
}
