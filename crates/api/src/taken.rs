//! What is held until an answer has been taken: a connection has it in pieces that it has yet to hand to the kernel, and memory is free with the last of these.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// The same body; `held` is dropped with the last byte of it.
pub(crate) fn until_taken<T: Send + Sync + 'static>(body: Body, held: T) -> Body {
    Body::new(Taken { body, held: Arc::new(held) })
}

struct Taken<T> {
    body: Body,
    held: Arc<T>,
}

struct Piece<T> {
    bytes: Bytes,
    _held: Arc<T>,
}

impl<T> AsRef<[u8]> for Piece<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T: Send + Sync + 'static> HttpBody for Taken<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let keep = |bytes| Bytes::from_owner(Piece { bytes, _held: Arc::clone(&self.held) });
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(keep))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn it_is_held_until_the_last_byte_of_the_last_piece_is_gone() {
        let held = Arc::new(());
        let mut pieces = until_taken(Body::from("an answer"), Arc::clone(&held)).into_data_stream();
        let mut piece = pieces.next().await.unwrap().unwrap();
        drop(pieces);
        let first = piece.split_to(3);
        drop(piece);
        assert_eq!(Arc::strong_count(&held), 2);
        assert_eq!(first, "an ");
        drop(first);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
