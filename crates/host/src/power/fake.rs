//! BMCs for tests and simulations: slow, lying, unreachable, half broken, as they are told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Bmc, Power, PowerError, PowerState};

/// How a BMC answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// At once.
    #[default]
    Answers,
    /// After so long.
    Slow(Duration),
    /// Never; the caller gives up after some seconds.
    Silent,
    /// It does what it is told, and its answers are lost.
    AnswersAreLost,
}

/// How a BMC takes `off`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Off {
    /// The machine is off at once.
    #[default]
    Works,
    /// So long after it was accepted.
    TakesAWhile(Duration),
    /// It is accepted, and nothing happens.
    Ignored,
    /// It is refused; a reset is not.
    Refused,
    /// The BMC says that the machine is off, and it runs on.
    Lies,
}

/// How a BMC carries out a reset that it has accepted; it accepts every one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reset {
    /// At once.
    #[default]
    Works,
    /// So long after it was accepted.
    TakesAWhile(Duration),
    /// Not at all.
    Ignored,
}

/// What a BMC was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the calls of the trait")]
pub enum Call {
    Status,
    Off,
    On,
    Reset,
}

struct Machine {
    user: String,
    password: String,
    reach: Reach,
    off: Off,
    off_at: Option<Instant>,
    reset: Reset,
    reset_at: Option<Instant>,
    lies: bool,
    calls: Vec<Call>,
    /// Counts the lives of the machine; `None`: it is off.
    power: watch::Sender<Option<u64>>,
    lives: u64,
}

/// All BMCs of a cluster. Cheap to share.
#[derive(Default)]
pub struct FakePower {
    machines: Mutex<BTreeMap<String, Machine>>,
}

impl FakePower {
    /// No machines yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A machine that is on, with a BMC of that name that knows one user. Signals which life of it has power, if any.
    pub fn add(&self, host: &str, user: &str, password: &str) -> watch::Receiver<Option<u64>> {
        let (power, receiver) = watch::channel(Some(1));
        let machine = Machine {
            user: user.into(),
            password: password.into(),
            reach: Reach::default(),
            off: Off::default(),
            off_at: None,
            reset: Reset::default(),
            reset_at: None,
            lies: false,
            calls: Vec::new(),
            power,
            lives: 1,
        };
        self.lock().insert(host.into(), machine);
        receiver
    }

    /// From now on it answers like this.
    pub fn set_reach(&self, host: &str, reach: Reach) {
        self.machine(host, |m| m.reach = reach);
    }

    /// From now on it takes `off` like this.
    pub fn set_off(&self, host: &str, off: Off) {
        self.machine(host, |m| m.off = off);
    }

    /// From now on it takes `reset` like this.
    pub fn set_reset(&self, host: &str, reset: Reset) {
        self.machine(host, |m| m.reset = reset);
    }

    /// Pulls the plug of a machine, or plugs it in, without its BMC.
    pub fn plug(&self, host: &str, on: bool) {
        self.machine(host, |m| if on { m.power_on() } else { m.power_off() });
    }

    /// Whether the machine really has power.
    pub fn is_on(&self, host: &str) -> bool {
        self.machine(host, |m| {
            m.settle();
            m.power.borrow().is_some()
        })
    }

    /// What its BMC was asked so far.
    pub fn calls(&self, host: &str) -> Vec<Call> {
        self.machine(host, |m| m.calls.clone())
    }

    fn machine<T>(&self, host: &str, f: impl FnOnce(&mut Machine) -> T) -> T {
        f(self.lock().get_mut(host).unwrap_or_else(|| panic!("no BMC {host} was added")))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(
        &self,
        bmc: &Bmc,
        call: Call,
        answer: impl FnOnce(&mut Machine) -> Result<T, String>,
    ) -> Result<T, PowerError> {
        let host = bmc.host.clone();
        let unreachable = |why: &str| PowerError::Unreachable { host: host.clone(), why: why.into() };
        let reach = match self.lock().get_mut(&bmc.host) {
            None => return Err(unreachable("no such name")),
            Some(machine) => {
                machine.calls.push(call);
                machine.reach.clone()
            }
        };
        match reach {
            Reach::Answers => {}
            Reach::Slow(pause) => sleep(pause).await,
            Reach::Silent | Reach::AnswersAreLost => sleep(Duration::from_secs(2)).await,
        }
        if reach == Reach::Silent {
            return Err(unreachable("no reply"));
        }
        let answer = self.machine(&bmc.host, |machine| {
            machine.settle();
            let known = machine.user == bmc.user && machine.password == bmc.password;
            known.then(|| answer(machine))
        });
        let Some(answer) = answer else {
            let why = "HMAC is invalid".to_owned();
            return Err(PowerError::WrongCredentials { host, user: bmc.user.clone(), why });
        };
        if reach == Reach::AnswersAreLost {
            return Err(unreachable("no reply"));
        }
        answer.map_err(|why| PowerError::Refused { host, why })
    }
}

impl Machine {
    /// What was to happen by now happens.
    fn settle(&mut self) {
        if self.off_at.is_some_and(|at| at <= Instant::now()) {
            self.power_off();
        }
        if self.reset_at.is_some_and(|at| at <= Instant::now()) {
            self.reset();
        }
    }

    fn reset(&mut self) {
        self.power_off();
        self.power_on();
    }

    fn power_off(&mut self) {
        (self.off_at, self.reset_at) = (None, None);
        self.power.send_if_modified(|life| life.take().is_some());
    }

    fn power_on(&mut self) {
        self.off_at = None;
        self.lies = false;
        if self.power.borrow().is_none() {
            self.lives += 1;
            self.power.send_replace(Some(self.lives));
        }
    }

    fn obey_off(&mut self) -> Result<(), String> {
        match self.off {
            Off::Works => self.power_off(),
            Off::TakesAWhile(pause) => self.off_at = Some(Instant::now() + pause),
            Off::Ignored => {}
            Off::Refused => return Err("command not supported".into()),
            Off::Lies => self.lies = true,
        }
        Ok(())
    }
}

#[async_trait]
impl Power for FakePower {
    async fn status(&self, bmc: &Bmc) -> Result<PowerState, PowerError> {
        self.ask(bmc, Call::Status, |m| {
            let on = m.power.borrow().is_some() && !m.lies;
            Ok(if on { PowerState::On } else { PowerState::Off })
        })
        .await
    }

    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.ask(bmc, Call::Off, Machine::obey_off).await
    }

    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.ask(bmc, Call::On, |m| {
            m.power_on();
            Ok(())
        })
        .await
    }

    async fn reset(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.ask(bmc, Call::Reset, |m| {
            if m.power.borrow().is_some() {
                match m.reset {
                    Reset::Works => m.reset(),
                    Reset::TakesAWhile(pause) => m.reset_at = Some(Instant::now() + pause),
                    Reset::Ignored => {}
                }
            }
            Ok(())
        })
        .await
    }
}
