//! A socket to the kernel, for requests that take turns. It is opened anew if it breaks.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use futures_util::TryStreamExt as _;
use rtnetlink::{Error, Handle};
use tokio::time::timeout;

use super::super::{DEADLINE, LinksError};

/// One socket, and what requests are sent by.
pub(super) struct Channel<H = Handle> {
    handle: Mutex<Option<H>>,
    open: fn() -> io::Result<H>,
    /// Requests take turns: the kernel answers a second list on the same socket with "busy".
    turn: tokio::sync::Mutex<()>,
}

impl<H: Clone> Channel<H> {
    pub(super) fn opened_by(open: fn() -> io::Result<H>) -> io::Result<Self> {
        Ok(Self { handle: Mutex::new(Some(open()?)), open, turn: tokio::sync::Mutex::default() })
    }

    fn handle(&self) -> io::Result<H> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        match &*handle {
            Some(open) => Ok(open.clone()),
            None => Ok(handle.insert((self.open)()?).clone()),
        }
    }

    /// Does a request within the deadline. `fine`: the error codes that mean "already so".
    pub(super) async fn request<T: Default>(
        &self,
        doing: &str,
        fine: &[i32],
        work: impl AsyncFnOnce(H) -> Result<T, Error>,
    ) -> Result<T, LinksError> {
        let kernel = |cause| LinksError::Kernel { doing: doing.to_owned(), cause };
        let handle = self.handle().map_err(kernel)?;
        let in_turn = async {
            let _turn = self.turn.lock().await;
            work(handle).await
        };
        match timeout(DEADLINE, in_turn).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let cause = self.cause(error);
                let is_fine = cause.raw_os_error().is_some_and(|code| fine.contains(&code));
                if is_fine { Ok(T::default()) } else { Err(kernel(cause)) }
            }
            Err(_) => {
                self.forget();
                Err(LinksError::Deadline { doing: doing.to_owned() })
            }
        }
    }

    /// Netlink's error codes are negative errno values.
    fn cause(&self, error: Error) -> io::Error {
        match error {
            Error::NetlinkError(message) => io::Error::from_raw_os_error(message.raw_code().saturating_abs()),
            other => {
                self.forget();
                io::Error::other(other.to_string())
            }
        }
    }

    fn forget(&self) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Channel {
    pub(super) fn open() -> io::Result<Self> {
        Self::opened_by(open)
    }

    pub(super) async fn index(&self, doing: &str, device: &str) -> Result<u32, LinksError> {
        let found = self
            .request(doing, &[libc::ENODEV], async |handle| {
                let mut links = handle.link().get().match_name(device.to_owned()).execute();
                Ok(links.try_next().await?.map(|link| link.header.index))
            })
            .await?;
        found.ok_or_else(|| LinksError::NoDevice { doing: doing.to_owned(), device: device.to_owned() })
    }
}

/// A connection ends with its last handle.
fn open() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}
