//! What can come of a request.

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No connection, or it broke before the answer: nothing is known about the request.
    #[error("the connection is lost")]
    ConnectionLost,
    /// The session has ended.
    #[error("the session has ended")]
    SessionExpired,
    /// No server answered when the session was to be opened.
    #[error("no server answers")]
    NoHosts,
    /// The server said something that is not ZooKeeper's protocol.
    #[error("the server's answer is malformed")]
    Malformed,
    /// The answer is longer than is kept.
    #[error("the answer is too long")]
    TooLong,
    /// Refused before it was sent.
    #[error("{0}")]
    BadArguments(&'static str),
    /// There is no such key.
    #[error("no such key")]
    NoNode,
    /// The key is there already.
    #[error("the key exists")]
    NodeExists,
    /// The key has another version.
    #[error("the key has another version")]
    BadVersion,
    /// The key has children.
    #[error("the key has children")]
    NotEmpty,
    /// The parent lives only as long as its session.
    #[error("ephemeral keys have no children")]
    NoChildrenForEphemerals,
    /// The server asks for another identity.
    #[error("not permitted")]
    NoAuth,
    /// Any other of `KeeperException.Code`.
    #[error("error {0}")]
    Other(i32),
}

impl Error {
    /// The error of a code of `KeeperException.Code`; `None` for success.
    pub(super) fn of(code: i32) -> Option<Self> {
        Some(match code {
            0 => return None,
            // The server says these when it could not pass a request on to its leader: nothing is known, either.
            -4 | -7 | -12 | -13 => Self::ConnectionLost,
            -8 => Self::BadArguments("the server found the arguments invalid"),
            -101 => Self::NoNode,
            -102 => Self::NoAuth,
            -103 => Self::BadVersion,
            -108 => Self::NoChildrenForEphemerals,
            -110 => Self::NodeExists,
            -111 => Self::NotEmpty,
            -112 | -118 => Self::SessionExpired,
            other => Self::Other(other),
        })
    }
}
