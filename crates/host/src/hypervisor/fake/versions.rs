//! What a fake says is installed.

use super::{
    super::{HypervisorError, Peer, Version, Versions},
    FakeHypervisor,
};

/// Unless others are said.
const VERSIONS: Versions = Versions { libvirt: Version(9_000_000), qemu: Version(7_002_013) };

impl FakeHypervisor {
    /// Has these installed from now on.
    pub fn has(&self, versions: Versions) {
        self.state().versions = Some(versions);
    }

    /// What is installed here, or there.
    pub(super) fn installed(&self, at: Option<&Peer>) -> Result<Versions, HypervisorError> {
        let versions = match at {
            None => self.state().versions,
            Some(peer) => self.peer(peer)?.state().versions,
        };
        Ok(versions.unwrap_or(VERSIONS))
    }
}
