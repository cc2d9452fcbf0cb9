//! What libvirt calls back: the fate of domains and of the connection.
//!
//! Callbacks run on libvirt's event thread, so they only pass a word on. libvirt owns what they find behind their opaque
//! pointers, from a successful registration until it frees it.
#![allow(unsafe_code, reason = "called by the C interface of libvirt")]

use std::{
    ffi::{c_int, c_void},
    ptr,
    sync::Arc,
};

use pvc_core::model::VmId;
use uuid::Uuid;

use super::{
    ffi::{self, VirConnect, VirDomain},
    library::{Fault, Libvirt},
};

/// Who wants to hear of a connection. Called on libvirt's event thread: must not block.
pub(super) trait Observer: Send + Sync + 'static {
    /// Something happened to this domain.
    fn domain_changed(&self, id: VmId);
    /// The connection is of no more use.
    fn closed(&self, reason: &'static str);
}

/// The callbacks that a connection has.
#[derive(Default)]
pub(super) struct Callbacks {
    close: bool,
    lifecycle: Option<c_int>,
}

impl Callbacks {
    /// Subscribes `observer`. What was registered before a failure stays, until `deregister`.
    ///
    /// # Safety
    /// `connection` is open.
    pub(super) unsafe fn register(
        &mut self,
        libvirt: Libvirt,
        connection: *mut VirConnect,
        observer: Arc<dyn Observer>,
    ) -> Result<(), Fault> {
        let api = libvirt.0;
        let opaque = Watch::into_opaque(libvirt, observer.clone());
        // SAFETY: `opaque` stays valid until libvirt calls `free_watch` on it, once.
        let answer =
            unsafe { (api.virConnectRegisterCloseCallback)(connection, on_close, opaque, Some(free_watch)) };
        keep(libvirt, answer, opaque)?;
        self.close = true;

        let opaque = Watch::into_opaque(libvirt, observer);
        // SAFETY: as above; no domain means all of them; `on_lifecycle` has the signature of this event.
        let answer = unsafe {
            (api.virConnectDomainEventRegisterAny)(
                connection,
                ptr::null_mut(),
                ffi::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                on_lifecycle,
                opaque,
                Some(free_watch),
            )
        };
        self.lifecycle = Some(keep(libvirt, answer, opaque)?);
        Ok(())
    }

    /// Ends all subscriptions; they hold references to the connection. Errors change nothing: the connection is closed
    /// next.
    ///
    /// # Safety
    /// `connection` is the one of `register`, still open.
    pub(super) unsafe fn deregister(&self, libvirt: Libvirt, connection: *mut VirConnect) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(callback) = self.lifecycle {
                (libvirt.0.virConnectDomainEventDeregisterAny)(connection, callback);
            }
            if self.close {
                (libvirt.0.virConnectUnregisterCloseCallback)(connection, on_close);
            }
        }
    }
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
