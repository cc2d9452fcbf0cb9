//! What is on a block device, by its first and last bytes, without a program; and how it is cleared. Who uses it: see `kernel`.
#![allow(clippy::disallowed_methods, reason = "devices are files; this runs on a thread that may block")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use pvc_core::model::{
    HostDevice,
    osd::{ObservedDevice, OsdUuid},
};

use super::{
    MayHold,
    kernel::{Kernel, number},
    lvm::{self, Lvms},
};

/// Partition tables, file systems, volume managers and OSDs say what they are here, and some a second time at the end.
const LOOKED_AT: u64 = 4 << 20;
/// So much at its beginning is cleared: whatever Ceph or LVM look for.
const CLEARED: u64 = 100 << 20;

/// What an OSD's device begins with, then its UUID.
const OSD: &[u8] = b"bluestore block device\n";
const OSD_IN_WORDS: &str = "an OSD";
const LVM_IN_WORDS: &str = "a volume of LVM";
const ARRAY_IN_WORDS: &str = "a part of an array (md)";
const UNKNOWN: &str = "data of some kind";
/// Where, what, and in words.
const KNOWN: [(usize, &[u8], &str); 11] = [
    (0, OSD, OSD_IN_WORDS),
    (512, b"EFI PART", "a partition table"),
    (4096, b"EFI PART", "a partition table"),
    (512, b"LABELONE", LVM_IN_WORDS),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], ARRAY_IN_WORDS),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], ARRAY_IN_WORDS),
    (0, b"LUKS", "something encrypted"),
    (0, b"XFSB", "a file system"),
    (0x438, &[0x53, 0xef], "a file system"),
    (0x1_0040, b"_BHRfS_M", "a file system"),
    (510, &[0x55, 0xaa], "a partition table"),
];

/// What a device is like, and which of these names is its own; `None`: there is no block device by that name.
pub(super) fn look(path: &Path, names: &[HostDevice]) -> io::Result<Option<ObservedDevice>> {
    let meta = match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => meta,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (kernel, number) = (Kernel::default(), number(meta.rdev()));
    let size = kernel.size(&number)?;
    let identity = kernel.identity(&number, size)?;
    let named = kernel.named(&number, names);
    let found = ObservedDevice { identity, size, named, ..ObservedDevice::default() };
    let used = |by| Ok(Some(ObservedDevice { used: Some(by), ..found.clone() }));
    if let Some(by) = kernel.used(&number)? {
        return used(by);
    }
    // Nobody gets this of a device that is mounted, or that another one keeps for itself, as an OSD does.
    let file = match exclusively(path, false) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            return used("somebody keeps it for himself".to_owned());
        }
        Err(error) => return Err(error),
    };
    let (head, tail) = ends(&file, size)?;
    let mut osd = osd(&head);
    let mut group = lvm::volume_group(&head);
    // What holds a partition table is also what its partitions hold.
    for part in kernel.parts(&number)?.iter().skip(1) {
        let (file, size) = (File::open(kernel.path(part)?)?, kernel.size(part)?);
        let (head, _) = ends(&file, size)?;
        osd = osd.or_else(|| self::osd(&head));
        group = group.or_else(|| lvm::volume_group(&head));
    }
    if let Some(group) = group {
        let group = if group.is_empty() { String::new() } else { format!(" {group}") };
        return used(format!(
            "it is part of LVM's volume group{group}, which another node may use if it reaches the same disk: `vgreduce`, or `vgremove` and `pvremove`, take it out"
        ));
    }
    Ok(Some(ObservedDevice { holds: holds(&head, &tail), osd, ..found }))
}

/// The UUID of the OSD that is on a device.
pub(super) fn osd_on(path: &Path) -> io::Result<Option<OsdUuid>> {
    let mut head = [0; OSD.len() + 36];
    File::open(path)?.read_exact_at(&mut head, 0)?;
    Ok(osd(&head))
}

fn osd(head: &[u8]) -> Option<OsdUuid> {
    let uuid = head.strip_prefix(OSD)?.get(..36)?;
    std::str::from_utf8(uuid).ok()?.to_owned().try_into().ok()
}

/// Whether it is LVM's.
pub(super) fn lvms(path: &Path) -> io::Result<Lvms> {
    let file = File::open(path)?;
    let size = Kernel::default().size(&number(file.metadata()?.rdev()))?;
    Ok(Lvms::of(&ends(&file, size)?.0))
}

/// Why a device is not cleared.
#[derive(Debug)]
pub(super) enum Kept {
    /// There is something on it that may not be lost.
    Holds(String),
    /// It has another identity.
    IsAnother,
}

/// Clears what tells what a device is. Fails if anybody uses it. Answers whether the kernel has partitions of it.
pub(super) fn clear(path: &Path, wanted: Option<&str>, may: MayHold) -> io::Result<Result<bool, Kept>> {
    let file = exclusively(path, true)?;
    let (kernel, number) = (Kernel::default(), number(file.metadata()?.rdev()));
    let size = kernel.size(&number)?;
    if let Some(wanted) = wanted
        && kernel.identity(&number, size)? != wanted
    {
        return Ok(Err(Kept::IsAnother));
    }
    if let Some(by) = kernel.used(&number)? {
        return Ok(Err(Kept::Holds(format!("something that is in use: {by}"))));
    }
    let is_own = |what: &str| [OSD_IN_WORDS, LVM_IN_WORDS, UNKNOWN].contains(&what);
    let keeps = |what: &String| may == MayHold::Nothing || (may == MayHold::Own && !is_own(what));
    let (head, tail) = ends(&file, size)?;
    if let Some(what) = holds(&head, &tail).filter(keeps) {
        return Ok(Err(Kept::Holds(what)));
    }
    let zeros = vec![0; 1 << 20];
    let fill = |from: u64, to: u64| -> io::Result<()> {
        let mut at = from;
        while at < to {
            let length = usize::try_from((to - at).min(1 << 20)).unwrap_or(0);
            file.write_all_at(zeros.get(..length).unwrap_or_default(), at)?;
            at += length as u64;
        }
        Ok(())
    };
    fill(0, size.min(CLEARED))?;
    fill(size.saturating_sub(LOOKED_AT), size)?;
    file.sync_all()?;
    Ok(Ok(kernel.parts(&number)?.len() > 1))
}

fn exclusively(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(write).custom_flags(libc::O_EXCL).open(path)
}

/// Its first and its last bytes.
fn ends(file: &File, size: u64) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let length = usize::try_from(size.min(LOOKED_AT)).unwrap_or(0);
    let (mut head, mut tail) = (vec![0; length], vec![0; length]);
    file.read_exact_at(&mut head, 0)?;
    file.read_exact_at(&mut tail, size - length as u64)?;
    Ok((head, tail))
}

/// What is on it.
fn holds(head: &[u8], tail: &[u8]) -> Option<String> {
    let known = KNOWN.iter().find(|(at, what, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(what)));
    if let Some((.., words)) = known {
        return Some((*words).to_owned());
    }
    let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    (!is_blank(head) || !is_blank(tail)).then(|| UNKNOWN.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a device: what is looked for is in files as it is in devices.
    #[test]
    fn whatever_is_on_it_is_told_and_only_zeros_are_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let size = 64 << 20;
        let with = |at: u64, bytes: &[u8]| {
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(bytes, at).unwrap();
            {
                let (head, tail) = ends(&file, size).unwrap();
                holds(&head, &tail)
            }
        };
        assert_eq!(with(0, b""), None);
        for (at, bytes, what) in KNOWN {
            assert_eq!(with(u64::try_from(at).unwrap(), bytes).as_deref(), Some(what));
        }
        for at in [0, LOOKED_AT - 1, size - LOOKED_AT, size - 1] {
            assert_eq!(with(at, b"x").as_deref(), Some(UNKNOWN), "{at}");
        }
        let uuid = "70766364-0000-4000-8000-000000000001";
        with(0, &[OSD, uuid.as_bytes(), b"\n"].concat());
        assert_eq!(osd_on(&path).unwrap().map(String::from).as_deref(), Some(uuid));
        // It is no device.
        assert_eq!(look(&path, &[]).unwrap(), None);
        assert_eq!(look(&folder.path().join("none"), &[]).unwrap(), None);
        assert!(clear(&path, None, MayHold::Anything).is_err());
        assert_eq!(look(Path::new("/dev/null"), &[]).unwrap(), None);
    }
}
