//! What LVM has written at the beginning of a device: whether it is part of a volume group, and of which. That group may be in use on another node which
//! reaches the same disk, and here nobody has it open.
//! As in LVM's own `lib/format_text/layout.h`.

/// Begins the sector that tells where all else is. It is one of the first four.
const LABEL: &[u8] = b"LABELONE";
/// Begins an area of the group's description.
const AREA: &[u8] = b" LVM2 x[5A%r0N*>";
/// Of the flags behind the list of areas.
const IS_USED: u32 = 1;
const SECTOR: usize = 512;
/// More areas nobody has: the list ends with zeros.
const MOST_AREAS: usize = 16;

/// The volume group that a device is part of, from its first bytes; empty if its name is not to be found there.
pub(super) fn volume_group(head: &[u8]) -> Option<String> {
    let label = (0..4).map(|sector| sector * SECTOR).find(|at| has(head, *at, LABEL))?;
    // The number of bytes from the label's begin to the device's header, which has its UUID and its size before the lists.
    let lists = label.checked_add(usize::try_from(u32_at(head, label + 20)?).ok()?)?.checked_add(40)?;
    let (_, next) = list(head, lists)?;
    let (areas, next) = list(head, next)?;
    let described = areas.iter().find_map(|at| described(head, usize::try_from(*at).ok()?));
    // Older versions of LVM have no flags.
    let flags = u32_at(head, next).filter(|version| *version > 0).and_then(|_| u32_at(head, next + 4));
    match (described, flags) {
        (Some(name), _) => Some(name),
        (None, Some(flags)) if flags & IS_USED != 0 => Some(String::new()),
        (None, _) => None,
    }
}

/// Whether a device is LVM's, and may be `ceph-volume`'s.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lvms {
    No,
    /// In a group of ceph-volume's, or in none.
    CephVolumes,
    /// In another group; empty if its name is not to be found.
    Others(String),
}

impl Lvms {
    /// From a device's first bytes.
    pub(super) fn of(head: &[u8]) -> Self {
        match volume_group(head) {
            None if (0..4).any(|sector| has(head, sector * SECTOR, LABEL)) => Self::CephVolumes,
            None => Self::No,
            Some(group) if group.starts_with("ceph-") => Self::CephVolumes,
            Some(group) => Self::Others(group),
        }
    }
}

/// The offsets of a list, and where it ends.
fn list(head: &[u8], mut at: usize) -> Option<(Vec<u64>, usize)> {
    let mut offsets = Vec::new();
    for _ in 0..MOST_AREAS {
        let offset = u64_at(head, at)?;
        at = at.checked_add(16)?;
        if offset == 0 {
            return Some((offsets, at));
        }
        offsets.push(offset);
    }
    None
}

/// The name at the begin of the description: `vg0 {`.
fn described(head: &[u8], area: usize) -> Option<String> {
    if !has(head, area.checked_add(4)?, AREA) {
        return None;
    }
    // It has its own offset at 24, and at 40 where in it the description begins: nowhere, of a device that is in no group.
    let text = usize::try_from(u64_at(head, area.checked_add(40)?)?).ok().filter(|offset| *offset > 0)?;
    let text = head.get(area.checked_add(text)?..)?;
    let name = text.get(..text.len().min(129))?.split(|byte| *byte == b' ').next()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(byte);
    (!name.is_empty() && name.iter().all(plain)).then(|| String::from_utf8_lossy(name).into_owned())
}

fn has(head: &[u8], at: usize, what: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(what))
}

fn u32_at(head: &[u8], at: usize) -> Option<u32> {
    let bytes = head.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(head: &[u8], at: usize) -> Option<u64> {
    let bytes = head.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pvcreate` and `vgcreate` leave it.
    fn device(group: Option<&str>, areas: bool, flags: Option<u32>) -> Vec<u8> {
        let mut head = vec![0; 1 << 20];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(512, LABEL);
        put(512 + 20, &32_u32.to_le_bytes());
        let lists = 512 + 32 + 40;
        put(lists, &(1_u64 << 20).to_le_bytes());
        let mut at = lists + 32;
        if areas {
            put(at, &4096_u64.to_le_bytes());
            put(at + 8, &0xff000_u64.to_le_bytes());
            at += 16;
            put(4096 + 4, AREA);
            put(4096 + 24, &4096_u64.to_le_bytes());
        }
        at += 16;
        if let Some(flags) = flags {
            put(at, &2_u32.to_le_bytes());
            put(at + 4, &flags.to_le_bytes());
        }
        if let Some(group) = group {
            put(4096 + 40, &512_u64.to_le_bytes());
            put(4096 + 512, format!("{group} {{\nid = \"x\"").as_bytes());
        }
        head
    }

    #[test]
    fn a_device_of_a_volume_group_is_told_from_one_that_is_free() {
        for (head, expected) in [
            (device(Some("vg0"), true, Some(1)), Some("vg0")),
            (device(Some("vg0"), true, None), Some("vg0")),
            (device(None, true, Some(0)), None),
            (device(None, true, None), None),
            // It keeps no description; the other devices of its group do.
            (device(None, false, Some(1)), Some("")),
            (device(None, false, Some(0)), None),
            (vec![0; 1 << 20], None),
        ] {
            assert_eq!(volume_group(&head).as_deref(), expected);
            // Nothing of it may be zapped but what may be ceph-volume's.
            let is_lvms = head.iter().any(|byte| *byte != 0);
            let lvms = match expected {
                Some(group) => Lvms::Others(group.into()),
                None if is_lvms => Lvms::CephVolumes,
                None => Lvms::No,
            };
            assert_eq!(Lvms::of(&head), lvms);
        }
        assert_eq!(Lvms::of(&device(Some("ceph-3f1a"), true, Some(1))), Lvms::CephVolumes);
    }

    #[test]
    fn rubbish_is_no_volume_group_and_breaks_nothing() {
        let whole = device(Some("vg0"), true, Some(1));
        for length in [0, 511, 520, 532, 600, 4100, 4140, 4600] {
            let _ = volume_group(&whole[..length]);
        }
        for (at, byte) in (512..700).chain(4096..4200).flat_map(|at| [(at, 0xff), (at, 0)]) {
            let mut head = whole.clone();
            head[at] = byte;
            let _ = volume_group(&head);
        }
    }
}
