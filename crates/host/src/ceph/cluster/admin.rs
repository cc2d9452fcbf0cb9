//! Images and snapshots: what there are, and how they are made, changed and unmade.
#![allow(unsafe_code, reason = "calls the C interfaces of Ceph")]

use std::{
    ffi::{CString, c_char, c_int},
    mem, ptr,
};

use pvc_core::model::ceph::VolumeStats;

use super::{
    super::ffi::{
        EXCLUSIVE_LOCK, FEATURES, Handle, ImageInfo, ImageSpec, LAYERING, OPTION_FEATURES, OPTION_FORMAT,
        OPTION_ORDER, Rados, Rbd, SnapshotInfo, TrashEntry,
    },
    Cluster, ENOENT, Fault, Image, Pool, c_text, check, text,
};

/// More images than we list of a pool.
const MOST_IMAGES: usize = 1 << 17;
/// More bytes than the names of a pool's namespaces have.
const LONGEST_NAMES: usize = 1 << 20;
/// Whose snapshots are: `rbd_snap_namespace_type_t`.
const OF_USERS: c_int = 0;
const TRASH: c_int = 2;

/// A snapshot of an image.
struct Snapshot {
    id: u64,
    name: String,
    is_users: bool,
    /// Its removal was begun.
    is_trash: bool,
}

/// More snapshots than we list of an image.
const MOST_SNAPSHOTS: usize = 1 << 12;
/// More bytes than an image's id has.
const LONGEST_ID: usize = 256;

/// Of new images: an object has 2^22 bytes.
const ORDER: u64 = 22;
/// Of new images.
const FORMAT: u64 = 2;

/// How long whoever has an image open may take to answer, in milliseconds: librbd answers within one.
const ANSWER_MS: u64 = 5000;

impl Cluster {
    /// The names of a pool's images; none if there is no such pool.
    pub(in super::super) fn images(&self, pool: &str) -> Result<Vec<String>, Fault> {
        Ok(self.listed_images(pool)?.into_iter().map(|(_, name)| name).collect())
    }

    /// The name by which a pool lists the image with this id.
    pub(in super::super) fn name_of(&self, pool: &str, id: &str) -> Result<Option<String>, Fault> {
        let all = self.listed_images(pool)?;
        Ok(all.into_iter().find(|(listed, _)| listed == id).map(|(_, name)| name))
    }

    /// Takes a name from an image that is listed by another one.
    pub(in super::super) fn forget_name(&self, pool: &str, name: &str) -> Result<(), Fault> {
        let (pool, object) = (self.pool_there(pool)?, c_text(&format!("rbd_id.{name}"))?);
        // SAFETY: a living pool; the text lives until the call returns.
        let made = unsafe { (self.libraries.rados.rados_remove)(pool.io, object.as_ptr()) };
        check("taking a second name from an image", made).map(drop)
    }

    /// Ids and names.
    fn listed_images(&self, pool: &str) -> Result<Vec<(String, String)>, Fault> {
        let Some(open) = self.pool(pool)? else { return Ok(Vec::new()) };
        let rbd = &self.libraries.rbd;
        let mut room = 64;
        loop {
            let mut images: Vec<ImageSpec> = Vec::new();
            images.resize_with(room, || ImageSpec { id: ptr::null_mut(), name: ptr::null_mut() });
            let mut count = room;
            // SAFETY: a living pool; room for `count` images.
            let answer = unsafe { (rbd.rbd_list2)(open.io, images.as_mut_ptr(), &raw mut count) };
            if answer == -libc::ERANGE && count > room && count <= MOST_IMAGES {
                room = count;
                continue;
            }
            check(&format!("listing the images of pool {pool}"), answer)?;
            images.truncate(count);
            // SAFETY: librbd filled these; both are C text until the clean-up.
            let names = images.iter().map(|image| unsafe { (text(image.id), text(image.name)) }).collect();
            // SAFETY: what librbd filled, once.
            unsafe { (rbd.rbd_image_spec_list_cleanup)(images.as_mut_ptr(), images.len()) };
            return Ok(names);
        }
    }

    /// How many namespaces a pool has, with or without images; none if there is no such pool.
    pub(in super::super) fn count_namespaces(&self, pool: &str) -> Result<usize, Fault> {
        let Some(open) = self.pool(pool)? else { return Ok(0) };
        let mut room = 1 << 10;
        loop {
            let mut names = vec![0_u8; room];
            let mut length = room;
            // SAFETY: a living pool; room for as many bytes as is said.
            let answer = unsafe {
                (self.libraries.rbd.rbd_namespace_list)(
                    open.io,
                    names.as_mut_ptr().cast::<c_char>(),
                    &raw mut length,
                )
            };
            if answer == -libc::ERANGE && length > room && length <= LONGEST_NAMES {
                room = length;
                continue;
            }
            check(&format!("listing the namespaces of pool {pool}"), answer)?;
            let names = names.get(..length).unwrap_or_default();
            return Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).count());
        }
    }

    /// How many images a pool has in its trash; none if there is no such pool.
    pub(in super::super) fn count_trash(&self, pool: &str) -> Result<usize, Fault> {
        let Some(open) = self.pool(pool)? else { return Ok(0) };
        let rbd = &self.libraries.rbd;
        let mut room = 64;
        loop {
            let mut entries: Vec<TrashEntry> = Vec::new();
            entries.resize_with(room, TrashEntry::default);
            let mut count = room;
            // SAFETY: a living pool; room for `count` entries.
            let answer = unsafe { (rbd.rbd_trash_list)(open.io, entries.as_mut_ptr(), &raw mut count) };
            if answer == -libc::ERANGE && count > room && count <= MOST_IMAGES {
                room = count;
                continue;
            }
            check(&format!("listing the trash of pool {pool}"), answer)?;
            // SAFETY: what librbd filled, once.
            unsafe { (rbd.rbd_trash_list_cleanup)(entries.as_mut_ptr(), count.min(room)) };
            return Ok(count);
        }
    }

    pub(in super::super) fn create_image(&self, pool: &str, image: &str, size: u64) -> Result<(), Fault> {
        let (pool, name) = (self.pool_there(pool)?, c_text(image)?);
        let rbd = &self.libraries.rbd;
        let options = Options::new(rbd);
        options.set(OPTION_FORMAT, FORMAT)?;
        options.set(OPTION_FEATURES, LAYERING | EXCLUSIVE_LOCK)?;
        options.set(OPTION_ORDER, ORDER)?;
        // SAFETY: a living pool, living options; the text lives until the call returns.
        let made = unsafe { (rbd.rbd_create4)(pool.io, name.as_ptr(), size, options.handle) };
        check("creating an image", made).map(drop)
    }

    pub(in super::super) fn rename_image(&self, pool: &str, image: &str, to: &str) -> Result<(), Fault> {
        let (pool, image, to) = (self.pool_there(pool)?, c_text(image)?, c_text(to)?);
        // SAFETY: a living pool; both texts live until the call returns.
        let made = unsafe { (self.libraries.rbd.rbd_rename)(pool.io, image.as_ptr(), to.as_ptr()) };
        check("renaming an image", made).map(drop)
    }

    /// Opens an image to change it.
    pub(in super::super) fn open_to_change(&self, pool: &str, image: &str) -> Result<Image<'_>, Fault> {
        let pool = self.pool_there(pool)?;
        let (name, mut handle) = (c_text(image)?, ptr::null_mut());
        // SAFETY: a living pool; the text lives until the call returns; a place to write to; no snapshot.
        let opened =
            unsafe { (self.libraries.rbd.rbd_open)(pool.io, name.as_ptr(), &raw mut handle, ptr::null()) };
        check("opening an image", opened)?;
        Ok(Image { pool, handle })
    }

    pub(super) fn pool_there(&self, pool: &str) -> Result<Pool<'_>, Fault> {
        let missing = || Fault {
            call: "opening a pool".to_owned(),
            errno: ENOENT,
            why: format!("there is no pool {pool}"),
        };
        self.pool(pool)?.ok_or_else(missing)
    }
}

/// What an image is to be like.
struct Options {
    rbd: &'static Rbd,
    handle: Handle,
}

impl Options {
    fn new(rbd: &'static Rbd) -> Self {
        let mut handle = ptr::null_mut();
        // SAFETY: a place to write to.
        unsafe { (rbd.rbd_image_options_create)(&raw mut handle) };
        Self { rbd, handle }
    }

    fn set(&self, option: c_int, value: u64) -> Result<(), Fault> {
        // SAFETY: living options.
        let set = unsafe { (self.rbd.rbd_image_options_set_uint64)(self.handle, option, value) };
        check("setting an option of an image", set).map(drop)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by rbd_image_options_create, and nobody uses them after this.
        unsafe { (self.rbd.rbd_image_options_destroy)(self.handle) }
    }
}

impl Image<'_> {
    /// Its figures.
    pub(in super::super) fn stats(&self) -> Result<VolumeStats, Fault> {
        let mut info = ImageInfo::default();
        // SAFETY: an open image; a place to write to, as long as is said.
        let answer =
            unsafe { (self.rbd().rbd_stat)(self.handle, &raw mut info, mem::size_of::<ImageInfo>()) };
        check("asking how large an image is", answer)?;
        let features = self.features()?;
        let named = FEATURES.iter().enumerate().filter(|(bit, _)| features & (1 << bit) != 0);
        Ok(VolumeStats {
            size: info.size,
            objects: info.num_objs,
            order: u8::try_from(info.order).unwrap_or(0),
            format: if self.id()?.is_some() { 2 } else { 1 },
            features: named.map(|(_, name)| (*name).to_owned()).collect(),
        })
    }

    fn features(&self) -> Result<u64, Fault> {
        let mut features = 0;
        // SAFETY: an open image; a place to write to.
        let answer = unsafe { (self.rbd().rbd_get_features)(self.handle, &raw mut features) };
        check("asking for an image's features", answer)?;
        Ok(features)
    }

    /// `None` of an image of the old format.
    pub(in super::super) fn id(&self) -> Result<Option<String>, Fault> {
        let mut id = [0_u8; LONGEST_ID];
        // SAFETY: an open image; room for as many bytes as is said.
        let answer =
            unsafe { (self.rbd().rbd_get_id)(self.handle, id.as_mut_ptr().cast::<c_char>(), id.len()) };
        if answer == -libc::EINVAL {
            return Ok(None);
        }
        check("asking for an image's id", answer)?;
        let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(id).into_owned()))
    }

    /// The names of its snapshots.
    pub(in super::super) fn snapshots(&self) -> Result<Vec<String>, Fault> {
        Ok(self.all_snapshots()?.into_iter().filter(|found| found.is_users).map(|found| found.name).collect())
    }

    /// The number of a snapshot, which no other of its pool has or will have.
    pub(in super::super) fn snapshot_id(&self, name: &str) -> Result<Option<u64>, Fault> {
        let all = self.all_snapshots()?;
        Ok(all.into_iter().find(|found| found.is_users && found.name == name).map(|found| found.id))
    }

    /// Removes what is left of snapshots whose removal was interrupted: librbd has given each another name, and goes on with none of them.
    pub(in super::super) fn remove_leftovers(&self) -> Result<(), Fault> {
        for leftover in self.all_snapshots()?.into_iter().filter(|found| found.is_trash) {
            // SAFETY: an open image.
            let made = unsafe { (self.rbd().rbd_snap_remove_by_id)(self.handle, leftover.id) };
            check("removing what is left of a snapshot", made)?;
        }
        Ok(())
    }

    fn all_snapshots(&self) -> Result<Vec<Snapshot>, Fault> {
        let mut all = self.listed_snapshots()?;
        for found in &mut all {
            let mut namespace = 0;
            // SAFETY: an open image; a place to write to.
            let answer = unsafe {
                (self.rbd().rbd_snap_get_namespace_type)(self.handle, found.id, &raw mut namespace)
            };
            // One that has gone meanwhile is nobody's.
            if answer != -ENOENT {
                check("asking whose a snapshot is", answer)?;
                (found.is_users, found.is_trash) = (namespace == OF_USERS, namespace == TRASH);
            }
        }
        Ok(all)
    }

    fn listed_snapshots(&self) -> Result<Vec<Snapshot>, Fault> {
        let mut room = 16;
        loop {
            let mut snapshots: Vec<SnapshotInfo> = Vec::new();
            snapshots.resize_with(room, || SnapshotInfo { id: 0, size: 0, name: ptr::null() });
            let mut count = c_int::try_from(room).unwrap_or(0);
            // SAFETY: an open image; room for `count` snapshots.
            let answer =
                unsafe { (self.rbd().rbd_snap_list)(self.handle, snapshots.as_mut_ptr(), &raw mut count) };
            let needed = usize::try_from(count).unwrap_or(0);
            if answer == -libc::ERANGE && needed > room && needed <= MOST_SNAPSHOTS {
                room = needed;
                continue;
            }
            let count = check("listing snapshots", answer)?;
            let listed = snapshots.iter().take(usize::try_from(count).unwrap_or(0));
            let copy = |snapshot: &SnapshotInfo| Snapshot {
                id: snapshot.id,
                // SAFETY: librbd filled these; each name is C text until the end of the list.
                name: unsafe { text(snapshot.name) },
                is_users: false,
                is_trash: false,
            };
            let found = listed.map(copy).collect();
            if count > 0 {
                // SAFETY: what librbd filled, once; one without a name ends it.
                unsafe { (self.rbd().rbd_snap_list_end)(snapshots.as_mut_ptr()) };
            }
            return Ok(found);
        }
    }

    /// The object that whoever has it open watches; `None` of an image of the old format.
    pub(super) fn header(&self) -> Result<Option<CString>, Fault> {
        self.id()?.map(|id| c_text(&format!("rbd_header.{id}"))).transpose()
    }

    pub(super) fn rados(&self) -> &'static Rados {
        &self.pool.cluster.libraries.rados
    }

    /// Whether everybody who has it open executes: asks each, as a client does that has changed an image, so that they look at it anew.
    pub(in super::super) fn is_answered(&self) -> Result<bool, Fault> {
        // Nobody holds a lock of one of the old format.
        let Some(header) = self.header()? else { return Ok(true) };
        let rados = self.rados();
        let (mut reply, mut length) = (ptr::null_mut(), 0);
        // SAFETY: a living pool; the text lives until the call returns; no message; two places to write to.
        let answer = unsafe {
            (rados.rados_notify2)(
                self.pool.io,
                header.as_ptr(),
                ptr::null(),
                0,
                ANSWER_MS,
                &raw mut reply,
                &raw mut length,
            )
        };
        if !reply.is_null() {
            // SAFETY: librados allocated it for us, and nobody uses it after this.
            unsafe { (rados.rados_buffer_free)(reply) };
        }
        if answer == -libc::ETIMEDOUT {
            return Ok(false);
        }
        check("asking whoever has an image open", answer)?;
        Ok(true)
    }

    /// Takes its lock and gives it to nobody who asks. Whoever takes it all the same, since we do not answer, shuts us out by that.
    pub(in super::super) fn lock(&self) -> Result<(), Fault> {
        // SAFETY: an open image; 0 is the mode in which one client has the lock.
        let made = unsafe { (self.rbd().rbd_lock_acquire)(self.handle, 0) };
        check("taking the lock of an image", made).map(drop)
    }

    pub(in super::super) fn create_snapshot(&self, snapshot: &str) -> Result<(), Fault> {
        let snapshot = c_text(snapshot)?;
        // SAFETY: an open image; the text lives until the call returns.
        let made = unsafe { (self.rbd().rbd_snap_create)(self.handle, snapshot.as_ptr()) };
        check("taking a snapshot", made).map(drop)
    }

    pub(in super::super) fn rename_snapshot(&self, snapshot: &str, to: &str) -> Result<(), Fault> {
        let (snapshot, to) = (c_text(snapshot)?, c_text(to)?);
        // SAFETY: an open image; both texts live until the call returns.
        let made = unsafe { (self.rbd().rbd_snap_rename)(self.handle, snapshot.as_ptr(), to.as_ptr()) };
        check("renaming a snapshot", made).map(drop)
    }

    pub(in super::super) fn remove_snapshot(&self, snapshot: &str) -> Result<(), Fault> {
        let snapshot = c_text(snapshot)?;
        // SAFETY: an open image; the text lives until the call returns.
        let made = unsafe { (self.rbd().rbd_snap_remove)(self.handle, snapshot.as_ptr()) };
        check("removing a snapshot", made).map(drop)
    }
}
