//! What people want to know of a definition: `pvc vm info`, the API's `vm` object. Lenient: it describes what is there,
//! also of definitions that would be refused today.

use serde::{Deserialize, Serialize};

use super::{
    DomainError,
    read::{Definition, Element},
};

/// A definition, described.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DomainDetails {
    /// `<description>`, or empty.
    pub description: String,
    /// MiB, rounded up; `None` if the definition does not say it.
    #[serde(rename = "memory")]
    pub memory_mib: Option<u64>,
    /// `None` if the definition's number cannot be read.
    #[serde(rename = "vcpu")]
    pub vcpus: Option<u32>,
    /// Sockets/cores/threads, or `N/A`.
    pub vcpu_topology: String,
    /// `<interface>`s.
    pub networks: Vec<Interface>,
    /// `hvm`.
    #[serde(rename = "type")]
    pub os_type: String,
    /// `x86_64`.
    pub arch: String,
    /// `pc-i440fx-2.7`.
    pub machine: String,
    /// Type of the console, `pty`; empty = none.
    pub console: String,
    /// Where libvirt logs what the guest prints; `None`: the VM has no console log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_log: Option<String>,
    /// Path of the emulator, or empty.
    pub emulator: String,
    /// `acpi`, `apic`.
    pub features: Vec<String>,
    /// `<disk>`s.
    pub disks: Vec<Disk>,
    /// `<controller>`s.
    pub controllers: Vec<Controller>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the definition")]
pub struct Interface {
    #[serde(rename = "type")]
    pub kind: String,
    pub mac: String,
    pub source: String,
    pub model: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Protocol of a network disk (`rbd`), else `file`, `block` …
    #[serde(rename = "type")]
    pub kind: String,
    /// `pool/image`, a path, or empty (an empty CD drive).
    pub name: String,
    /// `vda`.
    pub dev: String,
    /// `virtio`.
    pub bus: String,
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the definition")]
pub struct Controller {
    #[serde(rename = "type")]
    pub kind: String,
    pub model: String,
}

impl DomainDetails {
    /// Describes a definition; fails only if it is no XML `<domain>`.
    pub fn parse(xml: &str) -> Result<Self, DomainError> {
        let definition = Definition::parse(xml)?;
        let root = definition.root()?;
        let devices = root.child("devices");
        let list = |name: &'static str| devices.into_iter().flat_map(move |d| d.children(name));
        let os_type = root.child("os").and_then(|os| os.child("type"));
        Ok(Self {
            description: root.child("description").map(Element::text).unwrap_or_default().trim().to_owned(),
            memory_mib: super::size::memory_mib(root).ok(),
            vcpus: super::size::vcpus(root).ok(),
            vcpu_topology: topology(root),
            networks: list("interface").map(interface).collect(),
            os_type: os_type.map(Element::text).unwrap_or_default().trim().to_owned(),
            arch: owned(os_type, "arch"),
            machine: owned(os_type, "machine"),
            console: owned(list("console").next(), "type"),
            console_log: list("serial").chain(list("console")).find_map(log_file),
            emulator: list("emulator").next().map(Element::text).unwrap_or_default().trim().to_owned(),
            features: root
                .child("features")
                .into_iter()
                .flat_map(Element::elements)
                .map(|f| f.name().into())
                .collect(),
            disks: list("disk").map(disk).collect(),
            controllers: list("controller").map(controller).collect(),
        })
    }
}

fn owned(element: Option<Element<'_>>, attribute: &str) -> String {
    element.and_then(|e| e.attribute(attribute)).unwrap_or_default().to_owned()
}

fn topology(root: Element<'_>) -> String {
    let Some(topology) = root.child("cpu").and_then(|cpu| cpu.child("topology")) else {
        return "N/A".into();
    };
    let part = |name| topology.attribute(name).unwrap_or("1");
    format!("{}/{}/{}", part("sockets"), part("cores"), part("threads"))
}

fn interface(element: Element<'_>) -> Interface {
    let kind = owned(Some(element), "type");
    let source = element.child("source");
    // `<interface type='bridge'><source bridge='br0'/>`: the source is called as the type, save for a few types.
    let named = source.and_then(|s| [kind.as_str(), "dev", "path"].iter().find_map(|name| s.attribute(name)));
    Interface {
        mac: owned(element.child("mac"), "address"),
        source: named.unwrap_or_default().to_owned(),
        model: owned(element.child("model"), "type"),
        kind,
    }
}

fn disk(element: Element<'_>) -> Disk {
    let kind = owned(Some(element), "type");
    let source = element.child("source");
    let name = ["name", "file", "dev", "dir", "volume"].iter().find_map(|attr| source?.attribute(attr));
    let protocol = source.and_then(|s| s.attribute("protocol")).filter(|_| kind == "network");
    Disk {
        kind: protocol.map_or(kind.clone(), str::to_owned),
        name: name.unwrap_or_default().to_owned(),
        dev: owned(element.child("target"), "dev"),
        bus: owned(element.child("target"), "bus"),
    }
}

fn controller(element: Element<'_>) -> Controller {
    Controller { kind: owned(Some(element), "type"), model: owned(Some(element), "model") }
}

fn log_file(console: Element<'_>) -> Option<String> {
    let log = console.child("log").and_then(|log| log.attribute("file"));
    let written =
        || console.child("source").filter(|_| console.attribute("type") == Some("file"))?.attribute("path");
    log.or_else(written).map(str::to_owned)
}
