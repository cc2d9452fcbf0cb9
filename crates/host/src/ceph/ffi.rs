//! The part of librados' and librbd's C interfaces that we use, found in the shared libraries at run time.
//!
//! Declarations only; meaning is in `cluster`. All have been in the libraries since Ceph 14.
#![allow(unsafe_code, reason = "the C interfaces of Ceph")]

use std::ffi::{c_char, c_int, c_void};

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
}
