//! Waits until something is so: looks, waits for the next event (or a slow safety net), looks again.
//! Always bounded, never polls in a hurry, and Ctrl-C ends the waiting, not the wish.

use std::{future::poll_fn, task::Poll, time::Duration};

use pvc_store::{Store, Watch};
use tokio::time::Instant;

use crate::{failure::Failure, print::Out};

/// How long to trust that no event was missed.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);

/// What a look found.
pub(crate) enum Look<T> {
    /// It is so.
    Done(T),
    /// Not yet; what is waited for.
    NotYet(String),
}

/// How the waiting ended.
pub(crate) enum Waited<T> {
    /// It is so.
    Done(T),
    /// Not in time; what was waited for last.
    TimedOut(String),
    /// Ctrl-C; what was waited for last.
    Interrupted(String),
}

/// Looks until it is so, whenever something at or below one of `paths` changes.
pub(crate) async fn until<T>(
    store: &dyn Store,
    paths: &[String],
    within: Duration,
    out: &Out,
    mut look: impl AsyncFnMut() -> Result<Look<T>, Failure>,
) -> Result<Waited<T>, Failure> {
    let mut watches: Vec<Watch> = paths.iter().map(|path| store.watch(path)).collect();
    let began = Instant::now();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let waiting_for = match look().await {
            Ok(Look::Done(done)) => {
                out.progress_done();
                return Ok(Waited::Done(done));
            }
            Ok(Look::NotYet(what)) => what,
            Err(e) => {
                out.progress_done();
                return Err(e);
            }
        };
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            out.progress_done();
            return Ok(Waited::TimedOut(waiting_for));
        }
        out.progress(&format!("{} s: {waiting_for}", began.elapsed().as_secs()));
        tokio::select! {
            () = changed(&mut watches) => {}
            () = tokio::time::sleep(left.min(LOOK_ANYWAY)) => {}
            _ = &mut interrupt => {
                out.progress_done();
                return Ok(Waited::Interrupted(waiting_for));
            }
        }
    }
}

/// Returns when one of the watches has something to say; drains all of them.
pub(crate) async fn changed(watches: &mut [Watch]) {
    poll_fn(|cx| {
        let mut any = false;
        for watch in watches.iter_mut() {
            // A watch that ended says nothing any more: the store is closed.
            while let Poll::Ready(Some(_)) = watch.poll_recv(cx) {
                any = true;
            }
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
