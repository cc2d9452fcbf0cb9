//! Whether a guest could be started here, told without starting it: what its definition names on this machine, and what libvirt says of its CPU,
//! machine type and emulator. Only what is certain counts as missing.

use std::path::Path;

use pvc_core::model::{DomainDetails, DomainSpec};

use super::{connection::Connection, library::Fault};

/// The kernel's network devices.
const DEVICES: &str = "/sys/class/net";

/// Directories that a hardened daemon sees otherwise than libvirt does.
const HIDDEN: [&str; 5] = ["/tmp/", "/var/tmp/", "/home/", "/root/", "/run/user/"];

/// Fails with what is missing.
pub(super) fn could_start(connection: &Connection, spec: &DomainSpec) -> Result<(), Fault> {
    if let Some(missing) = missing(spec, Path::new("/")) {
        return Err(Fault::ours(missing));
    }
    match connection.try_command_line(&spec.xml) {
        Err(fault) if fault.is_connection() || fault.is_incapable() => Err(fault),
        // It may build no command line for reasons of its own.
        _ => Ok(()),
    }
}

/// What a definition names and this machine, whose files are below `root`, has not.
fn missing(spec: &DomainSpec, root: &Path) -> Option<String> {
    let details = DomainDetails::parse(&spec.xml).ok()?;
    let absent = |path: &str| {
        let known = !HIDDEN.iter().any(|hidden| path.starts_with(hidden));
        known && matches!(root.join(path.trim_start_matches('/')).try_exists(), Ok(false))
    };
    if details.emulator.starts_with('/') && absent(&details.emulator) {
        return Some(format!("there is no emulator {}", details.emulator));
    }
    let device = |name: &str| absent(&format!("{DEVICES}/{name}"));
    for interface in details.networks.iter().filter(|interface| !interface.source.is_empty()) {
        let is_absent = matches!(interface.kind.as_str(), "bridge" | "direct") && device(&interface.source);
        if is_absent {
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
    fn what_the_machine_has_not_is_named() {
        let root = tempfile::tempdir().unwrap();
        for there in ["usr/bin/qemu", "vm/disk", "sys/class/net/br1/x"] {
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
            assert_eq!(missing(&spec(devices), root.path()).as_deref(), says, "{devices}");
        }
    }
}
