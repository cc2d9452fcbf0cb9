//! Which libvirt and which QEMU a node has.

use std::fmt;

/// A version as libvirt counts it: a million for each major one, a thousand for each minor one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    /// Major and minor number. What comes after them only mends: it changes neither QEMU's machine types nor libvirt's migrations.
    pub fn release(self) -> (u64, u64) {
        (self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.release();
        write!(f, "{major}.{minor}.{}", self.0 % 1_000)
    }
}

/// What a node has installed. A guest goes on in the QEMU that it was started in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the two programs")]
pub struct Versions {
    pub libvirt: Version,
    pub qemu: Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_what_libvirts_number_begins_with() {
        let version = Version(10_002_013);
        assert_eq!((version.release(), version.to_string().as_str()), ((10, 2), "10.2.13"));
    }
}
