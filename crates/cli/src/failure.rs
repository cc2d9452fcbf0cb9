//! Everything that can end a command early, and the exit code it ends with.

use std::{error::Error, io, path::PathBuf};

use pvc_core::{
    command::{Refusal, RefusalKind},
    model::{DomainError, Halt, NodeName, Vm},
};
use pvc_store::{CommitError, StoreError, schema::SchemaError};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command makes no sense as it is.
    #[error("{0}")]
    Usage(String),
    /// It is not to be done, or its object does not exist.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A definition is refused.
    #[error("{} is refused", file.display())]
    Definition {
        file: PathBuf,
        #[source]
        cause: DomainError,
    },
    /// There is no cluster in the state store.
    #[error("the state store at {addresses} holds no cluster: prepare it with `pvc init`")]
    Uninitialised { addresses: String },
    /// No server answers.
    #[error(
        "no ZooKeeper server answers at {addresses} (given by {source_of}): is one running, and can it be reached from here?"
    )]
    Unreachable { addresses: String, source_of: String },
    /// Nobody said where the servers are.
    #[error("where is ZooKeeper? Give -z HOST:PORT or PVC_ZOOKEEPER, or run this on a node: {0}")]
    NoAddress(String),
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The tree holds something that must be put right first.
    #[error("the state tree is not in order")]
    Tree(#[source] SchemaError),
    /// The cluster could not do it, or did not in time.
    #[error("{0}")]
    Failed(String),
    /// The operator pressed Ctrl-C.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// This machine could not do it.
    #[error("could not {doing}")]
    Machine {
        doing: String,
        #[source]
        cause: io::Error,
    },
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Commit(e) => Self::Commit(e),
            SchemaError::Tree(_) => Self::Tree(error),
        }
    }
}

impl Failure {
    /// The VM is where it was asked to be, and executes nothing: that is no success.
    pub(crate) fn halted(vm: &Vm, node: &NodeName, halt: Halt) -> Self {
        let (name, what, way_out) = (&vm.name, halt.what(), halt.way_out(&vm.name, node));
        Self::Failed(format!("VM {name} is on {node} and does not execute: {what}; {way_out}"))
    }

    /// As documented in `pvc --help` and the manual.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_)
            | Self::Machine { .. }
            | Self::Tree(_)
            | Self::Commit(CommitError::Conflict { .. }) => 1,
            Self::Usage(_) => 2,
            Self::Refused(refusal) => match refusal.kind {
                RefusalKind::Refused => 3,
                RefusalKind::NotFound => 4,
            },
            Self::Definition { .. } | Self::Uninitialised { .. } => 3,
            Self::Unreachable { .. } | Self::NoAddress(_) => 5,
            Self::Store(e) | Self::Commit(CommitError::Failed(e) | CommitError::Unknown(e)) => match e {
                StoreError::Unavailable(_) | StoreError::SessionLost => 5,
                StoreError::Refused { .. } => 1,
            },
            Self::Interrupted(_) => 130,
        }
    }

    /// The message and those of its causes.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(e) = cause {
            text.push_str(": ");
            text.push_str(&e.to_string());
            cause = e.source();
        }
        text
    }

    /// Whether the reader of our output went away.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Machine { cause, .. } if cause.kind() == io::ErrorKind::BrokenPipe)
    }
}
