//! Which devices of its node a definition gives to its VM, by whatever names: a device that is a guest's disk is nobody else's.
//! Rather one name too many than one too few: a name that is no device's harms nobody.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

use serde::{Deserialize, Serialize};

use super::{
    DomainError,
    read::{Definition, Element},
};

/// Longer ones the kernel does not take.
const LONGEST_PATH: usize = 4095;

/// A name of a device of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HostDevice {
    /// A path, or a link to it: `/dev/disk/by-id/scsi-0ABC`.
    Path(String),
    /// What the machine has it on, as the kernel calls that: `0000:03:00.0`, `2:0:0:1`. It is passed through as a whole.
    On(String),
}

impl Display for HostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::On(address) => write!(f, "what is at {address}"),
        }
    }
}

/// All devices of its node that a definition names.
pub fn host_devices(xml: &str) -> Result<BTreeSet<HostDevice>, DomainError> {
    let definition = Definition::parse(xml)?;
    definition.root()?;
    let mut found = BTreeSet::new();
    // Whatever element libvirt takes a device from, and what QEMU is given past it.
    for value in definition.values() {
        found.extend(below_dev(value).map(|path| HostDevice::Path(path.to_owned())));
    }
    for element in definition.elements().filter(|element| element.name() == "source") {
        let path = element.attribute("dev").filter(|path| path.starts_with('/'));
        found.extend(
            path.filter(|path| path.len() <= LONGEST_PATH).map(|path| HostDevice::Path(path.to_owned())),
        );
        found.extend(passed_through(element).map(HostDevice::On));
    }
    Ok(found)
}

/// Each path below `/dev` in a text such as `file=/dev/sdb,if=none`.
fn below_dev(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '{' | '}');
    text.match_indices("/dev/")
        .filter_map(move |(at, _)| text.get(at..)?.split(ends).next())
        .filter(|path| path.len() <= LONGEST_PATH)
}

/// The address of a whole device: of PCI, or a disk's of SCSI.
fn passed_through(source: Element<'_>) -> Option<String> {
    let address = source.child("address")?;
    let number = |name: &str| number(address.attribute(name)?);
    if let Some(slot) = number("slot") {
        let (domain, bus) = (number("domain").unwrap_or(0), number("bus")?);
        return Some(format!("{domain:04x}:{bus:02x}:{slot:02x}.{:x}", number("function").unwrap_or(0)));
    }
    let host: u32 =
        source.child("adapter")?.attribute("name")?.trim().strip_prefix("scsi_host")?.parse().ok()?;
    Some(format!("{host}:{}:{}:{}", number("bus")?, number("target")?, number("unit")?))
}

/// As libvirt reads one: with `0x` in sixteens, with `0` before it in eights.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(digits, 16).ok();
    }
    match text.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        Some(digits) => u32::from_str_radix(digits, 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(devices: &str) -> Vec<String> {
        let xml = format!(
            "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><devices>{devices}</devices></domain>"
        );
        host_devices(&xml).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_device_is_found_wherever_a_definition_names_it() {
        for (devices, expected) in [
            ("<disk type='block'><source dev='/dev/sdb'/></disk>", vec!["/dev/sdb"]),
            (
                "<disk type='block'><source dev='/dev/disk/by-id/a:b'><reservations><source path='/x'/></reservations></source></disk>",
                vec!["/dev/disk/by-id/a:b"],
            ),
            // A link that is somewhere else, with whatever is in its name.
            ("<disk type='block'><source dev='/srv/a, b'/></disk>", vec!["/srv/a, b"]),
            ("<disk type='file'><source file='/dev/mapper/vg-web'/></disk>", vec!["/dev/mapper/vg-web"]),
            (
                "<disk type='network'><source protocol='rbd' name='a/b'/><backingStore type='block'><source dev='/dev/vg/b'/></backingStore></disk>",
                vec!["/dev/vg/b"],
            ),
            ("<disk type='block'><mirror><source dev='/dev/sdd'/></mirror></disk>", vec!["/dev/sdd"]),
            ("<q:commandline><q:arg value='file=/dev/sdc,if=none'/></q:commandline>", vec!["/dev/sdc"]),
            ("<rng><backend model='random'>/dev/urandom</backend></rng>", vec!["/dev/urandom"]),
            (
                "<hostdev type='pci'><source><address domain='0x0000' bus='0x1f' slot='3' function='0x0'/></source></hostdev>",
                vec!["what is at 0000:1f:03.0"],
            ),
            (
                "<disk type='nvme'><source type='pci' namespace='1'><address bus='010' slot='0x00'/></source></disk>",
                vec!["what is at 0000:08:00.0"],
            ),
            (
                "<hostdev type='scsi'><source><adapter name='scsi_host2'/><address bus='0' target='1' unit='7'/></source></hostdev>",
                vec!["what is at 2:0:1:7"],
            ),
            // Not a device of the node: what the guest calls its own.
            (
                "<disk><source file='/srv/a.qcow2'/><target dev='vda'/><address type='pci' bus='0' slot='4'/></disk>",
                vec![],
            ),
            ("<hostdev><source><address bus='x' slot='1'/></source></hostdev>", vec![]),
        ] {
            assert_eq!(of(devices), expected, "{devices}");
        }
        assert!(host_devices("<domain").is_err() && host_devices("<network/>").is_err());
    }
}
