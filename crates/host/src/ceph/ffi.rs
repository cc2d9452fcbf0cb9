//! The part of librados' and librbd's C interfaces that we use, found in the shared libraries at run time.
//!
//! Declarations only; meaning is in `cluster`. All have been in the libraries since Ceph 14.
#![allow(unsafe_code, reason = "the C interfaces of Ceph")]

use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

use crate::library::functions;

pub(super) const LIBRADOS: &str = "librados.so.2";
pub(super) const LIBRBD: &str = "librbd.so.1";

/// `rados_t`, `rados_ioctx_t`, `rbd_image_t`: pointers that only the libraries look behind.
pub(super) type Handle = *mut c_void;

/// `rbd_image_watcher_t`.
#[repr(C)]
pub(super) struct Watcher {
    /// C text that `rbd_watchers_list_cleanup` frees.
    pub(super) addr: *mut c_char,
    pub(super) id: i64,
    pub(super) cookie: u64,
}

/// `struct rados_cluster_stat_t`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ClusterStat {
    pub(super) kb: u64,
    pub(super) kb_used: u64,
    pub(super) kb_avail: u64,
    pub(super) num_objects: u64,
}

/// `struct rados_pool_stat_t`.
#[repr(C)]
#[derive(Default)]
pub(super) struct PoolStat {
    pub(super) num_bytes: u64,
    pub(super) num_kb: u64,
    pub(super) num_objects: u64,
    pub(super) num_object_clones: u64,
    pub(super) num_object_copies: u64,
    pub(super) num_objects_missing_on_primary: u64,
    pub(super) num_objects_unfound: u64,
    pub(super) num_objects_degraded: u64,
    pub(super) num_rd: u64,
    pub(super) num_rd_kb: u64,
    pub(super) num_wr: u64,
    pub(super) num_wr_kb: u64,
    pub(super) num_user_bytes: u64,
    pub(super) compressed_bytes_orig: u64,
    pub(super) compressed_bytes: u64,
    pub(super) compressed_bytes_alloc: u64,
}

/// `rbd_image_info_t`.
#[repr(C)]
pub(super) struct ImageInfo {
    pub(super) size: u64,
    pub(super) obj_size: u64,
    pub(super) num_objs: u64,
    pub(super) order: c_int,
    block_name_prefix: [c_char; 24],
    parent_pool: i64,
    parent_name: [c_char; 96],
}

impl Default for ImageInfo {
    fn default() -> Self {
        Self {
            size: 0,
            obj_size: 0,
            num_objs: 0,
            order: 0,
            block_name_prefix: [0; 24],
            parent_pool: 0,
            parent_name: [0; 96],
        }
    }
}

/// `rbd_image_spec_t`: two C texts that `rbd_image_spec_list_cleanup` frees.
#[repr(C)]
pub(super) struct ImageSpec {
    pub(super) id: *mut c_char,
    pub(super) name: *mut c_char,
}

/// `rbd_trash_image_info_t`: two C texts that `rbd_trash_list_cleanup` frees, who put it there, and when.
#[repr(C)]
pub(super) struct TrashEntry {
    id: *mut c_char,
    name: *mut c_char,
    source: c_int,
    deleted: libc::time_t,
    kept_until: libc::time_t,
}

impl Default for TrashEntry {
    fn default() -> Self {
        Self { id: ptr::null_mut(), name: ptr::null_mut(), source: 0, deleted: 0, kept_until: 0 }
    }
}

/// `rbd_snap_info_t`.
#[repr(C)]
pub(super) struct SnapshotInfo {
    pub(super) id: u64,
    pub(super) size: u64,
    /// C text that `rbd_snap_list_end` frees.
    pub(super) name: *const c_char,
}

/// Bits of an image's features, and Ceph's names of them.
pub(super) const FEATURES: [&str; 12] = [
    "layering",
    "striping",
    "exclusive-lock",
    "object-map",
    "fast-diff",
    "deep-flatten",
    "journaling",
    "data-pool",
    "operations",
    "migrating",
    "non-primary",
    "dirty-cache",
];
pub(super) const LAYERING: u64 = 1;
pub(super) const EXCLUSIVE_LOCK: u64 = 1 << 2;

/// `librbd_progress_fn_t`: how much is done of how much, and the caller's own data.
pub(super) type Told = unsafe extern "C" fn(u64, u64, *mut c_void) -> c_int;

/// What `rbd_image_options_set_uint64` sets.
pub(super) const OPTION_FORMAT: c_int = 0;
pub(super) const OPTION_FEATURES: c_int = 1;
pub(super) const OPTION_ORDER: c_int = 2;

// Where nothing else is said, an answer below 0 is a negated errno.
functions! {
    /// librados. A cluster's handle may be used by many threads at once.
    pub(super) struct Rados;

    fn rados_create2(cluster: *mut Handle, name: *const c_char, user: *const c_char, flags: u64) -> c_int;
    fn rados_conf_set(cluster: Handle, option: *const c_char, value: *const c_char) -> c_int;
    fn rados_conf_read_file(cluster: Handle, path: *const c_char) -> c_int;
    fn rados_connect(cluster: Handle) -> c_int;
    /// Ends the connection and frees the handle, connected or not.
    fn rados_shutdown(cluster: Handle);
    /// Output and status text are the caller's to `rados_buffer_free`, also after a failure.
    fn rados_mon_command(
        cluster: Handle, words: *const *const c_char, count: usize, input: *const c_char, input_length: usize,
        output: *mut *mut c_char, output_length: *mut usize, status: *mut *mut c_char, status_length: *mut usize,
    ) -> c_int;
    /// The text is the caller's to `rados_buffer_free`.
    fn rados_getaddrs(cluster: Handle, addresses: *mut *mut c_char) -> c_int;
    fn rados_buffer_free(buffer: *mut c_char);
    fn rados_ioctx_create(cluster: Handle, pool: *const c_char, pool_handle: *mut Handle) -> c_int;
    fn rados_ioctx_destroy(pool_handle: Handle);
    fn rados_ioctx_pool_stat(pool_handle: Handle, stat: *mut PoolStat) -> c_int;
    fn rados_cluster_stat(cluster: Handle, stat: *mut ClusterStat) -> c_int;
    fn rados_setxattr(
        pool_handle: Handle, object: *const c_char, name: *const c_char, value: *const c_char, length: usize,
    ) -> c_int;
    /// Answers how long the value is; `-ENODATA` if there is none, `-ERANGE` if there is no room for it.
    fn rados_getxattr(
        pool_handle: Handle, object: *const c_char, name: *const c_char, value: *mut c_char, room: usize,
    ) -> c_int;
    fn rados_remove(pool_handle: Handle, object: *const c_char) -> c_int;
    /// Has every watcher of an object answer. `-ETIMEDOUT`: one did not. The reply is the caller's to `rados_buffer_free`, also after a failure.
    fn rados_notify2(
        pool_handle: Handle, object: *const c_char, message: *const c_char, length: c_int, timeout_ms: u64,
        reply: *mut *mut c_char, reply_length: *mut usize,
    ) -> c_int;
    /// Returns when this client has the map that the monitors had when it was asked.
    fn rados_wait_for_latest_osdmap(cluster: Handle) -> c_int;
}

functions! {
    /// librbd.
    pub(super) struct Rbd;

    /// Takes no lock and registers no watch. A null snapshot is the image itself.
    fn rbd_open_read_only(pool: Handle, image: *const c_char, handle: *mut Handle, snapshot: *const c_char) -> c_int;
    fn rbd_close(image: Handle) -> c_int;
    /// Fills `watchers`, of which there is room for `*count`, and says how many in `*count`. `-ERANGE`: `*count` is how many there are,
    /// and nothing was filled.
    fn rbd_watchers_list(image: Handle, watchers: *mut Watcher, count: *mut usize) -> c_int;
    fn rbd_watchers_list_cleanup(watchers: *mut Watcher, count: usize);
    /// Answers how many hold the lock, and fills three buffers with as many texts each, every one ended by a NUL. The lengths say how
    /// large the buffers are; `-ERANGE`: how large they must be.
    fn rbd_list_lockers(
        image: Handle, exclusive: *mut c_int, tag: *mut c_char, tag_length: *mut usize,
        clients: *mut c_char, clients_length: *mut usize, cookies: *mut c_char, cookies_length: *mut usize,
        addresses: *mut c_char, addresses_length: *mut usize,
    ) -> isize;
    /// Blocklists the owner, for as long as `rbd_blocklist_expire_seconds` says, then removes the lock.
    fn rbd_break_lock(image: Handle, client: *const c_char, cookie: *const c_char) -> c_int;
    /// Registers a watch. Whatever is changed is done by who holds the lock, if somebody does. A null snapshot is the image itself.
    fn rbd_open(pool: Handle, image: *const c_char, handle: *mut Handle, snapshot: *const c_char) -> c_int;
    /// Takes the exclusive lock (mode 0), and keeps it until the image is closed: who asks for it is refused. `-EROFS` if another one keeps it so.
    fn rbd_lock_acquire(image: Handle, mode: c_int) -> c_int;
    fn rbd_stat(image: Handle, info: *mut ImageInfo, length: usize) -> c_int;
    fn rbd_get_features(image: Handle, features: *mut u64) -> c_int;
    /// The image's id as C text; `-ERANGE` if there is no room for it, `-EINVAL` if it is of the old format and has none.
    fn rbd_get_id(image: Handle, id: *mut c_char, room: usize) -> c_int;
    /// Fills `images`, of which there is room for `*count`, and says how many in `*count`. `-ERANGE`: how many there are.
    fn rbd_list2(pool: Handle, images: *mut ImageSpec, count: *mut usize) -> c_int;
    fn rbd_image_spec_list_cleanup(images: *mut ImageSpec, count: usize);
    /// Fills `names` with texts, each ended by a NUL, and says how many bytes in `*length`. `-ERANGE`: how many it needs.
    fn rbd_namespace_list(pool: Handle, names: *mut c_char, length: *mut usize) -> c_int;
    /// Fills `entries`, of which there is room for `*count`, and says how many in `*count`. `-ERANGE`: how many there are.
    fn rbd_trash_list(pool: Handle, entries: *mut TrashEntry, count: *mut usize) -> c_int;
    fn rbd_trash_list_cleanup(entries: *mut TrashEntry, count: usize);
    /// Answers how many there are, and ends them by one without a name. `-ERANGE`: `*count` is the room it needs.
    fn rbd_snap_list(image: Handle, snapshots: *mut SnapshotInfo, count: *mut c_int) -> c_int;
    /// Frees the names up to the one without a name.
    fn rbd_snap_list_end(snapshots: *mut SnapshotInfo);
    fn rbd_image_options_create(options: *mut Handle);
    fn rbd_image_options_destroy(options: Handle);
    fn rbd_image_options_set_uint64(options: Handle, option: c_int, value: u64) -> c_int;
    fn rbd_create4(pool: Handle, image: *const c_char, size: u64, options: Handle) -> c_int;
    /// Larger or smaller.
    fn rbd_resize_with_progress(image: Handle, size: u64, told: Told, data: *mut c_void) -> c_int;
    /// Has a snapshot of an image written over it.
    fn rbd_snap_rollback_with_progress(image: Handle, snapshot: *const c_char, told: Told, data: *mut c_void) -> c_int;
    /// Writes an image, or a snapshot of it that was opened, to one that is as large.
    fn rbd_copy_with_progress2(image: Handle, to: Handle, told: Told, data: *mut c_void) -> c_int;
    fn rbd_rename(pool: Handle, image: *const c_char, to: *const c_char) -> c_int;
    fn rbd_remove_with_progress(pool: Handle, image: *const c_char, told: Told, data: *mut c_void) -> c_int;
    fn rbd_snap_create(image: Handle, snapshot: *const c_char) -> c_int;
    fn rbd_snap_rename(image: Handle, snapshot: *const c_char, to: *const c_char) -> c_int;
    fn rbd_snap_remove(image: Handle, snapshot: *const c_char) -> c_int;
    /// Whose a snapshot is: 0 is the user's.
    fn rbd_snap_get_namespace_type(image: Handle, snapshot: u64, namespace: *mut c_int) -> c_int;
    fn rbd_snap_remove_by_id(image: Handle, snapshot: u64) -> c_int;
}
