//! Calls that block, of libraries that know no deadline: each on a thread that may hang alone, and waited for until its deadline.
//!
//! A call that misses its deadline keeps its thread and its slot until the library answers; [`Slots`] bound how many may. Who has several
//! kinds of calls gives each kind its own slots, so that what is urgent does not wait behind what may hang.

mod workers;

use std::{io, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

pub(crate) use workers::Workers;

/// Why a call has no answer, or a bad one.
pub(crate) enum Failure<F> {
    /// The library's own.
    Fault(F),
    /// Other calls held the slots until the deadline: nothing was asked.
    NotAsked,
    /// Asked, perhaps, but not answered in time.
    Late,
    /// No thread could be started: nothing was asked.
    NoThread(io::Error),
}

/// How many calls may be under way.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Semaphore>);

/// One of them, taken until it is dropped.
pub(crate) type Slot = OwnedSemaphorePermit;

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// A slot, as soon as there is one.
    pub(crate) async fn take<F>(&self, deadline: Instant) -> Result<Slot, Failure<F>> {
        let slot = timeout_at(deadline, Arc::clone(&self.0).acquire_owned()).await;
        // Nobody closes the semaphore: the only failure is the deadline.
        slot.ok().and_then(Result::ok).ok_or(Failure::NotAsked)
    }
}

impl Workers {
    /// Runs `job` on a thread and waits for it until the deadline. The job holds its slots until it ends.
    pub(crate) async fn call<T: Send + 'static, F: Send + 'static>(
        self: &Arc<Self>,
        deadline: Instant,
        job: impl FnOnce() -> Result<T, F> + Send + 'static,
    ) -> Result<T, Failure<F>> {
        let (answer, answered) = oneshot::channel();
        // Nobody listens after the deadline.
        self.run(Box::new(move || drop(answer.send(job())))).map_err(Failure::NoThread)?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result.map_err(Failure::Fault),
            // The deadline passed, or the thread panicked: either way nothing is known of the outcome.
            Ok(Err(_)) | Err(_) => Err(Failure::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_keeps_its_slot_and_another_is_not_asked() {
        let workers = Arc::new(Workers::new("test", 64 * 1024));
        let slots = Slots::new(1);
        let (unblock, blocked) = mpsc::channel::<()>();
        let deadline = || Instant::now() + Duration::from_millis(20);
        let slot = slots.take::<()>(deadline()).await.ok().expect("it is free");
        let hangs = workers.call(deadline(), move || {
            let _slot = slot;
            blocked.recv().map_err(drop)
        });
        assert!(matches!(hangs.await, Err(Failure::Late)));
        assert!(matches!(slots.take::<()>(deadline()).await, Err(Failure::NotAsked)));
        drop(unblock);
        let later = Instant::now() + Duration::from_secs(10);
        assert!(slots.take::<()>(later).await.is_ok(), "the call has ended");
    }

    #[tokio::test]
    async fn an_answer_or_a_fault_is_passed_on_and_a_panic_counts_as_no_answer() {
        let workers = Arc::new(Workers::new("test", 64 * 1024));
        let deadline = Instant::now() + Duration::from_secs(10);
        assert!(matches!(workers.call(deadline, || Ok::<_, ()>(7)).await, Ok(7)));
        assert!(matches!(workers.call(deadline, || Err::<(), _>("no")).await, Err(Failure::Fault("no"))));
        let panics = workers.call(deadline, || -> Result<(), ()> { panic!("as the test wants") });
        assert!(matches!(panics.await, Err(Failure::Late)));
    }
}
