//! The client's errors in the store's words.

use super::client::Error;
use crate::store::{CommitError, StoreError};

/// Whether nothing is known about a request: it was perhaps never sent, perhaps done and not answered. What cannot be
/// understood may have been a success.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error, Error::ConnectionLost | Error::SessionExpired | Error::NoHosts | Error::Malformed)
}

/// An answer that says no.
pub(super) fn refused(what: &str, error: &Error) -> StoreError {
    StoreError::Refused { what: what.to_owned(), why: error.to_string() }
}

/// What a failed write means.
pub(super) fn write_failed(what: &str, error: &Error) -> CommitError {
    match error {
        Error::SessionExpired => CommitError::Unknown(StoreError::SessionLost),
        error if is_lost(error) => CommitError::Unknown(StoreError::Unavailable(error.to_string())),
        error => CommitError::Failed(refused(what, error)),
    }
}

/// Whether an operation failed because somebody else changed the tree.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::NoNode | Error::BadVersion | Error::NodeExists | Error::NotEmpty)
}
