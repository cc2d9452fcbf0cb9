//! One connection to libvirt, and the domains seen through it, in safe words.
//!
//! Every method blocks, for as long as libvirt likes: deadlines are the caller's business (see `calls`). Callbacks run
//! on libvirt's event thread, so they only pass a word on.
#![allow(unsafe_code, reason = "calls the C interface of libvirt")]

use std::{
    ffi::{CStr, CString, c_int, c_void},
    ptr::{self, NonNull},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_core::model::VmId;
use uuid::Uuid;

use super::{
    super::{Activity, Seen},
    ffi::{self, Api, LibraryError, VirConnect, VirDomain, VirDomainInfo, VirError},
};

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

    /// There is no such domain.
    pub(super) fn is_no_domain(&self) -> bool {
        self.code == ffi::VIR_ERR_NO_DOMAIN
    }

    /// The last run of the domain has ended and libvirtd is still tidying up after it. There is no number for this; the
    /// text is not translated, since we choose no locale.
    pub(super) fn is_being_removed(&self) -> bool {
        self.message.ends_with("is already being removed")
    }

    /// The transport failed, as opposed to a daemon that answered "no".
    pub(super) fn is_connection(&self) -> bool {
        matches!(self.domain, ffi::VIR_FROM_RPC | ffi::VIR_FROM_REMOTE)
            || matches!(self.code, ffi::VIR_ERR_NO_CONNECT | ffi::VIR_ERR_INVALID_CONN)
    }
}

/// Who wants to hear of a connection. Called on libvirt's event thread: must not block.
pub(super) trait Observer: Send + Sync + 'static {
    /// Something happened to this domain.
    fn domain_changed(&self, id: VmId);
    /// The connection is of no more use.
    fn closed(&self, reason: &'static str);
}

/// The loaded library, ready for connections.
#[derive(Clone, Copy)]
pub(super) struct Libvirt(&'static Api);

impl Libvirt {
    /// Loads the library and starts its event thread, of which a process has one, for ever.
    pub(super) fn load(path: &str) -> Result<Self, LibraryError> {
        static EVENT_THREAD: Mutex<bool> = Mutex::new(false);
        let api: &'static Api = Box::leak(Box::new(Api::load(path)?));
        let mut running = EVENT_THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        if !*running {
            // SAFETY: no preconditions; the event implementation is registered before the first connection.
            unsafe {
                (api.virInitialize)();
                (api.virSetErrorFunc)(ptr::null_mut(), Some(say_nothing));
                (api.virEventRegisterDefaultImpl)();
            }
            let thread = std::thread::Builder::new().name("libvirt-events".into()).stack_size(STACK);
            *running = thread.spawn(move || run_events(api)).is_ok();
        }
        Ok(Self(api))
    }

    /// The error of this thread's last call.
    fn fault(self) -> Fault {
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

    fn check(self, answer: c_int) -> Result<c_int, Fault> {
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

/// An open connection.
pub(super) struct Connection {
    libvirt: Libvirt,
    raw: NonNull<VirConnect>,
    watched: bool,
    lifecycle: Option<c_int>,
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
        Ok(Self { libvirt, raw, watched: false, lifecycle: None })
    }

    /// Subscribes `observer` to the fate of domains and of the connection.
    pub(super) fn watch(&mut self, observer: Arc<dyn Observer>) -> Result<(), Fault> {
        let (libvirt, api, raw) = (self.libvirt, self.libvirt.0, self.raw.as_ptr());
        let opaque = Watch::into_opaque(libvirt, observer.clone());
        // SAFETY: `opaque` stays valid until libvirt calls `free_watch` on it, once.
        let answer =
            unsafe { (api.virConnectRegisterCloseCallback)(raw, on_close, opaque, Some(free_watch)) };
        keep(libvirt, answer, opaque)?;
        self.watched = true;

        let opaque = Watch::into_opaque(libvirt, observer);
        // SAFETY: as above; no domain means all of them; `on_lifecycle` has the signature of this event.
        let answer = unsafe {
            (api.virConnectDomainEventRegisterAny)(
                raw,
                ptr::null_mut(),
                ffi::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                on_lifecycle,
                opaque,
                Some(free_watch),
            )
        };
        self.lifecycle = Some(keep(libvirt, answer, opaque)?);
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

    /// All active domains.
    pub(super) fn active(&self) -> Result<Vec<Seen>, Fault> {
        let mut array: *mut *mut VirDomain = ptr::null_mut();
        // SAFETY: on success `array` holds that many domains, all ours, and is ours to free.
        let domains: Vec<Domain<'_>> = unsafe {
            let answer = (self.libvirt.0.virConnectListAllDomains)(
                self.raw.as_ptr(),
                &raw mut array,
                ffi::VIR_CONNECT_LIST_DOMAINS_ACTIVE,
            );
            let count = usize::try_from(self.libvirt.check(answer)?).unwrap_or(0);
            let domains = (0..count).filter_map(|i| self.own(*array.add(i))).collect();
            libc::free(array.cast());
            domains
        };
        let seen: Result<Vec<Option<Seen>>, Fault> = domains.iter().map(Domain::seen).collect();
        Ok(seen?.into_iter().flatten().collect())
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

    /// Creates a transient domain.
    pub(super) fn create(&self, xml: &str) -> Result<(), Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::ours("the definition contains a NUL byte".into()))?;
        // SAFETY: `xml` is C text; the answer is null or ours.
        let domain =
            unsafe { self.own((self.libvirt.0.virDomainCreateXML)(self.raw.as_ptr(), xml.as_ptr(), 0)) };
        domain.map(drop).ok_or_else(|| self.libvirt.fault())
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
        let api = self.libvirt.0;
        // SAFETY: open until here, never used again; errors change nothing, the reference is gone in any case.
        unsafe {
            if let Some(callback) = self.lifecycle {
                (api.virConnectDomainEventDeregisterAny)(self.raw.as_ptr(), callback);
            }
            if self.watched {
                (api.virConnectUnregisterCloseCallback)(self.raw.as_ptr(), on_close);
            }
            (api.virConnectClose)(self.raw.as_ptr());
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

    /// What it is doing, or `None` if it is not active.
    pub(super) fn seen(&self) -> Result<Option<Seen>, Fault> {
        if !self.was_active() {
            return Ok(None);
        }
        let (libvirt, mut info, mut uuid) = (self.connection.libvirt, VirDomainInfo::default(), [0_u8; 16]);
        // SAFETY: `info` and `uuid` are of the types and sizes that libvirt fills; the name lives as long as `self`.
        let (got_info, name) = unsafe {
            libvirt.check((libvirt.0.virDomainGetUUID)(self.raw.as_ptr(), uuid.as_mut_ptr()))?;
            let name = text((libvirt.0.virDomainGetName)(self.raw.as_ptr())).unwrap_or_default();
            (libvirt.check((libvirt.0.virDomainGetInfo)(self.raw.as_ptr(), &raw mut info)), name)
        };
        match got_info {
            Ok(_) => Ok(Some(Seen {
                id: VmId::from(Uuid::from_bytes(uuid)),
                name,
                activity: activity(info.state),
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
        ffi::VIR_DOMAIN_PAUSED | ffi::VIR_DOMAIN_PMSUSPENDED => Activity::Paused,
        ffi::VIR_DOMAIN_SHUTDOWN => Activity::ShuttingDown,
        ffi::VIR_DOMAIN_CRASHED => Activity::Crashed,
        // An active domain in any other state executes, or blocks on I/O.
        _ => Activity::Running,
    }
}

/// # Safety
/// `raw` is null or C text.
unsafe fn text(raw: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller's promise, and not null here.
    (!raw.is_null()).then(|| unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned())
}

/// What a callback finds behind its opaque pointer; libvirt frees it through `free_watch`.
struct Watch {
    libvirt: Libvirt,
    observer: Arc<dyn Observer>,
}

impl Watch {
    fn into_opaque(libvirt: Libvirt, observer: Arc<dyn Observer>) -> *mut c_void {
        Box::into_raw(Box::new(Self { libvirt, observer })).cast()
    }
}

/// After a registration: on failure libvirt did not take `opaque`.
fn keep(libvirt: Libvirt, answer: c_int, opaque: *mut c_void) -> Result<c_int, Fault> {
    libvirt.check(answer).inspect_err(|_| {
        // SAFETY: made by `Watch::into_opaque`, not taken by libvirt, freed here only.
        unsafe { free_watch(opaque) };
    })
}

/// # Safety
/// `opaque` was made by `Watch::into_opaque` and is not used again.
unsafe extern "C" fn free_watch(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(opaque.cast::<Watch>()) });
}

/// # Safety
/// Called by libvirt with an `opaque` of `Watch::into_opaque` that is not freed yet.
unsafe extern "C" fn on_close(_: *mut VirConnect, reason: c_int, opaque: *mut c_void) {
    // SAFETY: as promised.
    let watch = unsafe { &*opaque.cast::<Watch>() };
    watch.observer.closed(match reason {
        ffi::VIR_CONNECT_CLOSE_REASON_EOF => "libvirtd closed the connection",
        ffi::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "libvirtd answers no keepalives",
        _ => "the connection failed",
    });
}

/// # Safety
/// Called by libvirt with a live domain and an `opaque` of `Watch::into_opaque` that is not freed yet.
unsafe extern "C" fn on_lifecycle(
    _: *mut VirConnect,
    domain: *mut VirDomain,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    let mut uuid = [0_u8; 16];
    // SAFETY: as promised; libvirt fills 16 bytes, from memory.
    let (watch, answer) = unsafe {
        let watch = &*opaque.cast::<Watch>();
        (watch, (watch.libvirt.0.virDomainGetUUID)(domain, uuid.as_mut_ptr()))
    };
    if answer == 0 {
        watch.observer.domain_changed(VmId::from(Uuid::from_bytes(uuid)));
    }
    0
}
