//! One connection to a cluster, in safe words. Its calls block: see `librados`, which gives each a deadline.
#![allow(unsafe_code, reason = "calls the C interfaces of Ceph")]

mod admin;
mod long;
mod notes;

use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr, slice,
    sync::OnceLock,
};

use super::ffi::{ClusterStat, Handle, LIBRADOS, LIBRBD, PoolStat, Rados, Rbd, Watcher};
use crate::library::LoadError;

/// More bytes than any answer that we ask for has; a longer one is not read.
const LONGEST_ANSWER: usize = 64 << 20;
/// More clients than can have one image open.
const MOST_CLIENTS: usize = 4096;
/// Bytes for the texts about them.
const MOST_TEXT: usize = 256 * MOST_CLIENTS;

const ENOENT: c_int = libc::ENOENT;

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Fault {
    /// Which call, and on what.
    pub(super) call: String,
    /// Positive; 0: ours.
    pub(super) errno: c_int,
    /// In Ceph's words, or the kernel's.
    pub(super) why: String,
}

impl Fault {
    fn ours(call: &str, why: impl Into<String>) -> Self {
        Self { call: call.to_owned(), errno: 0, why: why.into() }
    }
}

/// Both libraries.
pub(super) struct Libraries {
    rados: Rados,
    rbd: Rbd,
}

impl Libraries {
    /// Loads them once; what failed is tried again, since they may be installed while the daemon runs.
    pub(super) fn load() -> Result<&'static Self, String> {
        static LOADED: OnceLock<Libraries> = OnceLock::new();
        if let Some(loaded) = LOADED.get() {
            return Ok(loaded);
        }
        let rados = Rados::load(LIBRADOS).map_err(|error| told(LIBRADOS, "librados2", error))?;
        let rbd = Rbd::load(LIBRBD).map_err(|error| told(LIBRBD, "librbd1", error))?;
        Ok(LOADED.get_or_init(|| Self { rados, rbd }))
    }
}

fn told(path: &str, package: &str, error: LoadError) -> String {
    match error {
        LoadError::Missing(cause) => {
            format!("could not load {path}: {cause}; install it (Debian: {package})")
        }
        LoadError::Unsuitable(cause) => format!("{path} is older than Ceph 16, which pvcd needs: {cause}"),
    }
}

/// A connection, or what is left of one that could not be made.
pub(super) struct Cluster {
    libraries: &'static Libraries,
    handle: Handle,
}

// SAFETY: a cluster's handle may be used by any thread and by several at once (librados.h), and nothing else is in here.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: the handle was made by rados_create2 and nobody uses it after this; pools and images borrow from `self`.
        unsafe { (self.libraries.rados.rados_shutdown)(self.handle) }
    }
}

impl Cluster {
    /// Connects `user` (`client.admin`) as the file at `path` says, with `settings`, which no file overrides.
    pub(super) fn connect(
        libraries: &'static Libraries,
        user: &str,
        path: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self, Fault> {
        let mut handle = ptr::null_mut();
        let (name, user) = (c_text("ceph")?, c_text(user)?);
        // SAFETY: the handle is written before it is read, the texts live until the call returns.
        let made =
            unsafe { (libraries.rados.rados_create2)(&raw mut handle, name.as_ptr(), user.as_ptr(), 0) };
        check("making a client", made)?;
        // From here on it is shut down whatever happens.
        let this = Self { libraries, handle };
        for (option, value) in settings {
            let (name, value) = (c_text(option)?, c_text(value)?);
            // SAFETY: a living handle; both texts live until the call returns.
            let set = unsafe { (libraries.rados.rados_conf_set)(handle, name.as_ptr(), value.as_ptr()) };
            check(&format!("setting {option}"), set)?;
        }
        let file = c_text(path)?;
        // SAFETY: as above.
        let read = unsafe { (libraries.rados.rados_conf_read_file)(handle, file.as_ptr()) };
        check(&format!("reading {path}"), read)?;
        // SAFETY: a living handle that is configured and not connected yet.
        check("connecting", unsafe { (libraries.rados.rados_connect)(handle) })?;
        Ok(this)
    }

    /// Has the monitors carry out a command (JSON); answers its output.
    pub(super) fn ask_monitors(&self, command: &str) -> Result<Vec<u8>, Fault> {
        let text = c_text(command)?;
        let words = [text.as_ptr()];
        let (mut output, mut output_length) = (ptr::null_mut(), 0);
        let (mut status, mut status_length) = (ptr::null_mut(), 0);
        // SAFETY: a living handle; one word, which lives until the call returns; no input; four places to write to.
        let answer = unsafe {
            (self.libraries.rados.rados_mon_command)(
                self.handle,
                words.as_ptr(),
                words.len(),
                ptr::null(),
                0,
                &raw mut output,
                &raw mut output_length,
                &raw mut status,
                &raw mut status_length,
            )
        };
        let (output, status) = (self.take(output, output_length), self.take(status, status_length));
        check(command, answer).map_err(|fault| match &status {
            Ok(text) if !text.is_empty() => {
                Fault { why: String::from_utf8_lossy(text).trim().to_owned(), ..fault }
            }
            _ => fault,
        })?;
        output
    }

    /// A copy of what a command wrote, which is freed.
    fn take(&self, buffer: *mut c_char, length: usize) -> Result<Vec<u8>, Fault> {
        if buffer.is_null() {
            return Ok(Vec::new());
        }
        let copy = if length > LONGEST_ANSWER {
            Err(Fault::ours("a command", format!("its answer of {length} bytes is too long")))
        } else {
            // SAFETY: not null, and librados wrote so many bytes there.
            Ok(unsafe { slice::from_raw_parts(buffer.cast::<u8>(), length) }.to_vec())
        };
        // SAFETY: librados allocated it for us, and nobody uses it after this.
        unsafe { (self.libraries.rados.rados_buffer_free)(buffer) };
        copy
    }

    /// Where this client is, in Ceph's words.
    pub(super) fn own_address(&self) -> Result<String, Fault> {
        let mut buffer = ptr::null_mut();
        // SAFETY: a living, connected handle; a place to write to.
        let answer = unsafe { (self.libraries.rados.rados_getaddrs)(self.handle, &raw mut buffer) };
        check("asking for this client's address", answer)?;
        // SAFETY: null or C text that librados allocated for us.
        let own = unsafe { text(buffer) };
        // SAFETY: as above, and nobody uses it after this.
        unsafe { (self.libraries.rados.rados_buffer_free)(buffer) };
        Ok(own)
    }

    /// Waits until this client has the newest map of the OSDs.
    pub(super) fn await_latest_map(&self) -> Result<(), Fault> {
        // SAFETY: a living, connected handle.
        let answer = unsafe { (self.libraries.rados.rados_wait_for_latest_osdmap)(self.handle) };
        check("waiting for the latest OSD map", answer).map(drop)
    }

    /// What the cluster holds.
    pub(super) fn stat(&self) -> Result<ClusterStat, Fault> {
        let mut stat = ClusterStat::default();
        // SAFETY: a living, connected handle; a place to write to.
        let answer = unsafe { (self.libraries.rados.rados_cluster_stat)(self.handle, &raw mut stat) };
        check("asking what the cluster holds", answer)?;
        Ok(stat)
    }

    /// What a pool holds; `None` if there is no such pool.
    pub(super) fn pool_stat(&self, pool: &str) -> Result<Option<PoolStat>, Fault> {
        let Some(open) = self.pool(pool)? else { return Ok(None) };
        let mut stat = PoolStat::default();
        // SAFETY: a living pool; a place to write to.
        let answer = unsafe { (self.libraries.rados.rados_ioctx_pool_stat)(open.io, &raw mut stat) };
        check(&format!("asking what pool {pool} holds"), answer)?;
        Ok(Some(stat))
    }

    fn pool(&self, pool: &str) -> Result<Option<Pool<'_>>, Fault> {
        let (name, mut io) = (c_text(pool)?, ptr::null_mut());
        // SAFETY: a living, connected handle; the text lives until the call returns; a place to write to.
        let made =
            unsafe { (self.libraries.rados.rados_ioctx_create)(self.handle, name.as_ptr(), &raw mut io) };
        if made == -ENOENT {
            return Ok(None);
        }
        check(&format!("opening pool {pool}"), made)?;
        Ok(Some(Pool { cluster: self, io }))
    }

    /// Opens an image to look at it; `None` if there is none, or no such pool.
    pub(super) fn open(&self, pool: &str, image: &str) -> Result<Option<Image<'_>>, Fault> {
        let Some(pool) = self.pool(pool)? else { return Ok(None) };
        let (name, mut handle) = (c_text(image)?, ptr::null_mut());
        // SAFETY: a living pool; the text lives until the call returns; a place to write to; no snapshot.
        let opened = unsafe {
            (self.libraries.rbd.rbd_open_read_only)(pool.io, name.as_ptr(), &raw mut handle, ptr::null())
        };
        if opened == -ENOENT {
            return Ok(None);
        }
        check(&format!("opening image {image}"), opened)?;
        Ok(Some(Image { pool, handle }))
    }
}

/// An open pool.
struct Pool<'a> {
    cluster: &'a Cluster,
    io: Handle,
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        // SAFETY: made by rados_ioctx_create; the image that is in it was closed before.
        unsafe { (self.cluster.libraries.rados.rados_ioctx_destroy)(self.io) }
    }
}

/// An open image.
pub(super) struct Image<'a> {
    pool: Pool<'a>,
    handle: Handle,
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        // SAFETY: made by rbd_open_read_only or rbd_open. The pool is dropped after this. A failure leaves nothing to be done.
        unsafe { (self.rbd().rbd_close)(self.handle) };
    }
}

/// Who holds an image's lock, in Ceph's words.
pub(super) struct Holder {
    pub(super) client: String,
    pub(super) cookie: String,
    pub(super) address: String,
}

impl Image<'_> {
    fn rbd(&self) -> &'static Rbd {
        &self.pool.cluster.libraries.rbd
    }

    /// The addresses of those who have it open for writing.
    pub(super) fn watchers(&self) -> Result<Vec<String>, Fault> {
        let mut room = 8;
        loop {
            let mut watchers: Vec<Watcher> = Vec::new();
            watchers.resize_with(room, || Watcher { addr: ptr::null_mut(), id: 0, cookie: 0 });
            let mut count = room;
            // SAFETY: an open image; room for `count` watchers.
            let answer =
                unsafe { (self.rbd().rbd_watchers_list)(self.handle, watchers.as_mut_ptr(), &raw mut count) };
            if answer == -libc::ERANGE && count > room && count <= MOST_CLIENTS {
                room = count;
                continue;
            }
            check("listing watchers", answer)?;
            watchers.truncate(count);
            // SAFETY: librbd filled these; each address is C text until the clean-up.
            let texts = watchers.iter().map(|watcher| unsafe { text(watcher.addr) }).collect();
            // SAFETY: what librbd filled, once.
            unsafe { (self.rbd().rbd_watchers_list_cleanup)(watchers.as_mut_ptr(), watchers.len()) };
            return Ok(texts);
        }
    }

    /// Who holds its lock.
    pub(super) fn holders(&self) -> Result<Vec<Holder>, Fault> {
        let mut room = [1024; 4];
        loop {
            let mut buffers = room.map(|length| vec![0_u8; length]);
            let [tag, clients, cookies, addresses] =
                buffers.each_mut().map(|buffer| buffer.as_mut_ptr().cast::<c_char>());
            let [mut tag_len, mut clients_len, mut cookies_len, mut addresses_len] = room;
            let mut exclusive = 0;
            // SAFETY: an open image; four buffers that are as long as is said.
            let answer = unsafe {
                (self.rbd().rbd_list_lockers)(
                    self.handle,
                    &raw mut exclusive,
                    tag,
                    &raw mut tag_len,
                    clients,
                    &raw mut clients_len,
                    cookies,
                    &raw mut cookies_len,
                    addresses,
                    &raw mut addresses_len,
                )
            };
            let needed = [tag_len, clients_len, cookies_len, addresses_len];
            let larger = needed.iter().zip(room).any(|(needed, had)| *needed > had);
            if answer == -(libc::ERANGE as isize) && larger && needed.iter().all(|n| *n <= MOST_TEXT) {
                room = needed.map(|length| length.max(1));
                continue;
            }
            let count = check("listing locks", c_int::try_from(answer).unwrap_or(c_int::MIN))?;
            let texts = |buffer: &[u8]| -> Vec<String> {
                let parts = buffer.split(|byte| *byte == 0);
                parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
            };
            let [_, clients, cookies, addresses] = buffers.each_ref().map(|buffer| texts(buffer));
            let all = clients.into_iter().zip(cookies).zip(addresses);
            let holders = all.map(|((client, cookie), address)| Holder { client, cookie, address });
            return Ok(holders.take(usize::try_from(count).unwrap_or(0)).collect());
        }
    }

    /// Takes the lock from its holder. That it is not held any more is success.
    pub(super) fn break_lock(&self, client: &str, cookie: &str) -> Result<(), Fault> {
        let (client, cookie) = (c_text(client)?, c_text(cookie)?);
        // SAFETY: an open image; both texts live until the call returns.
        let answer = unsafe { (self.rbd().rbd_break_lock)(self.handle, client.as_ptr(), cookie.as_ptr()) };
        if answer == -ENOENT {
            return Ok(());
        }
        check("breaking a lock", answer).map(drop)
    }
}

fn check(call: &str, answer: c_int) -> Result<c_int, Fault> {
    if answer >= 0 {
        return Ok(answer);
    }
    let errno = answer.checked_neg().unwrap_or(libc::EIO);
    let why = std::io::Error::from_raw_os_error(errno).to_string();
    Err(Fault { call: call.to_owned(), errno, why })
}

fn c_text(text: &str) -> Result<CString, Fault> {
    CString::new(text).map_err(|_| Fault::ours("a call", "a text contains a NUL"))
}

/// A copy of C text; empty if there is none.
///
/// # Safety
/// `raw` is null or C text.
unsafe fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise, and not null here.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
