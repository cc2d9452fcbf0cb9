//! A libvirt domain definition, checked before anything sees it: libvirt, the state tree, other operators' lists.
//!
//! The text is passed on unchanged; only what is needed is parsed out. A document type (and with it every entity trick)
//! is refused outright.

use super::name::{VmId, VmName};

/// Why a definition is refused: what is wrong, where, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (line {line}): {todo}")]
pub struct DomainError {
    /// What is wrong.
    pub what: String,
    /// 1-based line of the XML text.
    pub line: u32,
    /// What to do about it.
    pub todo: String,
}

/// A checked definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// The text as it was given.
    pub xml: String,
    /// `<uuid>`.
    pub id: VmId,
    /// `<name>`.
    pub name: VmName,
    /// `<memory>` in MiB, rounded up.
    pub memory_mib: u64,
    /// `<vcpu>`.
    pub vcpus: u32,
    /// `pool/image` of every RBD disk.
    pub rbd_images: Vec<String>,
}

impl DomainSpec {
    /// Parses and checks a definition.
    pub fn parse(xml: &str) -> Result<Self, DomainError> {
        let _ = xml;
        unimplemented!()
    }

    /// Parses a definition that must be the one of `id` called `name`.
    pub fn parse_as(xml: &str, id: VmId, name: &VmName) -> Result<Self, DomainError> {
        let _ = (xml, id, name);
        unimplemented!()
    }
}
