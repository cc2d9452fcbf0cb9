//! `pvc storage …`: pools, volumes, snapshots, OSDs.

mod looks;

use pvc_core::model::{Problem, StorageCommand, storage_command::Bytes};
use pvc_operate::storage as command;
use regex_lite::Regex;

use super::{confirm, follow, now_unix_s};
use crate::{
    args::{Change, Osd, Pool, Removal, Snapshot, Storage, Volume},
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, printable, table},
    },
};

pub(super) async fn run(command: Storage, door: &Door, out: &Out) -> Result<(), Failure> {
    let on = On { door, out };
    match command {
        Storage::Status => on.text(|texts| texts.status).await,
        Storage::Df => on.text(|texts| texts.df).await,
        Storage::Pool(command) => on.pool(command).await,
        Storage::Volume(command) => on.volume(command).await,
        Storage::Snapshot(command) => on.snapshot(command).await,
        Storage::Osd(command) => on.osd(command).await,
        Storage::Locks { change, pool } => looks::locks(door, out, pool, &change).await,
        Storage::Fence(command) => looks::fence(door, out, command).await,
    }
}

/// Has the primary carry out a change, and follows it.
pub(super) async fn change(
    door: &Door,
    out: &Out,
    command: StorageCommand,
    force: bool,
    change: &Change,
) -> Result<(), Failure> {
    let (_, asked) = door.change_storage(&command, force).await?;
    let within = (!change.no_wait).then_some(change.within);
    follow::follow(door, out, asked, within).await
}

/// Where commands are carried out, and where their results go.
struct On<'a> {
    door: &'a Door,
    out: &'a Out,
}

impl On<'_> {
    async fn text(&self, which: impl Fn(command::Texts) -> String) -> Result<(), Failure> {
        let texts = self.door.texts().await?;
        if self.out.is_json() {
            return self.out.json(&texts);
        }
        let now = now_unix_s();
        let age = match &texts.refreshed {
            None => "nobody has asked Ceph yet: is enable_storage on for the primary coordinator?".to_owned(),
            Some(refreshed) => match (refreshed.at_unix_s, &refreshed.trouble) {
                (Some(at), None) => {
                    format!("as {} was told {} s ago", refreshed.by, now.saturating_sub(at))
                }
                (Some(at), Some(why)) => {
                    format!("! {} s old; since then: {why}", now.saturating_sub(at))
                }
                (None, why) => {
                    format!("! nothing is known: {}", why.as_deref().unwrap_or("nobody has asked"))
                }
            },
        };
        let text = which(texts);
        self.out.write(&format!("{}\n\n{age}\n", text.trim_end()))
    }

    async fn change(&self, command: StorageCommand, force: bool, change: &Change) -> Result<(), Failure> {
        self::change(self.door, self.out, command, force, change).await
    }

    async fn remove(&self, command: StorageCommand, what: &str, removal: &Removal) -> Result<(), Failure> {
        let question = format!("Remove {what}? What is on it is lost.");
        confirm::insist(Some(&question), &format!("{what} was not removed"), removal.yes)?;
        self.change(command, false, &removal.change).await
    }

    async fn pool(&self, command: Pool) -> Result<(), Failure> {
        match command {
            Pool::Add { change, pool, pgs } => {
                self.change(StorageCommand::PoolAdd { pool, pgs }, false, &change).await
            }
            Pool::Remove { removal, pool } => {
                let what = format!("pool {pool}");
                self.remove(StorageCommand::PoolRemove { pool }, &what, &removal).await
            }
            Pool::List { limit } => {
                let (mut pools, problems) = self.door.pools().await?;
                pools.retain(|row| matches(&row.name, limit.as_ref()));
                let row = |pool: &command::PoolRow| {
                    let stats = pool.stats.clone().unwrap_or_default();
                    vec![
                        Cell::from(&pool.name),
                        pool.pgs.to_string().into(),
                        Bytes(stats.size_bytes).in_words().into(),
                        stats.num_objects.to_string().into(),
                        stats.num_objects_degraded.to_string().into(),
                    ]
                };
                self.list(&["pool", "pgs", "used", "objects", "degraded"], &pools, &problems, row)
            }
        }
    }

    async fn volume(&self, command: Volume) -> Result<(), Failure> {
        match command {
            Volume::Add { change, pool, volume, size } => {
                self.change(StorageCommand::VolumeAdd { pool, volume, size }, false, &change).await
            }
            Volume::Resize { change, force, pool, volume, size } => {
                self.change(StorageCommand::VolumeResize { pool, volume, size }, force, &change).await
            }
            Volume::Rename { change, pool, volume, new } => {
                self.change(StorageCommand::VolumeRename { pool, volume, new }, false, &change).await
            }
            Volume::Clone { change, snapshot, pool, volume, new } => {
                let snapshot = snapshot.into();
                self.change(StorageCommand::VolumeClone { pool, volume, new, snapshot }, false, &change).await
            }
            Volume::Remove { removal, pool, volume } => {
                let what = format!("volume {pool}/{volume}");
                self.remove(StorageCommand::VolumeRemove { pool, volume }, &what, &removal).await
            }
            Volume::List { pool, limit } => {
                let (mut volumes, problems) = self.door.volumes(pool.as_ref()).await?;
                volumes.retain(|row| matches(&row.name, limit.as_ref()));
                let row = |volume: &command::VolumeRow| {
                    let stats = volume.stats.clone().unwrap_or_default();
                    vec![
                        Cell::from(&volume.name),
                        Cell::from(&volume.pool),
                        Bytes(stats.size).in_words().into(),
                        stats.objects.to_string().into(),
                        stats.features.join(",").into(),
                    ]
                };
                self.list(&["volume", "pool", "size", "objects", "features"], &volumes, &problems, row)
            }
            Volume::Snapshot(command) => self.snapshot(command).await,
        }
    }

    async fn snapshot(&self, command: Snapshot) -> Result<(), Failure> {
        match command {
            Snapshot::Add { change, pool, volume, snapshot } => {
                self.change(StorageCommand::SnapshotAdd { pool, volume, snapshot }, false, &change).await
            }
            Snapshot::Rename { change, pool, volume, snapshot, new } => {
                let command = StorageCommand::SnapshotRename { pool, volume, snapshot, new };
                self.change(command, false, &change).await
            }
            Snapshot::Remove { removal, pool, volume, snapshot } => {
                let what = format!("snapshot {pool}/{volume}@{snapshot}");
                let command = StorageCommand::SnapshotRemove { pool, volume, snapshot };
                self.remove(command, &what, &removal).await
            }
            Snapshot::Rollback { removal, pool, volume, snapshot } => {
                let question = format!(
                    "Roll volume {pool}/{volume} back to snapshot {snapshot}? What was written since is lost."
                );
                let not = format!("volume {pool}/{volume} was not rolled back");
                confirm::insist(Some(&question), &not, removal.yes)?;
                let command = StorageCommand::SnapshotRollback { pool, volume, snapshot };
                self.change(command, false, &removal.change).await
            }
            Snapshot::List { pool, volume, limit } => {
                let (mut snapshots, problems) = self.door.snapshots(pool.as_ref()).await?;
                let of_volume = |row: &command::SnapshotRow| {
                    volume.as_ref().is_none_or(|volume| row.volume == volume.as_str())
                };
                snapshots.retain(|row| of_volume(row) && matches(&row.snapshot, limit.as_ref()));
                let row = |row: &command::SnapshotRow| {
                    vec![Cell::from(&row.snapshot), Cell::from(&row.pool), Cell::from(&row.volume)]
                };
                self.list(&["snapshot", "pool", "volume"], &snapshots, &problems, row)
            }
        }
    }

    async fn osd(&self, command: Osd) -> Result<(), Failure> {
        let (command, change) = match command {
            Osd::Add { removal, weight, wipe, node, device } => {
                let lost = if wipe { "All that is on it is lost" } else { "It must be blank" };
                let question = format!("Make {device} of {node} an OSD? {lost}.");
                confirm::insist(Some(&question), "no OSD was made", removal.yes)?;
                let command = StorageCommand::OsdAdd { node, device, weight };
                return self.change(command, wipe, &removal.change).await;
            }
            Osd::Remove { removal, force, osd } => {
                let question = format!("Remove OSD {osd}? Its device is cleared when its data is elsewhere.");
                confirm::insist(Some(&question), &format!("OSD {osd} was not removed"), removal.yes)?;
                return self.change(StorageCommand::OsdRemove { id: osd }, force, &removal.change).await;
            }
            Osd::In { change, osd } => (StorageCommand::OsdIn { id: osd }, change),
            Osd::Out { change, osd } => (StorageCommand::OsdOut { id: osd }, change),
            Osd::Set { change, flag } => (StorageCommand::OsdSet { flag }, change),
            Osd::Unset { change, flag } => (StorageCommand::OsdUnset { flag }, change),
        };
        self.change(command, false, &change).await
    }

    fn list<T: serde::Serialize, const N: usize>(
        &self,
        header: &[&str; N],
        all: &[T],
        problems: &[Problem],
        row: impl Fn(&T) -> Vec<Cell>,
    ) -> Result<(), Failure> {
        if self.out.is_json() {
            return self.out.json(&all);
        }
        let rows: Vec<Vec<Cell>> = all.iter().map(row).collect();
        self.out.write(&table(header, &rows, self.out.colour()))?;
        for problem in problems {
            self.out.write(&format!("? {}\n", printable(&problem.to_string())))?;
        }
        Ok(())
    }
}

fn matches(name: &str, limit: Option<&Regex>) -> bool {
    limit.is_none_or(|limit| limit.is_match(name))
}
