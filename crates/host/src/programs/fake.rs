//! Programs in memory, which run as long as they are told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Kept, Order, ProgramState, Programs, Spec, line};

/// The fake.
#[derive(Default, Clone)]
pub struct FakePrograms(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: BTreeMap<String, (Spec, watch::Sender<ProgramState>)>,
    history: Vec<String>,
}

impl FakePrograms {
    /// The programs that run now, by their names.
    pub fn running(&self) -> BTreeMap<String, Spec> {
        self.lock().running.iter().map(|(name, (spec, _))| (name.clone(), spec.clone())).collect()
    }

    /// `start x`, `hang up x`, `stop x` as they happened.
    pub fn history(&self) -> Vec<String> {
        self.lock().history.clone()
    }

    /// Says of a program that it has ended by itself, or runs again.
    pub fn set(&self, name: &str, state: ProgramState) {
        if let Some((_, tell)) = self.lock().running.get(name) {
            tell.send_replace(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Programs for FakePrograms {
    fn run(&self, spec: Spec) -> Kept {
        let (kept, mut orders, state) = line();
        let (this, name) = (self.clone(), spec.name.clone());
        {
            let mut programs = self.lock();
            programs.history.push(format!("start {name}"));
            state.send_replace(ProgramState::Running);
            programs.running.insert(name.clone(), (spec, state));
        }
        tokio::spawn(async move {
            let done = loop {
                match orders.recv().await {
                    Some(Order::HangUp) => this.lock().history.push(format!("hang up {name}")),
                    Some(Order::Stop { done, .. }) => break Some(done),
                    None => break None,
                }
            };
            {
                let mut programs = this.lock();
                programs.history.push(format!("stop {name}"));
                if let Some((_, state)) = programs.running.remove(&name) {
                    state.send_replace(ProgramState::Stopped);
                }
            }
            if let Some(done) = done {
                // Nobody waits any more.
                let _ = done.send(());
            }
        });
        kept
    }
}
