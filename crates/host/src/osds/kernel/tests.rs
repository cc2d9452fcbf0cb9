//! A machine of files, laid out as the kernel does it; a file that holds `8:16` stands for that device, and so does `/dev/number-8:16`.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

struct Machine {
    folder: TempDir,
    kernel: Kernel,
}

impl Machine {
    /// Without a device.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kernel = Kernel {
            sys: at("sys"),
            proc: at("proc"),
            block: |path| match path.strip_prefix("/dev") {
                Ok(name) => Some(name.to_str()?.strip_prefix("number-")?.to_owned()),
                Err(_) => path.is_file().then(|| fs::read_to_string(path).unwrap()),
            },
        };
        let machine = Self { folder, kernel };
        fs::create_dir_all(machine.at("sys/dev/block")).unwrap();
        machine.write("proc/self/mountinfo", "22 1 0:21 / / rw - tmpfs none rw\n");
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// A disk, a partition of one (`sda/sda1`) or what is made of others, at some place of the machine.
    fn has(&self, place: &str, number: &str) {
        self.write(&format!("sys/devices/{place}/dev"), &format!("{number}\n"));
        self.write(&format!("sys/devices/{place}/size"), "8388608\n");
        symlink(self.at("sys/devices").join(place), self.at("sys/dev/block").join(number)).unwrap();
    }

    fn is_partition(&self, place: &str) {
        self.write(&format!("sys/devices/{place}/partition"), "1\n");
    }

    fn made_of(&self, upper: &str, lower: &str) {
        for (of, which, other) in [(upper, "slaves", lower), (lower, "holders", upper)] {
            let folder = self.at("sys/devices").join(of).join(which);
            fs::create_dir_all(&folder).unwrap();
            let to = self.at("sys/devices").join(other);
            symlink(&to, folder.join(to.file_name().unwrap())).unwrap();
        }
    }

    /// A name of a device, as a definition has it.
    fn name(&self, path: &str, number: &str) -> HostDevice {
        self.write(path, number);
        self.named(path)
    }

    fn named(&self, path: &str) -> HostDevice {
        HostDevice::Path(self.at(path).display().to_string())
    }

    fn used(&self, number: &str) -> String {
        self.kernel.used(number).unwrap().unwrap_or_default()
    }
}

/// A disk with a partition.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.has("pci0000:00/0000:00:1f.2/host2/target2:0:1/2:0:1:0/block/sda", "8:0");
    machine.has("pci0000:00/0000:00:1f.2/host2/target2:0:1/2:0:1:0/block/sda/sda1", "8:1");
    machine.is_partition("pci0000:00/0000:00:1f.2/host2/target2:0:1/2:0:1:0/block/sda/sda1");
    machine
}

const SDA: &str = "pci0000:00/0000:00:1f.2/host2/target2:0:1/2:0:1:0/block/sda";

/// What is done to a machine so that its disk is in use.
type Use = fn(&Machine);

#[test]
fn whoever_uses_a_device_or_a_part_of_it_is_told() {
    let uses: [(&str, Use, &str); 11] = [
        ("nobody", |_| {}, ""),
        (
            "a mounted partition",
            |m| {
                m.write("proc/self/mountinfo", "22 1 8:1 / /srv rw - ext4 /dev/sda1 rw\n");
            },
            "it is mounted on /srv",
        ),
        (
            "an OSD's folder, as lvm or raw mounts it",
            |m| {
                m.write("proc/self/mountinfo", "22 1 8:0 / /var/lib/ceph/osd/ceph-3 rw - xfs /dev/sda rw\n");
            },
            "it is mounted on /var/lib/ceph/osd/ceph-3",
        ),
        (
            "swap by the kernel's name",
            |m| m.write("proc/swaps", "Filename Type\n/dev/sda1 partition 1 0 -2\n"),
            "it is swapped to",
        ),
        (
            "swap by another name",
            |m| {
                m.write("by-uuid/x", "8:1");
                m.write(
                    "proc/swaps",
                    &format!("Filename Type\n{} partition 1 0 -2\n", m.at("by-uuid/x").display()),
                );
            },
            "it is swapped to",
        ),
        (
            "a volume of LVM, also an OSD's",
            |m| {
                m.has("virtual/block/dm-0", "253:0");
                m.write("sys/devices/virtual/block/dm-0/dm/name", "ceph--1-osd--block--2\n");
                m.made_of("virtual/block/dm-0", SDA);
            },
            "ceph--1-osd--block--2 (dm-0) is made of it",
        ),
        (
            "a loop device",
            |m| {
                m.has("virtual/block/loop0", "7:0");
                m.write("sys/devices/virtual/block/loop0/loop/backing_file", "/dev/number-8:1\n");
            },
            "/dev/loop0 is made of it",
        ),
        (
            "an array",
            |m| {
                m.has("virtual/block/md0", "9:0");
                m.made_of("virtual/block/md0", &format!("{SDA}/sda1"));
            },
            "md0 is made of it",
        ),
        (
            "multipath",
            |m| {
                m.has("virtual/block/dm-0", "253:0");
                m.write("sys/devices/virtual/block/dm-0/dm/name", "mpatha\n");
                m.made_of("virtual/block/dm-0", SDA);
            },
            "mpatha (dm-0) is made of it",
        ),
        (
            "a second path that nobody has joined",
            |m| {
                m.has("pci0000:00/host3/target3:0:1/3:0:1:0/block/sdb", "8:16");
                for place in [SDA, "pci0000:00/host3/target3:0:1/3:0:1:0/block/sdb"] {
                    m.write(&format!("sys/devices/{place}/device/wwid"), "naa.6001405\n");
                }
            },
            "/dev/sdb is another path to the same disk",
        ),
        (
            "a guest",
            |m| {
                m.write("proc/4711/fd/7", "8:1");
                m.write("proc/4711/fdinfo/7", "pos:\t0\nflags:\t02500002\n");
                m.write("proc/4711/comm", "qemu-system-x86\n");
            },
            "qemu-system-x86 writes to it (process 4711)",
        ),
    ];
    for (what, is_used, expected) in uses {
        let machine = machine();
        is_used(&machine);
        let said = machine.used("8:0");
        assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{what}: {said}");
    }
}

#[test]
fn who_only_reads_it_or_is_of_another_size_does_not_use_it() {
    let machine = machine();
    machine.write("proc/4711/fd/7", "8:0");
    machine.write("proc/4711/fdinfo/7", "flags:\t0100000\n");
    // Makers of cheap disks give all of them one name.
    machine.has("usb/sdb", "8:16");
    machine.write("sys/devices/usb/sdb/size", "1\n");
    for place in [SDA, "usb/sdb"] {
        machine.write(&format!("sys/devices/{place}/device/wwid"), "t10.cheap\n");
    }
    assert_eq!(machine.used("8:0"), "");
}

#[test]
fn a_name_is_a_devices_whatever_link_leads_to_it_and_so_is_its_disks_and_its_partitions() {
    let machine = machine();
    let own = machine.name("dev/sda", "8:0");
    let part = machine.name("dev/sda1", "8:1");
    machine.name("dev/sdb", "8:16");
    let [by_id, chain, dangling] = ["disk/by-id/wwn-1", "srv/web", "disk/by-id/gone"].map(|link| {
        fs::create_dir_all(machine.at(link).parent().unwrap()).unwrap();
        machine.named(link)
    });
    symlink(machine.at("dev/sda"), machine.at("disk/by-id/wwn-1")).unwrap();
    symlink(machine.at("disk/by-id/wwn-1"), machine.at("srv/web")).unwrap();
    symlink(machine.at("dev/none"), machine.at("disk/by-id/gone")).unwrap();
    let others = [machine.named("dev/sdb"), dangling, HostDevice::Path("/dev/urandom".into())];
    for number in ["8:0", "8:1"] {
        for name in [&own, &part, &by_id, &chain] {
            let names = [&others[..], std::slice::from_ref(name)].concat();
            assert_eq!(machine.kernel.named(number, &names).as_ref(), Some(name), "{number}");
        }
        assert_eq!(machine.kernel.named(number, &others), None);
    }
}

#[test]
fn a_name_of_what_a_device_is_made_of_or_is_part_of_is_its_own() {
    let machine = machine();
    machine.has("virtual/block/dm-0", "253:0");
    machine.has("virtual/block/dm-1", "253:1");
    machine.made_of("virtual/block/dm-0", SDA);
    machine.made_of("virtual/block/dm-1", "virtual/block/dm-0");
    // One that holds itself, as nothing does.
    machine.made_of("virtual/block/dm-0", "virtual/block/dm-1");
    let names = [machine.name("dev/sda", "8:0"), machine.name("dev/mapper/vg-web", "253:1")];
    for (number, name) in [("253:1", 0), ("253:0", 0), ("8:0", 1)] {
        assert_eq!(
            machine.kernel.named(number, &names[name..=name]).as_ref(),
            Some(&names[name]),
            "{number}"
        );
    }
    for (uuid, is_lvms) in [("LVM-abc", true), ("mpath-360014", false), ("CRYPT-LUKS2-x", false)] {
        machine.write("sys/devices/virtual/block/dm-0/dm/uuid", uuid);
        assert_eq!(machine.kernel.is_lvms("253:0"), is_lvms, "{uuid}");
    }
}

#[test]
fn what_is_passed_through_as_a_whole_is_known_by_its_place() {
    let machine = machine();
    machine.has("virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "259:0");
    fs::create_dir_all(machine.at("sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0")).unwrap();
    let subsystem = machine.at("sys/devices/virtual/nvme-subsystem/nvme-subsys0");
    symlink(machine.at("sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0"), subsystem.join("nvme0")).unwrap();
    symlink(&subsystem, subsystem.join("nvme0n1/device")).unwrap();
    for (number, address, is_its) in [
        ("8:0", "2:0:1:0", true),
        ("8:1", "2:0:1:0", true),
        ("8:0", "2:0:1:1", false),
        ("8:0", "0000:00:1f.2", true),
        ("259:0", "0000:03:00.0", true),
        ("259:0", "0000:04:00.0", false),
    ] {
        let name = HostDevice::On(address.to_owned());
        let found = machine.kernel.named(number, std::slice::from_ref(&name));
        assert_eq!(found, is_its.then_some(name), "{number} {address}");
    }
}
