//! Threads for calls that block, made when needed and gone when idle.
//!
//! Not the runtime's blocking pool: a runtime waits for its threads when it ends, and one that hangs would keep the
//! daemon from stopping. How many there are is bounded by the callers' slots.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Longer than the daemon's usual rhythm, so that its one busy thread is kept.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The threads of one library.
pub(crate) struct Workers {
    name: &'static str,
    stack: usize,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    alive: usize,
}

impl Workers {
    /// Threads of this name, with this much stack (bytes).
    pub(crate) fn new(name: &'static str, stack: usize) -> Self {
        Self { name, stack, queue: Mutex::default(), work: Condvar::new() }
    }

    /// Runs `job` at once, on a thread that is idle or new.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut queue = self.lock();
        if queue.jobs.len() < queue.idle {
            queue.jobs.push_back(job);
            self.work.notify_one();
            return Ok(());
        }
        let this = Arc::clone(self);
        thread::Builder::new().name(self.name.into()).stack_size(self.stack).spawn(move || {
            job();
            this.serve();
        })?;
        queue.alive += 1;
        Ok(())
    }

    /// How many jobs are under way.
    pub(crate) fn busy(&self) -> usize {
        let queue = self.lock();
        queue.alive - queue.idle
    }

    fn serve(&self) {
        let mut queue = self.lock();
        loop {
            while let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = self.lock();
            }
            queue.idle += 1;
            let (guard, waited) = self
                .work
                .wait_timeout_while(queue, IDLE, |queue| queue.jobs.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() {
                queue.alive -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !condition() {
            assert!(Instant::now() < deadline, "it never became so");
            thread::yield_now();
        }
    }

    #[test]
    fn a_job_never_waits_behind_one_that_hangs_and_threads_are_used_again() {
        let workers = Arc::new(Workers::new("test", 64 * 1024));
        let (unblock, blocked) = mpsc::channel::<()>();
        let (done, all) = mpsc::channel();
        let finished = done.clone();
        workers.run(Box::new(move || finished.send(blocked.recv().is_err()).unwrap())).unwrap();
        for _ in 0..100 {
            let done = done.clone();
            workers.run(Box::new(move || done.send(false).unwrap())).unwrap();
            assert!(!all.recv_timeout(SOON).unwrap());
            until(|| workers.lock().idle == 1);
        }
        assert_eq!(workers.lock().alive, 2, "the one that hangs and one for all others");
        assert_eq!(workers.busy(), 1);
        drop(unblock);
        assert!(all.recv_timeout(SOON).unwrap(), "the hanging job ends when it is let go");
        until(|| workers.busy() == 0);
    }
}
