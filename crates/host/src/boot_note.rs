//! One bit that is remembered for as long as a boot of this machine lasts: that a daemon has read the state tree in it.
//!
//! A file below `/run`, which is empty after every boot. It names the boot all the same: where somebody has put that directory on a disk, or brings it
//! back from a copy, the note of another boot says nothing.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// What the file is called.
const FILE: &str = "tree-read-in-boot";

/// A boot id has 36 characters; what is longer is no note of ours.
const LONGEST: u64 = 256;

/// Remembers that bit.
pub trait BootNote: Send + Sync + 'static {
    /// Whether it was left in this boot.
    fn is_there(&self) -> io::Result<bool>;

    /// Leaves it, until the machine boots anew.
    fn leave(&self) -> io::Result<()>;
}

/// The file.
#[derive(Debug, Clone)]
pub struct NoteFile {
    directory: PathBuf,
    boot: String,
}

impl NoteFile {
    /// The note of a boot, in a directory for what lasts no longer than that.
    pub fn new(directory: &Path, boot: &str) -> Self {
        Self { directory: directory.to_owned(), boot: boot.to_owned() }
    }
}

impl BootNote for NoteFile {
    fn is_there(&self) -> io::Result<bool> {
        let file = match File::open(self.directory.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut boot = Vec::new();
        file.take(LONGEST).read_to_end(&mut boot)?;
        Ok(boot.trim_ascii() == self.boot.as_bytes())
    }

    fn leave(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        // Written beside it first: half a note is none.
        let unfinished = self.directory.join(format!("{FILE}.new"));
        fs::write(&unfinished, format!("{}\n", self.boot))?;
        fs::rename(unfinished, self.directory.join(FILE))
    }
}

/// The note of a simulated machine's boot.
#[cfg(any(test, feature = "fake"))]
#[derive(Debug, Default)]
pub struct FakeNote(std::sync::atomic::AtomicBool);

#[cfg(any(test, feature = "fake"))]
impl BootNote for FakeNote {
    fn is_there(&self) -> io::Result<bool> {
        Ok(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn leave(&self) -> io::Result<()> {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a note is, whoever keeps it.
    fn is_a_note(note: &dyn BootNote) {
        assert!(!note.is_there().unwrap());
        for _ in 0..2 {
            note.leave().unwrap();
            assert!(note.is_there().unwrap());
        }
    }

    #[test]
    fn a_note_is_there_once_it_was_left() {
        let directory = tempfile::tempdir().unwrap();
        is_a_note(&NoteFile::new(&directory.path().join("run/pvc"), "this boot"));
        is_a_note(&FakeNote::default());
    }

    #[test]
    fn a_note_of_another_boot_or_of_nobody_knows_what_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let note = |boot| NoteFile::new(directory.path(), boot);
        note("the boot before").leave().unwrap();
        assert!(note("the boot before").is_there().unwrap() && !note("this boot").is_there().unwrap());
        for nonsense in [&b""[..], b"\xff\xfe", &[b'x'; 10_000]] {
            fs::write(directory.path().join(FILE), nonsense).unwrap();
            assert!(!note("this boot").is_there().unwrap());
        }
        note("this boot").leave().unwrap();
        assert!(note("this boot").is_there().unwrap());
    }

    #[test]
    fn what_cannot_be_kept_is_an_error_and_no_note() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("pvc");
        fs::write(&in_the_way, "a file").unwrap();
        let note = NoteFile::new(&in_the_way, "this boot");
        assert!(note.leave().is_err() && note.is_there().is_err());
    }
}
