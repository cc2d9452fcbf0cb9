//! Definitions that libvirt keeps beside the cluster's. As everything here it blocks for as long as libvirt likes.

use std::{ffi::c_int, ptr};

use super::{
    super::{
        super::{Kept, Undefined},
        ffi,
        library::{Fault, text},
    },
    Connection, Domain,
};

impl Connection {
    /// All of them.
    pub(in super::super) fn kept(&self) -> Result<Vec<Kept>, Fault> {
        let domains = self.list(ffi::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
        let kept: Result<Vec<Option<Kept>>, Fault> = domains.iter().map(Domain::kept).collect();
        Ok(kept?.into_iter().flatten().collect())
    }
}

impl Domain<'_> {
    fn kept(&self) -> Result<Option<Kept>, Fault> {
        match self.autostart() {
            Ok(autostart) => Ok(Some(Kept { id: self.id()?, autostart })),
            // It went between the two questions.
            Err(fault) if fault.is_no_domain() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn autostart(&self) -> Result<bool, Fault> {
        let (libvirt, mut autostart): (_, c_int) = (self.connection.libvirt, 0);
        // SAFETY: alive until dropped; libvirt fills the number.
        libvirt.check(unsafe { (libvirt.0.virDomainGetAutostart)(self.raw.as_ptr(), &raw mut autostart) })?;
        Ok(autostart != 0)
    }

    /// Keeps libvirt from starting it by itself.
    pub(in super::super) fn end_autostart(&self) -> Result<(), Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        libvirt.check(unsafe { (libvirt.0.virDomainSetAutostart)(self.raw.as_ptr(), 0) }).map(drop)
    }

    /// Removes its definition if nothing is lost with it.
    pub(in super::super) fn undefine(&self) -> Result<Undefined, Fault> {
        if let Some(what) = self.holds()? {
            return Ok(Undefined::Holds(what.to_owned()));
        }
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped.
        match libvirt.check(unsafe { (libvirt.0.virDomainUndefineFlags)(self.raw.as_ptr(), 0) }) {
            Ok(_) => Ok(Undefined::Gone),
            Err(fault) if fault.is_no_domain() => Ok(Undefined::Gone),
            Err(fault) if fault.is_out_of_place() => Ok(Undefined::Holds(fault.message)),
            Err(fault) => Err(fault),
        }
    }

    /// What would be lost with its definition. libvirt itself refuses some of it, and only of what is not active.
    fn holds(&self) -> Result<Option<&'static str>, Fault> {
        let (libvirt, domain) = (self.connection.libvirt, self.raw.as_ptr());
        // A driver without the function has none of the things.
        let some = |answer: c_int| match libvirt.check(answer) {
            Ok(count) => Ok(count > 0),
            Err(fault) if fault.is_unsupported() => Ok(false),
            Err(fault) => Err(fault),
        };
        // SAFETY: alive until dropped; a null array is only counted.
        let (saved, snapshots, checkpoints) = unsafe {
            (
                some((libvirt.0.virDomainHasManagedSaveImage)(domain, 0))?,
                some((libvirt.0.virDomainSnapshotNum)(domain, 0))?,
                some((libvirt.0.virDomainListAllCheckpoints)(domain, ptr::null_mut(), 0))?,
            )
        };
        let definition = self.definition()?;
        Ok(match () {
            () if saved => Some("a saved state"),
            () if snapshots => Some("snapshots"),
            () if checkpoints => Some("checkpoints"),
            () if definition.contains("<nvram") => Some("firmware variables"),
            () if definition.contains("<tpm") => Some("the state of a TPM"),
            () => None,
        })
    }

    fn definition(&self) -> Result<String, Fault> {
        let libvirt = self.connection.libvirt;
        // SAFETY: alive until dropped; the answer is null or ours to free, by the C library's allocator, which is libvirt's.
        unsafe {
            let raw = (libvirt.0.virDomainGetXMLDesc)(self.raw.as_ptr(), ffi::VIR_DOMAIN_XML_INACTIVE);
            let definition = text(raw).ok_or_else(|| libvirt.fault());
            libc::free(raw.cast());
            definition
        }
    }
}
