//! Changes that take as long as an image is large, and say how far they are.
#![allow(unsafe_code, reason = "calls the C interfaces of Ceph")]

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use super::{super::Progress, Cluster, ENOENT, Fault, Image, c_text, check};

/// What the libraries call.
///
/// # Safety
/// `progress` points to a living [`Progress`].
unsafe extern "C" fn told(done: u64, of: u64, progress: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let progress = unsafe { &*progress.cast::<Progress>() };
    progress.tell(done, of);
    0
}

/// What is given to [`told`]. The libraries call it until the call that it is given to returns.
fn listener(progress: &Progress) -> *mut c_void {
    ptr::from_ref(progress).cast_mut().cast()
}

impl Cluster {
    /// Also finishes a removal that was begun.
    pub(in super::super) fn remove_image(
        &self,
        pool: &str,
        image: &str,
        progress: &Progress,
    ) -> Result<(), Fault> {
        let (pool, image) = (self.pool_there(pool)?, c_text(image)?);
        // SAFETY: a living pool; the text and the listener live until the call returns.
        let made = unsafe {
            (self.libraries.rbd.rbd_remove_with_progress)(pool.io, image.as_ptr(), told, listener(progress))
        };
        check("removing an image", made).map(drop)
    }

    /// Opens a snapshot to look at it; `None` if there is none, or no such image or pool.
    pub(in super::super) fn open_snapshot(
        &self,
        pool: &str,
        image: &str,
        snapshot: &str,
    ) -> Result<Option<Image<'_>>, Fault> {
        let Some(pool) = self.pool(pool)? else { return Ok(None) };
        let (name, snapshot, mut handle) = (c_text(image)?, c_text(snapshot)?, ptr::null_mut());
        // SAFETY: a living pool; both texts live until the call returns; a place to write to.
        let opened = unsafe {
            (self.libraries.rbd.rbd_open_read_only)(
                pool.io,
                name.as_ptr(),
                &raw mut handle,
                snapshot.as_ptr(),
            )
        };
        if opened == -ENOENT {
            return Ok(None);
        }
        check("opening a snapshot", opened)?;
        Ok(Some(Image { pool, handle }))
    }
}

impl Image<'_> {
    pub(in super::super) fn resize(&self, size: u64, progress: &Progress) -> Result<(), Fault> {
        // SAFETY: an open image; the listener lives until the call returns.
        let made =
            unsafe { (self.rbd().rbd_resize_with_progress)(self.handle, size, told, listener(progress)) };
        check("resizing an image", made).map(drop)
    }

    /// Writes all that this holds, the snapshot that it was opened at, to an image of the same size that holds nothing yet.
    pub(in super::super) fn copy_to(&self, to: &Image<'_>, progress: &Progress) -> Result<(), Fault> {
        // SAFETY: two open images; the listener lives until the call returns.
        let made =
            unsafe { (self.rbd().rbd_copy_with_progress2)(self.handle, to.handle, told, listener(progress)) };
        check("copying an image", made).map(drop)
    }

    /// Writes what a snapshot holds over all that the image holds, and gives it that size.
    pub(in super::super) fn roll_back(&self, snapshot: &str, progress: &Progress) -> Result<(), Fault> {
        let snapshot = c_text(snapshot)?;
        // SAFETY: an open image; the text and the listener live until the call returns.
        let made = unsafe {
            (self.rbd().rbd_snap_rollback_with_progress)(
                self.handle,
                snapshot.as_ptr(),
                told,
                listener(progress),
            )
        };
        check("rolling an image back", made).map(drop)
    }
}
