//! An outside observer of the state tree: everything that was ever written, in order, by whom and when.
//!
//! Reads the logs in which the lab's ZooKeeper servers note each transaction before they agree to it. So it misses no value that
//! was there for a moment only, sees the tree while no server serves, and disturbs nobody. A client that watches would do none
//! of these.

mod log;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::Lab;
use log::{Operation, Record};

/// Where a server has its logs, on its node's disk.
const LOGS: &str = "var/lib/zookeeper/version-2";
const CHUNK: usize = 64 << 10;
/// How often a [`Follower`] looks: often enough to strike between two steps of a daemon.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A transaction that changed the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its place in the order of all.
    pub zxid: i64,
    /// When the leader took it, by its wall clock.
    pub at: SystemTime,
    /// The session that sent it.
    pub session: i64,
    /// What it changed, in its order.
    pub changes: Vec<Change>,
}

/// A key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub path: String,
    /// Its value before; `None`: it was not there.
    pub before: Option<String>,
    /// Its value from then on; `None`: it is gone.
    pub after: Option<String>,
}

/// All that became of the tree, from its first key on.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In order.
    pub transactions: Vec<Transaction>,
}

impl History {
    /// What the lab's servers agreed to so far.
    pub fn of(lab: &Lab) -> Result<Self> {
        // A scenario may have given a server another disk, which only its node sees.
        let read = |server| -> Result<Noted> {
            let mut noted = Noted::new();
            let folders = lab.handle(server).roots().map(|root| root.join(LOGS));
            for path in folders.flat_map(|folder| logs_in(&folder)) {
                noted
                    .extend(Log { path, read: 0 }.read_on()?.into_iter().map(|record| (record.zxid, record)));
            }
            Ok(noted)
        };
        let servers = lab.options().coordinators().map(read).collect::<Result<Vec<_>>>()?;
        ensure!(servers.iter().any(|noted| !noted.is_empty()), "no ZooKeeper server of the lab has a log");
        Ok(Self::replay(agreed(servers).into_values()))
    }

    fn replay(records: impl Iterator<Item = Record>) -> Self {
        let (mut tree, mut ephemeral) = (BTreeMap::<String, String>::new(), BTreeMap::<String, i64>::new());
        let mut transactions = Vec::new();
        for Record { zxid, at_ms, session, operations } in records {
            let mut changes = Vec::new();
            let mut change = |path: String, after: Option<String>| {
                let before = match &after {
                    Some(value) => tree.insert(path.clone(), value.clone()),
                    None => tree.remove(&path),
                };
                changes.push(Change { path, before, after });
            };
            for operation in operations {
                match operation {
                    Operation::Create { path, value, ephemeral: until_the_end } => {
                        if until_the_end {
                            ephemeral.insert(path.clone(), session);
                        }
                        change(path, Some(value));
                    }
                    Operation::Set { path, value } => change(path, Some(value)),
                    Operation::Delete { path } => {
                        ephemeral.remove(&path);
                        change(path, None);
                    }
                    Operation::EndSession => {
                        let ended = ephemeral.iter().filter(|(_, owner)| **owner == session);
                        let ended: Vec<_> = ended.map(|(path, _)| path.clone()).collect();
                        for path in ended {
                            ephemeral.remove(&path);
                            change(path, None);
                        }
                    }
                }
            }
            if !changes.is_empty() {
                let at = UNIX_EPOCH + Duration::from_millis(at_ms);
                transactions.push(Transaction { zxid, at, session, changes });
            }
        }
        Self { transactions }
    }

    /// Which node's daemon each session was.
    pub fn daemons(&self) -> BTreeMap<i64, String> {
        let owners = self.changes().filter_map(|(transaction, change)| {
            let node = change.path.strip_prefix("/pvc/daemon/")?;
            change.after.as_ref()?;
            Some((transaction.session, node.to_owned()))
        });
        owners.collect()
    }

    /// All changes, each with its transaction.
    pub fn changes(&self) -> impl Iterator<Item = (&Transaction, &Change)> {
        self.transactions.iter().flat_map(|t| t.changes.iter().map(move |change| (t, change)))
    }

    /// The values that a key had, each with the transaction that gave it; `None`: it was gone.
    pub fn of_key<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a Transaction, Option<&'a str>)> {
        self.changes().filter(move |(_, c)| c.path == path).map(|(t, c)| (t, c.after.as_deref()))
    }

    /// The names of the VMs that were ever defined, by UUID.
    pub fn vms(&self) -> BTreeMap<String, String> {
        let named = self.changes().filter_map(|(_, change)| {
            let uuid = change.path.strip_prefix("/domains/")?;
            (!uuid.contains('/')).then(|| Some((uuid.to_owned(), change.after.clone()?)))?
        });
        named.collect()
    }
}

/// What a server noted, by zxid.
type Noted = BTreeMap<i64, Record>;

/// What a quorum of the servers noted, and all before it. A leader that was cut off has notes of its own, which nobody agreed to; they
/// stay in its log when it has long learned better.
fn agreed(servers: Vec<Noted>) -> Noted {
    let quorum = servers.len() / 2 + 1;
    let mut by_how_many: BTreeMap<i64, usize> = BTreeMap::new();
    servers.iter().flat_map(Noted::keys).for_each(|zxid| *by_how_many.entry(*zxid).or_default() += 1);
    // The upper half of a zxid is the number of the leader's reign; within it all are in order.
    let mut last_of_reign: BTreeMap<i64, i64> = BTreeMap::new();
    for (zxid, _) in by_how_many.into_iter().filter(|(_, servers)| *servers >= quorum) {
        last_of_reign.insert(zxid >> 32, zxid);
    }
    let mut all: Noted = servers.into_iter().flatten().collect();
    all.retain(|zxid, _| last_of_reign.get(&(*zxid >> 32)).is_some_and(|last| zxid <= last));
    all
}

/// Follows what is written from now on, within a millisecond: for who has to strike at one moment.
pub struct Follower {
    lab: Vec<PathBuf>,
    logs: BTreeMap<PathBuf, Log>,
    seen: BTreeSet<i64>,
}

impl Follower {
    /// Begins with the next change.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut follower = Self { lab: folders(lab), logs: BTreeMap::new(), seen: BTreeSet::new() };
        follower.read_on()?;
        Ok(follower)
    }

    /// Waits until `wanted` takes one of the new changes for the one; what it made of it. A change is shown once, as soon as the first
    /// server has noted it.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut wanted: impl FnMut(&str, Option<&str>) -> Option<T>,
    ) -> Result<T> {
        let began = Instant::now();
        while began.elapsed() < deadline {
            let found = self.read_on()?.iter().find_map(|operation| match operation {
                Operation::Create { path, value, .. } | Operation::Set { path, value } => {
                    wanted(path, Some(value))
                }
                Operation::Delete { path } => wanted(path, None),
                Operation::EndSession => None,
            });
            if let Some(found) = found {
                return Ok(found);
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("waited {:.1} s in vain for {what}", began.elapsed().as_secs_f32())
    }

    fn read_on(&mut self) -> Result<Vec<Operation>> {
        let mut new = BTreeMap::new();
        for folder in &self.lab {
            for path in logs_in(folder) {
                let log = self.logs.entry(path.clone()).or_insert_with(|| Log { path, read: 0 });
                new.extend(log.read_on()?.into_iter().map(|record| (record.zxid, record)));
            }
        }
        new.retain(|zxid, _| self.seen.insert(*zxid));
        Ok(new.into_values().flat_map(|record| record.operations).collect())
    }
}

fn folders(lab: &Lab) -> Vec<PathBuf> {
    lab.options().coordinators().map(|node| lab.layout().node_disk(node).join(LOGS)).collect()
}

fn logs_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_log = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("log."));
    entries.filter(is_log).collect()
}

/// One file of a server's log.
struct Log {
    path: PathBuf,
    read: u64,
}

impl Log {
    /// The whole records behind those that were read before.
    fn read_on(&mut self) -> Result<Vec<Record>> {
        let about = || format!("could not read {}", self.path.display());
        let mut file = File::open(&self.path).with_context(about)?;
        file.seek(SeekFrom::Start(self.read))?;
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        loop {
            // Most of the file are zeros that are not worth reading.
            let more = (&mut file).take(CHUNK as u64).read_to_end(&mut bytes).with_context(about)?;
            let (new, taken) = log::records(&bytes, self.read == 0).with_context(about)?;
            let progressed = !new.is_empty();
            found.extend(new);
            self.read += taken as u64;
            bytes.drain(..taken);
            if more == 0 || (!progressed && bytes.iter().all(|byte| *byte == 0)) {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(zxid: i64, session: i64, operations: Vec<Operation>) -> Record {
        Record { zxid, at_ms: 1, session, operations }
    }

    fn create(path: &str, value: &str, ephemeral: bool) -> Operation {
        Operation::Create { path: path.into(), value: value.into(), ephemeral }
    }

    #[test]
    fn what_a_cut_off_leader_noted_alone_was_never_agreed_to() {
        let noted = |zxids: &[i64]| -> Noted { zxids.iter().map(|z| (*z, record(*z, 7, vec![]))).collect() };
        let (first, second) = (1 << 32, 2 << 32);
        let cut_off = noted(&[first + 1, first + 2, first + 3, second + 2]);
        // It got a snapshot instead of what it had missed.
        let quorum =
            [noted(&[first + 1, first + 2, second + 1, second + 2]), noted(&[first + 2, second + 1])];
        let all: Vec<_> = agreed([vec![cut_off], quorum.to_vec()].concat()).into_keys().collect();
        assert_eq!(all, [first + 1, first + 2, second + 1, second + 2]);
    }

    #[test]
    fn a_log_whose_records_end_with_a_chunk_is_read_on() {
        let (folder, record) = (tempfile::tempdir().unwrap(), log::testing::record);
        let path = folder.path().join("log.1");
        // The first fills the chunk with the header, the second and third one chunk each.
        let records = [record(1, CHUNK - log::HEADER), record(2, CHUNK), record(3, CHUNK), record(4, 200)];
        let whole = [log::testing::header(), records.concat(), vec![0; 3 * CHUNK]].concat();
        fs::write(&path, whole).unwrap();
        let read = Log { path, read: 0 }.read_on().unwrap();
        assert_eq!(read.iter().map(|record| record.zxid).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_change_knows_what_was_before_and_the_end_of_a_session_takes_its_keys() {
        let history = History::replay(
            [
                record(
                    1,
                    7,
                    vec![create("/pvc/daemon/node1", "x", true), create("/domains/u", "vm1", false)],
                ),
                record(2, 8, vec![Operation::Set { path: "/domains/u".into(), value: "vm2".into() }]),
                record(3, 7, vec![Operation::EndSession]),
                record(4, 9, vec![]),
            ]
            .into_iter(),
        );
        let last: Vec<_> = history.transactions[1..].iter().flat_map(|t| t.changes.clone()).collect();
        let change = |path: &str, before: &str, after: Option<&str>| Change {
            path: path.into(),
            before: Some(before.into()),
            after: after.map(str::to_owned),
        };
        assert_eq!(last, [change("/domains/u", "vm1", Some("vm2")), change("/pvc/daemon/node1", "x", None)]);
        assert_eq!(history.daemons(), BTreeMap::from([(7, "node1".to_owned())]));
        assert_eq!(history.vms(), BTreeMap::from([("u".to_owned(), "vm2".to_owned())]));
        assert_eq!(history.transactions.len(), 3, "a transaction that changes nothing is none");
    }
}
