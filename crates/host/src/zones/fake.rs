//! A database in memory, which can be away.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pvc_core::model::dns::{Foreign, SeenZone, ZoneAct, ZoneChange};

use super::{ZoneDatabase, ZonesError};

/// The fake.
#[derive(Default)]
pub struct FakeZones {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    zones: BTreeMap<String, SeenZone>,
    is_away: bool,
}

impl FakeZones {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// It answers nobody, or does again.
    pub fn away(&self, is_away: bool) {
        self.lock().is_away = is_away;
    }

    /// All zones.
    pub fn zones(&self) -> BTreeMap<String, SeenZone> {
        self.lock().zones.clone()
    }

    /// Somebody else writes a record, in a zone that is there.
    pub fn write(&self, zone: &str, record: Foreign) {
        self.lock().zones.entry(zone.to_owned()).or_default().others.insert(record);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answers(&self, doing: &'static str) -> Result<(), ZonesError> {
        if self.is_away {
            return Err(ZonesError::Failed { doing, cause: "connection refused".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl ZoneDatabase for FakeZones {
    async fn answers(&self) -> Result<(), ZonesError> {
        self.lock().answers("log this node on")
    }

    async fn observe(&self) -> Result<BTreeMap<String, SeenZone>, ZonesError> {
        let state = self.lock();
        state.answers("show its zones")?;
        Ok(state.zones.clone())
    }

    async fn apply(&self, change: &ZoneChange) -> Result<(), ZonesError> {
        let mut state = self.lock();
        state.answers("change a zone")?;
        let there = state.zones.get(&change.zone);
        let is_as_seen = match &change.act {
            ZoneAct::Make(_) => there.is_none(),
            ZoneAct::Keep { from, .. } => there.is_some_and(|zone| zone.is_ours && zone.serial == *from),
            ZoneAct::Drop { from } => {
                there.is_some_and(|zone| zone.is_ours && zone.serial == *from && zone.others.is_empty())
            }
        };
        if !is_as_seen {
            return Err(ZonesError::Conflict(change.zone.clone()));
        }
        let serial = match &change.act {
            ZoneAct::Drop { .. } => {
                state.zones.remove(&change.zone);
                return Ok(());
            }
            ZoneAct::Make(soa) | ZoneAct::Keep { soa, .. } => soa.serial,
        };
        let made = SeenZone { is_ours: true, ..SeenZone::default() };
        let zone = state.zones.entry(change.zone.clone()).or_insert(made);
        zone.serial = Some(serial);
        zone.ours.retain(|record| !change.remove.contains(record));
        zone.ours.extend(change.add.iter().cloned());
        Ok(())
    }
}
