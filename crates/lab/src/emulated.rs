//! A machine with Debian's kernel and one program of ours, emulated: for what this machine's kernel has not. What it prints on its serial console is
//! the result.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    guest::{self, Kernel},
    machine::cpio::Archive,
    program::{Output, command, output, run},
};

const INIT: &str = include_str!("../files/emulated-init");

/// So long may a small program take.
const SOON: Duration = Duration::from_mins(1);

/// What goes into one.
#[derive(Debug, Clone, Copy)]
pub struct Emulated<'a> {
    /// What it runs, and nothing else. The machine is switched off when it ends.
    pub program: &'a Path,
    /// Modules of the kernel, in an order that respects what depends on what.
    pub modules: &'a [&'a str],
    /// Programs of this machine that it needs besides busybox, by their paths.
    pub tools: &'a [&'a str],
}

impl Emulated<'_> {
    /// Boots it, and waits for its end; all that it has printed.
    ///
    /// # Errors
    /// If it does not end before `deadline` has passed, with what it has printed until then.
    pub fn run(&self, deadline: Duration) -> Result<String> {
        let kernel = guest::kernel()?;
        let folder = std::env::temp_dir().join(format!("pvc-emulated-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let done = self.boot(&kernel, &folder, deadline);
        let _ = fs::remove_dir_all(&folder);
        done
    }

    fn boot(&self, kernel: &Kernel, folder: &Path, deadline: Duration) -> Result<String> {
        let initrd = folder.join("initrd");
        fs::write(&initrd, self.archive(kernel, folder)?)?;
        let mut qemu = command("/usr/bin/qemu-system-x86_64");
        // As the lab's guests: no tick of the timer may arrive in time for the kernel's trial of it.
        let parameters = "console=ttyS0 quiet no_timer_check panic=-1";
        qemu.args(["-machine", "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", "512"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot"])
            .args(["-append", parameters, "-kernel"])
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initrd);
        output(qemu, b"", deadline).and_then(Output::ok)
    }

    fn archive(&self, kernel: &Kernel, folder: &Path) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        archive.program("init", INIT.as_bytes());
        let stripped = folder.join("program");
        let program = self.program.to_str().context("an odd path")?;
        run("/usr/bin/strip", ["-o", &stripped.to_string_lossy(), program], SOON)?;
        let mut files: Vec<(String, PathBuf)> =
            vec![("bin/busybox".into(), "/bin/busybox".into()), ("bin/program".into(), stripped)];
        let mut libraries = BTreeSet::new();
        for tool in self.tools.iter().copied().chain([program]) {
            libraries.extend(libraries_of(tool)?);
        }
        for path in self.tools.iter().map(|tool| (*tool).to_owned()).chain(libraries) {
            files.push((path.trim_start_matches('/').to_owned(), path.into()));
        }
        let mut folders: BTreeSet<String> =
            ["proc", "sys", "dev", "run", "tmp", "lib/modules"].map(String::from).into();
        folders.extend(files.iter().filter_map(|(path, _)| Some(path.rsplit_once('/')?.0.to_owned())));
        let all: BTreeSet<&str> = folders.iter().flat_map(|folder| ancestors(folder)).collect();
        for folder in all {
            archive.folder(folder);
        }
        for (path, from) in &files {
            let bytes = fs::read(from).with_context(|| format!("no {}", from.display()))?;
            archive.program(path, &bytes);
        }
        let mut order = String::new();
        for name in self.modules {
            archive.file(&format!("lib/modules/{name}.ko"), &kernel.module(name)?);
            writeln!(order, "{name}")?;
        }
        archive.file("lib/modules/order", order.as_bytes());
        Ok(archive.finish())
    }
}

/// A folder and those that it is in, outermost first by their text.
fn ancestors(folder: &str) -> impl Iterator<Item = &str> {
    let inner = folder.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &folder[..at]);
    inner.chain([folder])
}

/// The libraries that a program is loaded with, its loader among them.
fn libraries_of(program: &str) -> Result<Vec<String>> {
    let listed = run("/usr/bin/ldd", [program], SOON)?;
    Ok(listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect())
}
