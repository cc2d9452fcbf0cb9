//! What is noted at an image's header, so that it goes where the image goes, and with it: who changes it, and for which task it was changed.
#![allow(unsafe_code, reason = "calls the C interfaces of Ceph")]

use std::ffi::{CStr, c_char};

use super::{Fault, Image, c_text, check};

/// Who changed it last.
const CHANGER: &CStr = c"pvc.changer";
/// See [`Image::mark`].
const MARK: &CStr = c"pvc.task";
/// More bytes than a note has.
const LONGEST: usize = 128;

impl Image<'_> {
    /// Writes at it who changes it.
    pub(in super::super) fn set_changer(&self, client: &str) -> Result<(), Fault> {
        self.note(CHANGER, client)
    }

    /// Who changed it last.
    pub(in super::super) fn changer(&self) -> Result<Option<String>, Fault> {
        self.noted(CHANGER)
    }

    /// What a task that changes it in several steps has written at it.
    pub(in super::super) fn mark(&self) -> Result<Option<String>, Fault> {
        self.noted(MARK)
    }

    pub(in super::super) fn set_mark(&self, mark: &str) -> Result<(), Fault> {
        self.note(MARK, mark)
    }

    fn note(&self, name: &CStr, value: &str) -> Result<(), Fault> {
        let Some(header) = self.header()? else { return Ok(()) };
        let value = c_text(value)?;
        let length = value.as_bytes().len();
        // SAFETY: a living pool; three texts that live until the call returns, the last as long as is said.
        let set = unsafe {
            (self.rados().rados_setxattr)(
                self.pool.io,
                header.as_ptr(),
                name.as_ptr(),
                value.as_ptr(),
                length,
            )
        };
        check("writing a note at an image", set).map(drop)
    }

    fn noted(&self, name: &CStr) -> Result<Option<String>, Fault> {
        let Some(header) = self.header()? else { return Ok(None) };
        let mut value = [0_u8; LONGEST];
        // SAFETY: a living pool; two texts that live until the call returns; room for as many bytes as is said.
        let answer = unsafe {
            (self.rados().rados_getxattr)(
                self.pool.io,
                header.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast::<c_char>(),
                value.len(),
            )
        };
        if answer == -libc::ENODATA {
            return Ok(None);
        }
        let length = check("reading a note at an image", answer)?;
        let value = value.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(value).into_owned()))
    }
}
