//! The library's errors in our words.

use zookeeper_client::Error;

use crate::store::{CommitError, StoreError};

/// Whether nothing is known about a request: it was perhaps never sent, perhaps done and not answered. Whatever is not
/// certainly the server's answer counts as lost: the library reports some losses as `Custom` or `UnexpectedError`.
pub(super) fn is_lost(error: &Error) -> bool {
    !is_answer(error)
}

fn is_answer(error: &Error) -> bool {
    matches!(
        error,
        Error::BadArguments(_)
            | Error::NoNode
            | Error::NoAuth
            | Error::BadVersion
            | Error::NoChildrenForEphemerals
            | Error::NodeExists
            | Error::NotEmpty
            | Error::InvalidAcl
            | Error::NotReadOnly
            | Error::QuotaExceeded
            | Error::Throttled
            | Error::MarshallingError
            | Error::Unimplemented
            | Error::ReconfigDisabled
            | Error::UnexpectedErrorCode(_)
    )
}

/// An answer that says no.
pub(super) fn refused(what: &str, error: &Error) -> StoreError {
    StoreError::Refused { what: what.to_owned(), why: error.to_string() }
}

/// What a failed write means.
pub(super) fn write_failed(what: &str, error: &Error) -> CommitError {
    match error {
        Error::SessionExpired | Error::SessionMoved => CommitError::Unknown(StoreError::SessionLost),
        error if is_lost(error) => CommitError::Unknown(StoreError::Unavailable(error.to_string())),
        error => CommitError::Failed(refused(what, error)),
    }
}

/// Whether an operation failed because somebody else changed the tree.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::NoNode | Error::BadVersion | Error::NodeExists | Error::NotEmpty)
}
