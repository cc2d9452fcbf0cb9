//! Processes that are simulated: sets of tasks in one real process that are frozen, thawed and killed together.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::task::AbortHandle;

thread_local! {
    /// The process whose task is being polled.
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// One of them. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mode: Mode,
    next: u64,
    /// Tasks that wanted to run while they could not.
    held: BTreeMap<u64, Waker>,
    /// Detached tasks, some of which may have ended.
    detached: Vec<AbortHandle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Runs,
    Frozen,
    Killed,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.shared.name).finish()
    }
}

impl Process {
    /// A process without tasks. The name is for whoever asks for the [`current`](Self::current) one.
    pub fn new(name: impl Into<String>) -> Self {
        Self { shared: Arc::new(Shared { name: name.into(), state: Mutex::default() }) }
    }

    /// The process whose task is running now.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Starts a task in it; what that starts is of the same process. It has no result: a process that was killed returns nothing.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let _inside = Inside::enter(Some(self.clone()));
        drop(crate::spawn(future));
    }

    /// As `kill -STOP`: nothing of it runs until [`thaw`](Self::thaw). What it has asked of others goes on there; its clock, too.
    pub fn freeze(&self) {
        let mut state = self.lock();
        if state.mode == Mode::Runs {
            state.mode = Mode::Frozen;
        }
    }

    /// As `kill -CONT`.
    pub fn thaw(&self) {
        let mut state = self.lock();
        if state.mode == Mode::Frozen {
            state.mode = Mode::Runs;
        }
        let held = std::mem::take(&mut state.held);
        drop(state);
        held.into_values().for_each(Waker::wake);
    }

    /// As `kill -9`: nothing of it ever runs again, and all it held in memory is dropped.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.mode = Mode::Killed;
        let (held, detached) = (std::mem::take(&mut state.held), std::mem::take(&mut state.detached));
        drop(state);
        // What belongs to a set is dropped with the task that has the set.
        detached.iter().for_each(AbortHandle::abort);
        held.into_values().for_each(Waker::wake);
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.lock().mode == Mode::Killed
    }

    fn new_task(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        state.next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this lives, a process is the current one.
struct Inside(Option<Process>);

impl Inside {
    fn enter(process: Option<Process>) -> Self {
        Self(CURRENT.replace(process))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// A future as a task of the process that is running now, if one is.
pub(crate) fn own<F: Future>(future: F) -> Owned<F> {
    let process = Process::current();
    let task = process.as_ref().map_or(0, Process::new_task);
    Owned { future: Some(Box::pin(future)), process, task }
}

/// Has the current process end a detached task when it is killed.
pub(crate) fn adopt(task: impl FnOnce() -> AbortHandle) {
    let Some(process) = Process::current() else { return };
    let mut state = process.lock();
    if state.mode == Mode::Killed {
        task().abort();
        return;
    }
    if state.detached.len() == state.detached.capacity() {
        state.detached.retain(|task| !task.is_finished());
    }
    state.detached.push(task());
}

/// See [`own`].
pub(crate) struct Owned<F> {
    future: Option<Pin<Box<F>>>,
    process: Option<Process>,
    task: u64,
}

impl<F: Future> Future for Owned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Some(process) = &this.process {
            let mut state = process.lock();
            match state.mode {
                Mode::Runs => {}
                Mode::Frozen => {
                    state.held.insert(this.task, cx.waker().clone());
                    return Poll::Pending;
                }
                Mode::Killed => {
                    drop(state);
                    this.end();
                    return Poll::Pending;
                }
            }
        }
        let Some(future) = &mut this.future else { return Poll::Pending };
        let _inside = Inside::enter(this.process.clone());
        future.as_mut().poll(cx)
    }
}

impl<F> Owned<F> {
    fn end(&mut self) {
        let _inside = Inside::enter(self.process.clone());
        self.future = None;
    }
}

impl<F> Drop for Owned<F> {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.lock().held.remove(&self.task);
        }
        self.end();
    }
}
