//! The guard: a thread of its own that resets the machine when the daemon has not fed it in time.
//!
//! Of real-time priority where that is allowed, and without anything in common with the daemon's runtime but a channel, so that neither a
//! hung runtime nor a busy machine holds it up. Without its owner it goes on: a daemon that ended without disarming it did not
//! end in order.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pvc_core::{
    model::Moment,
    plan::selffence::{Act, Device, Guarded},
};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{Armed, Found, Hardware, SWITCH_WITHIN, Watchdog, WatchdogError};

/// Above everything ordinary, below the kernel's own.
const PRIORITY: i32 = 10;

const STACK: usize = 128 * 1024;

/// The owner's handle.
pub struct Guard {
    orders: Sender<Order>,
}

enum Order {
    Arm { within: Duration, sent: Instant, done: oneshot::Sender<Armed> },
    Feed { sent: Instant },
    Disarm { done: oneshot::Sender<Result<(), WatchdogError>> },
}

impl Guard {
    /// Starts the thread, which does nothing before it is armed.
    pub fn start(hardware: impl Hardware) -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let task =
            Task { hardware, origin: Instant::now(), within: Duration::ZERO, guarded: None, ended: false };
        thread::Builder::new()
            .name("selffence".into())
            .stack_size(STACK)
            .spawn(move || task.run(&received))?;
        Ok(Self { orders })
    }

    async fn ask<T>(&self, order: Order, answer: oneshot::Receiver<T>) -> Result<T, WatchdogError> {
        self.orders.send(order).map_err(|_| WatchdogError::Stuck)?;
        match tokio::time::timeout(SWITCH_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(WatchdogError::Stuck),
        }
    }
}

/// The moment `age` ago.
fn ago(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

#[async_trait]
impl Watchdog for Guard {
    async fn arm(&self, within: Duration, age: Duration) -> Result<Armed, WatchdogError> {
        let (done, answer) = oneshot::channel();
        self.ask(Order::Arm { within, sent: ago(age), done }, answer).await
    }

    fn feed(&self, age: Duration) {
        // A thread that is gone was said when it was armed or will be when it is disarmed.
        let _ = self.orders.send(Order::Feed { sent: ago(age) });
    }

    async fn disarm(&self) -> Result<(), WatchdogError> {
        let (done, answer) = oneshot::channel();
        self.ask(Order::Disarm { done }, answer).await?
    }
}

/// The thread.
struct Task<H> {
    hardware: H,
    origin: Instant,
    within: Duration,
    guarded: Option<Guarded>,
    /// The reset was tried and did not come: a device that is left hungry is the only thing left.
    ended: bool,
}

impl<H: Hardware> Task<H> {
    fn run(mut self, orders: &Receiver<Order>) {
        be_real_time();
        loop {
            match self.wait(orders) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => match self.guarded {
                    // Its owner did not disarm it: it goes on alone.
                    Some(_) if !self.ended => thread::sleep(self.pause().min(Duration::from_millis(100))),
                    _ => return,
                },
            }
            self.look();
        }
    }

    fn wait(&self, orders: &Receiver<Order>) -> Result<Order, RecvTimeoutError> {
        if self.guarded.is_none() || self.ended {
            return orders.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        orders.recv_timeout(self.pause())
    }

    fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    /// When the time is over for a keepalive that was sent then.
    fn deadline(&self, sent: Instant) -> Moment {
        self.now() + self.within - sent.elapsed()
    }

    fn pause(&self) -> Duration {
        let now = self.now();
        match self.guarded.map(|guarded| guarded.act(now)) {
            Some(Act::Wait(until)) => until.since(now),
            Some(Act::Feed | Act::End) | None => Duration::ZERO,
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Arm { within, sent, done } => {
                let Found { device, what } = self.hardware.arm(within);
                self.within = within;
                self.ended = false;
                let (deadline, fed) = (self.deadline(sent), self.now());
                self.guarded = Some(Guarded { deadline, fed, device });
                let _ = done.send(Armed { promise: device.promise(within), by: what });
            }
            Order::Feed { sent } => {
                let deadline = self.deadline(sent);
                // A deadline that has passed stays passed, whatever arrives now: the others may have acted on it.
                let now = self.now();
                if let Some(guarded) = &mut self.guarded
                    && !self.ended
                    && now < guarded.deadline
                {
                    guarded.deadline = guarded.deadline.max(deadline);
                    self.feed();
                }
            }
            Order::Disarm { done } => {
                let outcome = self.hardware.disarm();
                if outcome.is_ok() {
                    self.guarded = None;
                }
                let _ = done.send(outcome);
            }
        }
    }

    fn look(&mut self) {
        let now = self.now();
        let Some(guarded) = self.guarded.filter(|_| !self.ended) else { return };
        match guarded.act(now) {
            Act::Wait(_) => {}
            Act::Feed => self.feed(),
            Act::End => {
                let silence = self.within + now.since(guarded.deadline);
                self.hardware.last_resort(&format!(
                    "this machine resets itself: no keepalive was acknowledged by ZooKeeper for {:.1} s (suicide_intervals)",
                    silence.as_secs_f32()
                ));
                error!("the machine did not reset itself; if it has a watchdog device, that will");
                self.ended = true;
            }
        }
    }

    fn feed(&mut self) {
        let now = self.now();
        let outcome = self.hardware.feed();
        if let Some(guarded) = &mut self.guarded {
            guarded.fed = now;
            if let Err(error) = outcome {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the watchdog device cannot be fed; it may reset this machine, which otherwise this process does"
                );
                guarded.device = Device::None;
            }
        }
    }
}

/// Real-time priority for the calling thread, where that is allowed.
#[allow(unsafe_code, reason = "no crate that we have offers sched_setscheduler")]
fn be_real_time() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the parameters are valid for the call.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if done != 0 {
        let error = io::Error::last_os_error();
        warn!(
            error = &error as &dyn std::error::Error,
            "the thread that guards this machine has no real-time priority: a very busy machine may delay a reset"
        );
    }
}
