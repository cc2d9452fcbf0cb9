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

use crate::scheduler::{Scheduler, Turn};

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
    scheduler: Scheduler,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mode: Mode,
    /// Tasks that wanted to run while they could not.
    held: BTreeMap<u64, Arc<Turn>>,
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

impl Scheduler {
    /// A process without tasks. The name is for whoever asks for the [current](Process::current) one.
    pub fn process(&self, name: impl Into<String>) -> Process {
        Process::new(name.into(), self.clone())
    }
}

impl Process {
    fn new(name: String, scheduler: Scheduler) -> Self {
        Self { shared: Arc::new(Shared { name, scheduler, state: Mutex::default() }) }
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
        let_run(state);
    }

    /// As `kill -9`: nothing of it ever runs again, and all it held in memory is dropped.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.mode = Mode::Killed;
        // What belongs to a set is dropped with the task that has the set.
        let detached = std::mem::take(&mut state.detached);
        let_run(state);
        detached.iter().for_each(AbortHandle::abort);
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.lock().mode == Mode::Killed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the tasks that were held see what became of their process.
fn let_run(mut state: MutexGuard<'_, State>) {
    let held = std::mem::take(&mut state.held);
    drop(state);
    for turn in held.into_values() {
        turn.want();
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
    let ownership = Process::current().map(|process| {
        let turn = process.shared.scheduler.turn();
        Ownership { waker: Waker::from(Arc::clone(&turn)), process, turn }
    });
    Owned { future: Some(Box::pin(future)), ownership }
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
    ownership: Option<Ownership>,
}

struct Ownership {
    process: Process,
    turn: Arc<Turn>,
    /// Wakes by wanting a turn.
    waker: Waker,
}

impl Ownership {
    /// Whether it may run now, and not only be dropped.
    fn may_run(&self) -> Result<(), Mode> {
        let mut state = self.process.lock();
        match state.mode {
            Mode::Runs => Ok(()),
            Mode::Frozen => {
                state.held.insert(self.turn.number(), Arc::clone(&self.turn));
                Err(Mode::Frozen)
            }
            Mode::Killed => Err(Mode::Killed),
        }
    }
}

impl<F: Future> Future for Owned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, ownership } = &mut *self;
        let Some(own) = ownership else {
            return future.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(cx));
        };
        if !own.turn.has_come(cx) {
            return Poll::Pending;
        }
        // Its turn ends with this poll, and the next one's begins.
        let _turn = own.turn.take();
        let _inside = Inside::enter(Some(own.process.clone()));
        match own.may_run() {
            Ok(()) => {
                let cx = &mut Context::from_waker(&own.waker);
                future.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(cx))
            }
            Err(Mode::Killed) => {
                *future = None;
                Poll::Pending
            }
            Err(_) => Poll::Pending,
        }
    }
}

impl<F> Drop for Owned<F> {
    fn drop(&mut self) {
        if let Some(own) = &self.ownership {
            own.process.lock().held.remove(&own.turn.number());
            let _inside = Inside::enter(Some(own.process.clone()));
            self.future = None;
            own.turn.give_up();
        }
    }
}
