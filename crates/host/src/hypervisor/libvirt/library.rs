//! The loaded library: its event thread, its errors.
//!
//! libvirt keeps the error of a thread's last call for that thread, so whoever calls reads it at once.
#![allow(unsafe_code, reason = "calls the C interface of libvirt")]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::ffi::{self, Api, LibraryError, VirError};

/// The loaded library, ready for connections.
#[derive(Clone, Copy)]
pub(super) struct Libvirt(pub(super) &'static Api);

impl Libvirt {
    /// Loads the library and starts its event thread, of which a process has one, for ever.
    pub(super) fn load(path: &str) -> Result<Self, LibraryError> {
        static EVENT_THREAD: Mutex<bool> = Mutex::new(false);
        let this =
            Self(Box::leak(Box::new(Api::load(path).map_err(|error| LibraryError::new(path, error))?)));
        let mut running = EVENT_THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        if !*running {
            this.initialise().map_err(|fault| LibraryError::Initialise(fault.message))?;
            let thread = std::thread::Builder::new().name("libvirt-events".into()).stack_size(STACK);
            thread.spawn(move || run_events(this.0)).map_err(LibraryError::EventThread)?;
            *running = true;
        }
        Ok(this)
    }

    fn initialise(self) -> Result<(), Fault> {
        // SAFETY: no preconditions; the event implementation is registered before the first connection.
        unsafe {
            self.check((self.0.virInitialize)())?;
            (self.0.virSetErrorFunc)(ptr::null_mut(), Some(say_nothing));
            self.check((self.0.virEventRegisterDefaultImpl)())?;
        }
        Ok(())
    }

    /// The error of this thread's last call.
    pub(super) fn fault(self) -> Fault {
        // SAFETY: answers null or an error that lives until this thread's next call; its message is null or C text.
        unsafe {
            match (self.0.virGetLastError)().as_ref() {
                Some(VirError { code, domain, message }) => Fault {
                    code: *code,
                    domain: *domain,
                    message: text(*message).unwrap_or_else(|| format!("error {code} without a text")),
                },
                None => Fault::ours("failed without giving a reason".into()),
            }
        }
    }

    /// A negative answer is a failure.
    pub(super) fn check(self, answer: c_int) -> Result<c_int, Fault> {
        if answer < 0 { Err(self.fault()) } else { Ok(answer) }
    }
}

/// Enough for libvirt's and glib's frames; the default of 2 MiB would only be address space, but per thread.
pub(super) const STACK: usize = 512 * 1024;

fn run_events(api: &Api) {
    loop {
        // SAFETY: the default implementation was registered before this thread started.
        if unsafe { (api.virEventRunDefaultImpl)() } < 0 {
            tracing::error!("libvirt's event loop failed once; going on");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// libvirt prints errors to stderr unless given something better: each reaches us as a `Fault` anyway.
unsafe extern "C" fn say_nothing(_: *mut c_void, _: *mut VirError) {}

/// What libvirt said when it could not.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    code: c_int,
    domain: c_int,
    pub(super) message: String,
}

impl Fault {
    /// An error of our own.
    pub(super) fn ours(message: String) -> Self {
        Self { code: -1, domain: -1, message }
    }

    /// The domain has no such metadata.
    pub(super) fn is_unsupported(&self) -> bool {
        self.code == ffi::VIR_ERR_NO_SUPPORT
    }

    pub(super) fn is_no_metadata(&self) -> bool {
        self.code == ffi::VIR_ERR_NO_DOMAIN_METADATA
    }

    /// The other side cannot be reached.
    pub(super) fn transport(message: String) -> Self {
        Self { code: ffi::VIR_ERR_NO_CONNECT, domain: ffi::VIR_FROM_RPC, message }
    }

    /// What was asked for makes no sense for a domain in this state: libvirt has said so in two ways over the years.
    pub(super) fn is_out_of_place(&self) -> bool {
        matches!(self.code, ffi::VIR_ERR_OPERATION_INVALID | ffi::VIR_ERR_OPERATION_UNSUPPORTED)
    }

    /// It cannot use the definition, and so could no other node. What a machine lacks, or its QEMU, is told in other numbers.
    pub(super) fn is_definition(&self) -> bool {
        let numbers = [
            ffi::VIR_ERR_XML_ERROR,
            ffi::VIR_ERR_XML_DETAIL,
            ffi::VIR_ERR_NO_NAME,
            ffi::VIR_ERR_NO_OS,
            ffi::VIR_ERR_OS_TYPE,
        ];
        numbers.contains(&self.code)
    }

    /// This machine, or its QEMU, cannot do what the definition asks for.
    pub(super) fn is_incapable(&self) -> bool {
        matches!(self.code, ffi::VIR_ERR_CONFIG_UNSUPPORTED | ffi::VIR_ERR_CPU_INCOMPATIBLE)
    }

    /// There is no such domain.
    pub(super) fn is_no_domain(&self) -> bool {
        self.code == ffi::VIR_ERR_NO_DOMAIN
    }

    /// The last run of the domain has ended and libvirtd is still tidying up after it. There is no number for this; the
    /// text is not translated, since we choose no locale.
    pub(super) fn is_being_removed(&self) -> bool {
        self.message.ends_with("is already being removed")
    }

    /// Somebody else has the console open. libvirt has no number for this either.
    pub(super) fn is_console_in_use(&self) -> bool {
        self.message.contains("console session exists")
    }

    /// The domain's process is being made, and its console is not there yet.
    pub(super) fn is_console_to_come(&self) -> bool {
        self.message.contains("PTY device is not yet assigned")
    }

    /// The transport failed, as opposed to a daemon that answered "no".
    pub(super) fn is_connection(&self) -> bool {
        matches!(self.domain, ffi::VIR_FROM_RPC | ffi::VIR_FROM_REMOTE)
            || matches!(self.code, ffi::VIR_ERR_NO_CONNECT | ffi::VIR_ERR_INVALID_CONN)
    }
}

/// A copy of C text.
///
/// # Safety
/// `raw` is null or C text.
pub(super) unsafe fn text(raw: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise, and not null here.
    (!raw.is_null()).then(|| unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned())
}
