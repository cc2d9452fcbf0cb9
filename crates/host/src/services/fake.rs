//! A service manager in memory, whose units start, fail, hang or are missing as told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::time::sleep;

use super::{CHANGE_WITHIN, Services, ServicesError, UnitState};

/// The fake.
#[derive(Default)]
pub struct FakeServices {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    units: BTreeMap<String, UnitState>,
    hanging: Vec<String>,
    away: bool,
    history: Vec<String>,
}

impl FakeServices {
    /// One with these units installed, none of them running.
    pub fn new(units: &[&str]) -> Arc<Self> {
        let fake = Self::default();
        fake.lock().units = units.iter().map(|u| ((*u).to_owned(), UnitState::Inactive)).collect();
        Arc::new(fake)
    }

    /// What a unit is doing.
    pub fn unit(&self, unit: &str) -> UnitState {
        self.lock().units.get(unit).copied().unwrap_or(UnitState::Absent)
    }

    /// Starts and stops of a unit take for ever, or no longer do.
    pub fn hang(&self, unit: &str, hangs: bool) {
        let mut state = self.lock();
        state.hanging.retain(|u| u != unit);
        if hangs {
            state.hanging.push(unit.to_owned());
        }
    }

    /// A unit ends by itself.
    pub fn end(&self, unit: &str, as_what: UnitState) {
        self.lock().units.insert(unit.to_owned(), as_what);
    }

    /// There is no service manager, or there is again.
    pub fn away(&self, away: bool) {
        self.lock().away = away;
    }

    /// `start x`, `stop x` as they were asked for.
    pub fn history(&self) -> Vec<String> {
        self.lock().history.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn change(&self, unit: &str, verb: &str, to: UnitState) -> Result<(), ServicesError> {
        let doing = format!("{verb} {unit}");
        let state = self.state(unit).await?;
        if state == to || state == UnitState::Absent && verb == "stop" {
            return Ok(());
        }
        if state == UnitState::Absent {
            return Err(ServicesError::Refused { doing, why: format!("Unit {unit} not found.") });
        }
        let hangs = {
            let mut state = self.lock();
            state.history.push(doing.clone());
            state.hanging.iter().any(|u| u == unit)
        };
        if hangs {
            sleep(CHANGE_WITHIN).await;
            return Err(ServicesError::Deadline { doing, after: CHANGE_WITHIN });
        }
        self.lock().units.insert(unit.to_owned(), to);
        Ok(())
    }
}

#[async_trait]
impl Services for FakeServices {
    async fn state(&self, unit: &str) -> Result<UnitState, ServicesError> {
        if self.lock().away {
            return Err(ServicesError::Unavailable("the fake is told to be away".into()));
        }
        Ok(self.unit(unit))
    }

    async fn start(&self, unit: &str) -> Result<(), ServicesError> {
        self.change(unit, "start", UnitState::Active).await
    }

    async fn stop(&self, unit: &str) -> Result<(), ServicesError> {
        self.change(unit, "stop", UnitState::Inactive).await
    }
}
