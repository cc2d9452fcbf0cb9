//! The configuration file itself: reading it, and what only the file system can tell. Changes nothing.

use std::{
    fs,
    io::{self, Read as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    check::{Checked, Report, check_with, coordinators_of},
    config::Config,
    coordinators::Coordinator,
    diagnostic::{Diagnostic, Severity},
    walk::{Found, Walk},
};

/// A hundred times the manual's example.
const LARGEST: u64 = 256 * 1024;

/// What to say of a file that is not as it should be.
pub(crate) struct File {
    pub(crate) missing: &'static str,
    pub(crate) denied: &'static str,
    pub(crate) empty: &'static str,
}

const DAEMON: File = File {
    missing: "PVCD_CONFIG_FILE names the configuration file; without it /etc/pvc/pvcd.yaml is read",
    denied: "run as root, or give yourself the right to read it",
    empty: "packaging/pvcd.yaml is a file to begin with",
};

/// Reads and checks a configuration file, with what the file system says about it.
pub fn load(path: &Path) -> Report {
    load_with(path, &DAEMON, |text, name, warn| {
        check_with(text, name, |walk, directories| {
            warn(walk);
            for directory in directories {
                refuse_a_file(walk, directory);
            }
        })
    })
}

/// Reads a file and has `check` look at its text; that is given its name, and what warns of who else may read or write it.
pub(crate) fn load_with<C>(
    path: &Path,
    file: &File,
    check: impl FnOnce(&str, &str, &dyn Fn(&mut Walk<'_>)) -> Checked<C>,
) -> Checked<C> {
    let name = path.display().to_string();
    match read(path, file) {
        Ok((text, mode)) => check(&text, &name, &|walk| warn_of_readers(walk, mode)),
        Err((problem, help)) => Checked { config: None, diagnostics: vec![unreadable(&name, problem, help)] },
    }
}

/// The coordinators that a configuration file names; see [`coordinators_of`].
pub fn coordinators_in(path: &Path) -> Result<Vec<Coordinator>, Box<Diagnostic>> {
    let name = path.display().to_string();
    let (text, _) =
        read(path, &DAEMON).map_err(|(problem, help)| Box::new(unreadable(&name, problem, help)))?;
    coordinators_of(&text, &name)
}

/// What `pvcd --check-config` does: prints all diagnostics and a last line that sums up. `Ok(None)` if the file is refused.
pub fn check_file(path: &Path, out: &mut dyn Write, colour: bool) -> io::Result<Option<Config>> {
    let report = load(path);
    for diagnostic in &report.diagnostics {
        writeln!(out, "{}", diagnostic.render(colour))?;
    }
    let count = |severity| match report.count(severity) {
        0 => String::new(),
        1 => format!("1 {severity}"),
        n => format!("{n} {severity}s"),
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let counts = [errors, warnings].into_iter().filter(|c| !c.is_empty()).collect::<Vec<_>>().join(", ");
    let path = path.display();
    match (&report.config, counts.is_empty()) {
        (Some(_), true) => writeln!(out, "{path}: valid")?,
        (Some(_), false) => writeln!(out, "{path}: valid, with {counts}")?,
        (None, _) => writeln!(out, "{path}: refused, with {counts}")?,
    }
    Ok(report.config)
}

type Refused = (String, &'static str);

fn read(path: &Path, words: &File) -> Result<(String, u32), Refused> {
    let failed = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => words.missing,
            io::ErrorKind::PermissionDenied => words.denied,
            _ => "the file must be readable",
        };
        (format!("cannot be read: {}", error.kind()), help)
    };
    // Looked at before it is opened: opening a pipe waits for its other end. What the kernel makes up as it is read (`/proc`, `/sys`)
    // may wait for ever, too, and says that it is empty.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(("is not a file".to_owned(), "name the configuration file itself"));
    }
    if metadata.len() == 0 {
        return Err(("is empty".to_owned(), words.empty));
    }
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err((format!("is larger than {LARGEST} bytes"), "this cannot be the configuration file"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, mode)),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|b| *b == b'\n').count();
            Err((format!("is not UTF-8 text in line {line}"), "save it in UTF-8"))
        }
    }
}

fn unreadable(name: &str, problem: String, help: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: name.to_owned(),
        line: None,
        column: None,
        path: String::new(),
        problem: format!("the configuration file {problem}"),
        found: None,
        allowed: None,
        help: vec![help.to_owned()],
        excerpt: None,
    }
}

fn warn_of_readers(walk: &mut Walk<'_>, mode: u32) {
    let readable_secrets = mode & 0o004 != 0 && holds_passwords(walk);
    let mut warn = |problem: &str, help: &str| {
        let problem = format!("{problem} (mode {:04o})", mode & 0o7777);
        let diagnostic =
            Diagnostic { help: vec![help.to_owned()], ..walk.whole_file(Severity::Warning, problem) };
        walk.tell(diagnostic);
    };
    if mode & 0o002 != 0 {
        warn(
            "everybody on this machine can change this file",
            "chmod o-rwx it: who writes it commands the daemon",
        );
    } else if readable_secrets {
        warn("everybody on this machine can read the passwords in this file", "chmod o-rwx it");
    }
}

fn holds_passwords(walk: &Walk<'_>) -> bool {
    walk.tree.entries().any(|(name, _)| ["pass", "token", "secret_key"].contains(&name.as_str()))
}

/// A directory need not exist yet, but nothing on its way may be something else.
fn refuse_a_file(walk: &mut Walk<'_>, directory: &Found<PathBuf>) {
    for path in directory.value.ancestors() {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return,
            Ok(_) => {
                let (problem, help) = if path == directory.value {
                    (
                        "is not a directory",
                        "a file of this name exists; name another directory or move the file".to_owned(),
                    )
                } else {
                    ("cannot be a directory", format!("{} on its way is a file", path.display()))
                };
                let diagnostic =
                    Diagnostic { help: vec![help], ..walk.about(Severity::Error, &directory.at, problem) };
                walk.tell(diagnostic);
                return;
            }
            // Not there, or not for us to see: look further up.
            Err(_) => {}
        }
    }
}
