//! Who may make or remove what: a lab's folder and cgroup are used only with the lab's own mark on them.
//! Never follows a link out of the lab's folder, and never removes a folder in which something is mounted.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    layout::{Layout, STATE_ROOT},
    machine::cgroup::Cgroup,
    options::LabOptions,
};

/// What `lab.json` in a lab's folder says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marker {
    /// The source checkout the lab was made from: labs of other checkouts are somebody else's.
    pub checkout: PathBuf,
    /// The user that made it, seen through sudo.
    pub user: String,
    /// What it was made from.
    pub options: LabOptions,
}

impl Marker {
    /// A marker of this program's user and checkout.
    pub fn new(options: LabOptions) -> Self {
        Self { checkout: checkout(), user: user(), options }
    }

    /// The marker of the lab at `layout`; `None` if there is no such lab, an error if the folder is not a lab's.
    pub fn read(layout: &Layout) -> Result<Option<Self>> {
        if fs::symlink_metadata(layout.state()).is_err() {
            return Ok(None);
        }
        let path = layout.marker();
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "{} exists and has no readable {}: it was not made by the lab and is left alone; choose another name",
                layout.state().display(),
                path.display()
            )
        })?;
        let marker = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: remove the folder", path.display()))?;
        Ok(Some(marker))
    }

    /// What a crashed lab left is its user's, wherever it was made; a living one is left to its checkout.
    fn check_ours(&self, layout: &Layout, lives: bool) -> Result<()> {
        if self.user != user() || lives && self.checkout != checkout() {
            bail!(
                "the lab {} belongs to {}, made from {}: choose another name, or take it down from there",
                layout.name(),
                self.user,
                self.checkout.display()
            );
        }
        Ok(())
    }
}

/// The workspace this program was built from.
pub fn checkout() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}

fn user() -> String {
    std::env::var("SUDO_USER").unwrap_or_else(|_| "root".into())
}

/// Takes `options.name` for a new lab: removes what a crashed one left, refuses a living or foreign one, and creates
/// the folder with its marker and the cgroup.
pub fn take(layout: &Layout, options: &LabOptions) -> Result<Cgroup> {
    let _lock = lock()?;
    let cgroup = Cgroup::top(&layout.cgroup())?;
    cgroup.check_mark(&options.name)?;
    if let Some(marker) = Marker::read(layout)? {
        let lives = lives(&cgroup);
        marker.check_ours(layout, lives)?;
        if lives {
            bail!("the lab {} is up: take it down first, or choose another name", layout.name());
        }
    }
    remove_all(layout, &cgroup)?;
    create_state(layout, &Marker::new(options.clone()))
        .with_context(|| format!("could not create {}", layout.state().display()))?;
    cgroup.create_marked(&options.name)?;
    Ok(cgroup)
}

fn lives(cgroup: &Cgroup) -> bool {
    cgroup.child("capsule").populated()
}

/// Creates the folder with the marker in it at once: a folder without one would be taken for a stranger's.
fn create_state(layout: &Layout, marker: &Marker) -> Result<()> {
    // A lab's name starts with a letter.
    let beside = Path::new(STATE_ROOT).join(format!(".new-{}", layout.name()));
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&beside)?;
    let name = layout.marker().file_name().map(PathBuf::from).unwrap_or_default();
    fs::write(beside.join(name), serde_json::to_vec_pretty(marker)?)?;
    Ok(fs::rename(&beside, layout.state())?)
}

/// Kills and removes everything of the lab at `layout`, alive or crashed. Whether there was anything.
pub fn release(layout: &Layout) -> Result<bool> {
    let _lock = lock()?;
    let cgroup = Cgroup::top(&layout.cgroup())?;
    cgroup.check_mark(&layout.name().to_string())?;
    let marker = Marker::read(layout)?;
    if let Some(marker) = &marker {
        marker.check_ours(layout, lives(&cgroup))?;
    }
    let existed = marker.is_some() || cgroup.exists();
    remove_all(layout, &cgroup)?;
    // The last lab takes the common folder with it; others keep it busy.
    let _ = fs::remove_dir(STATE_ROOT);
    Ok(existed)
}

fn remove_all(layout: &Layout, cgroup: &Cgroup) -> Result<()> {
    if cgroup.exists() {
        cgroup.remove()?;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(point) = mount_below(&mounts, layout.state()) {
        bail!("{} is mounted on this machine, which the lab never does: unmount it first", point.display());
    }
    match fs::remove_dir_all(layout.state()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("could not remove {}", layout.state().display()))
        }
        _ => Ok(()),
    }
}

fn mount_below(mountinfo: &str, folder: &Path) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .find(|point| point.starts_with(folder))
}

/// Locks the folder of all labs, which is created if missing and must be root's alone.
fn lock() -> Result<File> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab needs root, for namespaces and mounts: use sudo");
    }
    loop {
        match fs::DirBuilder::new().mode(0o700).create(STATE_ROOT) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("could not create {STATE_ROOT}"));
            }
            _ => {}
        }
        // Whoever took the last lab down may have removed the folder since, also while we waited for its lock.
        let folder = match rustix::fs::open(
            STATE_ROOT,
            OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => continue,
            other => File::from(
                other.with_context(|| format!("{STATE_ROOT} is not a folder of the lab's; remove it"))?,
            ),
        };
        let about = folder.metadata()?;
        // Others may write into /var/tmp: somebody could have been here first.
        if about.uid() != 0 || about.mode() & 0o022 != 0 {
            bail!(
                "{STATE_ROOT} is not a folder that only root can write to: it was not made by the lab; remove it"
            );
        }
        flock(&folder, FlockOperation::LockExclusive)
            .with_context(|| format!("could not lock {STATE_ROOT}"))?;
        if fs::symlink_metadata(STATE_ROOT).is_ok_and(|now| now.ino() == about.ino()) {
            return Ok(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_checkout_left_may_be_taken_and_what_lives_there_or_is_anothers_may_not() {
        let layout = Layout::new("t-ours".parse().unwrap());
        let marker = Marker::new(LabOptions::new("t-ours", "pvc-lab"));
        let ours = |marker: &Marker, lives| marker.check_ours(&layout, lives).is_ok();
        assert!(ours(&marker, true));
        let elsewhere = Marker { checkout: "/elsewhere".into(), ..marker.clone() };
        assert!(ours(&elsewhere, false));
        assert!(!ours(&elsewhere, true));
        let theirs = Marker { user: "somebody".into(), ..marker };
        assert!(!ours(&theirs, false));
    }

    #[test]
    fn a_mount_in_the_folder_is_seen_and_one_beside_it_is_not() {
        let mounts = "1 2 0:1 / /var/tmp/pvc-lab/one/layer rw - tmpfs tmpfs rw\n";
        assert!(mount_below(mounts, Path::new("/var/tmp/pvc-lab/one")).is_some());
        assert!(mount_below(mounts, Path::new("/var/tmp/pvc-lab/on")).is_none());
    }
}
