//! A routing daemon in memory: it does as it is told, and others are there or not as a test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pvc_core::plan::routing::{ASN, Bfd, File, Routing, Speaker, Speaking};

use super::{RoutingDaemon, RoutingError};

/// The fake.
pub struct FakeRouting(Mutex<State>);

/// What a test may set.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is something that a test may set by itself")]
pub struct State {
    /// `None`: it is not installed.
    pub file: Option<File>,
    /// Whether it runs.
    pub runs: bool,
    /// Whether its BFD runs.
    pub watches: bool,
    /// Whether its BFD says what nobody understands.
    pub watches_oddly: bool,
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
            watches: true,
            watches_oddly: false,
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
        let Some(speaker) = &state.routing.speaker else { return Ok(Speaking::Silent) };
        let session = |end: IpAddr| (end.to_string(), state.answering.contains(&end));
        let neighbours: BTreeMap<_, _> = speaker.nodes().map(session).collect();
        let routers: BTreeMap<_, _> = speaker.routers().map(session).collect();
        if neighbours.is_empty() && routers.is_empty() {
            return Ok(Speaking::Silent);
        }
        Ok(Speaking::As { asn: ASN, router: speaker.router, neighbours, routers })
    }

    async fn bfd(&self) -> Result<Bfd, RoutingError> {
        let state = self.lock();
        if !state.watches {
            return Ok(Bfd::Gone("bfdd is not running".into()));
        }
        if state.watches_oddly {
            return Err(RoutingError::Refused {
                doing: "ask FRR for its sessions of BFD",
                why: "a test".into(),
            });
        }
        let watched =
            state.routing.speaker.iter().filter(|speaker| speaker.site.as_ref().is_some_and(|s| s.site.bfd));
        let watched = watched.flat_map(Speaker::routers);
        Ok(Bfd::Watches(watched.map(|end| (end.to_string(), state.answering.contains(&end))).collect()))
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
