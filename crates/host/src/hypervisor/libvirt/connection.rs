//! One connection to libvirt, and the domains seen through it, in safe words.
//!
//! Every method blocks, for as long as libvirt likes: deadlines are the caller's business (see `calls`).
#![allow(unsafe_code, reason = "calls the C interface of libvirt")]

mod execution;
mod kept;
mod migration;
mod stream;

use std::{
    ffi::{CStr, CString, c_int, c_uint},
    ptr::{self, NonNull},
    sync::Arc,
    time::Duration,
};

use pvc_core::model::VmId;
use uuid::Uuid;

pub(super) use stream::{Read, Stream};

use super::{
    super::{Activity, Halt, Seen, Version, Versions},
    ffi::{self, VirConnect, VirDomain, VirDomainInfo},
    library::{Fault, Libvirt, text},
    watch::{Callbacks, Observer},
};

/// An open connection.
pub(super) struct Connection {
    libvirt: Libvirt,
    raw: NonNull<VirConnect>,
    callbacks: Callbacks,
}

// SAFETY: libvirt's connections may be used from any thread, several at once; errors are per thread.
unsafe impl Send for Connection {}
// SAFETY: as above.
unsafe impl Sync for Connection {}

impl Connection {
    /// Opens `uri` and has the other side probed every `probe`: after three unanswered probes it counts as dead.
    pub(super) fn open(libvirt: Libvirt, uri: &CStr, probe: Duration) -> Result<Self, Fault> {
        let api = libvirt.0;
        // SAFETY: `uri` is C text; the answer is null or a connection that is ours to close.
        let raw =
            NonNull::new(unsafe { (api.virConnectOpen)(uri.as_ptr()) }).ok_or_else(|| libvirt.fault())?;
        let interval = c_int::try_from(probe.as_secs()).unwrap_or(c_int::MAX).max(1);
        // The drivers without a daemon behind them (test:///) refuse keepalives and need none.
        // SAFETY: `raw` is open.
        unsafe { (api.virConnectSetKeepAlive)(raw.as_ptr(), interval, 3) };
        Ok(Self { libvirt, raw, callbacks: Callbacks::default() })
    }

    /// Subscribes `observer` to the fate of domains and of the connection.
    pub(super) fn watch(&mut self, observer: Arc<dyn Observer>) -> Result<(), Fault> {
        // SAFETY: open until dropped, and `drop` deregisters first.
        unsafe { self.callbacks.register(self.libvirt, self.raw.as_ptr(), observer) }?;
        if !self.is_alive() {
            return Err(Fault::ours("the connection was lost while it was being set up".into()));
        }
        Ok(())
    }

    /// Whether the transport still stands, without asking the other side.
    pub(super) fn is_alive(&self) -> bool {
        // SAFETY: open until dropped.
        unsafe { (self.libvirt.0.virConnectIsAlive)(self.raw.as_ptr()) != 0 }
    }

    /// What the daemon and its QEMU are.
    pub(super) fn versions(&self) -> Result<Versions, Fault> {
        let (mut libvirt, mut qemu) = (0, 0);
        // SAFETY: both write one number.
        unsafe {
            self.libvirt
                .check((self.libvirt.0.virConnectGetLibVersion)(self.raw.as_ptr(), &raw mut libvirt))?;
            self.libvirt.check((self.libvirt.0.virConnectGetVersion)(self.raw.as_ptr(), &raw mut qemu))?;
        }
        Ok(Versions { libvirt: Version(libvirt), qemu: Version(qemu) })
    }

    /// All active domains.
    pub(super) fn active(&self) -> Result<Vec<Seen>, Fault> {
        let domains = self.list(ffi::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
        let seen: Result<Vec<Option<Seen>>, Fault> = domains.iter().map(Domain::seen).collect();
        Ok(seen?.into_iter().flatten().collect())
    }

    /// All domains of a kind.
    fn list(&self, kind: c_uint) -> Result<Vec<Domain<'_>>, Fault> {
        let mut array: *mut *mut VirDomain = ptr::null_mut();
        // SAFETY: on success `array` holds that many domains, all ours, and is ours to free.
        unsafe {
            let answer = (self.libvirt.0.virConnectListAllDomains)(self.raw.as_ptr(), &raw mut array, kind);
            let count = usize::try_from(self.libvirt.check(answer)?).unwrap_or(0);
            let domains = (0..count).filter_map(|i| self.own(*array.add(i))).collect();
            libc::free(array.cast());
            Ok(domains)
        }
    }

    /// A domain that libvirt knows, active or not.
    pub(super) fn lookup(&self, id: VmId) -> Result<Option<Domain<'_>>, Fault> {
        // SAFETY: the UUID has the 16 bytes that libvirt reads; the answer is null or ours.
        let found = unsafe {
            self.own((self.libvirt.0.virDomainLookupByUUID)(self.raw.as_ptr(), id.uuid().as_bytes().as_ptr()))
        };
        if found.is_some() {
            return Ok(found);
        }
        let fault = self.libvirt.fault();
        if fault.is_no_domain() { Ok(None) } else { Err(fault) }
    }

    /// Creates a transient domain that does not execute.
    pub(super) fn create(&self, xml: &str) -> Result<Domain<'_>, Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::ours("the definition contains a NUL byte".into()))?;
        // SAFETY: `xml` is C text; the answer is null or ours.
        let domain = unsafe {
            self.own((self.libvirt.0.virDomainCreateXML)(
                self.raw.as_ptr(),
                xml.as_ptr(),
                ffi::VIR_DOMAIN_START_PAUSED,
            ))
        };
        domain.ok_or_else(|| self.libvirt.fault())
    }

    /// Has libvirt build the command line of a guest that it does not start.
    pub(super) fn try_command_line(&self, xml: &str) -> Result<(), Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::ours("the definition contains a NUL byte".into()))?;
        // SAFETY: both are C text; the answer is null or text that is ours to free.
        unsafe {
            let line = (self.libvirt.0.virConnectDomainXMLToNative)(
                self.raw.as_ptr(),
                c"qemu-argv".as_ptr(),
                xml.as_ptr(),
                0,
            );
            if line.is_null() {
                return Err(self.libvirt.fault());
            }
            libc::free(line.cast());
        }
        Ok(())
    }

    /// # Safety
    /// `raw` is null or a domain of this connection whose reference becomes the answer's.
    unsafe fn own(&self, raw: *mut VirDomain) -> Option<Domain<'_>> {
        Some(Domain { connection: self, raw: NonNull::new(raw)? })
    }
}

impl Drop for Connection {
    /// Blocks like every other call. Callbacks hold references of their own and have to go first.
    fn drop(&mut self) {
        // SAFETY: open until here, never used again; errors change nothing, the reference is gone in any case.
        unsafe {
            self.callbacks.deregister(self.libvirt, self.raw.as_ptr());
            (self.libvirt.0.virConnectClose)(self.raw.as_ptr());
        }
    }
}

/// A domain as libvirt handed it out.
pub(super) struct Domain<'a> {
    connection: &'a Connection,
    raw: NonNull<VirDomain>,
}

impl Domain<'_> {
    /// Whether it was active when libvirt handed it out.
    pub(super) fn was_active(&self) -> bool {
        // SAFETY: alive until dropped.
        unsafe { (self.connection.libvirt.0.virDomainGetID)(self.raw.as_ptr()) != u32::MAX }
    }

    fn id(&self) -> Result<VmId, Fault> {
        let mut uuid = [0_u8; 16];
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped; libvirt fills the 16 bytes.
        libvirt.check(unsafe { (libvirt.0.virDomainGetUUID)(self.raw.as_ptr(), uuid.as_mut_ptr()) })?;
        Ok(VmId::from(Uuid::from_bytes(uuid)))
    }

    /// What it is doing, or `None` if it is not active.
    pub(super) fn seen(&self) -> Result<Option<Seen>, Fault> {
        if !self.was_active() {
            return Ok(None);
        }
        let (libvirt, mut info, id) = (self.connection.libvirt, VirDomainInfo::default(), self.id()?);
        // SAFETY: `info` is of the type that libvirt fills; the name lives as long as `self`.
        let (got_info, name) = unsafe {
            let name = text((libvirt.0.virDomainGetName)(self.raw.as_ptr())).unwrap_or_default();
            (libvirt.check((libvirt.0.virDomainGetInfo)(self.raw.as_ptr(), &raw mut info)), name)
        };
        match got_info {
            Ok(_) => Ok(Some(Seen {
                id,
                name,
                activity: match info.state {
                    ffi::VIR_DOMAIN_PAUSED => self.pause()?,
                    state => activity(state),
                },
                memory_mib: info.max_mem.div_ceil(1024),
                vcpus: info.nr_virt_cpu.into(),
            })),
            // It ended between the two questions.
            Err(fault) if fault.is_no_domain() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Presses the power button. Goes through QEMU's monitor: waits for as long as the guest's process hangs.
    pub(super) fn press_power_button(&self) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        let answer = unsafe {
            (libvirt.0.virDomainShutdownFlags)(self.raw.as_ptr(), ffi::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        };
        libvirt.check(answer).map(drop)
    }

    /// Ends its process: SIGTERM, after 10 s SIGKILL, and waits until it is gone.
    pub(super) fn destroy(&self) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        libvirt.check(unsafe { (libvirt.0.virDomainDestroy)(self.raw.as_ptr()) }).map(drop)
    }
}

impl Drop for Domain<'_> {
    fn drop(&mut self) {
        // SAFETY: the reference is ours and not used again.
        unsafe { (self.connection.libvirt.0.virDomainFree)(self.raw.as_ptr()) };
    }
}

fn activity(state: u8) -> Activity {
    match state {
        ffi::VIR_DOMAIN_PAUSED => Activity::Halted(Halt::Paused),
        ffi::VIR_DOMAIN_PMSUSPENDED => Activity::Halted(Halt::Asleep),
        ffi::VIR_DOMAIN_SHUTDOWN => Activity::ShuttingDown,
        ffi::VIR_DOMAIN_CRASHED => Activity::Halted(Halt::Crashed),
        // An active domain in any other state executes, or blocks on I/O.
        _ => Activity::Running,
    }
}
