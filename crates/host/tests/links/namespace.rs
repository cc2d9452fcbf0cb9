//! Network namespaces that live as long as their thread.

use std::{process::Command, sync::mpsc, thread};

use nix::sched::{CloneFlags, unshare};

/// Runs a test in a network namespace of its own, on a runtime whose every task is on that thread.
pub(crate) fn alone(test: impl AsyncFnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        });
    });
}

/// A namespace beside, kept by a thread that does what it is told.
pub(crate) struct Beside {
    orders: Option<mpsc::Sender<Order>>,
    keeper: Option<thread::JoinHandle<()>>,
    /// To name the namespace to `ip link set … netns`.
    pub(crate) thread_id: i32,
}

type Order = Box<dyn FnOnce() + Send>;

impl Beside {
    pub(crate) fn new() -> Self {
        let (orders, todo) = mpsc::channel::<Order>();
        let (ready, thread_id) = mpsc::channel();
        let keeper = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for order in todo {
                order();
            }
        });
        let thread_id = thread_id.recv().unwrap();
        Self { orders: Some(orders), keeper: Some(keeper), thread_id }
    }

    /// Runs something there. Threads that it starts stay there.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = mpsc::channel();
        let order: Order = Box::new(move || drop(reply.send(work())));
        self.orders.as_ref().unwrap().send(order).unwrap();
        answer.recv().expect("it panicked there")
    }

    /// Runs `ip …` there; its output.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Runs `ip …` in this thread's namespace; its output.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// Runs `bridge …` in this thread's namespace; its output.
pub(crate) fn bridge(arguments: &str) -> String {
    run("bridge", arguments)
}

fn run(program: &str, arguments: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "tests set up what the daemon never would")]
    let output =
        Command::new(program).args(arguments.split(' ')).output().expect("these tests need iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
