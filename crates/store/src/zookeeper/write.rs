//! A transaction as one ZooKeeper multi.

use zookeeper_client::{Acls, Client, CreateMode as Mode, Error, MultiWriteError, MultiWriteResult};

use super::errors;
use crate::store::{Check, CommitError, Committed, CreateMode, Op, Transaction};

pub(super) async fn commit(client: &Client, txn: &Transaction) -> Result<Committed, CommitError> {
    if txn.ops.is_empty() {
        return Ok(Committed { zxid: 0, created: Vec::new() });
    }
    let mut writer = client.new_multi_writer();
    for op in &txn.ops {
        let added = match op {
            Op::Check { path, check: Check::Exists } => writer.add_check_version(path, -1),
            Op::Check { path, check: Check::Version(version) } => {
                known(*version).and_then(|v| writer.add_check_version(path, v))
            }
            Op::Create { path, data, mode } => {
                writer.add_create(path, data, &self::mode(*mode).with_acls(Acls::anyone_all()))
            }
            Op::Set { path, data, version } => {
                version.map(known).transpose().and_then(|v| writer.add_set_data(path, data, v))
            }
            Op::Delete { path, version } => {
                version.map(known).transpose().and_then(|v| writer.add_delete(path, v))
            }
        };
        added.map_err(|e| CommitError::Failed(errors::refused(op.path(), &e)))?;
    }
    match writer.commit().await {
        Ok(results) => Ok(committed(results)),
        Err(MultiWriteError::OperationFailed { index, source }) => {
            let path = txn.ops.get(index).map_or("", |op| op.path()).to_owned();
            if errors::is_conflict(&source) {
                return Err(CommitError::Conflict { op: index, path });
            }
            Err(errors::write_failed(&path, &source))
        }
        Err(MultiWriteError::RequestFailed { source }) => Err(errors::write_failed("a transaction", &source)),
    }
}

/// On the wire -1 means any version: never by accident.
fn known(version: i32) -> Result<i32, Error> {
    if version >= 0 { Ok(version) } else { Err(Error::BadArguments(&"a key's version is never negative")) }
}

fn mode(mode: CreateMode) -> Mode {
    match mode {
        CreateMode::Persistent => Mode::Persistent,
        CreateMode::Ephemeral => Mode::Ephemeral,
        CreateMode::EphemeralSequential => Mode::EphemeralSequential,
    }
}

fn committed(results: Vec<MultiWriteResult>) -> Committed {
    let mut committed = Committed { zxid: 0, created: Vec::new() };
    for result in results {
        match result {
            MultiWriteResult::SetData { stat } => committed.zxid = committed.zxid.max(stat.mzxid),
            // The server leaves the stat of a create within a multi empty, or not, by its version: never told.
            MultiWriteResult::Create { path, .. } => committed.created.push(path),
            // Checks and deletions tell nothing.
            _ => {}
        }
    }
    committed
}
