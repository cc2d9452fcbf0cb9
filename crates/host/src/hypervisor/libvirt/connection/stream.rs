//! A guest's console as libvirt hands it out, in safe words. Nothing here waits for the guest, only, as everything here, for libvirt.

use std::{
    ffi::{c_int, c_void},
    os::fd::{FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
};

use super::{
    super::{
        ffi::{self, VirStream},
        library::{Fault, text},
    },
    Connection, Domain,
};

/// Told on libvirt's event thread that a stream may have something, or may take something: must not block.
pub(in super::super) type Stir = Box<dyn Fn() + Send + Sync>;

/// A console. Dropping it closes it.
pub(in super::super) struct Stream<'c> {
    connection: &'c Connection,
    raw: NonNull<VirStream>,
    is_watched: bool,
    has_ended: bool,
}

/// What became of a try to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// There will be nothing more.
    End,
}

impl<'c> Domain<'c> {
    /// Opens its first console.
    pub(in super::super) fn open_console(&self, is_taken: bool) -> Result<Stream<'c>, Fault> {
        let (connection, libvirt) = (self.connection, self.connection.libvirt);
        // SAFETY: the connection is open; the answer is null or a stream that is ours to free.
        let raw = unsafe { (libvirt.0.virStreamNew)(connection.raw.as_ptr(), ffi::VIR_STREAM_NONBLOCK) };
        let raw = NonNull::new(raw).ok_or_else(|| libvirt.fault())?;
        let mut stream = Stream { connection, raw, is_watched: false, has_ended: true };
        // Two clients on one console would each get a part of what is printed: refused, unless the other is to lose it.
        let force = if is_taken { ffi::VIR_DOMAIN_CONSOLE_FORCE } else { 0 };
        let flags = ffi::VIR_DOMAIN_CONSOLE_SAFE | force;
        // SAFETY: domain and stream are alive; without a name it is the first console, else the first serial port.
        let answer =
            unsafe { (libvirt.0.virDomainOpenConsole)(self.raw.as_ptr(), ptr::null(), raw.as_ptr(), flags) };
        libvirt.check(answer)?;
        stream.has_ended = false;
        Ok(stream)
    }

    /// Has QEMU show this of its displays on a socket, whose other end this is.
    pub(in super::super) fn open_graphics(&self, number: u32) -> Result<OwnedFd, Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        let raw = unsafe { (libvirt.0.virDomainOpenGraphicsFD)(self.raw.as_ptr(), number, 0) };
        let raw = libvirt.check(raw)?;
        // SAFETY: open, and ours alone: libvirt has made it for this call.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// Its definition as it executes.
    pub(in super::super) fn active_definition(&self) -> Result<String, Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped; the answer is null or C text that is ours, from libvirt's allocator, which is the C library's.
        let xml = unsafe {
            let raw = (libvirt.0.virDomainGetXMLDesc)(self.raw.as_ptr(), 0);
            let xml = text(raw);
            libc::free(raw.cast());
            xml
        };
        xml.ok_or_else(|| libvirt.fault())
    }
}

impl Stream<'_> {
    /// Has `stir` told once, when there is something to read or it has ended; again after each [`arm`](Self::arm).
    pub(in super::super) fn watch(&mut self, stir: Stir) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        let update = libvirt.0.virStreamEventUpdateCallback;
        let opaque = Box::into_raw(Box::new(Watch { stir, update }));
        // SAFETY: the stream is alive; `opaque` stays valid until libvirt calls `free_watch` on it, once.
        let answer = unsafe {
            (libvirt.0.virStreamEventAddCallback)(
                self.raw.as_ptr(),
                READING,
                on_stream,
                opaque.cast(),
                Some(free_watch),
            )
        };
        if answer < 0 {
            // SAFETY: libvirt did not take it.
            drop(unsafe { Box::from_raw(opaque) });
            return Err(libvirt.fault());
        }
        self.is_watched = true;
        Ok(())
    }

    /// From now on `stir` is told again, once; if `writing`, also when something can be written.
    pub(in super::super) fn arm(&self, writing: bool) -> Result<(), Fault> {
        let events = READING | if writing { ffi::VIR_STREAM_EVENT_WRITABLE } else { 0 };
        let libvirt = self.connection.libvirt;
        // SAFETY: the stream is alive.
        let answer = unsafe { (libvirt.0.virStreamEventUpdateCallback)(self.raw.as_ptr(), events) };
        libvirt.check(answer).map(drop)
    }

    /// Reads what is there.
    pub(in super::super) fn read(&mut self, into: &mut [u8]) -> Result<Read, Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: the stream is alive; libvirt writes at most so many bytes.
        let answer =
            unsafe { (libvirt.0.virStreamRecv)(self.raw.as_ptr(), into.as_mut_ptr().cast(), into.len()) };
        if answer == ffi::WOULD_BLOCK {
            return Ok(Read::Nothing);
        }
        match usize::try_from(libvirt.check(answer)?).unwrap_or(0) {
            0 => Ok(Read::End),
            bytes => Ok(Read::Bytes(bytes)),
        }
    }

    /// Writes what can be written now; how many bytes.
    pub(in super::super) fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: the stream is alive; libvirt reads at most so many bytes.
        let answer =
            unsafe { (libvirt.0.virStreamSend)(self.raw.as_ptr(), bytes.as_ptr().cast(), bytes.len()) };
        if answer == ffi::WOULD_BLOCK {
            return Ok(0);
        }
        Ok(usize::try_from(libvirt.check(answer)?).unwrap_or(0))
    }

    /// Ends it in order, after [`Read::End`].
    pub(in super::super) fn finish(&mut self) {
        self.unwatch();
        if !std::mem::replace(&mut self.has_ended, true) {
            // SAFETY: the stream is alive; whatever the answer, it has ended.
            unsafe { (self.connection.libvirt.0.virStreamFinish)(self.raw.as_ptr()) };
        }
    }

    fn unwatch(&mut self) {
        if std::mem::take(&mut self.is_watched) {
            // SAFETY: the stream is alive and has a callback.
            unsafe { (self.connection.libvirt.0.virStreamEventRemoveCallback)(self.raw.as_ptr()) };
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.unwatch();
        // SAFETY: the stream is alive until here and not used again.
        unsafe {
            if !self.has_ended {
                (self.connection.libvirt.0.virStreamAbort)(self.raw.as_ptr());
            }
            (self.connection.libvirt.0.virStreamFree)(self.raw.as_ptr());
        }
    }
}

const READING: c_int =
    ffi::VIR_STREAM_EVENT_READABLE | ffi::VIR_STREAM_EVENT_ERROR | ffi::VIR_STREAM_EVENT_HANGUP;

/// What the callback finds behind its opaque pointer.
struct Watch {
    stir: Stir,
    update: unsafe extern "C" fn(*mut VirStream, c_int) -> c_int,
}

unsafe extern "C" fn on_stream(stream: *mut VirStream, _: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt passes what was registered, until `free_watch`.
    let watch = unsafe { &*opaque.cast::<Watch>() };
    // What is there to be read would be told again and again until it is read. First this: who is stirred may arm it at once.
    // SAFETY: the stream is the one of the callback; libvirt lets it be changed from within.
    unsafe { (watch.update)(stream, 0) };
    (watch.stir)();
}

unsafe extern "C" fn free_watch(opaque: *mut c_void) {
    // SAFETY: what was registered, which libvirt uses no more.
    drop(unsafe { Box::from_raw(opaque.cast::<Watch>()) });
}
