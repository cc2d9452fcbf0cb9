//! Everything that can end a command early, and the exit code it ends with.

use std::{error::Error, io, path::PathBuf};

use pvc_core::model::DomainError;
use pvc_operate::Kind;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command makes no sense as it is.
    #[error("{0}")]
    Usage(String),
    /// The cluster did not do it.
    #[error(transparent)]
    Cluster(#[from] pvc_operate::Failure),
    /// A definition is refused.
    #[error("{} is refused", file.display())]
    Definition {
        file: PathBuf,
        #[source]
        cause: DomainError,
    },
    /// No server answers.
    #[error(
        "no ZooKeeper server answers at {addresses} (given by {source_of}): is one running, and can it be reached from here?"
    )]
    Unreachable { addresses: String, source_of: String },
    /// Nobody said where the servers are.
    #[error("where is ZooKeeper? Give -z HOST:PORT or PVC_ZOOKEEPER, or run this on a node: {0}")]
    NoAddress(String),
    /// Nobody said yes to it.
    #[error("{0}: not confirmed")]
    Unconfirmed(String),
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

impl Failure {
    /// As documented in `pvc --help` and the manual.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Cluster(failure) => match failure.kind() {
                Kind::Failed => 1,
                Kind::Refused => 3,
                Kind::NotFound => 4,
                Kind::Unavailable => 5,
            },
            Self::Unconfirmed(_) | Self::Machine { .. } => 1,
            Self::Usage(_) => 2,
            Self::Definition { .. } => 3,
            Self::Unreachable { .. } | Self::NoAddress(_) => 5,
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
