//! Who asks the same at the same time gets one answer: of a hundred pages that look again after a change, each would have all read anew. An answer is never
//! older than its question: who comes while something is being read waits for the next reading, together with all others who come until that begins.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    response::Response,
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::sync::Mutex as Turn;

use crate::session::Hash;

/// Of whom, and method, path and query: what is answered depends on nothing else.
type Question = (Hash, String);

type Reading = BoxFuture<'static, Result<axum::http::Response<Bytes>, Arc<axum::Error>>>;

/// What is being read, and by whom it is awaited.
#[derive(Clone, Default)]
pub(crate) struct Readings(Arc<Mutex<HashMap<Question, Lane>>>);

#[derive(Default)]
struct Lane {
    /// Held while one reads.
    turn: Arc<Turn<()>>,
    /// What has not begun; gone when nobody awaits it any more.
    next: Option<WeakShared<Reading>>,
}

impl Readings {
    /// What `read` answers, or what another one's answers who has asked the same and has not begun yet.
    pub(crate) async fn of<F>(
        &self,
        question: Question,
        read: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Response, Arc<axum::Error>>
    where
        F: Future<Output = Response> + Send,
    {
        Ok(self.next(question, read).await?.map(Body::from))
    }

    fn next<F>(&self, question: Question, read: impl FnOnce() -> F + Send + 'static) -> Shared<Reading>
    where
        F: Future<Output = Response> + Send,
    {
        let mut lanes = self.lanes();
        lanes.retain(|_, lane| lane.is_awaited());
        let lane = lanes.entry(question.clone()).or_default();
        if let Some(next) = lane.next.as_ref().and_then(WeakShared::upgrade) {
            return next;
        }
        let (readings, turn) = (self.clone(), Arc::clone(&lane.turn));
        let reading: Reading = Box::pin(async move {
            let _turn = turn.lock().await;
            // Whoever comes from here on wants what is newer.
            if let Some(lane) = readings.lanes().get_mut(&question) {
                lane.next = None;
            }
            let (head, body) = read().await.into_parts();
            // Its handler has made it: it is in memory as it is.
            Ok(axum::http::Response::from_parts(head, to_bytes(body, usize::MAX).await?))
        });
        let reading = reading.shared();
        lane.next = reading.downgrade();
        reading
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Question, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Reads when it may, and says how many have begun before it.
    fn ask(
        readings: &Readings,
        begun: &Arc<AtomicUsize>,
        may: &Arc<Semaphore>,
    ) -> impl Future<Output = Response> + use<> {
        let (readings, begun, may) = (readings.clone(), Arc::clone(begun), Arc::clone(may));
        async move {
            let read = move || async move {
                let before = begun.fetch_add(1, Ordering::Relaxed);
                may.acquire().await.unwrap().forget();
                Response::new(Body::from(before.to_string()))
            };
            readings.of((Hash::default(), "GET /".to_owned()), read).await.unwrap()
        }
    }

    async fn text(response: Response) -> Bytes {
        to_bytes(response.into_body(), 10).await.unwrap()
    }

    #[tokio::test]
    async fn who_comes_while_one_reads_shares_the_next_reading() {
        let (readings, begun, may) = (Readings::default(), Arc::default(), Arc::new(Semaphore::new(0)));
        let mut first = Box::pin(ask(&readings, &begun, &may));
        assert!(first.as_mut().now_or_never().is_none());
        let mut others: Vec<_> = (0..5).map(|_| Box::pin(ask(&readings, &begun, &may))).collect();
        for other in &mut others {
            assert!(other.as_mut().now_or_never().is_none());
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        may.add_permits(2);
        assert_eq!(text(first.await).await, "0");
        for other in others {
            assert_eq!(text(other.await).await, "1");
        }
        may.add_permits(1);
        assert_eq!(
            text(ask(&readings, &begun, &may).await).await,
            "2",
            "nothing is kept for who comes later"
        );
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_no_empty_answer() {
        let broken = || async {
            let pieces = futures_util::stream::iter([Ok("half of an ans"), Err("the rest is lost")]);
            Response::new(Body::from_stream(pieces))
        };
        let question = (Hash::default(), "GET /".to_owned());
        let error = Readings::default().of(question, broken).await.unwrap_err();
        assert_eq!(error.to_string(), "the rest is lost");
    }

    #[tokio::test]
    async fn who_goes_away_keeps_nobody_waiting_and_leaves_nothing() {
        let (readings, begun, may) = (Readings::default(), Arc::default(), Arc::new(Semaphore::new(0)));
        for _ in 0..3 {
            let mut reads = Box::pin(ask(&readings, &begun, &may));
            let mut waits = Box::pin(ask(&readings, &begun, &may));
            assert!(reads.as_mut().now_or_never().is_none());
            assert!(waits.as_mut().now_or_never().is_none());
            // In either order.
            if begun.load(Ordering::Relaxed) == 1 { drop(waits) } else { drop(reads) }
        }
        may.add_permits(1);
        assert_eq!(text(ask(&readings, &begun, &may).await).await.len(), 1);
        readings.lanes().retain(|_, lane| lane.is_awaited());
        assert_eq!(readings.lanes().len(), 0);
    }
}
