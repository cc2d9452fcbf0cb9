//! Keys ↔ model: the only place that knows the tree's paths and its words (`True`, `None`, decimals).
//!
//! Never trusts what it reads: anybody with access to ZooKeeper can write anything there. Decoding answers with the object
//! or with every [`Problem`] that was found, each naming the key, what it holds and what is allowed; it never panics.
//! The contract in words is `docs/state-schema.md`.

pub mod audit;
pub mod bmc;
pub mod ceph;
pub mod cmd;
pub mod explain;
pub mod fence;
pub mod flush;
pub mod machine;
pub mod maintenance;
pub mod network;
pub mod node;
pub mod overlay;
pub mod owner;
pub mod placement;
pub mod primary;
pub mod root;
pub mod screen;
pub mod shut_out;
pub mod task;
pub(crate) mod text;
pub mod token;
pub mod vm;
pub mod vm_clients;

use pvc_core::model::Problem;

use crate::store::{Op, Transaction};

/// Why a request to the state tree was not done, where the tree itself may be at fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SchemaError {
    /// The store failed, or somebody was faster.
    #[error(transparent)]
    Commit(#[from] crate::CommitError),
    /// The tree holds something that must be put right first.
    #[error("{0}")]
    Tree(Problem),
}

impl From<crate::StoreError> for SchemaError {
    fn from(error: crate::StoreError) -> Self {
        Self::Commit(crate::CommitError::Failed(error))
    }
}

impl Transaction {
    pub(crate) fn create(&mut self, path: impl Into<String>, data: impl Into<Vec<u8>>) {
        let mode = crate::CreateMode::Persistent;
        self.ops.push(Op::Create { path: path.into(), data: data.into(), mode });
    }

    pub(crate) fn set(&mut self, path: impl Into<String>, data: impl Into<Vec<u8>>, version: Option<i32>) {
        self.ops.push(Op::Set { path: path.into(), data: data.into(), version });
    }

    pub(crate) fn check(&mut self, path: impl Into<String>, check: crate::Check) {
        self.ops.push(Op::Check { path: path.into(), check });
    }

    pub(crate) fn delete(&mut self, path: impl Into<String>, version: Option<i32>) {
        self.ops.push(Op::Delete { path: path.into(), version });
    }
}
