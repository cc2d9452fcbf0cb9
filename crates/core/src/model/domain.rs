//! A libvirt domain definition, checked before anything sees it: libvirt, the state tree, other operators' lists.
//!
//! The text is passed on unchanged but for name and UUID, which are the cluster's; only what is needed is parsed out. A document type
//! (and with it every entity trick) is refused outright. What libvirt accepts is accepted, unless it would hurt others: the rules are those of libvirt's
//! `virDomainDefParse`, tried on 9.0.

mod complete;
mod console;
mod details;
mod host_devices;
mod limits;
mod mark;
mod passwords;
mod read;
mod screen;
mod size;
#[cfg(test)]
mod tests;

pub use complete::Completed;
pub use console::no_console;
pub use details::{Controller, Disk, DomainDetails, Interface};
pub use host_devices::{HostDevice, host_devices};
pub use mark::{ARRIVING, Suspension, UNSTARTED, marked_arriving};
pub use passwords::without_passwords;
pub use screen::screen;

use std::collections::BTreeSet;

use read::{Definition, Element};

use super::{name::VmName, vm_id::VmId};

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
    /// The text as it was given; of [`Self::parse_as`], with the name and the UUID that it was asked for.
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
        let definition = Definition::parse(xml)?;
        let root = definition.root()?;
        Self::read(xml, root, name(root)?)?.with_its_passwords()
    }

    /// Parses a definition that must be the one of `id`, and calls it `name`: what a VM is called is said by its key, and an old
    /// client's `modify` leaves another name in the definition. libvirt is given this name, and the UUID as it writes it.
    pub fn parse_as(xml: &str, id: VmId, name: &VmName) -> Result<Self, DomainError> {
        let definition = Definition::parse(xml)?;
        let root = definition.root()?;
        let mut spec = Self::read(xml, root, name.clone())?;
        if spec.id != id {
            let what = format!("<uuid> is {}, but this VM is {id}", spec.id);
            return Err(root
                .at("uuid")
                .error(what, "define it as a VM of its own, or put the right UUID in"));
        }
        let mut wanted = [("name", name.to_string()), ("uuid", id.to_string())]
            .map(|(element, text)| Ok((root.only(element, "add it")?, element, text)))
            .into_iter()
            .collect::<Result<Vec<_>, DomainError>>()?;
        // From the end, so that what comes before keeps its place.
        wanted.sort_by_key(|(found, ..)| std::cmp::Reverse(found.range().start));
        for (found, element, text) in wanted {
            if found.text().trim() != text {
                spec.xml.replace_range(found.range(), &format!("<{element}>{text}</{element}>"));
            }
        }
        Ok(spec)
    }

    /// The RBD images that it writes to: QEMU opens all others so that nobody sees who has them open. Of a transient disk all writes go to a file.
    pub fn written_images(&self) -> BTreeSet<String> {
        let Ok(definition) = Definition::parse(&self.xml) else { return BTreeSet::new() };
        let devices = definition.root().ok().and_then(|root| root.child("devices"));
        let disks = devices.into_iter().flat_map(|devices| devices.children("disk"));
        let written = disks.filter(|disk| {
            let is_written = ["readonly", "transient"].iter().all(|child| disk.child(child).is_none());
            is_written && disk.attribute("device") != Some("cdrom")
        });
        written
            .flat_map(rbd_sources)
            .filter_map(|source| source.attribute("name"))
            .map(str::to_owned)
            .collect()
    }

    fn read(xml: &str, root: Element<'_>, name: VmName) -> Result<Self, DomainError> {
        if root.attribute("type").is_none() {
            let todo = "write <domain type='kvm'>";
            return Err(root.error("<domain> has no type", todo));
        }
        let devices = root.child("devices").ok_or_else(|| {
            root.error("<devices> is missing", "add a <devices> section, if need be an empty one")
        })?;
        Ok(Self {
            id: uuid(root)?,
            name,
            memory_mib: size::memory_mib(root)?,
            vcpus: size::vcpus(root)?,
            rbd_images: rbd_images(devices)?,
            xml: xml.to_owned(),
        })
    }
}

fn uuid(root: Element<'_>) -> Result<VmId, DomainError> {
    let element = root.only("uuid", "add <uuid>…</uuid>, for instance from uuidgen")?;
    let text = element.text();
    text.parse().map_err(|_| {
        element.error(
            format!("<uuid> is {}, which is no UUID", read::excerpt(&text)),
            "write 36 characters such as 6f1f6c55-7b8e-4f2f-9f5e-0f2c3c1c9f00, for instance from uuidgen",
        )
    })
}

fn name(root: Element<'_>) -> Result<VmName, DomainError> {
    let element = root.only("name", "add <name>…</name>")?;
    let text = element.text();
    text.parse().map_err(|e: super::NameError| {
        element.error(
            format!("<name> is {}, which is no VM name", read::excerpt(&text)),
            format!("use {}", e.allowed),
        )
    })
}

fn rbd_sources(disk: Element<'_>) -> impl Iterator<Item = Element<'_>> {
    disk.children("source").filter(|source| source.attribute("protocol") == Some("rbd"))
}

/// `pool/image` of every RBD disk, each once, in the order of the definition.
fn rbd_images(devices: Element<'_>) -> Result<Vec<String>, DomainError> {
    let mut images: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for disk in devices.children("disk") {
        for source in rbd_sources(disk) {
            let image = source.attribute("name").ok_or_else(|| {
                source.error("an RBD disk has no image", "write <source protocol='rbd' name='pool/image'>")
            })?;
            // A comma separates images in the state tree, and old clients split at the slash.
            let well_formed = image.split('/').count() >= 2
                && image.split('/').all(|part| !part.is_empty())
                && !image.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control());
            if !well_formed {
                let what = format!("{} is no RBD image", read::excerpt(image));
                return Err(source.error(what, "write name='pool/image', without commas and spaces"));
            }
            if known.insert(image) {
                images.push(image.to_owned());
            }
        }
    }
    Ok(images)
}
