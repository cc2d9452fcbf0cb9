//! Where lines end up. A file that cannot be opened or written (no directory, a full disk) is said once on the other outlet, tried
//! again, and said again in the file itself, with the number of lines it missed. Nothing here ever fails towards the daemon.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Settings,
    line::{Dress, Kind, Line},
};

/// How often a file that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Both outlets.
pub(super) struct Sink {
    dress: Dress,
    stdout: bool,
    journal: bool,
    file: Option<LogFile>,
    text: String,
}

struct LogFile {
    path: PathBuf,
    open: Option<File>,
    retry_at: Option<Instant>,
    /// Lines that the file missed since it last took one.
    missed: u64,
    /// The last write stopped in the middle of a line.
    torn: bool,
}

impl Sink {
    pub(super) fn new(settings: &Settings) -> Self {
        let dress =
            Dress { node: settings.node.to_string(), colours: settings.colours, dates: settings.dates };
        let file = settings.file.clone().map(LogFile::new);
        Self { dress, stdout: settings.stdout, journal: stdout_is_the_journal(), file, text: String::new() }
    }

    pub(super) fn write(&mut self, line: &Line) {
        self.print(line);
        let Some(file) = &mut self.file else { return };
        let was_whole = file.missed == 0;
        if let Err(error) = file.write(line, &self.dress, &mut self.text)
            && was_whole
        {
            let text =
                format!("cannot write the log file {}, going on without it: {error}", file.path.display());
            self.complain(&Line::own(Kind::Error, text));
        }
    }

    pub(super) fn reopen(&mut self) {
        if let Some(file) = &mut self.file {
            file.open = None;
            file.retry_at = None;
            file.torn = false;
        }
    }

    fn print(&mut self, line: &Line) {
        if self.stdout {
            self.text.clear();
            line.dress(&self.dress, self.journal, &mut self.text);
            // Nobody reads any more: not a reason to stop.
            let _ = io::stdout().write_all(self.text.as_bytes());
        }
    }

    /// Says something about the file where it can still be read.
    fn complain(&mut self, line: &Line) {
        if self.stdout {
            return self.print(line);
        }
        self.text.clear();
        line.dress(&self.dress, false, &mut self.text);
        let _ = io::stderr().write_all(self.text.as_bytes());
    }
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None, retry_at: None, missed: 0, torn: false }
    }

    fn write(&mut self, line: &Line, dress: &Dress, text: &mut String) -> io::Result<()> {
        text.clear();
        if self.torn {
            text.push('\n');
        }
        if self.missed > 0 {
            let missed = format!("{} log lines are missing here: the file could not be written", self.missed);
            Line::own(Kind::Warning, missed).dress(dress, false, text);
        }
        line.dress(dress, false, text);
        let written = self.opened().and_then(|file| write_counting(file, text.as_bytes()));
        match written {
            Ok(()) => {
                self.missed = 0;
                self.torn = false;
                Ok(())
            }
            Err((torn, error)) => {
                self.missed += 1;
                self.torn |= torn;
                Err(error)
            }
        }
    }

    fn opened(&mut self) -> Result<&mut File, (bool, io::Error)> {
        if self.open.is_none() {
            let now = Instant::now();
            if self.retry_at.is_some_and(|at| now < at) {
                return Err((false, io::ErrorKind::WouldBlock.into()));
            }
            self.retry_at = Some(now + RETRY);
            self.open = Some(open(&self.path).map_err(|e| (false, e))?);
        }
        self.open.as_mut().ok_or_else(|| (false, io::ErrorKind::NotFound.into()))
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Writes everything, or says whether a part was written.
fn write_counting(file: &mut File, mut bytes: &[u8]) -> Result<(), (bool, io::Error)> {
    let mut torn = false;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err((torn, io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                bytes = &bytes[n..];
                torn = true;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err((torn, e)),
        }
    }
    Ok(())
}

/// Whether standard output goes to journald, which then reads priorities (`JOURNAL_STREAM` in systemd.exec(5)).
fn stdout_is_the_journal() -> bool {
    let Some((device, inode)) = std::env::var("JOURNAL_STREAM").ok().and_then(|v| {
        v.split_once(':').and_then(|(d, i)| Some((d.parse::<u64>().ok()?, i.parse::<u64>().ok()?)))
    }) else {
        return false;
    };
    fs::metadata("/proc/self/fd/1").is_ok_and(|m| m.dev() == device && m.ino() == inode)
}
