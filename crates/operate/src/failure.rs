//! Everything that can end a command early, and of which kind it is: an exit code, or the status of an HTTP answer.

use pvc_core::{
    command::{Refusal, RefusalKind},
    model::{Halt, NodeName, Problem, Vm, VmId},
};
use pvc_store::{CommitError, StoreError, schema::SchemaError};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is not to be done, or its object does not exist. Nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no cluster in the state store.
    #[error("the state store at {place} holds no cluster: prepare it with `pvc init`")]
    Uninitialised {
        /// Where the store is.
        place: String,
    },
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The tree holds something that must be put right first.
    #[error("the state tree is not in order")]
    Tree(#[source] SchemaError),
    /// What was asked for was written, and is not so when the waiting ends.
    #[error("{message}, but that is not so after {after_s} s: {waiting}. {more}")]
    NotYet {
        /// What was asked for.
        message: String,
        /// How long it was waited for, seconds.
        after_s: u64,
        /// What was waited for last.
        waiting: String,
        /// What becomes of it, and where to look.
        more: String,
    },
    /// The cluster could not do it.
    #[error("{0}")]
    Failed(String),
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is not to be done now, or at all.
    Refused,
    /// What was named does not exist.
    NotFound,
    /// The state store cannot be reached.
    Unavailable,
    /// The cluster could not do it, or did not in time.
    Failed,
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
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(refusal) => match refusal.kind {
                RefusalKind::Refused => Kind::Refused,
                RefusalKind::NotFound => Kind::NotFound,
            },
            Self::Uninitialised { .. } => Kind::Refused,
            Self::Store(e) | Self::Commit(CommitError::Failed(e) | CommitError::Unknown(e)) => match e {
                StoreError::Unavailable(_) | StoreError::SessionLost => Kind::Unavailable,
                StoreError::Refused { .. } => Kind::Failed,
            },
            Self::Failed(_)
            | Self::NotYet { .. }
            | Self::Tree(_)
            | Self::Commit(CommitError::Conflict { .. }) => Kind::Failed,
        }
    }

    /// The VM is where it was asked to be, and executes nothing: that is no success.
    pub(crate) fn halted(vm: &Vm, node: &NodeName, halt: Halt) -> Self {
        let (name, what, way_out) = (&vm.name, halt.what(), halt.way_out(&vm.name, node));
        Self::Failed(format!("VM {name} is on {node} and does not execute: {what}; {way_out}"))
    }

    /// A VM that was there a moment ago.
    pub(crate) fn gone(id: VmId) -> Self {
        Self::Refused(Refusal {
            kind: RefusalKind::NotFound,
            what: format!("VM {id} is gone"),
            why: "somebody has undefined it meanwhile".into(),
            todo: "`pvc vm list` shows all VMs".into(),
        })
    }

    /// Who only looks was given a cluster that is read anew.
    pub(crate) fn unwatched() -> Self {
        Self::Failed("a bug: the cluster is not watched".to_owned())
    }

    pub(crate) fn unreadable(what: &str, problems: &[Problem]) -> Self {
        Self::Failed(format!("{what} is not in order, so nothing is done with it: {}", list(problems)))
    }
}

/// What is wrong, on one line.
pub(crate) fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}
