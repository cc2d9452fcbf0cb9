//! The client's errors in the store's words.

use super::client::Error;
use crate::store::{Clash, CommitError, StoreError};

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

/// How an operation disagrees with the tree, if that is why it failed.
pub(super) fn clash(error: &Error) -> Option<Clash> {
    match error {
        Error::NoNode => Some(Clash::Missing),
        Error::BadVersion => Some(Clash::Changed),
        Error::NodeExists => Some(Clash::Present),
        Error::NotEmpty => Some(Clash::NotEmpty),
        _ => None,
    }
}
