//! Making and unmaking in the fake.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{
        ClientAddress, Figures, ImageName, OsdId, PoolName, SnapshotName, Space, VolumeName, VolumeStats,
    },
    osd::{OsdUuid, Osds},
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap},
};

use tokio::time::sleep;

use super::{FakeCeph, Image, State, changers::Watch};
use crate::ceph::{Ceph as _, CephAdmin, CephError, OnlyIf, Progress};

/// An object of an image has 2^22 bytes.
const ORDER: u8 = 22;
pub(super) const NONE: &str = "No such file or directory";
const EXISTS: &str = "File exists";
const BUSY: &str = "somebody has it open";
/// Into so many steps is divided what takes long.
const STEPS: u32 = 20;

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

    /// Gives an image a second name, as a renaming that was cut off.
    pub fn name_twice(&self, image: &ImageName, second: &ImageName) {
        let mut state = self.state();
        if let Some(copy) = state.images.get(image).map(|image| Image {
            observed: image.observed.clone(),
            users: image.users.clone(),
            contents: image.contents,
            held: image.held.clone(),
        }) {
            state.images.insert(second.clone(), copy);
        }
    }

    /// Adds OSDs, all of them in use.
    pub fn add_osds(&self, count: u32) {
        let mut state = self.state();
        for id in 0..count {
            state.osds.is_in.insert(OsdId(id), true);
        }
    }
}

impl FakeCeph {
    /// How long a copy, a rollback and a removal take from now on.
    pub fn take_for_all_of_it(&self, takes: Duration) {
        self.state().takes_for_all = takes;
    }

    /// What takes long, and is told. A copy that was begun is there.
    async fn work(&self, change: &CephChange, progress: &Progress) -> Result<(), CephError> {
        let takes = self.state().takes_for_all;
        if takes.is_zero() || !change.is_long() {
            return Ok(());
        }
        if let CephChange::CopyImage { image, to, .. } = change {
            let mut state = self.state();
            let copy = ImageName { pool: image.pool.clone(), volume: to.clone() };
            let mut half = Image::default();
            half.observed.id = Some(state.next_id());
            if state.images.contains_key(&copy) {
                return Err(CephError::Refused { doing: change.to_string(), why: "File exists".to_owned() });
            }
            state.images.insert(copy, half);
        }
        for step in 1..=STEPS {
            sleep(takes / STEPS).await;
            progress.tell(step.into(), STEPS.into());
            if let Some(why) = progress.called_off() {
                return Err(CephError::Refused { doing: change.to_string(), why });
            }
        }
        Ok(())
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
        let state = self.answering().await?;
        let mut osds = state.osds.clone();
        osds.is_in.extend(state.known.all.iter().map(|(id, osd)| (*id, osd.is_in)));
        Ok(osds)
    }

    async fn osd_map(&self) -> Result<Osds, CephError> {
        Ok(self.answering().await?.known.clone())
    }

    async fn take_osd_number(&self, uuid: &OsdUuid) -> Result<(), CephError> {
        self.answering().await?.take_number(uuid);
        Ok(())
    }

    async fn unsafe_to_destroy(&self, osd: OsdId) -> Result<Option<String>, CephError> {
        let state = self.answering().await?;
        let pgs = state.known.all.get(&osd).map_or(0, |osd| osd.pgs);
        Ok((pgs > 0).then(|| format!("OSD(s) {osd} have {pgs} pgs currently mapped to them.")))
    }

    async fn osd_key(&self) -> Result<String, CephError> {
        drop(self.answering().await?);
        Ok("[client.bootstrap-osd]".to_owned())
    }

    async fn hidden(&self, pool: &PoolName) -> Result<Hidden, CephError> {
        Ok(self.answering().await?.hidden.get(pool).cloned().unwrap_or_default())
    }

    async fn change(
        &self,
        change: &CephChange,
        only_if: OnlyIf<'_>,
        progress: &Progress,
    ) -> Result<(), CephError> {
        drop(self.answering().await?);
        let refused = |why: &str| CephError::Refused { doing: change.to_string(), why: why.to_owned() };
        let is_of_image = change.of_image().is_some() || matches!(change, CephChange::CreateImage { .. });
        if !is_of_image {
            only_if.warrant.holds().await?;
            // The monitors know no client's shutting out.
            self.step(change, &self.changer(), "warranted").await?;
            let mut state = self.state();
            state.calls.push(change.to_string());
            return state.make(change).map_err(refused);
        }
        let client = self.changer();
        only_if.warrant.holds_for(&client).await?;
        self.step(change, &client, "warranted").await?;
        self.state().calls.push(change.to_string());
        self.state().look(change, only_if.image, None).map_err(refused)?;
        self.step(change, &client, "looked").await?;
        let locks_first = self.state().locks_first(change);
        let watch = locks_first.then(|| Watch { ceph: self, client });
        if watch.is_some() {
            let mut state = self.state();
            let named = change.of_image().and_then(|image| state.name_of(image, only_if.image));
            if let Some(name) = named.filter(|name| state.gives_lock(name)) {
                state.keep_lock(&name, client);
            }
        }
        self.step(change, &client, "locked").await?;
        if watch.is_some() {
            let looked = self.state().look(change, only_if.image, Some(&client));
            looked.map_err(|why| {
                self.state().give_up_lock(&client);
                refused(why)
            })?;
        }
        self.step(change, &client, "looked again").await?;
        self.work(change, progress).await?;
        self.step(change, &client, "begun").await?;
        let mut state = self.state();
        // What is done by its handle is done to it, whatever its name is by now.
        let mut by_handle = change.clone();
        if let CephChange::RollBack { image, .. } | CephChange::ResizeImage { image, .. } = &mut by_handle {
            *image = state.name_of(image, only_if.image).ok_or_else(|| refused(NONE))?;
        }
        let made = state.make(&by_handle).map_err(refused);
        state.give_up_lock(&client);
        drop(state);
        drop(watch);
        made
    }

    async fn retire(&self, client: &ClientAddress, images: &[ImageName]) -> Result<(), CephError> {
        {
            let state = self.answering().await?;
            let there = images.iter().filter_map(|image| state.images.get(image));
            if there.flat_map(|image| &image.users.watchers).any(|watcher| watcher == client) {
                return Err(CephError::Late { doing: format!("client {client} is changing it") });
            }
        }
        self.blocklist(client).await
    }
}

impl State {
    /// Whether it holds the lock before it looks who has the image open.
    fn locks_first(&self, change: &CephChange) -> bool {
        match change {
            CephChange::RollBack { .. } => true,
            CephChange::ResizeImage { image, size, .. } => {
                self.images.get(image).is_some_and(|image| size.0 < image.observed.stats.size)
            }
            _ => false,
        }
    }

    /// Whether it may be made, of the image with that id.
    fn look(
        &self,
        change: &CephChange,
        id: Option<&str>,
        own: Option<&ClientAddress>,
    ) -> Result<(), &'static str> {
        let Some(image) = change.of_image() else { return Ok(()) };
        let named = own.and_then(|_| self.name_of(image, id)).unwrap_or_else(|| image.clone());
        let Some(there) = self.images.get(&named) else { return Ok(()) };
        if there.observed.id.as_deref() != id {
            return Err("another image has that name since it was looked at");
        }
        let watchers = &there.users.watchers;
        let asks_nobody = matches!(change, CephChange::RemoveImage { .. } | CephChange::CopyImage { .. });
        if !asks_nobody && watchers.iter().any(|watcher| self.frozen.contains(watcher)) {
            return Err("whoever has it open does not answer");
        }
        let is_used = watchers.iter().any(|watcher| Some(watcher) != own);
        if is_used && self.locks_first(change) {
            return Err(BUSY);
        }
        Ok(())
    }
}

impl State {
    fn rename_pool(&mut self, pool: &PoolName, to: &PoolName) -> Result<(), &'static str> {
        if self.pools.contains_key(to) {
            // As Ceph does: it takes it for done.
            return if self.pools.contains_key(pool) { Err(EXISTS) } else { Ok(()) };
        }
        let moved = self.pools.remove(pool).ok_or(NONE)?;
        self.pools.insert(to.clone(), moved);
        if let Some(hidden) = self.hidden.remove(pool) {
            self.hidden.insert(to.clone(), hidden);
        }
        let of_it: Vec<ImageName> = self.images.keys().filter(|image| image.pool == *pool).cloned().collect();
        for image in of_it {
            let moved = self.images.remove(&image).ok_or(NONE)?;
            self.images.insert(ImageName { pool: to.clone(), volume: image.volume }, moved);
        }
        Ok(())
    }

    fn make(&mut self, change: &CephChange) -> Result<(), &'static str> {
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
            CephChange::RenamePool { pool, to } => return self.rename_pool(pool, to),
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
                let mut new = Image::fresh(self.next_id());
                new.resize(size.0);
                self.images.insert(image.clone(), new);
            }
            CephChange::ResizeImage { image, size, .. } => {
                self.images.get_mut(image).ok_or(NONE)?.resize(size.0);
            }
            CephChange::RenameImage { image, to } => {
                let renamed = ImageName { pool: image.pool.clone(), volume: to.clone() };
                let id = |name| self.images.get(name).map(|image| &image.observed.id);
                if self.images.contains_key(&renamed) && id(&renamed) != id(image) {
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
                if let Some(image) = self.images.get_mut(image) {
                    let held = (image.contents, image.observed.stats.size);
                    image.held.insert(snapshot.to_string(), held);
                }
            }
            CephChange::RenameSnapshot { image, snapshot, to } => {
                let snapshots = &mut self.images.get_mut(image).ok_or(NONE)?.observed.snapshots;
                if snapshots.iter().any(|name| name == to.as_str()) {
                    return Err(EXISTS);
                }
                *snapshots.iter_mut().find(|name| *name == snapshot.as_str()).ok_or(NONE)? = to.to_string();
                if let Some(image) = self.images.get_mut(image)
                    && let Some(held) = image.held.remove(snapshot.as_str())
                {
                    image.held.insert(to.to_string(), held);
                }
            }
            CephChange::CopyImage { image, snapshot, to, mark } => self.copy(image, snapshot, to, mark)?,
            CephChange::RollBack { image, snapshot, marks: [_, done] } => {
                self.images.get_mut(image).ok_or(NONE)?.roll_back(snapshot, done)?;
            }
            CephChange::RemoveSnapshot { image, snapshot } => {
                let snapshots = &mut self.images.get_mut(image).ok_or(NONE)?.observed.snapshots;
                let at = snapshots.iter().position(|name| name == snapshot.as_str()).ok_or(NONE)?;
                snapshots.remove(at);
            }
            CephChange::UseOsd { .. }
            | CephChange::WeighOsd { .. }
            | CephChange::DestroyOsd { .. }
            | CephChange::PurgeOsd { .. } => return self.change_osd(change),
            CephChange::Flag { flag, is_set: true } => drop(self.osds.flags.insert(flag.as_str().to_owned())),
            CephChange::Flag { flag, is_set: false } => drop(self.osds.flags.remove(flag.as_str())),
        }
        Ok(())
    }
}

impl State {
    fn copy(
        &mut self,
        image: &ImageName,
        snapshot: &SnapshotName,
        to: &VolumeName,
        mark: &str,
    ) -> Result<(), &'static str> {
        let (contents, size) = self.images.get(image).ok_or(NONE)?.at(snapshot).ok_or(NONE)?;
        let copy = ImageName { pool: image.pool.clone(), volume: to.clone() };
        // One of no size was begun by this very change.
        if self.images.get(&copy).is_some_and(|copy| copy.observed.stats.size > 0) {
            return Err(EXISTS);
        }
        let mut new = Image::fresh(self.next_id());
        new.resize(size);
        (new.contents, new.observed.mark) = (contents, Some(mark.to_owned()));
        self.images.insert(copy, new);
        Ok(())
    }
}

impl Image {
    fn roll_back(&mut self, to: &SnapshotName, done: &str) -> Result<(), &'static str> {
        let (contents, size) = self.at(to).ok_or(NONE)?;
        self.resize(size);
        (self.contents, self.observed.mark) = (contents, Some(done.to_owned()));
        Ok(())
    }

    fn fresh(id: String) -> Self {
        let mut new = Self::default();
        new.observed.stats = VolumeStats {
            order: ORDER,
            format: 2,
            features: vec!["layering".into(), "exclusive-lock".into()],
            ..VolumeStats::default()
        };
        new.observed.id = Some(id);
        new
    }

    /// What a snapshot holds, and of which size.
    fn at(&self, snapshot: &SnapshotName) -> Option<(u8, u64)> {
        self.observed.snapshots.iter().any(|name| name == snapshot.as_str()).then_some(())?;
        self.held.get(snapshot.as_str()).copied()
    }

    fn resize(&mut self, size: u64) {
        let stats = &mut self.observed.stats;
        (stats.size, stats.objects) = (size, size.div_ceil(1 << stats.order));
    }
}
