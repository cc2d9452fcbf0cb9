//! Who uses a block device, and what else it is: as the kernel tells it below `/sys` and `/proc`, without a program. Never opens a device.
#![allow(
    clippy::disallowed_methods,
    reason = "what the kernel tells is in files; this runs on a thread that may block"
)]

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use pvc_core::model::HostDevice;

/// Devices are made of others, which are made of others; nobody stacks more.
const DEEPEST: usize = 16;

/// Where the kernel tells.
pub(super) struct Kernel {
    sys: PathBuf,
    proc: PathBuf,
    /// The number of the block device that a path leads to.
    block: fn(&Path) -> Option<String>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { sys: PathBuf::from("/sys"), proc: PathBuf::from("/proc"), block }
    }
}

/// A number of a device, as the kernel writes it: `8:16`.
pub(super) fn number(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

impl Kernel {
    fn folder(&self, number: &str) -> PathBuf {
        self.sys.join("dev/block").join(number)
    }

    /// What one file of a device's folder says; nothing if there is no such file.
    fn says(&self, number: &str, file: &str) -> String {
        fs::read_to_string(self.folder(number).join(file)).unwrap_or_default().trim().to_owned()
    }

    /// By the kernel's own name, which has `!` for `/`.
    pub(super) fn path(&self, number: &str) -> io::Result<PathBuf> {
        let folder = self.folder(number).canonicalize()?;
        let name = folder.file_name().unwrap_or_default().display().to_string();
        Ok(Path::new("/dev").join(name.replace('!', "/")))
    }

    /// In bytes.
    pub(super) fn size(&self, number: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.folder(number).join("size"))?;
        let sectors = text.trim().parse::<u64>().ok().and_then(|sectors| sectors.checked_mul(512));
        sectors.ok_or_else(|| io::Error::other(format!("its size is {text:?}")))
    }

    /// Which device it is, until this machine boots: then its number may be another one's.
    pub(super) fn identity(&self, number: &str, size: u64) -> io::Result<String> {
        let boot = fs::read_to_string(self.proc.join("sys/kernel/random/boot_id"))?;
        // Disks count up with each that is plugged in.
        Ok(format!("{} {number} {} {size}", boot.trim(), self.says(number, "diskseq")))
    }

    /// Whether LVM has made it of another one.
    pub(super) fn is_lvms(&self, number: &str) -> bool {
        self.says(number, "dm/uuid").starts_with("LVM-")
    }

    /// Itself and its partitions.
    pub(super) fn parts(&self, number: &str) -> io::Result<Vec<String>> {
        let mut parts = vec![number.to_owned()];
        for entry in fs::read_dir(self.folder(number))? {
            let path = entry?.path();
            if path.join("partition").exists() {
                parts.push(fs::read_to_string(path.join("dev"))?.trim().to_owned());
            }
        }
        Ok(parts)
    }

    /// Who uses it, or a part of it.
    pub(super) fn used(&self, number: &str) -> io::Result<Option<String>> {
        let parts = self.parts(number)?;
        let mounts = fs::read_to_string(self.proc.join("self/mountinfo"))?;
        let swaps = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        for part in &parts {
            let mounted = mounts.lines().find(|line| line.split(' ').nth(2) == Some(part));
            if let Some(at) = mounted.and_then(|line| line.split(' ').nth(4)) {
                return Ok(Some(format!("it is mounted on {at}")));
            }
            if let Some(holder) = self.neighbours(part, "holders").into_iter().next() {
                return Ok(Some(format!("{holder} is made of it")));
            }
            let own = self.path(part)?;
            let mut swapped = swaps.lines().filter_map(|line| line.split_whitespace().next()).map(Path::new);
            if swapped.any(|at| at == own || (self.block)(at).as_ref() == Some(part)) {
                return Ok(Some("it is swapped to".to_owned()));
            }
        }
        if let Some(name) = self.loop_on(&parts)? {
            return Ok(Some(format!("{name} is made of it")));
        }
        if let Some(other) = self.other_path(number)? {
            return Ok(Some(format!(
                "{other} is another path to the same disk: have multipath join them, and name the device below /dev/mapper that is made of both"
            )));
        }
        Ok(self.written_by(&parts))
    }

    /// The loop device behind which one of these is: the kernel does not have it among the holders.
    fn loop_on(&self, numbers: &[String]) -> io::Result<Option<String>> {
        for entry in fs::read_dir(self.sys.join("dev/block"))? {
            let number = entry?.file_name().display().to_string();
            let behind = PathBuf::from(self.says(&number, "loop/backing_file"));
            // Only of devices: a file may be on a server that is gone.
            if behind.starts_with("/dev")
                && (self.block)(&behind).is_some_and(|found| numbers.contains(&found))
            {
                return Ok(Some(self.path(&number)?.display().to_string()));
            }
        }
        Ok(None)
    }

    /// What is made of it (`holders`), or what it is made of (`slaves`), in words.
    fn neighbours(&self, number: &str, which: &str) -> Vec<String> {
        let words = |entry: fs::DirEntry| {
            let name = entry.file_name().display().to_string();
            match fs::read_to_string(entry.path().join("dm/name")) {
                Ok(called) => format!("{} ({name})", called.trim()),
                Err(_) => name,
            }
        };
        let entries = fs::read_dir(self.folder(number).join(which)).into_iter().flatten();
        let mut all: Vec<String> = entries.flatten().map(words).collect();
        all.sort();
        all
    }

    /// The disk itself, of a partition.
    fn whole(&self, number: &str) -> Option<String> {
        let folder = self.folder(number).canonicalize().ok()?;
        let disk = folder.parent().filter(|_| folder.join("partition").exists())?;
        Some(fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned())
    }

    /// Another disk that says that it is the same one: the machine reaches it by several ways.
    fn other_path(&self, number: &str) -> io::Result<Option<String>> {
        let disk = self.whole(number).unwrap_or_else(|| number.to_owned());
        let called = |number: &str| {
            let mut words = ["device/wwid", "wwid"].into_iter().map(|file| self.says(number, file));
            words.find(|wwid| !wwid.is_empty())
        };
        let Some(wwid) = called(&disk) else { return Ok(None) };
        for entry in fs::read_dir(self.sys.join("dev/block"))? {
            let entry = entry?.file_name().display().to_string();
            let is_disk = entry != disk && !self.folder(&entry).join("partition").exists();
            // Makers of cheap disks give one name to all.
            if is_disk
                && called(&entry).as_ref() == Some(&wwid)
                && self.size(&entry).ok() == self.size(&disk).ok()
            {
                return Ok(Some(self.path(&entry)?.display().to_string()));
            }
        }
        Ok(None)
    }

    /// The first of these names that is this device's: or one's that it is a part of or is made of, or that is a part of it or is made of it.
    pub(super) fn named(&self, number: &str, names: &[HostDevice]) -> Option<HostDevice> {
        let mut related = BTreeSet::new();
        self.gather(number, "slaves", DEEPEST, &mut related);
        self.gather(number, "holders", DEEPEST, &mut related);
        let places: Vec<PathBuf> = related.iter().flat_map(|number| self.places(number)).collect();
        let is_one = |name: &&HostDevice| match name {
            HostDevice::Path(path) => {
                (self.block)(Path::new(path)).is_some_and(|found| related.contains(&found))
            }
            HostDevice::On(address) => {
                places.iter().any(|place| place.iter().any(|part| part == address.as_str()))
            }
        };
        names.iter().find(is_one).cloned()
    }

    fn gather(&self, number: &str, which: &str, depth: usize, into: &mut BTreeSet<String>) {
        let disk = self.whole(number);
        let mut found = self.parts(number).unwrap_or_default();
        found.extend(disk.clone());
        for part in &found {
            let entries = fs::read_dir(self.folder(part).join(which)).into_iter().flatten().flatten();
            for entry in entries.filter(|_| depth > 0) {
                let next = fs::read_to_string(entry.path().join("dev")).unwrap_or_default().trim().to_owned();
                if !next.is_empty() && !into.contains(&next) {
                    self.gather(&next, which, depth - 1, into);
                }
            }
        }
        into.extend(found);
    }

    /// Where it is on this machine; an NVMe disk may be at several controllers.
    fn places(&self, number: &str) -> Vec<PathBuf> {
        let folder = self.folder(number);
        let controllers = fs::read_dir(folder.join("device")).into_iter().flatten().flatten();
        let is_one = |entry: &fs::DirEntry| {
            let name = entry.file_name().display().to_string();
            name.strip_prefix("nvme")
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let controllers = controllers.filter(is_one).map(|entry| entry.path());
        [folder].into_iter().chain(controllers).filter_map(|path| path.canonicalize().ok()).collect()
    }

    /// A process that has it open to write, as QEMU has a guest's disk: it need not keep it for itself. Whoever has ended meanwhile does not count.
    fn written_by(&self, numbers: &[String]) -> Option<String> {
        let own = std::process::id().to_string();
        let folders = fs::read_dir(&self.proc).ok()?.flatten().map(|entry| entry.path());
        let is_other = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            name != own.as_str() && name.bytes().all(|byte| byte.is_ascii_digit())
        };
        folders.filter(is_other).find_map(|process| {
            let files = fs::read_dir(process.join("fd")).ok()?.flatten().map(|entry| entry.path());
            let writes = |file: PathBuf| {
                if !numbers.contains(&(self.block)(&file)?) {
                    return None;
                }
                let told = fs::read_to_string(process.join("fdinfo").join(file.file_name()?)).ok()?;
                let flags = told.lines().find_map(|line| line.strip_prefix("flags:"))?;
                let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
                (flags & libc::O_ACCMODE != libc::O_RDONLY).then_some(())
            };
            files.into_iter().find_map(writes)?;
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Some(format!("{} writes to it (process {})", name.trim(), process.file_name()?.display()))
        })
    }
}

/// The number of a block device; none if there is none by that name.
fn block(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    meta.file_type().is_block_device().then(|| number(meta.rdev()))
}

#[cfg(test)]
mod tests;
