//! A routing daemon in memory: it does as it is told, and others are there or not as a test says.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pvc_core::plan::routing::{ASN, File, Routing, Speaking};

use super::{RoutingDaemon, RoutingError};

/// The fake.
pub struct FakeRouting(Mutex<State>);

/// What a test may set.
#[derive(Debug, Clone)]
pub struct State {
    /// `None`: it is not installed.
    pub file: Option<File>,
    /// Whether it runs.
    pub runs: bool,
    /// What it was told. It forgets that when it ends.
    pub routing: Routing,
    /// Who answers.
    pub answering: BTreeSet<IpAddr>,
    /// It does not take what it is told.
    pub refuses: bool,
    /// It takes what it is told, and goes on as before.
    pub deaf: bool,
    /// How often it has been told something.
    pub loads: usize,
}

impl FakeRouting {
    /// One that runs and has been told nothing.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            file: Some(File::Blank),
            runs: true,
            routing: Routing::default(),
            answering: BTreeSet::new(),
            refuses: false,
            deaf: false,
            loads: 0,
        })))
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Somebody else changes it.
    pub fn by_hand(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RoutingDaemon for FakeRouting {
    async fn file(&self) -> Result<Option<File>, RoutingError> {
        Ok(self.lock().file.clone())
    }

    async fn speaking(&self) -> Result<Speaking, RoutingError> {
        let state = self.lock();
        if !state.runs {
            return Ok(Speaking::Gone("bgpd is not running".into()));
        }
        let Some(speaker) = state.routing.speaker.as_ref().filter(|speaker| !speaker.neighbours.is_empty())
        else {
            return Ok(Speaking::Silent);
        };
        let ends = speaker.neighbours.keys();
        let neighbours =
            ends.map(|end| (end.to_string(), state.answering.contains(&IpAddr::V4(*end)))).collect();
        Ok(Speaking::As { asn: ASN, router: speaker.router, neighbours })
    }

    async fn load(&self, routing: &Routing) -> Result<(), RoutingError> {
        let mut state = self.lock();
        if state.file == Some(File::Foreign) {
            return Err(RoutingError::Foreign);
        }
        state.file = Some(File::Ours(routing.to_string()));
        state.loads += 1;
        if state.refuses {
            return Err(RoutingError::Refused { doing: "tell FRR", why: "a test refuses it".into() });
        }
        if state.runs && !state.deaf {
            state.routing = routing.clone();
        }
        Ok(())
    }
}
