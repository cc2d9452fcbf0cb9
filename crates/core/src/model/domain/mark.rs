//! Marks in a definition that say what libvirt does not: libvirt keeps them with the process, so whoever finds that paused, after
//! whatever crash, knows why.

use super::{DomainError, DomainSpec, read::Definition};

/// The namespace of the mark "this process has not executed yet": put there for a start, taken away once the guest executes. Nothing is
/// lost with what bears it.
pub const UNSTARTED: &str = "urn:pvc:unstarted";

/// Why a daemon has suspended a guest. libvirt says of it what it says of one that an operator has paused, so it bears a mark, which is put on
/// while the guest runs, and never in a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// The state tree gave it to another node.
    Elsewhere,
    /// The state tree had not been read since the machine's boot, so nobody knew whom it gave the guest to.
    Unread,
}

impl Suspension {
    /// The namespace of its mark.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Elsewhere => "urn:pvc:suspended",
            Self::Unread => "urn:pvc:unread",
        }
    }
}

/// The namespace of the mark "a migration brings this, and it has not executed here yet": put there for the target, taken away once
/// the guest executes there.
pub const ARRIVING: &str = "urn:pvc:arriving";

impl DomainSpec {
    /// The definition with the mark [`UNSTARTED`]; otherwise unchanged.
    ///
    /// # Errors
    /// If it is no definition.
    pub fn marked_unstarted(&self) -> Result<String, DomainError> {
        marked(&self.xml, &format!("<unstarted xmlns='{UNSTARTED}'/>"))
    }
}

/// A definition with the mark [`ARRIVING`]; otherwise unchanged.
///
/// # Errors
/// If it is no definition.
pub fn marked_arriving(xml: &str) -> Result<String, DomainError> {
    if xml.contains(ARRIVING) {
        return Ok(xml.to_owned());
    }
    marked(xml, &format!("<arriving xmlns='{ARRIVING}'/>"))
}

fn marked(xml: &str, mark: &str) -> Result<String, DomainError> {
    let definition = Definition::parse(xml)?;
    let root = definition.root()?;
    let section = format!("<metadata>{mark}</metadata>");
    let (place, text) = match root.child("metadata") {
        // Of several libvirt reads the first only.
        Some(metadata) => match metadata.first_inside() {
            Some(inside) => (inside..inside, mark.to_owned()),
            None => (metadata.range(), section),
        },
        None => {
            let inside = root.first_inside();
            let inside =
                inside.ok_or_else(|| root.error("<domain> is empty", "write what the VM is made of"))?;
            (inside..inside, section)
        }
    };
    let mut xml = xml.to_owned();
    xml.replace_range(place, &text);
    Ok(xml)
}
