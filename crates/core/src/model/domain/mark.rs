//! A mark in a definition that says "this process has not executed yet": put there for a start, taken away once the guest executes.
//! libvirt keeps it with the process, so whoever finds that paused, after whatever crash, knows that nothing is lost with it.

use super::{DomainError, DomainSpec, read::Definition};

/// The mark's namespace, by which libvirt hands it out and removes it.
pub const UNSTARTED: &str = "urn:pvc:unstarted";

/// The namespace of another mark, of a guest that a daemon has suspended: libvirt says of it what it says of one that an operator has
/// paused. Put on while the guest runs, never in a definition.
pub const SUSPENDED: &str = "urn:pvc:suspended";

impl DomainSpec {
    /// The definition with the mark; otherwise unchanged.
    ///
    /// # Errors
    /// If it is no definition.
    pub fn marked_unstarted(&self) -> Result<String, DomainError> {
        let definition = Definition::parse(&self.xml)?;
        let root = definition.root()?;
        let mark = format!("<unstarted xmlns='{UNSTARTED}'/>");
        let section = format!("<metadata>{mark}</metadata>");
        let (place, text) = match root.child("metadata") {
            // Of several libvirt reads the first only.
            Some(metadata) => match metadata.first_inside() {
                Some(inside) => (inside..inside, mark),
                None => (metadata.range(), section),
            },
            None => {
                let inside = root.first_inside();
                let inside =
                    inside.ok_or_else(|| root.error("<domain> is empty", "write what the VM is made of"))?;
                (inside..inside, section)
            }
        };
        let mut xml = self.xml.clone();
        xml.replace_range(place, &text);
        Ok(xml)
    }
}
