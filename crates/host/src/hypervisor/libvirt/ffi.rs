//! The part of libvirt's C interface that we use, found in the shared library at run time.
//!
//! Loaded, not linked: the daemon builds without libvirt's headers and says what is missing where the library is not
//! installed (docs/decisions/0002-libvirt-binding.md). Declarations and loading only; meaning is in `connection`.
#![allow(unsafe_code, reason = "the C interface of libvirt")]

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulong, c_ulonglong, c_ushort, c_void};

use crate::library::{LoadError, functions};

/// The name of the library as every distribution of the last ten years ships it.
pub(super) const LIBRARY: &str = "libvirt.so.0";

/// `virConnect`: only ever behind a pointer.
#[repr(C)]
pub(super) struct VirConnect {
    _opaque: [u8; 0],
}

/// `virDomain`: only ever behind a pointer.
#[repr(C)]
pub(super) struct VirDomain {
    _opaque: [u8; 0],
}

/// `virTypedParameter`: only ever behind a pointer; libvirt's own functions look into it.
#[repr(C)]
pub(super) struct VirTypedParameter {
    _opaque: [u8; 0],
}

/// `virStream`: only ever behind a pointer.
#[repr(C)]
pub(super) struct VirStream {
    _opaque: [u8; 0],
}

/// `virError`, up to the last field that we read; libvirt owns it, so its full size does not matter.
#[repr(C)]
pub(super) struct VirError {
    pub(super) code: c_int,
    pub(super) domain: c_int,
    pub(super) message: *const c_char,
}

/// `virDomainInfo`; memory in KiB.
#[repr(C)]
#[derive(Default)]
pub(super) struct VirDomainInfo {
    pub(super) state: c_uchar,
    pub(super) max_mem: c_ulong,
    pub(super) memory: c_ulong,
    pub(super) nr_virt_cpu: c_ushort,
    pub(super) cpu_time: c_ulonglong,
}

pub(super) const VIR_ERR_NO_SUPPORT: c_int = 3;
pub(super) const VIR_ERR_NO_CONNECT: c_int = 5;
pub(super) const VIR_ERR_INVALID_CONN: c_int = 6;
pub(super) const VIR_ERR_OS_TYPE: c_int = 16;
pub(super) const VIR_ERR_NO_NAME: c_int = 21;
pub(super) const VIR_ERR_NO_OS: c_int = 22;
pub(super) const VIR_ERR_XML_ERROR: c_int = 27;
pub(super) const VIR_ERR_XML_DETAIL: c_int = 35;
pub(super) const VIR_ERR_NO_DOMAIN: c_int = 42;
pub(super) const VIR_ERR_OPERATION_INVALID: c_int = 55;
pub(super) const VIR_ERR_CONFIG_UNSUPPORTED: c_int = 67;
pub(super) const VIR_ERR_CPU_INCOMPATIBLE: c_int = 91;
pub(super) const VIR_ERR_NO_DOMAIN_METADATA: c_int = 80;
pub(super) const VIR_ERR_OPERATION_UNSUPPORTED: c_int = 84;
/// Errors that arise in the transport on our side, as opposed to answers of the daemon.
pub(super) const VIR_FROM_RPC: c_int = 7;
pub(super) const VIR_FROM_REMOTE: c_int = 13;

pub(super) const VIR_CONNECT_LIST_DOMAINS_ACTIVE: c_uint = 1;
pub(super) const VIR_CONNECT_LIST_DOMAINS_PERSISTENT: c_uint = 1 << 2;
pub(super) const VIR_DOMAIN_XML_INACTIVE: c_uint = 1 << 1;
pub(super) const VIR_DOMAIN_EVENT_ID_LIFECYCLE: c_int = 0;
pub(super) const VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN: c_uint = 1;

pub(super) const VIR_DOMAIN_PAUSED: c_uchar = 3;
pub(super) const VIR_DOMAIN_SHUTDOWN: c_uchar = 4;
pub(super) const VIR_DOMAIN_CRASHED: c_uchar = 6;
pub(super) const VIR_DOMAIN_PMSUSPENDED: c_uchar = 7;

/// Reasons of `VIR_DOMAIN_PAUSED`: as it was left by a libvirtd that ended, by somebody's command, by a migration, … not started yet.
pub(super) const VIR_DOMAIN_PAUSED_UNKNOWN: c_int = 0;
pub(super) const VIR_DOMAIN_PAUSED_USER: c_int = 1;
pub(super) const VIR_DOMAIN_PAUSED_MIGRATION: c_int = 2;
pub(super) const VIR_DOMAIN_PAUSED_SAVE: c_int = 3;
pub(super) const VIR_DOMAIN_PAUSED_DUMP: c_int = 4;
pub(super) const VIR_DOMAIN_PAUSED_IOERROR: c_int = 5;
pub(super) const VIR_DOMAIN_PAUSED_WATCHDOG: c_int = 6;
pub(super) const VIR_DOMAIN_PAUSED_SHUTTING_DOWN: c_int = 8;
pub(super) const VIR_DOMAIN_PAUSED_SNAPSHOT: c_int = 9;
pub(super) const VIR_DOMAIN_PAUSED_CRASHED: c_int = 10;
pub(super) const VIR_DOMAIN_PAUSED_STARTING_UP: c_int = 11;

pub(super) const VIR_DOMAIN_START_PAUSED: c_uint = 1;
pub(super) const VIR_DOMAIN_AFFECT_LIVE: c_uint = 1;
pub(super) const VIR_DOMAIN_METADATA_ELEMENT: c_int = 2;
pub(super) const VIR_DOMAIN_XML_SECURE: c_uint = 1;
pub(super) const VIR_DOMAIN_XML_MIGRATABLE: c_uint = 1 << 3;

pub(super) const VIR_MIGRATE_LIVE: c_ulong = 1;
pub(super) const VIR_MIGRATE_PEER2PEER: c_ulong = 1 << 1;
pub(super) const VIR_MIGRATE_PAUSED: c_ulong = 1 << 5;
pub(super) const VIR_MIGRATE_ABORT_ON_ERROR: c_ulong = 1 << 12;
pub(super) const VIR_MIGRATE_AUTO_CONVERGE: c_ulong = 1 << 13;

pub(super) const VIR_DOMAIN_JOB_BOUNDED: c_int = 1;
pub(super) const VIR_DOMAIN_JOB_UNBOUNDED: c_int = 2;
pub(super) const VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: c_int = 5;
pub(super) const VIR_DOMAIN_JOB_STATS_COMPLETED: c_uint = 1;

pub(super) const VIR_CONNECT_CLOSE_REASON_EOF: c_int = 1;
pub(super) const VIR_CONNECT_CLOSE_REASON_KEEPALIVE: c_int = 2;

pub(super) const VIR_STREAM_NONBLOCK: c_uint = 1;
pub(super) const VIR_STREAM_EVENT_READABLE: c_int = 1;
pub(super) const VIR_STREAM_EVENT_WRITABLE: c_int = 1 << 1;
pub(super) const VIR_STREAM_EVENT_ERROR: c_int = 1 << 2;
pub(super) const VIR_STREAM_EVENT_HANGUP: c_int = 1 << 3;
/// What a stream that does not block answers if it would have to.
pub(super) const WOULD_BLOCK: c_int = -2;
pub(super) const VIR_DOMAIN_CONSOLE_FORCE: c_uint = 1;
pub(super) const VIR_DOMAIN_CONSOLE_SAFE: c_uint = 1 << 1;

pub(super) type ErrorFunc = unsafe extern "C" fn(*mut c_void, *mut VirError);
pub(super) type FreeCallback = unsafe extern "C" fn(*mut c_void);
pub(super) type CloseFunc = unsafe extern "C" fn(*mut VirConnect, c_int, *mut c_void);
pub(super) type StreamFunc = unsafe extern "C" fn(*mut VirStream, c_int, *mut c_void);
/// Lifecycle callback; registered through libvirt's generic callback type, as its own macro does.
pub(super) type LifecycleFunc =
    unsafe extern "C" fn(*mut VirConnect, *mut VirDomain, c_int, c_int, *mut c_void) -> c_int;

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It could not be loaded.
    #[error("could not load {path}: {cause}; install libvirt's client library (Debian: libvirt0)")]
    Missing {
        /// What was asked for.
        path: String,
        /// What the loader said.
        cause: libloading::Error,
    },
    /// It lacks a function.
    #[error("{path} is not a libvirt that pvcd can use: {cause}; pvcd needs libvirt 5.6 or newer")]
    Unsuitable {
        /// What was loaded.
        path: String,
        /// Which function is missing.
        cause: libloading::Error,
    },
    /// It could not be initialised.
    #[error("libvirt could not be initialised: {0}")]
    Initialise(String),
    /// The thread that libvirt's events and keepalives need could not be started.
    #[error("could not start libvirt's event thread")]
    EventThread(#[source] std::io::Error),
}

impl LibraryError {
    pub(super) fn new(path: &str, error: LoadError) -> Self {
        let path = path.to_owned();
        match error {
            LoadError::Missing(cause) => Self::Missing { path, cause },
            LoadError::Unsuitable(cause) => Self::Unsuitable { path, cause },
        }
    }
}

functions! {
    /// libvirt's functions, each with the signature of its public headers, stable since before 5.6.
    pub(super) struct Api;

    fn virInitialize() -> c_int;
    fn virSetErrorFunc(user: *mut c_void, handler: Option<ErrorFunc>);
    /// The calling thread's last error, or null.
    fn virGetLastError() -> *mut VirError;
    fn virEventRegisterDefaultImpl() -> c_int;
    fn virEventRunDefaultImpl() -> c_int;

    fn virConnectOpen(uri: *const c_char) -> *mut VirConnect;
    fn virConnectClose(connection: *mut VirConnect) -> c_int;
    fn virConnectIsAlive(connection: *mut VirConnect) -> c_int;
    /// The daemon's, in libvirt's way of counting.
    fn virConnectGetLibVersion(connection: *mut VirConnect, version: *mut c_ulong) -> c_int;
    /// QEMU's, as it is installed; 0 if that is not known.
    fn virConnectGetVersion(connection: *mut VirConnect, version: *mut c_ulong) -> c_int;
    fn virConnectSetKeepAlive(connection: *mut VirConnect, interval_s: c_int, count: c_uint) -> c_int;
    fn virConnectRegisterCloseCallback(
        connection: *mut VirConnect, callback: CloseFunc, opaque: *mut c_void, free: Option<FreeCallback>,
    ) -> c_int;
    fn virConnectUnregisterCloseCallback(connection: *mut VirConnect, callback: CloseFunc) -> c_int;
    /// Answers the callback's number, or -1.
    fn virConnectDomainEventRegisterAny(
        connection: *mut VirConnect, domain: *mut VirDomain, event: c_int, callback: LifecycleFunc,
        opaque: *mut c_void, free: Option<FreeCallback>,
    ) -> c_int;
    fn virConnectDomainEventDeregisterAny(connection: *mut VirConnect, callback: c_int) -> c_int;
    /// Answers how many; the array is the caller's to `free`, its elements to `virDomainFree`.
    fn virConnectListAllDomains(connection: *mut VirConnect, domains: *mut *mut *mut VirDomain, flags: c_uint) -> c_int;

    fn virDomainLookupByUUID(connection: *mut VirConnect, uuid: *const c_uchar) -> *mut VirDomain;
    fn virDomainCreateXML(connection: *mut VirConnect, xml: *const c_char, flags: c_uint) -> *mut VirDomain;
    /// Builds the command line that a start would have; the text is the caller's to `free`.
    fn virConnectDomainXMLToNative(
        connection: *mut VirConnect, format: *const c_char, xml: *const c_char, flags: c_uint,
    ) -> *mut c_char;
    fn virDomainShutdownFlags(domain: *mut VirDomain, flags: c_uint) -> c_int;
    fn virDomainDestroy(domain: *mut VirDomain) -> c_int;
    /// Needs neither QEMU's monitor nor the domain's job lock: answers while the guest's process hangs.
    fn virDomainGetInfo(domain: *mut VirDomain, info: *mut VirDomainInfo) -> c_int;
    /// State and reason, from the daemon's memory.
    fn virDomainGetState(domain: *mut VirDomain, state: *mut c_int, reason: *mut c_int, flags: c_uint) -> c_int;
    fn virDomainSuspend(domain: *mut VirDomain) -> c_int;
    fn virDomainResume(domain: *mut VirDomain) -> c_int;
    /// From the daemon's memory; the text is the caller's to `free`.
    fn virDomainGetMetadata(domain: *mut VirDomain, kind: c_int, uri: *const c_char, flags: c_uint) -> *mut c_char;
    /// Null metadata removes it.
    fn virDomainSetMetadata(
        domain: *mut VirDomain, kind: c_int, metadata: *const c_char, key: *const c_char, uri: *const c_char,
        flags: c_uint,
    ) -> c_int;
    /// With `VIR_MIGRATE_PEER2PEER`: the libvirtd at `control` is talked to by ours, and memory goes to `memory`.
    fn virDomainMigrateToURI2(
        domain: *mut VirDomain, control: *const c_char, memory: *const c_char, definition: *const c_char,
        flags: c_ulong, name: *const c_char, bandwidth_mib_s: c_ulong,
    ) -> c_int;
    fn virDomainAbortJob(domain: *mut VirDomain) -> c_int;
    /// Goes through QEMU's monitor, except for completed jobs. The parameters are the caller's to `virTypedParamsFree`.
    fn virDomainGetJobStats(
        domain: *mut VirDomain, job: *mut c_int, params: *mut *mut VirTypedParameter, count: *mut c_int, flags: c_uint,
    ) -> c_int;
    /// 1 = found, 0 = absent, -1 = of another type.
    fn virTypedParamsGetULLong(
        params: *mut VirTypedParameter, count: c_int, name: *const c_char, value: *mut c_ulonglong,
    ) -> c_int;
    /// As above.
    fn virTypedParamsGetInt(
        params: *mut VirTypedParameter, count: c_int, name: *const c_char, value: *mut c_int,
    ) -> c_int;
    fn virTypedParamsFree(params: *mut VirTypedParameter, count: c_int);
    fn virDomainGetAutostart(domain: *mut VirDomain, autostart: *mut c_int) -> c_int;
    fn virDomainSetAutostart(domain: *mut VirDomain, autostart: c_int) -> c_int;
    /// The text is the caller's to `free`.
    fn virDomainGetXMLDesc(domain: *mut VirDomain, flags: c_uint) -> *mut c_char;
    /// 1 = it has one.
    fn virDomainHasManagedSaveImage(domain: *mut VirDomain, flags: c_uint) -> c_int;
    fn virDomainSnapshotNum(domain: *mut VirDomain, flags: c_uint) -> c_int;
    /// With a null array it only counts.
    fn virDomainListAllCheckpoints(domain: *mut VirDomain, array: *mut c_void, flags: c_uint) -> c_int;
    /// Without flags it refuses to remove what belongs to the definition.
    fn virDomainUndefineFlags(domain: *mut VirDomain, flags: c_uint) -> c_int;
    /// Without asking the daemon: what it said when it handed out this pointer. `u32::MAX` = was not active.
    fn virDomainGetID(domain: *mut VirDomain) -> c_uint;
    fn virDomainGetUUID(domain: *mut VirDomain, uuid: *mut c_uchar) -> c_int;
    /// The text lives as long as the pointer.
    fn virDomainGetName(domain: *mut VirDomain) -> *const c_char;
    fn virDomainFree(domain: *mut VirDomain) -> c_int;

    /// Answers a socket that is ours to close; QEMU has the other end. Goes through QEMU's monitor. Only over a connection by a socket of this machine.
    fn virDomainOpenGraphicsFD(domain: *mut VirDomain, number: c_uint, flags: c_uint) -> c_int;

    fn virStreamNew(connection: *mut VirConnect, flags: c_uint) -> *mut VirStream;
    /// Null: the first console. Needs neither QEMU's monitor nor the domain's job lock.
    fn virDomainOpenConsole(domain: *mut VirDomain, name: *const c_char, stream: *mut VirStream, flags: c_uint) -> c_int;
    /// Answers how many bytes, 0 at the end, -2 if there are none now.
    fn virStreamRecv(stream: *mut VirStream, data: *mut c_char, bytes: usize) -> c_int;
    /// Answers how many bytes, -2 if none can be taken now.
    fn virStreamSend(stream: *mut VirStream, data: *const c_char, bytes: usize) -> c_int;
    fn virStreamEventAddCallback(
        stream: *mut VirStream, events: c_int, callback: StreamFunc, opaque: *mut c_void, free: Option<FreeCallback>,
    ) -> c_int;
    fn virStreamEventUpdateCallback(stream: *mut VirStream, events: c_int) -> c_int;
    fn virStreamEventRemoveCallback(stream: *mut VirStream) -> c_int;
    fn virStreamFinish(stream: *mut VirStream) -> c_int;
    fn virStreamAbort(stream: *mut VirStream) -> c_int;
    fn virStreamFree(stream: *mut VirStream) -> c_int;
}
