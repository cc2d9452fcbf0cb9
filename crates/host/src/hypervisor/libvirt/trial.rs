//! Whether a guest could be started here, told without starting it: what its definition names on this machine, and what libvirt says of its CPU,
//! machine type and emulator. Only what is certain counts as missing.

use std::path::Path;

use pvc_core::model::{DomainDetails, DomainSpec};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
};

use super::{connection::Connection, library::Fault};

/// Directories that a hardened daemon sees otherwise than libvirt does.
const HIDDEN: [&str; 5] = ["/tmp/", "/var/tmp/", "/home/", "/root/", "/run/user/"];

/// Fails with what is missing.
pub(super) fn could_start(connection: &Connection, spec: &DomainSpec) -> Result<(), Fault> {
    if let Some(missing) = missing(spec, Path::new("/"), lacks_device) {
        return Err(Fault::ours(missing));
    }
    match connection.try_command_line(&spec.xml) {
        Err(fault) if fault.is_connection() || fault.is_incapable() => Err(fault),
        // It may build no command line for reasons of its own.
        _ => Ok(()),
    }
}

/// Whether this machine has no such network device. The kernel is asked, not `/sys`, of which a service may see a part only.
fn lacks_device(name: &str) -> bool {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None);
    any.and_then(|any| name_to_index(any, name)) == Err(Errno::NODEV)
}

/// What a definition names and this machine, whose files are below `root`, has not.
fn missing(spec: &DomainSpec, root: &Path, lacks_device: impl Fn(&str) -> bool) -> Option<String> {
    let details = DomainDetails::parse(&spec.xml).ok()?;
    let absent = |path: &str| {
        let known = !HIDDEN.iter().any(|hidden| path.starts_with(hidden));
        known && matches!(root.join(path.trim_start_matches('/')).try_exists(), Ok(false))
    };
    if details.emulator.starts_with('/') && absent(&details.emulator) {
        return Some(format!("there is no emulator {}", details.emulator));
    }
    for interface in details.networks.iter().filter(|interface| !interface.source.is_empty()) {
        let is_device = matches!(interface.kind.as_str(), "bridge" | "direct");
        if is_device && lacks_device(&interface.source) {
            return Some(format!("there is no network device {}", interface.source));
        }
    }
    // A disk that may be absent at the start says so.
    let all_are_needed = !spec.xml.contains("startupPolicy");
    let mut disks = details.disks.iter().filter(|disk| matches!(disk.kind.as_str(), "file" | "block"));
    let disk = disks.find(|disk| all_are_needed && disk.name.starts_with('/') && absent(&disk.name))?;
    Some(format!("there is no {}, which is its disk {}", disk.name, disk.dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(devices: &str) -> DomainSpec {
        let xml = format!(
            "<domain type='kvm'><name>a</name><uuid>6f1f6c55-7b8e-4f2f-9f5e-0f2c3c1c9f00</uuid><memory>1024</memory><vcpu>1</vcpu>\
             <devices>{devices}</devices></domain>"
        );
        DomainSpec::parse(&xml).unwrap()
    }

    #[test]
    fn the_kernel_is_asked_for_network_devices() {
        assert!(!lacks_device("lo"));
        assert!(lacks_device("no-such-device"));
        assert!(lacks_device("longer-than-any-devices-name-can-be"));
    }

    #[test]
    fn what_the_machine_has_not_is_named() {
        let root = tempfile::tempdir().unwrap();
        for there in ["usr/bin/qemu", "vm/disk"] {
            let there = root.path().join(there);
            std::fs::create_dir_all(there.parent().unwrap()).unwrap();
            std::fs::write(there, "").unwrap();
        }
        for (devices, says) in [
            ("", None),
            ("<emulator>/usr/bin/qemu</emulator>", None),
            ("<emulator>/usr/bin/kvm</emulator>", Some("there is no emulator /usr/bin/kvm")),
            ("<interface type='bridge'><source bridge='br1'/></interface>", None),
            (
                "<interface type='bridge'><source bridge='br7'/></interface>",
                Some("there is no network device br7"),
            ),
            ("<interface type='network'><source network='default'/></interface>", None),
            ("<disk type='file'><source file='/vm/disk'/><target dev='vda'/></disk>", None),
            (
                "<disk type='block'><source dev='/dev/vg/no'/><target dev='vda'/></disk>",
                Some("there is no /dev/vg/no, which is its disk vda"),
            ),
            (
                "<disk type='file'><source file='/no' startupPolicy='optional'/><target dev='vda'/></disk>",
                None,
            ),
            ("<disk type='file'><source file='/home/a/disk'/><target dev='vda'/></disk>", None),
            ("<disk type='file' device='cdrom'><target dev='hda'/></disk>", None),
            ("<disk type='network'><source protocol='rbd' name='vms/a'/><target dev='vda'/></disk>", None),
        ] {
            assert_eq!(
                missing(&spec(devices), root.path(), |name| name == "br7").as_deref(),
                says,
                "{devices}"
            );
        }
    }
}
