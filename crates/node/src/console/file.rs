//! One console log file, read from where reading last ended, through rotation and truncation.
//! Never reads a large file whole, never follows a symbolic link, never writes; it only takes the file from other users' eyes.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::tail::{LONGEST_TEXT, Printed};

/// How many bytes before the reading position are remembered, to tell a file that grew from one that was written anew.
const SEAM: u64 = 64;

/// A console log by its path, whatever file is there now.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    current: Option<Open>,
    /// The file that was there before. Its writer may not know yet that it was renamed: QEMU never does.
    previous: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    position: u64,
    seam: Vec<u8>,
}

impl Follower {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, current: None, previous: None }
    }

    /// Hands on what was printed since the last time. Returns whether that was anything.
    pub(super) fn catch_up(&mut self, hand_on: &mut impl FnMut(Printed<'_>)) -> io::Result<bool> {
        let mut news = false;
        if let Some(previous) = &mut self.previous {
            news |= previous.read(hand_on)?;
            if previous.file.metadata()?.nlink() == 0 {
                self.previous = None;
            }
        }
        let now = identity(&self.path)?;
        if let Some(current) = &mut self.current {
            // After a rename this is the last that was written before it.
            news |= current.read(hand_on)?;
            if now.is_none_or(|now| now == (current.device, current.inode)) {
                return Ok(news);
            }
        }
        if now.is_some()
            && let Some(mut next) = open(&self.path)?
        {
            let first = self.current.is_none() && self.previous.is_none();
            news |= if first { next.read_end(hand_on)? } else { next.read(hand_on)? };
            self.previous = self.current.replace(next);
        }
        Ok(news)
    }
}

impl Open {
    /// Reads on, or from the start if the file was truncated meanwhile.
    fn read(&mut self, hand_on: &mut impl FnMut(Printed<'_>)) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length < self.position || !self.seam_holds()? {
            self.position = 0;
            self.seam.clear();
        }
        if length - self.position > LONGEST_TEXT as u64 {
            return self.read_end(hand_on);
        }
        self.read_until(length, hand_on)
    }

    /// Reads the end of the file, as much as a tail can hold.
    fn read_end(&mut self, hand_on: &mut impl FnMut(Printed<'_>)) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length - self.position.min(length) > LONGEST_TEXT as u64 {
            self.position = length - LONGEST_TEXT as u64;
            hand_on(Printed::Gap);
        }
        self.read_until(length, hand_on)
    }

    fn read_until(&mut self, length: u64, hand_on: &mut impl FnMut(Printed<'_>)) -> io::Result<bool> {
        let from = self.position;
        let mut buffer = [0; 16 * 1024];
        while self.position < length {
            let want = usize::try_from(length - self.position).map_or(buffer.len(), |n| n.min(buffer.len()));
            match self.file.read_at(&mut buffer[..want], self.position) {
                Ok(0) => break,
                Ok(n) => {
                    hand_on(Printed::Bytes(&buffer[..n]));
                    self.position += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.position > from {
            self.seam = self.before_position()?;
        }
        Ok(self.position > from)
    }

    /// Whether the bytes before the position are still those that were read there.
    fn seam_holds(&self) -> io::Result<bool> {
        Ok(self.seam.is_empty() || self.before_position()? == self.seam)
    }

    fn before_position(&self) -> io::Result<Vec<u8>> {
        let from = self.position.saturating_sub(SEAM);
        let mut seam = vec![0; usize::try_from(self.position - from).unwrap_or(0)];
        match self.file.read_exact_at(&mut seam, from) {
            Ok(()) => Ok(seam),
            // Truncated at this very moment: the next look sees it.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

/// Device and inode of the regular file at `path`, if there is one.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::symlink_metadata(path) {
        Ok(m) => Ok(m.is_file().then(|| (m.dev(), m.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn open(path: &Path) -> io::Result<Option<Open>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let m = file.metadata()?;
    if !m.is_file() {
        return Ok(None);
    }
    // A console shows what people type, passwords too.
    if m.mode() & 0o7777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(Some(Open { device: m.dev(), inode: m.ino(), file, position: 0, seam: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{super::tail::Tail, *};

    struct Guest {
        dir: tempfile::TempDir,
        tail: Tail,
        follower: Follower,
    }

    impl Guest {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let follower = Follower::new(dir.path().join("web1.log"));
            Self { dir, tail: Tail::new(100), follower }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn printer(&self, name: &str) -> File {
            OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap()
        }

        fn print(&self, name: &str, text: &str) {
            self.printer(name).write_all(text.as_bytes()).unwrap();
        }

        fn text(&mut self) -> String {
            self.follower.catch_up(&mut |printed| self.tail.take(printed)).unwrap();
            self.tail.text()
        }
    }

    #[test]
    fn only_what_is_new_is_read_and_the_file_becomes_private() {
        let mut guest = Guest::new();
        assert_eq!(guest.text(), "", "there need not be a file yet");
        guest.print("web1.log", "one\n");
        fs::set_permissions(guest.path("web1.log"), Permissions::from_mode(0o644)).unwrap();
        assert_eq!(guest.text(), "one\n");
        assert_eq!(fs::metadata(guest.path("web1.log")).unwrap().mode() & 0o7777, 0o600);
        assert!(!guest.follower.catch_up(&mut |_| panic!("nothing is new")).unwrap());
        guest.print("web1.log", "two");
        assert_eq!(guest.text(), "one\ntwo");
    }

    #[test]
    fn nothing_is_lost_when_the_file_is_renamed_and_a_new_one_made() {
        let mut guest = Guest::new();
        guest.print("web1.log", "one\n");
        assert_eq!(guest.text(), "one\n");
        guest.print("web1.log", "two\n");
        fs::rename(guest.path("web1.log"), guest.path("web1.log.0")).unwrap();
        assert_eq!(guest.text(), "one\ntwo\n", "no new file yet");
        guest.print("web1.log.0", "three\n");
        guest.print("web1.log", "four\n");
        assert_eq!(guest.text(), "one\ntwo\nthree\nfour\n");
        guest.print("web1.log.0", "five\n");
        assert_eq!(guest.text(), "one\ntwo\nthree\nfour\nfive\n", "its writer never noticed");
    }

    #[test]
    fn a_file_that_is_deleted_and_made_again_is_read_on() {
        let mut guest = Guest::new();
        let mut printer = guest.printer("web1.log");
        printer.write_all(b"one\n").unwrap();
        assert_eq!(guest.text(), "one\n");
        fs::remove_file(guest.path("web1.log")).unwrap();
        printer.write_all(b"two\n").unwrap();
        assert_eq!(guest.text(), "one\ntwo\n");
        guest.print("web1.log", "three\n");
        assert_eq!(guest.text(), "one\ntwo\nthree\n");
        assert_eq!(guest.text(), "one\ntwo\nthree\n");
        assert!(guest.follower.previous.is_none(), "the deleted file's space is given back");
    }

    #[test]
    fn a_truncated_file_is_read_from_its_start() {
        let mut guest = Guest::new();
        guest.print("web1.log", "one\n");
        assert_eq!(guest.text(), "one\n");
        fs::write(guest.path("web1.log"), "2\n").unwrap();
        assert_eq!(guest.text(), "one\n2\n", "shorter than before");
        fs::write(guest.path("web1.log"), "three, and much more than there was before\n").unwrap();
        assert_eq!(
            guest.text(),
            "one\n2\nthree, and much more than there was before\n",
            "longer than before"
        );
    }

    #[test]
    fn of_a_large_file_only_the_end_is_read() {
        let mut guest = Guest::new();
        let path = guest.path("web1.log");
        let file = File::create(&path).unwrap();
        file.set_len(5 << 30).unwrap();
        drop(file);
        guest.print("web1.log", "\nlogin: ");
        assert_eq!(guest.text(), "[...] \nlogin: ");
        guest.print("web1.log", "root\n");
        assert_eq!(guest.text(), "[...] \nlogin: root\n");
    }

    #[test]
    fn a_link_or_a_pipe_in_its_place_is_left_alone() {
        let mut guest = Guest::new();
        guest.print("secret", "not for the state tree\n");
        std::os::unix::fs::symlink(guest.path("secret"), guest.path("web1.log")).unwrap();
        assert_eq!(guest.text(), "");
        assert!(open(&guest.path("web1.log")).is_err(), "also when it was exchanged after the look");
        fs::remove_file(guest.path("web1.log")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, guest.path("web1.log"), rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(guest.text(), "");
        assert!(open(&guest.path("web1.log")).unwrap().is_none());
    }
}
