//! A domain on its way to another node, in safe words. As everything here it blocks for as long as libvirt likes.

use std::{
    ffi::{CStr, CString, c_int},
    ptr::{self, NonNull},
    time::Duration,
};

use super::{
    super::{
        super::{Activity, Halt, Migration, Peer, Progress},
        ffi::{self, VirTypedParameter},
        library::{Fault, Libvirt, text},
    },
    Domain,
};
use pvc_core::model::marked_arriving;

/// Straight from QEMU to QEMU, arranged by the two libvirtds among themselves; the guest is slowed down as far as it takes.
/// It arrives paused: the source's libvirt lets its guest go on when it misses the target's last answer, the target's would have done so
/// already (seen with 9.0: both executed until somebody ended one).
/// Not post-copy: from its switch-over on, the death of either node would be the guest's.
const FLAGS: std::ffi::c_ulong = ffi::VIR_MIGRATE_LIVE
    | ffi::VIR_MIGRATE_PEER2PEER
    | ffi::VIR_MIGRATE_PAUSED
    | ffi::VIR_MIGRATE_ABORT_ON_ERROR
    | ffi::VIR_MIGRATE_AUTO_CONVERGE;

impl Domain<'_> {
    /// Migrates it; returns when all of it is there, paused, and its process here has ended, or when it goes on here.
    pub(in super::super) fn migrate(&self, to: &Peer) -> Result<(), Fault> {
        let c_text =
            |text: String| CString::new(text).map_err(|_| Fault::ours("a NUL byte in a peer's name".into()));
        let (control, memory) = (c_text(to.uri())?, c_text(to.memory_uri())?);
        // What does not execute here, since somebody has paused it for instance, does not there: it bears no mark, so nobody lets it go on.
        let halt = self.activity()?.and_then(Activity::halt);
        // One that has met an I/O error already may leave with it: libvirt refuses that only for the sake of errors that it would meet on its way.
        let flags =
            if halt == Some(Halt::IoError) { FLAGS & !ffi::VIR_MIGRATE_ABORT_ON_ERROR } else { FLAGS };
        let definition = if halt.is_some() { None } else { Some(c_text(self.definition_on_arrival()?)?) };
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped; the URIs and the definition are C text; null means "as it is".
        let answer = unsafe {
            (libvirt.0.virDomainMigrateToURI2)(
                self.raw.as_ptr(),
                control.as_ptr(),
                memory.as_ptr(),
                definition.as_ref().map_or(ptr::null(), |xml| xml.as_ptr()),
                flags,
                ptr::null(),
                0,
            )
        };
        libvirt.check(answer).map(drop)
    }

    fn definition_on_arrival(&self) -> Result<String, Fault> {
        let libvirt = self.connection.libvirt;
        let flags = ffi::VIR_DOMAIN_XML_SECURE | ffi::VIR_DOMAIN_XML_MIGRATABLE;
        // SAFETY: alive until dropped; the answer is null or C text that is ours, from libvirt's allocator, which is the C library's.
        let xml = unsafe {
            let raw = (libvirt.0.virDomainGetXMLDesc)(self.raw.as_ptr(), flags);
            let xml = text(raw);
            libc::free(raw.cast());
            xml
        };
        let xml = xml.ok_or_else(|| libvirt.fault())?;
        marked_arriving(&xml).map_err(|error| Fault::ours(format!("its own definition: {error}")))
    }

    /// The migration that is under way, if one is.
    pub(in super::super) fn migration(&self) -> Result<Option<Migration>, Fault> {
        let (job, statistics) = match self.statistics(0) {
            Ok(answer) => answer,
            // Only the source of a migration has figures, and this is how libvirt says so.
            Err(fault) if fault.is_out_of_place() && self.activity()? == Some(Activity::Held) => {
                return Ok(Some(Migration::Arriving));
            }
            Err(fault) => return Err(fault),
        };
        let under_way = matches!(job, ffi::VIR_DOMAIN_JOB_BOUNDED | ffi::VIR_DOMAIN_JOB_UNBOUNDED);
        if !under_way || statistics.int(c"operation") != Some(ffi::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT) {
            return Ok(None);
        }
        let figure = |name| statistics.number(name).unwrap_or(0);
        Ok(Some(Migration::Leaving(Progress {
            elapsed: Duration::from_millis(figure(c"time_elapsed")),
            total: figure(c"data_total"),
            sent: figure(c"data_processed"),
            remaining: figure(c"data_remaining"),
        })))
    }

    /// For how long the migration that brought it here held it.
    pub(in super::super) fn pause_on_arrival(&self) -> Result<Option<Duration>, Fault> {
        // Not a question to QEMU: libvirt keeps these figures.
        let (_, statistics) = self.statistics(ffi::VIR_DOMAIN_JOB_STATS_COMPLETED)?;
        Ok(statistics.number(c"downtime").map(Duration::from_millis))
    }

    /// Ends its migration to elsewhere.
    pub(in super::super) fn abort_job(&self) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        libvirt.check(unsafe { (libvirt.0.virDomainAbortJob)(self.raw.as_ptr()) }).map(drop)
    }

    fn statistics(&self, flags: std::ffi::c_uint) -> Result<(c_int, Statistics), Fault> {
        let libvirt = self.connection.libvirt;
        let (mut job, mut raw, mut count) = (0, ptr::null_mut(), 0);
        // SAFETY: alive until dropped; on success `raw` holds `count` parameters and is ours to free.
        let statistics = unsafe {
            libvirt.check((libvirt.0.virDomainGetJobStats)(
                self.raw.as_ptr(),
                &raw mut job,
                &raw mut raw,
                &raw mut count,
                flags,
            ))?;
            Statistics { libvirt, raw: NonNull::new(raw), count }
        };
        Ok((job, statistics))
    }
}

/// Figures by name.
struct Statistics {
    libvirt: Libvirt,
    raw: Option<NonNull<VirTypedParameter>>,
    count: c_int,
}

impl Statistics {
    fn number(&self, name: &CStr) -> Option<u64> {
        let mut value = 0;
        // SAFETY: `raw` holds `count` parameters until dropped; libvirt checks name and type.
        let found = unsafe {
            (self.libvirt.0.virTypedParamsGetULLong)(
                self.raw?.as_ptr(),
                self.count,
                name.as_ptr(),
                &raw mut value,
            )
        };
        (found == 1).then_some(value)
    }

    fn int(&self, name: &CStr) -> Option<c_int> {
        let mut value = 0;
        // SAFETY: as above.
        let found = unsafe {
            (self.libvirt.0.virTypedParamsGetInt)(
                self.raw?.as_ptr(),
                self.count,
                name.as_ptr(),
                &raw mut value,
            )
        };
        (found == 1).then_some(value)
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Some(raw) = self.raw {
            // SAFETY: ours, and not used again.
            unsafe { (self.libvirt.0.virTypedParamsFree)(raw.as_ptr(), self.count) };
        }
    }
}
