//! Gives back the memory that loading libvirt touched and nothing touches again.
//!
//! libvirt brings 55 libraries. Relocating and initialising them leaves 16 MiB resident, of which a daemon that talks to
//! a local libvirtd goes on to use a third. What is given back are mappings of files that were never written to: the
//! page cache keeps the pages, and one that is needed after all costs a minor fault. Never touches data.
#![allow(unsafe_code, reason = "madvise")]

use std::{fs, io, ops::Range};

/// Once, when libvirt is loaded and connected.
pub(super) fn give_back() -> io::Result<()> {
    for range in unwritten(&fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: a private mapping of a file, without a page of its own and not writable, so without ever getting one:
        // the same bytes come back from the file. A mapping that is gone or locked meanwhile is an error, and ignored.
        unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// The private, read-only or executable mappings of files of which the kernel has copied no page, from the text of
/// `/proc/self/smaps`.
fn unwritten(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Anonymous:") => {
                let copied = words.next() != Some("0");
                found.extend(candidate.take().filter(|_| !copied));
            }
            Some(first) if !first.ends_with(':') => candidate = mapped_file(first, words),
            _ => {}
        }
    }
    found
}

/// `7f00-7fff r-xp 00000000 fe:00 1234 /usr/lib/…`
fn mapped_file<'a>(range: &str, mut rest: impl Iterator<Item = &'a str>) -> Option<Range<usize>> {
    let private_and_constant = matches!(rest.next()?, "r-xp" | "r--p");
    let is_file = rest.nth(3)?.starts_with('/');
    let (start, end) = range.split_once('-')?;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    (private_and_constant && is_file).then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_constant_mappings_of_files_without_a_copied_page_are_given_back() {
        let smaps = "\
1000-2000 r-xp 00001000 fe:00 11 /lib/code.so
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
2000-3000 r--p 00002000 fe:00 11 /lib/relocated.so
Anonymous:             4 kB
3000-4000 rw-p 00003000 fe:00 11 /lib/data.so
Anonymous:             0 kB
4000-5000 r--p 00000000 fe:00 11 /lib/header with spaces.so
Anonymous:             0 kB
5000-6000 r--p 00000000 00:00 0
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7000-8000 r--s 00000000 fe:00 12 /usr/share/shared
Anonymous:             0 kB
";
        assert_eq!(unwritten(smaps), [0x1000..0x2000, 0x4000..0x5000]);
    }

    #[test]
    fn the_process_goes_on_with_less() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        super::super::library::Libvirt::load(super::super::ffi::LIBRARY).unwrap();
        let before = resident();
        give_back().unwrap();
        let after = resident();
        assert!(after < before / 2, "{before} kB before, {after} kB after");
    }
}
