//! Writes the kernel's initramfs format ("newc"), so that building a guest needs no program and leaves no files.
//! Only folders and regular files, all root's. Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

/// An archive under construction.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder; its parents must have been added before.
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, content);
    }

    /// Adds a file that can be executed.
    pub(crate) fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content);
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0,
            0,
            0,
            0,
            u32::try_from(path.len() + 1).unwrap_or(u32::MAX),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::program::{command, output};

    #[test]
    fn the_cpio_program_reads_back_what_was_written() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.program("bin/x", b"#!/bin/sh\n");
        archive.file("odd", b"12345");
        let bytes = archive.finish();
        let folder = tempfile::tempdir().unwrap();
        let mut cpio = command("/usr/bin/cpio");
        cpio.args(["-i", "--quiet"]).current_dir(&folder);
        output(cpio, &bytes, Duration::from_secs(20)).unwrap().ok().unwrap();
        assert_eq!(std::fs::read(folder.path().join("bin/x")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(std::fs::read(folder.path().join("odd")).unwrap(), b"12345");
    }
}
