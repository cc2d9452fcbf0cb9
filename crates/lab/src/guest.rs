//! The lab's guest: Debian's cloud kernel with a busybox that prints on the serial console and obeys the power button.
//! Built once into the cache; downloads nothing but the kernel's package, and only if the cache has none.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    layout::{CACHE, CEPH_SECRET, GUEST_IN_NODE, Layout},
    machine::cpio::Archive,
    program::{Output, command, output, run},
};

/// Loaded by the guest in this order, which respects what depends on what.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
    "evdev",
    "button",
];
const INIT: &str = include_str!("../files/guest-init");
const DHCP: &str = include_str!("../files/guest-dhcp");
/// The name of the guest that `./lab up` defines.
pub const DEMO: &str = "demo";
/// That guest's UUID.
pub const DEMO_UUID: &str = "5f1a0c1e-0000-4000-8000-000000000001";
/// What the guest prints when its system runs.
pub const READY_LINE: &str = "LABGUEST ready";

/// Puts the guest's kernel and image into the lab's folder, building them if the cache has none.
pub fn provide(layout: &Layout) -> Result<()> {
    let image = build().context("could not build the guest")?;
    fs::create_dir_all(layout.guest())?;
    for name in ["vmlinuz", "initrd"] {
        let (from, to) = (image.join(name), layout.guest().join(name));
        // A link does where both are on one file system.
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| format!("could not copy {}", from.display()))?;
        }
    }
    fs::write(layout.guest().join("demo.xml"), guest_xml(DEMO, DEMO_UUID, 96))?;
    Ok(())
}

/// The folder of the built kernel and image; named by all that went into them.
fn build() -> Result<PathBuf> {
    fs::create_dir_all(CACHE).with_context(|| format!("could not create {CACHE}"))?;
    let package = kernel_package()?;
    let kernel = package.file_stem().and_then(|stem| stem.to_str()).context("odd package name")?;
    let recipe = format!("{INIT}{DHCP}{MODULES:?}");
    let built = Path::new(CACHE).join(format!("guest-{kernel}-{:08x}", checksum(&recipe)));
    if built.exists() {
        return Ok(built);
    }
    // Two labs may build at once: each builds beside, the first rename wins.
    let beside = Path::new(CACHE).join(format!(".guest-{}", std::process::id()));
    let result = unpack(&package, &beside).and_then(|()| match fs::rename(beside.join("built"), &built) {
        Err(_) if built.exists() => Ok(()),
        other => other.with_context(|| format!("could not create {}", built.display())),
    });
    // What is left is only the unpacked package.
    let _ = fs::remove_dir_all(&beside);
    result?;
    Ok(built)
}

/// An unpacked kernel. Its files go with it.
pub(crate) struct Kernel {
    /// Its image.
    pub(crate) image: PathBuf,
    version: String,
    modules: PathBuf,
    unpacked: PathBuf,
}

impl Kernel {
    fn unpack(package: &Path, to: &Path) -> Result<Self> {
        fs::create_dir_all(to)?;
        run("/usr/bin/dpkg-deb", [Path::new("-x"), package, to], Duration::from_mins(1))?;
        let version = only_entry(&to.join("lib/modules"))?;
        let modules = to.join("lib/modules").join(&version).join("kernel");
        let image = to.join("boot").join(format!("vmlinuz-{version}"));
        Ok(Self { image, version, modules, unpacked: to.to_owned() })
    }

    /// The file of a module.
    pub(crate) fn module(&self, name: &str) -> Result<Vec<u8>> {
        let file = find(&self.modules, &format!("{name}.ko"))?
            .with_context(|| format!("the kernel {} has no module {name}.ko", self.version))?;
        Ok(fs::read(file)?)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.unpacked);
    }
}

/// The guests' kernel, for other machines.
pub(crate) fn kernel() -> Result<Kernel> {
    fs::create_dir_all(CACHE).with_context(|| format!("could not create {CACHE}"))?;
    Kernel::unpack(&kernel_package()?, &Path::new(CACHE).join(format!(".kernel-{}", std::process::id())))
}

fn unpack(package: &Path, beside: &Path) -> Result<()> {
    let built = beside.join("built");
    fs::create_dir_all(&built)?;
    let kernel = Kernel::unpack(package, &beside.join("package"))?;
    fs::copy(&kernel.image, built.join("vmlinuz"))
        .with_context(|| format!("no {}", kernel.image.display()))?;

    let mut archive = Archive::default();
    for folder in ["bin", "dev", "lib", "lib/modules", "proc", "root", "sys", "tmp"] {
        archive.folder(folder);
    }
    let busybox = fs::read("/bin/busybox").context("no /bin/busybox: install busybox-static")?;
    if wants_a_loader(&busybox) {
        bail!(
            "/bin/busybox needs libraries, which the guest has not: install busybox-static in place of busybox"
        );
    }
    archive.program("bin/busybox", &busybox);
    archive.program("bin/dhcp", DHCP.as_bytes());
    archive.program("init", INIT.as_bytes());
    let mut order = String::new();
    for name in MODULES {
        archive.file(&format!("lib/modules/{name}.ko"), &kernel.module(name)?);
        writeln!(order, "{name}")?;
    }
    archive.file("lib/modules/order", order.as_bytes());
    fs::write(built.join("initrd"), archive.finish())?;
    Ok(())
}

/// The newest cloud kernel in the cache, downloaded if there is none.
fn kernel_package() -> Result<PathBuf> {
    let cached = || -> Result<Option<PathBuf>> {
        let mut found: Vec<_> = fs::read_dir(CACHE)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                name.starts_with("linux-image-")
                    && name.contains("cloud-amd64_")
                    && path.extension().is_some_and(|extension| extension == "deb")
            })
            .collect();
        found.sort();
        Ok(found.pop())
    };
    if let Some(package) = cached()? {
        return Ok(package);
    }
    let minutes = Duration::from_mins(5);
    let name = match kernel_name(minutes) {
        Ok(name) => name,
        // A machine that has never asked for the lists of packages has none.
        Err(_) => run("/usr/bin/apt-get", ["-q", "update"], minutes).and_then(|_| kernel_name(minutes))?,
    };
    // Beside, then renamed: an interrupted download must not be taken for a package.
    let beside = Path::new(CACHE).join(format!(".download-{}", std::process::id()));
    fs::create_dir_all(&beside)?;
    let mut download = command("/usr/bin/apt-get");
    download.args(["-q", "download", &name]).current_dir(&beside);
    let done = output(download, b"", minutes).and_then(Output::ok).and_then(|_| {
        let file = only_entry(&beside)?;
        Ok(fs::rename(beside.join(&file), Path::new(CACHE).join(&file))?)
    });
    // Empty by now, unless something went wrong.
    let _ = fs::remove_dir_all(&beside);
    done.with_context(|| format!("could not download {name}"))?;
    cached()?.context("apt-get download left no package")
}

/// The package that Debian's `linux-image-cloud-amd64` stands for.
fn kernel_name(deadline: Duration) -> Result<String> {
    let depends = run("/usr/bin/apt-cache", ["depends", "linux-image-cloud-amd64"], deadline)?;
    let kernel = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| name.starts_with("linux-image-"));
    let Some(kernel) = kernel else {
        bail!("apt knows no linux-image-cloud-amd64: is this a Debian for amd64?")
    };
    Ok(kernel.to_owned())
}

/// Whether a 64-bit ELF program has a header of the type `PT_INTERP`.
fn wants_a_loader(elf: &[u8]) -> bool {
    let half = |at: usize| elf.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let (first, size, count) = (half(32), half(54), half(56));
    (0..count).any(|n| half(first + n * size) == 3)
}

fn only_entry(folder: &Path) -> Result<String> {
    let entry = fs::read_dir(folder)
        .with_context(|| format!("no {}", folder.display()))?
        .next()
        .with_context(|| format!("{} is empty", folder.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// FNV-1a: the same on every machine and with every compiler.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The libvirt definition of a lab guest, with its console in `/var/log/libvirt/<name>.log`.
/// It boots in seconds without hardware virtualisation, asks for an address on `br0` and prints a line every ten seconds.
pub fn guest_xml(name: &str, uuid: &str, memory_mib: u32) -> String {
    definition(name, uuid, memory_mib, "tick=10")
}

/// The same for observers: it counts aloud ten times a second, see [`Beat`].
pub fn beating_guest_xml(name: &str, uuid: &str, memory_mib: u32) -> String {
    definition(name, uuid, memory_mib, "beat=0.1")
}

/// The same with an RBD image of the lab's Ceph as its disk, on which it writes its numbers; see [`Written`].
pub fn writing_guest_xml(name: &str, uuid: &str, memory_mib: u32, image: &str) -> String {
    let disk = format!(
        "<disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <auth username='admin'><secret type='ceph' uuid='{CEPH_SECRET}'/></auth>
      <source protocol='rbd' name='{image}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'>"
    );
    definition(name, uuid, memory_mib, "beat=0.1 disk=vda").replacen("<serial type='pty'>", &disk, 1)
}

/// What a writing guest says of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// What it found when it booted; 0: nothing.
    Found(u64),
    /// What the disk has acknowledged, flushed.
    Acknowledged(u64),
}

impl Written {
    /// All that a console tells, in order.
    pub fn all(console: &str) -> Vec<Self> {
        console.split_inclusive('\n').filter_map(Self::read).collect()
    }

    fn read(printed: &str) -> Option<Self> {
        let line = printed.strip_suffix('\n')?.trim_end();
        let number = |word| line.split_once(word)?.1.parse().ok();
        number("LABGUEST found ")
            .map(Self::Found)
            .or_else(|| number("LABGUEST wrote ").map(Self::Acknowledged))
    }
}

/// A beating guest's line on its console. A migration changes nothing of it; a reboot gives another `life`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beat {
    /// The guest kernel's boot id.
    pub life: String,
    /// Counted from 1 in every life.
    pub count: u64,
}

impl Beat {
    /// All beats of a console, in the order in which they were printed; what was cut off in the middle is none.
    pub fn all(console: &str) -> Vec<Self> {
        console.split_inclusive('\n').filter_map(Self::read).collect()
    }

    fn read(printed: &str) -> Option<Self> {
        let beat = printed.split_once("LABGUEST beat ")?.1.strip_suffix('\n')?;
        let (life, count) = beat.trim_end().split_once(' ')?;
        Some(Self { life: life.to_owned(), count: count.parse().ok()? })
    }
}

/// Under emulation on a busy machine no timer tick may arrive while the kernel looks for one: without `no_timer_check` it would
/// panic ("IO-APIC + timer doesn't work").
///
/// It has 8 KiB more memory than its definition says, which libvirt itself would round up to a MiB. An emulating QEMU before 9.0 loses writes of a
/// guest that migrates where the memory is a multiple of 256 KiB (decision 217).
fn definition(name: &str, uuid: &str, memory_mib: u32, parameters: &str) -> String {
    let [.., a, b] = checksum(uuid).to_be_bytes();
    let kib = memory_mib * 1024 + 8;
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <kernel>{GUEST_IN_NODE}/vmlinuz</kernel>
    <initrd>{GUEST_IN_NODE}/initrd</initrd>
    <cmdline>console=ttyS0 quiet no_timer_check host={name} {parameters}</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <interface type='bridge'>
      <source bridge='br0'/>
      <mac address='52:54:00:bb:{a:02x}:{b:02x}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <serial type='pty'>
      <log file='/var/log/libvirt/{name}.log' append='on'/>
      <target port='0'/>
    </serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-object'/><qemu:arg value='memory-backend-ram,id=lab.ram,size={kib}K'/>
    <qemu:arg value='-machine'/><qemu:arg value='memory-backend=lab.ram'/>
    <qemu:arg value='-m'/><qemu:arg value='size={kib}K'/>
  </qemu:commandline>
</domain>
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_found_among_other_lines_and_unfinished_ones_are_not() {
        let console = "LABGUEST ready 1.2\r\nLABGUEST beat a-b 1\r\nx\r\n~ # LABGUEST beat a-b 2\r\nLABGUEST beat a-b 3";
        let counts: Vec<_> = Beat::all(console).into_iter().map(|beat| (beat.life, beat.count)).collect();
        assert_eq!(counts, [("a-b".to_owned(), 1), ("a-b".to_owned(), 2)]);
    }

    #[test]
    fn programs_that_need_libraries_are_known() {
        assert!(wants_a_loader(&fs::read("/bin/sh").unwrap()));
        assert!(!wants_a_loader(&fs::read("/bin/busybox").unwrap()) && !wants_a_loader(b""));
    }

    #[test]
    fn guests_differ_in_name_uuid_and_mac() {
        let mac = |xml: &str| xml.split("mac address='").nth(1).map(|rest| rest[..17].to_owned());
        let one = guest_xml("one", "11111111-0000-4000-8000-000000000001", 96);
        let two = guest_xml("two", "11111111-0000-4000-8000-000000000002", 128);
        assert!(one.contains("<name>one</name>") && one.contains("/var/log/libvirt/one.log"));
        assert!(two.contains("<memory unit='MiB'>128</memory>"));
        assert!(mac(&one).is_some());
        assert_ne!(mac(&one), mac(&two));
    }
}
