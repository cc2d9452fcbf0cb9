//! The lab's cgroups: how everything that a lab started is found, frozen and killed, also when the lab itself is gone.
//! Never touches a cgroup without the lab's own mark, and sets no resource limits.
//!
//! Every lab has one cgroup per hierarchy, with a child for each node and one for the capsule. What counts is the
//! cgroup2 hierarchy. On hybrid machines systemd-nspawn wants a place in the `name=systemd` hierarchy too.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{XattrFlags, getxattr, setxattr},
    io::Errno,
};

use crate::program::wait_until;

/// The extended attribute that tells our cgroups from others. Needs root to be set.
const MARK: &str = "trusted.pvc-lab";
const DEATH: Duration = Duration::from_secs(30);

/// The mount points of the hierarchies in use: cgroup2 first, then perhaps `name=systemd`.
fn hierarchies() -> Result<(PathBuf, Option<PathBuf>)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let found = find_hierarchies(&mounts);
    let Some(unified) = found.0 else {
        bail!("no cgroup2 hierarchy is mounted: mount one, for example on /sys/fs/cgroup/unified");
    };
    Ok((unified, found.1))
}

fn find_hierarchies(mountinfo: &str) -> (Option<PathBuf>, Option<PathBuf>) {
    let mut found = (None, None);
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4) else { continue };
        // Only the machine's own view counts, not the copies in chroots and images.
        if !point.starts_with("/sys/fs/cgroup") {
            continue;
        }
        if after.starts_with("cgroup2 ") {
            found.0.get_or_insert_with(|| PathBuf::from(point));
        } else if after.starts_with("cgroup ") && after.split(',').any(|option| option == "name=systemd") {
            found.1.get_or_insert_with(|| PathBuf::from(point));
        }
    }
    found
}

/// A cgroup of the same name in every hierarchy in use.
#[derive(Clone, Debug)]
pub struct Cgroup {
    unified: PathBuf,
    systemd: Option<PathBuf>,
}

impl Cgroup {
    /// The cgroup called `name` right below the root; it need not exist.
    pub fn top(name: &str) -> Result<Self> {
        let (unified, systemd) = hierarchies()?;
        Ok(Self { unified: unified.join(name), systemd: systemd.map(|s| s.join(name)) })
    }

    /// The child called `name`.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { unified: self.unified.join(name), systemd: self.systemd.as_ref().map(|s| s.join(name)) }
    }

    /// Its folder in the cgroup2 hierarchy.
    pub fn path(&self) -> &Path {
        &self.unified
    }

    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.unified).chain(&self.systemd)
    }

    /// Whether it exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.folders().any(|folder| folder.exists())
    }

    /// Creates it, marked as belonging to `lab`. An error if it exists already.
    pub fn create_marked(&self, lab: &str) -> Result<()> {
        for folder in self.folders() {
            fs::create_dir(folder)
                .with_context(|| format!("could not create the cgroup {}", folder.display()))?;
            setxattr(folder, MARK, lab.as_bytes(), XattrFlags::empty())
                .with_context(|| format!("could not mark the cgroup {}", folder.display()))?;
        }
        if !self.unified.join("cgroup.kill").exists() {
            bail!("this kernel has no cgroup.kill: the lab needs Linux 5.14 or later");
        }
        Ok(())
    }

    /// Refuses a cgroup of this name that `lab` did not make.
    pub fn check_mark(&self, lab: &str) -> Result<()> {
        for folder in self.folders().filter(|folder| folder.exists()) {
            let mut value = [0; 64];
            match getxattr(folder, MARK, &mut value[..]) {
                Ok(length) if &value[..length] == lab.as_bytes() => {}
                Ok(_) | Err(Errno::NODATA) => bail!(
                    "the cgroup {} exists and is not this lab's: remove it, or choose another name",
                    folder.display()
                ),
                Err(e) => {
                    return Err(e)
                        .with_context(|| format!("could not read the mark of {}", folder.display()));
                }
            }
        }
        Ok(())
    }

    /// Creates it below its parent, unless it exists.
    pub fn create(&self) -> Result<()> {
        for folder in self.folders() {
            match fs::create_dir(folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(e)
                        .with_context(|| format!("could not create the cgroup {}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves the calling process into it.
    pub fn join(&self) -> Result<()> {
        for folder in self.folders() {
            // "0" is the writer, whatever its number is in this process namespace.
            fs::write(folder.join("cgroup.procs"), "0")
                .with_context(|| format!("could not join the cgroup {}", folder.display()))?;
        }
        Ok(())
    }

    /// Whether any process is in it or below.
    pub fn populated(&self) -> bool {
        self.event("populated 1")
    }

    fn event(&self, line: &str) -> bool {
        fs::read_to_string(self.unified.join("cgroup.events"))
            .is_ok_and(|text| text.lines().any(|l| l == line))
    }

    /// Stops or resumes every process in it; returns when that has happened.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let digit = if frozen { "1" } else { "0" };
        fs::write(self.unified.join("cgroup.freeze"), digit)
            .with_context(|| format!("could not freeze {}", self.unified.display()))?;
        wait_until("the cgroup to be frozen or thawed", DEATH, || {
            self.event(if frozen { "frozen 1" } else { "frozen 0" })
        })
    }

    /// Whether every process in it is stopped.
    pub fn frozen(&self) -> bool {
        self.event("frozen 1")
    }

    /// Kills every process in it at once, also a frozen one, and returns when the last is gone.
    pub fn kill(&self) -> Result<()> {
        let mut outcome = Ok(());
        // Again and again: a program that was just being started in it joins after the blow, and stays there if it is frozen.
        let waited = wait_until("the processes of a cgroup to die", DEATH, || {
            outcome = match fs::write(self.unified.join("cgroup.kill"), "1") {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
                other => other.with_context(|| format!("could not kill {}", self.unified.display())),
            };
            outcome.is_err() || !self.populated()
        });
        outcome.and(waited)
    }

    /// Kills every process in it at once and does not look what becomes of it; whether there was anything.
    pub fn strike(&self) -> Result<bool> {
        match fs::write(self.unified.join("cgroup.kill"), "1") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true).with_context(|| format!("could not kill {}", self.unified.display())),
        }
    }

    /// Kills what is in it and removes it with everything below.
    pub fn remove(&self) -> Result<()> {
        self.kill()?;
        for folder in self.folders() {
            // Dying processes keep a cgroup busy for some milliseconds.
            wait_until("an empty cgroup to be removable", DEATH, || remove_tree(folder).is_ok())
                .with_context(|| format!("could not remove the cgroup {}", folder.display()))?;
        }
        Ok(())
    }

    /// The processes in it, not those below, as this process sees them.
    pub fn processes(&self) -> Vec<i32> {
        fs::read_to_string(self.unified.join("cgroup.procs"))
            .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default()
    }

    /// The process in it that is number 1 of its own process namespace, as this process sees it.
    pub fn init(&self) -> Option<i32> {
        self.processes().into_iter().find(|pid| is_init(*pid))
    }
}

fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 1 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 25 0:23 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,name=systemd
28 25 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const PURE: &str = "\
28 25 0:24 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
90 25 0:24 / /srv/chroot/sys/fs/cgroup rw - cgroup2 cgroup2 rw
";

    #[test]
    fn both_a_hybrid_and_a_pure_machine_are_understood() {
        assert_eq!(
            find_hierarchies(HYBRID),
            (Some("/sys/fs/cgroup/unified".into()), Some("/sys/fs/cgroup/systemd".into()))
        );
        assert_eq!(find_hierarchies(PURE), (Some("/sys/fs/cgroup".into()), None));
        assert_eq!(find_hierarchies(""), (None, None));
    }
}
