//! Whether a domain executes, and letting it.
//!
//! A start makes the process without letting it execute, and lets it execute in a second call. So a request that libvirtd executes long
//! after it was given up (frozen, overloaded) makes a process at most. Until the second call the domain bears a mark in its
//! metadata, since libvirt says "paused by somebody's command" of it as well as of a guest that an operator has paused. For the same reason
//! a guest bears a mark while a migration brings it: it arrives paused.

use std::{
    ffi::{CStr, CString, c_int},
    ptr,
};

use pvc_core::model::{ARRIVING, Suspension, UNSTARTED};

use super::{
    super::{
        super::{Activity, Halt},
        ffi,
        library::Fault,
    },
    Domain,
};

/// What a paused domain may bear.
const MARKS: [&str; 4] = [UNSTARTED, ARRIVING, Suspension::Elsewhere.mark(), Suspension::Unread.mark()];

impl Domain<'_> {
    /// Lets it execute for the first time. What says that it never has is gone before that, and it counts as suspended meanwhile: whoever finds it
    /// half done lets it go on, and ends nothing that may have executed.
    pub(in super::super) fn begin(&self) -> Result<(), Fault> {
        let suspended = Suspension::Elsewhere.mark();
        self.set_mark(suspended, Some(c"<suspended/>"))?;
        self.set_mark(UNSTARTED, None)?;
        self.resume(suspended)
    }

    /// It executes, whoever has let it go: none of the marks says so any more.
    pub(in super::super) fn unmark(&self) -> Result<(), Fault> {
        for mark in MARKS {
            if self.is_marked(mark)? {
                self.set_mark(mark, None)?;
            }
        }
        Ok(())
    }

    /// Whether one of them would say that it was held if somebody paused it now.
    pub(in super::super) fn is_marked_as_held(&self) -> Result<bool, Fault> {
        for mark in MARKS {
            if self.is_marked(mark)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stops it from executing, with a mark that says who did and why.
    pub(in super::super) fn suspend(&self, why: Suspension) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        // What is left of earlier marks would say that nothing is lost with it.
        self.unmark()?;
        // First the mark: nobody would let a guest go on that was stopped without it.
        self.set_mark(why.mark(), Some(c"<suspended/>"))?;
        // SAFETY: alive until dropped.
        libvirt.check(unsafe { (libvirt.0.virDomainSuspend)(self.raw.as_ptr()) })?;
        // Somebody who saw it execute just before that may have taken the mark away.
        self.set_mark(why.mark(), Some(c"<suspended/>"))
    }

    /// Lets it execute again.
    pub(in super::super) fn end_suspension(&self, why: Suspension) -> Result<(), Fault> {
        self.resume(why.mark())
    }

    /// Lets it go on where a migration has left it or brought it.
    pub(in super::super) fn go_on(&self) -> Result<(), Fault> {
        self.resume(ARRIVING)
    }

    fn resume(&self, mark: &str) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        libvirt.check(unsafe { (libvirt.0.virDomainResume)(self.raw.as_ptr()) })?;
        // It executes, whatever becomes of the mark: one that stays is taken away when it is seen to execute.
        let _ = self.set_mark(mark, None);
        Ok(())
    }

    /// What it is doing, or `None` if it is not active.
    pub(in super::super) fn activity(&self) -> Result<Option<Activity>, Fault> {
        Ok(self.seen()?.map(|seen| seen.activity))
    }

    /// Why a paused domain is paused.
    pub(super) fn pause(&self) -> Result<Activity, Fault> {
        let (state, reason) = self.state()?;
        if state != ffi::VIR_DOMAIN_PAUSED {
            return Ok(super::activity(state));
        }
        Ok(match reason {
            ffi::VIR_DOMAIN_PAUSED_MIGRATION => Activity::Held,
            // Its process is being made ready for what a migration will bring.
            ffi::VIR_DOMAIN_PAUSED_STARTING_UP if self.is_marked(ARRIVING)? => Activity::Held,
            ffi::VIR_DOMAIN_PAUSED_STARTING_UP if self.is_marked(UNSTARTED)? => Activity::Unstarted,
            ffi::VIR_DOMAIN_PAUSED_UNKNOWN | ffi::VIR_DOMAIN_PAUSED_USER => {
                if self.is_marked(ARRIVING)? {
                    Activity::Arrived
                } else if self.is_marked(UNSTARTED)? {
                    Activity::Unstarted
                } else if self.is_marked(Suspension::Elsewhere.mark())? {
                    Activity::Suspended(Suspension::Elsewhere)
                } else if self.is_marked(Suspension::Unread.mark())? {
                    Activity::Suspended(Suspension::Unread)
                } else {
                    // A mark is taken away when its guest has gone on, which may have been between the two looks.
                    super::activity(self.state()?.0)
                }
            }
            ffi::VIR_DOMAIN_PAUSED_IOERROR => Activity::Halted(Halt::IoError),
            ffi::VIR_DOMAIN_PAUSED_WATCHDOG => Activity::Halted(Halt::Watchdog),
            ffi::VIR_DOMAIN_PAUSED_CRASHED => Activity::Halted(Halt::Crashed),
            ffi::VIR_DOMAIN_PAUSED_SHUTTING_DOWN => Activity::ShuttingDown,
            ffi::VIR_DOMAIN_PAUSED_SAVE
            | ffi::VIR_DOMAIN_PAUSED_DUMP
            | ffi::VIR_DOMAIN_PAUSED_SNAPSHOT
            | ffi::VIR_DOMAIN_PAUSED_STARTING_UP => Activity::Halted(Halt::Busy),
            _ => Activity::Halted(Halt::Paused),
        })
    }

    /// libvirt's state and its reason.
    fn state(&self) -> Result<(u8, c_int), Fault> {
        let (libvirt, mut state, mut reason): (_, c_int, c_int) = (self.connection.libvirt, 0, 0);
        // SAFETY: alive until dropped; libvirt fills both numbers.
        libvirt.check(unsafe {
            (libvirt.0.virDomainGetState)(self.raw.as_ptr(), &raw mut state, &raw mut reason, 0)
        })?;
        Ok((u8::try_from(state).unwrap_or(ffi::VIR_DOMAIN_PAUSED), reason))
    }

    fn is_marked(&self, mark: &str) -> Result<bool, Fault> {
        let libvirt = self.connection.libvirt;
        let uri = uri(mark)?;
        // SAFETY: alive until dropped; the URI is C text; the answer is null or ours to free.
        let text = unsafe {
            (libvirt.0.virDomainGetMetadata)(
                self.raw.as_ptr(),
                ffi::VIR_DOMAIN_METADATA_ELEMENT,
                uri.as_ptr(),
                ffi::VIR_DOMAIN_AFFECT_LIVE,
            )
        };
        if text.is_null() {
            let fault = libvirt.fault();
            return if fault.is_no_metadata() { Ok(false) } else { Err(fault) };
        }
        // SAFETY: ours, from libvirt's allocator, which is the C library's.
        unsafe { libc::free(text.cast()) };
        Ok(true)
    }

    fn set_mark(&self, mark: &str, element: Option<&CStr>) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        let uri = uri(mark)?;
        // SAFETY: alive until dropped; all texts are C text; a null element removes what has that URI, and needs no key.
        let answer = unsafe {
            (libvirt.0.virDomainSetMetadata)(
                self.raw.as_ptr(),
                ffi::VIR_DOMAIN_METADATA_ELEMENT,
                element.map_or(ptr::null(), CStr::as_ptr),
                c"pvc".as_ptr(),
                uri.as_ptr(),
                ffi::VIR_DOMAIN_AFFECT_LIVE,
            )
        };
        libvirt.check(answer).map(drop)
    }
}

fn uri(mark: &str) -> Result<CString, Fault> {
    CString::new(mark).map_err(|_| Fault::ours("a NUL byte in a name of our own".into()))
}
