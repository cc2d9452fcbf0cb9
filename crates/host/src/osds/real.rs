//! `ceph-volume`, systemd and this machine's devices.
//!
//! `ceph-volume lvm` where there is a device-mapper, `ceph-volume raw` where there is none. What raw makes has its folder on the root file system, so
//! that it comes back at a boot as that of lvm does.
#![allow(
    clippy::disallowed_methods,
    reason = "folders of OSDs are files; this runs on a thread that may block"
)]

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{
    HostDevice,
    ceph::OsdId,
    osd::{LocalOsd, ObservedDevice, OsdUuid},
    storage_command::Device,
};
use tokio::time::Instant;

use super::{
    MayHold, OsdError, OsdHost,
    contents::{self, Kept},
    kernel::{Kernel, number},
    lvm::Lvms,
};
use crate::{
    blocking::{Failure, Slots, Workers},
    run::{Ended, Program, RunError},
};

/// `ceph-volume` asks the monitors, formats, and starts Python for each.
const WRITE_WITHIN: Duration = Duration::from_mins(5);
pub(super) const SERVICE_WITHIN: Duration = Duration::from_mins(2);
/// A disk that is dying takes its time to be cleared.
const DEVICE_WITHIN: Duration = Duration::from_mins(2);
const STACK: usize = 256 * 1024;
/// What programs find others by.
const PATH: [(&str, &str); 1] = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];

/// See the module's documentation.
pub(super) struct CephVolume {
    workers: Arc<Workers>,
    /// A disk that hangs keeps one.
    slots: Slots,
    folders: PathBuf,
}

impl Default for CephVolume {
    fn default() -> Self {
        Self {
            workers: Arc::new(Workers::new("osd-device", STACK)),
            slots: Slots::new(4),
            folders: PathBuf::from("/var/lib/ceph"),
        }
    }
}

impl CephVolume {
    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, OsdError> {
        let deadline = Instant::now() + DEVICE_WITHIN;
        let told = |failure| match failure {
            Failure::Fault(error) => {
                OsdError::Refused { doing: doing.clone(), why: io::Error::to_string(&error) }
            }
            Failure::NotAsked | Failure::Late => OsdError::Late(doing.clone()),
            Failure::NoThread(error) => OsdError::Refused { doing: doing.clone(), why: error.to_string() },
        };
        let slot = self.slots.take(deadline).await.map_err(told)?;
        let work = move || {
            let _slot = slot;
            job()
        };
        self.workers.call(deadline, work).await.map_err(told)
    }

    fn folder(&self, osd: OsdId) -> PathBuf {
        self.folders.join(format!("osd/ceph-{osd}"))
    }

    /// By what name its folder has its device, be that there or not.
    async fn link(&self, osd: OsdId) -> Result<Option<PathBuf>, OsdError> {
        let link = self.folder(osd).join("block");
        self.blocking(format!("read {}", link.display()), move || match fs::read_link(link) {
            Ok(device) => Ok(Some(device)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                Ok(None)
            }
            Err(error) => Err(error),
        })
        .await
    }

    /// A half-made LVM has its volume group on the device, by which that is kept: with it goes all that `ceph-volume lvm` has made there.
    async fn take_from_lvm(&self, device: &Device, identity: &str) -> Result<(), OsdError> {
        let path = PathBuf::from(device.as_str());
        match self.blocking(format!("look at {device}"), move || contents::lvms(&path)).await? {
            Lvms::No => return Ok(()),
            Lvms::CephVolumes => {}
            Lvms::Others(group) => {
                let what = format!("a part of LVM's volume group {group}");
                return Err(OsdError::NotBlank { device: device.to_string(), what });
            }
        }
        // By the device: another OSD's volume may say that it has the number.
        if self.device(device, &[]).await?.is_none_or(|found| found.identity != identity) {
            return Err(OsdError::Another(device.to_string()));
        }
        ceph_volume(&["lvm", "zap", "--destroy", device.as_str()]).await
    }

    /// Raw knows a device by the kernel's own name only, which may be another one's after a boot: the folder has it by the name that was asked for.
    async fn write_raw(&self, device: &str, osd: OsdId) -> Result<(), OsdError> {
        let asked = device.to_owned();
        let own = self.blocking(format!("find {device}"), move || fs::canonicalize(asked)).await?;
        let (own, id) = (own.display().to_string(), osd.to_string());
        ceph_volume(&["raw", "prepare", "--bluestore", "--no-tmpfs", "--data", &own, "--osd-id", &id])
            .await?;
        ceph_volume(&["raw", "activate", "--device", &own, "--no-systemd", "--no-tmpfs"]).await?;
        if own == device {
            return Ok(());
        }
        let (link, asked) = (self.folder(osd).join("block"), device.to_owned());
        let name = move || rename_over(&link, |beside| symlink(&asked, beside));
        self.blocking(format!("name {device} in the folder of OSD {osd}"), name).await
    }

    /// At a boot, the device of a raw OSD is root's again, and nobody else gives it to Ceph.
    async fn give_at_start(&self, osd: OsdId) -> Result<(), OsdError> {
        let (folder, block) = (drop_in(osd), self.folder(osd).join("block"));
        let text = format!("[Service]\nExecStartPre=+/usr/bin/chown ceph:ceph {}\n", block.display());
        self.blocking(format!("write {}", folder.display()), move || {
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("pvcd.conf"), text)
        })
        .await?;
        run("systemctl", &["daemon-reload"], SERVICE_WITHIN).await.map(drop)
    }

    async fn remove_folder(&self, osd: OsdId) -> Result<(), OsdError> {
        let (folder, unit) = (self.folder(osd), drop_in(osd));
        let ours = unit.join("pvcd.conf");
        if ours.exists() {
            self.blocking(format!("remove {}", ours.display()), move || {
                fs::remove_file(ours)?;
                // Somebody else's files keep it.
                let _ = fs::remove_dir(unit);
                Ok(())
            })
            .await?;
            run("systemctl", &["daemon-reload"], SERVICE_WITHIN).await?;
        }
        // What lvm has made is a file system of its own.
        if is_mounted(&folder) {
            run("umount", &[&folder.display().to_string()], SERVICE_WITHIN).await?;
        }
        self.blocking(format!("remove {}", folder.display()), move || match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

/// Makes it beside, then has it take the place: whoever dies in between leaves what was there.
fn rename_over(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = path.with_extension("pvcd-new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&beside)?;
    fs::rename(&beside, path)
}

/// Writes Ceph's key for making OSDs where `ceph-volume` looks for it. Nobody but its owner ever reads it, whatever was there before.
fn keep_key(keyring: &Path, key: &str) -> io::Result<()> {
    if let Some(folder) = keyring.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::read_to_string(keyring).is_ok_and(|there| there == key) {
        let mode = fs::metadata(keyring)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(keyring, fs::Permissions::from_mode(0o600))?;
        }
        return Ok(());
    }
    rename_over(keyring, |beside| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        io::Write::write_all(&mut file, key.as_bytes())?;
        file.sync_all()
    })
}

fn drop_in(osd: OsdId) -> PathBuf {
    PathBuf::from(format!("/etc/systemd/system/{}.d", unit(osd)))
}

fn is_mounted(folder: &Path) -> bool {
    let folder = folder.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&folder))
}

fn has_device_mapper() -> bool {
    Path::new("/dev/mapper/control").exists()
}

/// Whether LVM has made it of another one. What joins several paths to a disk is no volume of LVM, and is called as one.
fn is_lvms(device: &Device) -> bool {
    let made = |meta: fs::Metadata| Kernel::default().is_lvms(&number(meta.rdev()));
    fs::metadata(device.as_str()).is_ok_and(made)
}

pub(super) async fn run(program: &str, arguments: &[&str], within: Duration) -> Result<Ended, OsdError> {
    let doing = format!("{program} {}", arguments.join(" "));
    let ended = async { Program::find(program)?.run(arguments, &PATH, within).await }.await;
    match ended {
        Ok(ended) if ended.is_success() => Ok(ended),
        Ok(ended) => {
            // The last line says why; Python tells much before.
            let said = ended.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(OsdError::Refused { doing, why: said.trim().chars().take(300).collect() })
        }
        Err(RunError::Late { .. }) => Err(OsdError::Late(doing)),
        Err(error @ RunError::Missing { .. }) => Err(OsdError::Missing(error.to_string())),
        Err(error) => Err(OsdError::Refused { doing, why: error.to_string() }),
    }
}

fn not_there(link: Option<&Path>) -> String {
    match link {
        Some(link) => format!("{}, as its folder calls it, is not there", link.display()),
        None => "its folder names no device".to_owned(),
    }
}

async fn ceph_volume(words: &[&str]) -> Result<(), OsdError> {
    run("ceph-volume", words, WRITE_WITHIN).await.map(drop)
}

fn unit(osd: OsdId) -> String {
    format!("ceph-osd@{osd}.service")
}

#[async_trait]
impl OsdHost for CephVolume {
    async fn device(
        &self,
        device: &Device,
        names: &[HostDevice],
    ) -> Result<Option<ObservedDevice>, OsdError> {
        let (path, names) = (PathBuf::from(device.as_str()), names.to_vec());
        self.blocking(format!("look at {device}"), move || contents::look(&path, &names)).await
    }

    async fn local(&self, osd: OsdId) -> Result<Option<LocalOsd>, OsdError> {
        let folder = self.folder(osd);
        let look = move || {
            if !folder.try_exists()? {
                return Ok(None);
            }
            let uuid = fs::read_to_string(folder.join("fsid")).ok();
            let device = fs::canonicalize(folder.join("block")).ok();
            let device = device.and_then(|device| device.display().to_string().parse().ok());
            let uuid = uuid.and_then(|uuid| uuid.trim().to_owned().try_into().ok());
            Ok(Some(LocalOsd { uuid, runs: false, device }))
        };
        let found = self.blocking(format!("look at the folder of OSD {osd}"), look).await?;
        let Some(found) = found else { return Ok(None) };
        let state = run("systemctl", &["show", "--property=ActiveState", &unit(osd)], SERVICE_WITHIN).await?;
        let runs = !matches!(state.stdout.trim(), "ActiveState=inactive" | "ActiveState=failed");
        Ok(Some(LocalOsd { runs, ..found }))
    }

    async fn write(
        &self,
        device: &Device,
        identity: &str,
        may: MayHold,
        osd: OsdId,
        key: &str,
    ) -> Result<(), OsdError> {
        if has_device_mapper() && may != MayHold::Nothing {
            self.take_from_lvm(device, identity).await?;
        }
        let (path, keyring) =
            (PathBuf::from(device.as_str()), self.folders.join("bootstrap-osd/ceph.keyring"));
        let (identity, key) = (identity.to_owned(), key.to_owned());
        let prepare = move || {
            keep_key(&keyring, &key)?;
            contents::clear(&path, Some(&identity), may)
        };
        let has_partitions = match self.blocking(format!("clear {device}"), prepare).await? {
            Ok(has_partitions) => has_partitions,
            Err(Kept::Holds(what)) => return Err(OsdError::NotBlank { device: device.to_string(), what }),
            Err(Kept::IsAnother) => return Err(OsdError::Another(device.to_string())),
        };
        let (device, id) = (device.as_str(), osd.to_string());
        if has_partitions {
            run("blockdev", &["--rereadpt", device], SERVICE_WITHIN).await?;
        }
        if has_device_mapper() {
            let words = ["lvm", "prepare", "--bluestore", "--data", device, "--osd-id", &id];
            ceph_volume(&words).await
        } else {
            self.write_raw(device, osd).await
        }
    }

    async fn take_away(&self, osd: OsdId, device: Option<(&Device, &str)>) -> Result<(), OsdError> {
        self.stop(osd).await?;
        if let Some((device, identity)) = device.filter(|_| has_device_mapper()) {
            self.take_from_lvm(device, identity).await?;
        }
        self.remove_folder(osd).await
    }

    async fn start(&self, osd: OsdId) -> Result<(), OsdError> {
        let Some(LocalOsd { uuid: Some(uuid), device, .. }) = self.local(osd).await? else {
            return Err(OsdError::Refused {
                doing: format!("start OSD {osd}"),
                why: "it has no folder".into(),
            });
        };
        let link = self.link(osd).await?;
        match &device {
            Some(device) if !is_lvms(device) => self.give_at_start(osd).await?,
            // A volume that is off is not there until it is activated.
            None if link.is_none() || !has_device_mapper() => {
                return Err(OsdError::Refused {
                    doing: format!("start OSD {osd}"),
                    why: not_there(link.as_deref()),
                });
            }
            _ => {
                ceph_volume(&["lvm", "activate", "--bluestore", &osd.to_string(), uuid.as_str()]).await?;
            }
        }
        run("systemctl", &["enable", &unit(osd)], SERVICE_WITHIN).await?;
        run("systemctl", &["reset-failed", &unit(osd)], SERVICE_WITHIN).await.ok();
        run("systemctl", &["start", &unit(osd)], SERVICE_WITHIN).await.map(drop)
    }

    async fn stop(&self, osd: OsdId) -> Result<(), OsdError> {
        run("systemctl", &["stop", &unit(osd)], SERVICE_WITHIN).await?;
        run("systemctl", &["disable", &unit(osd)], SERVICE_WITHIN).await?;
        // lvm has a second unit, which would start it at the next boot.
        if has_device_mapper()
            && let Some(uuid) = self.local(osd).await?.and_then(|local| local.uuid)
        {
            let of_lvm = format!("ceph-volume@lvm-{osd}-{uuid}.service");
            run("systemctl", &["disable", &of_lvm], SERVICE_WITHIN).await?;
        }
        Ok(())
    }

    async fn clear(&self, osd: OsdId, uuid: &OsdUuid, device_too: bool) -> Result<(), OsdError> {
        let local = self.local(osd).await?;
        let Some(LocalOsd { uuid: Some(found), device, .. }) = local else { return Ok(()) };
        if found != *uuid {
            return Ok(());
        }
        if !device_too {
            return self.remove_folder(osd).await;
        }
        let Some(device) = device else {
            let why = not_there(self.link(osd).await?.as_deref());
            return Err(OsdError::Refused { doing: format!("clear the device of OSD {osd}"), why });
        };
        if is_lvms(&device) {
            match ceph_volume(&["lvm", "zap", "--destroy", "--osd-fsid", uuid.as_str()]).await {
                // It was cleared by a daemon that died before it had taken the folder away.
                Err(OsdError::Refused { why, .. }) if why.contains("Unable to find any LV") => {}
                cleared => cleared?,
            }
        } else {
            let (path, uuid) = (PathBuf::from(device.as_str()), uuid.clone());
            self.blocking(format!("clear {device}"), move || match contents::osd_on(&path)? {
                Some(found) if found == uuid => contents::clear(&path, None, MayHold::Anything).map(drop),
                // It is something else by now.
                _ => Ok(()),
            })
            .await?;
        }
        self.remove_folder(osd).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn cephs_key_is_for_its_owner_only_whatever_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = folder.path().join("bootstrap-osd/ceph.keyring");
        for (before, left) in [(None, "a"), (Some("a"), "a"), (Some("old"), "b"), (Some(""), "c")] {
            if let Some(text) = before {
                fs::write(&keyring, text).unwrap();
                fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).unwrap();
            }
            keep_key(&keyring, left).unwrap();
            assert_eq!((fs::read_to_string(&keyring).unwrap().as_str(), mode(&keyring)), (left, 0o600));
        }
        // Ceph's own user may share it with nobody else.
        fs::set_permissions(&keyring, fs::Permissions::from_mode(0o400)).unwrap();
        keep_key(&keyring, "c").unwrap();
        assert_eq!(mode(&keyring), 0o400);
        // What a daemon has left that died over it.
        fs::write(keyring.with_extension("pvcd-new"), "half").unwrap();
        keep_key(&keyring, "d").unwrap();
        assert_eq!(fs::read_dir(folder.path().join("bootstrap-osd")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_folder_says_by_what_name_it_has_its_device_also_if_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let host = CephVolume { folders: folder.path().to_owned(), ..CephVolume::default() };
        let block = |osd: u32| folder.path().join(format!("osd/ceph-{osd}/block"));
        for osd in [1, 2, 3] {
            fs::create_dir_all(block(osd).parent().unwrap()).unwrap();
        }
        symlink("/dev/disk/by-id/gone", block(1)).unwrap();
        fs::write(block(2), "").unwrap();
        let link = async |osd| host.link(OsdId(osd)).await.unwrap().map(|link| link.display().to_string());
        assert_eq!(link(1).await.as_deref(), Some("/dev/disk/by-id/gone"));
        for osd in [2, 3, 4] {
            assert_eq!(link(osd).await, None);
        }
        assert!(not_there(Some(Path::new("/dev/x"))).contains("/dev/x"));
        // Renamed in one step: there is never none.
        rename_over(&block(1), |beside| symlink("/dev/null", beside)).unwrap();
        assert_eq!(link(1).await.as_deref(), Some("/dev/null"));
    }
}
