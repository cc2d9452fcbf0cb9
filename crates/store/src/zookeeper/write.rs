//! A transaction as one ZooKeeper multi.

use super::{
    client::{Client, EPHEMERAL, MultiError, SEQUENTIAL, Written},
    errors,
};
use crate::store::{Check, CommitError, Committed, CreateMode, Op, Transaction};

pub(super) async fn commit(client: &Client, txn: &Transaction) -> Result<Committed, CommitError> {
    if txn.ops.is_empty() {
        return Ok(Committed { zxid: 0, created: Vec::new() });
    }
    let mut multi = client.multi();
    for op in &txn.ops {
        let added = match op {
            Op::Check { path, check: Check::Exists } => multi.check(path, None),
            Op::Check { path, check: Check::Version(version) } => multi.check(path, Some(*version)),
            Op::Create { path, data, mode } => multi.create(path, data, flags(*mode)),
            Op::Set { path, data, version } => multi.set(path, data, *version),
            Op::Delete { path, version } => multi.delete(path, *version),
        };
        added.map_err(|e| CommitError::Failed(errors::refused(op.path(), &e)))?;
    }
    match multi.commit().await {
        Ok(done) => Ok(committed(done)),
        Err(MultiError::Operation { index, error }) => {
            let path = txn.ops.get(index).map_or("", |op| op.path()).to_owned();
            if let Some(clash) = errors::clash(&error) {
                return Err(CommitError::Conflict { op: index, path, clash });
            }
            Err(errors::write_failed(&path, &error))
        }
        Err(MultiError::Request(error)) => Err(errors::write_failed("a transaction", &error)),
    }
}

fn flags(mode: CreateMode) -> i32 {
    match mode {
        CreateMode::Persistent => 0,
        CreateMode::Ephemeral => EPHEMERAL,
        CreateMode::EphemeralSequential => EPHEMERAL | SEQUENTIAL,
    }
}

fn committed(done: Vec<Written>) -> Committed {
    let mut committed = Committed { zxid: 0, created: Vec::new() };
    for written in done {
        match written {
            Written::Set(stat) => committed.zxid = committed.zxid.max(stat.mzxid),
            // A create tells no number, and checks and deletions leave nothing that a reader could have seen.
            Written::Created(path) => committed.created.push(path),
            Written::Done => {}
        }
    }
    committed
}
