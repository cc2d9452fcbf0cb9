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
    /// Nobody takes requests where the API shall be.
    #[error("no API answers at {place}: {why}")]
    NoApi { place: String, why: String },
    /// The API took the request and did not answer.
    #[error("{0}")]
    NoAnswer(String),
    /// What answers is no API of ours, or another one than is expected.
    #[error("{0}")]
    Rubbish(String),
    /// The API does not know the token.
    #[error("{place} does not know this token, or was sent none: `pvc login` keeps another one")]
    NoToken { place: String },
    /// The cluster did not do it, as its API tells.
    #[error("{words}")]
    Told {
        kind: Kind,
        words: String,
        /// What was waited for last, if it was waited for in vain.
        waiting: Option<String>,
    },
    /// This is done on a node only.
    #[error("{0} works on a node, not over the API")]
    NodeOnly(&'static str),
    /// Nobody said where the servers are.
    #[error("where is ZooKeeper? Give -z HOST:PORT or PVC_ZOOKEEPER, or run this on a node: {0}")]
    NoAddress(String),
    /// Nobody said yes to it.
    #[error("{0}: not confirmed")]
    Unconfirmed(String),
    /// The operator pressed Ctrl-C.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// A look found what is wrong, and has shown it.
    #[error("to be mended: {0}")]
    Found(usize),
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
            Self::Cluster(failure) => Self::of_kind(failure.kind()),
            Self::Told { kind, .. } => Self::of_kind(*kind),
            Self::Unconfirmed(_) | Self::Found(_) | Self::Machine { .. } | Self::Rubbish(_) => 1,
            Self::Usage(_) | Self::NodeOnly(_) => 2,
            Self::Definition { .. } | Self::NoToken { .. } => 3,
            Self::Unreachable { .. } | Self::NoAddress(_) | Self::NoApi { .. } | Self::NoAnswer(_) => 5,
            Self::Interrupted(_) => 130,
        }
    }

    fn of_kind(kind: Kind) -> u8 {
        match kind {
            Kind::Failed => 1,
            Kind::Refused => 3,
            Kind::NotFound => 4,
            Kind::Unavailable => 5,
        }
    }

    /// Whether the cluster refuses it.
    pub(crate) fn is_refusal(&self) -> bool {
        self.exit_code() == 3
    }

    /// Whether what was named is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.exit_code() == 4
    }

    /// Whether it may be answered a moment later: while the primary changes, nobody answers.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoApi { .. } | Self::NoAnswer(_) => true,
            Self::Told { kind, .. } => *kind == Kind::Unavailable,
            _ => false,
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
