//! The file itself: what only the file system can tell.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use pvc_config::{Severity, check_file, load};
use tempfile::TempDir;

use crate::common::{EXAMPLE, edit, edited};

fn write(dir: &TempDir, text: &str, mode: u32) -> PathBuf {
    let path = dir.path().join("pvcd.yaml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn told(path: &Path) -> Vec<String> {
    load(path).diagnostics.iter().map(|d| format!("{} {}", d.severity, d.headline())).collect()
}

#[test]
fn passwords_that_everybody_can_read_are_warned_of() {
    let dir = TempDir::new().unwrap();
    for (mode, expected) in [
        (0o600, None),
        (0o640, None),
        (0o644, Some("warning everybody on this machine can read the passwords in this file (mode 0644)")),
        (0o604, Some("warning everybody on this machine can read the passwords in this file (mode 0604)")),
        (0o666, Some("warning everybody on this machine can change this file (mode 0666)")),
    ] {
        let path = write(&dir, EXAMPLE, mode);
        assert_eq!(told(&path), expected.into_iter().collect::<Vec<_>>(), "{mode:o}");
        assert!(load(&path).config.is_some(), "a warning does not keep a daemon from starting");
    }
    let path = write(&dir, "pvc:\n  debug: True\n", 0o644);
    assert!(!told(&path).iter().any(|line| line.contains("everybody")), "there is no password in it");
}

#[test]
fn what_the_kernel_makes_up_and_what_has_another_end_is_not_waited_for() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (path, expected) in [
        (Path::new("/proc/kmsg"), "error the configuration file is empty"),
        (Path::new("/proc/self/mem"), "error the configuration file is empty"),
        (&pipe, "error the configuration file is not a file"),
        (Path::new("/dev/zero"), "error the configuration file is not a file"),
        (&write(&dir, "", 0o600), "error the configuration file is empty"),
    ] {
        assert_eq!(told(path), [expected], "{}", path.display());
    }
}

#[test]
fn a_directory_setting_that_is_a_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().display().to_string();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    symlink(dir.path().join("directory"), dir.path().join("link")).unwrap();
    for (directory, expected) in [
        ("directory", None),
        ("link", None),
        ("link/later", None),
        ("not/yet/there", None),
        ("file", Some("error system.configuration.directories.log_directory is not a directory")),
        ("file/below", Some("error system.configuration.directories.log_directory cannot be a directory")),
    ] {
        let setting = format!("{root}/{directory}");
        let path = write(&dir, &edited("\"/var/log/pvc\"", &setting), 0o600);
        assert_eq!(told(&path), expected.into_iter().collect::<Vec<_>>(), "{directory}");
        assert_eq!(load(&path).config.is_none(), expected.is_some());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_as_one_diagnostic() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing.yaml");
    assert_eq!(told(&missing), ["error the configuration file cannot be read: entity not found"]);
    assert_eq!(told(dir.path()), ["error the configuration file is not a file"]);
    assert_eq!(told(Path::new("/dev/zero")), ["error the configuration file is not a file"]);

    let path = dir.path().join("latin1.yaml");
    fs::write(&path, b"pvc:\n  node: k\xf6ln1\n").unwrap();
    assert_eq!(told(&path), ["error the configuration file is not UTF-8 text in line 2"]);

    let path = dir.path().join("huge.yaml");
    fs::write(&path, "#".repeat(300_000)).unwrap();
    assert_eq!(told(&path), ["error the configuration file is larger than 262144 bytes"]);
}

#[test]
fn checking_a_file_prints_all_and_sums_up_in_the_last_line() {
    let dir = TempDir::new().unwrap();
    let checked = |path: &Path| {
        let mut out = Vec::new();
        let config = check_file(path, &mut out, false).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&path.display().to_string(), "FILE");
        (config.is_some(), text)
    };
    let path = write(&dir, EXAMPLE, 0o600);
    assert_eq!(checked(&path), (true, "FILE: valid\n".to_owned()));

    let path = write(&dir, EXAMPLE, 0o644);
    let (valid, text) = checked(&path);
    assert!(valid && text.ends_with("\n\nFILE: valid, with 1 warning\n"), "{text}");

    let wrong = edit(&edited("node: pvc-hv1", "node: a.b"), "keepalive_interval: 5", "keepalive_interval: 0");
    let path = write(&dir, &wrong, 0o644);
    let (valid, text) = checked(&path);
    assert!(!valid && text.ends_with("\n\nFILE: refused, with 2 errors, 1 warning\n"), "{text}");
    assert_eq!(load(&path).count(Severity::Error), 2);
}
