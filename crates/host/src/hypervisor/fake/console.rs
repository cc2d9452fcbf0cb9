//! Consoles of guests that are not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{VmId, no_console};
use tokio::time::sleep;

use super::super::console::{
    Console, ConsoleError, Consoles, End, GuestEnd, Hold, MOST_PRINTED, Place, Turn, pair,
};

/// How often a guest looks what was typed.
const LOOK: Duration = Duration::from_millis(5);

/// What a guest does on its console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeGuest {
    /// Prints every letter that is typed in its other case.
    Echoes,
    /// Has printed more than anybody keeps, and reads nothing.
    Floods,
    /// Is defined so.
    Defined(String),
}

/// The consoles of some guests.
#[derive(Default)]
pub struct FakeConsoles(Mutex<State>);

#[derive(Default)]
struct State {
    guests: BTreeMap<(Place, VmId), (FakeGuest, Option<GuestEnd>)>,
    gone: BTreeSet<Place>,
}

impl FakeConsoles {
    /// This guest is active there from now on.
    pub fn put(&self, at: &Place, id: VmId, guest: FakeGuest) {
        self.state().guests.insert((at.clone(), id), (guest, None));
    }

    /// It is not any more.
    pub fn remove(&self, at: &Place, id: VmId) {
        if let Some((_, Some(open))) = self.state().guests.remove(&(at.clone(), id)) {
            open.end(End::Closed);
        }
    }

    /// It prints this, to whoever has its console open.
    pub fn print(&self, at: &Place, id: VmId, text: &str) {
        if let Some((_, Some(open))) = self.state().guests.get(&(at.clone(), id)) {
            open.print(text.as_bytes());
        }
    }

    /// That libvirt cannot be reached any more; or again.
    pub fn set_reach(&self, at: &Place, is_there: bool) {
        let mut state = self.state();
        if is_there {
            state.gone.remove(at);
            return;
        }
        state.gone.insert(at.clone());
        for ((place, _), (_, open)) in &mut state.guests {
            if let Some(open) = open.take_if(|_| place == at) {
                open.end(End::Lost("the fake is told to be down".into()));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Consoles for FakeConsoles {
    async fn open(&self, at: &Place, id: VmId, hold: Hold) -> Result<Console, ConsoleError> {
        let mut state = self.state();
        if state.gone.contains(at) {
            return Err(ConsoleError::unreachable(at, "the fake is told to be down".into()));
        }
        let Some((guest, open)) = state.guests.get_mut(&(at.clone(), id)) else {
            return Err(ConsoleError::NotActive(at.clone()));
        };
        if let FakeGuest::Defined(xml) = guest
            && let Some(lack) = no_console(xml)
        {
            return Err(ConsoleError::Lacking(lack));
        }
        match open.take_if(|open| hold == Hold::Take || open.wait(Duration::ZERO) == Turn::Left) {
            Some(other) => other.end(End::Closed),
            None if open.is_some() => return Err(ConsoleError::Taken),
            None => {}
        }
        let (console, end) = pair();
        *open = Some(end.clone());
        tokio::spawn(act(guest.clone(), end));
        Ok(console)
    }
}

async fn act(guest: FakeGuest, end: GuestEnd) {
    if guest == FakeGuest::Floods {
        end.print(&vec![b'x'; MOST_PRINTED * 2]);
    }
    while end.wait(Duration::ZERO) == Turn::Work {
        if guest == FakeGuest::Echoes {
            let typed = end.typed(usize::MAX);
            end.taken(typed.len());
            if !typed.is_empty() {
                end.print(&typed.iter().map(|letter| letter ^ 0x20).collect::<Vec<_>>());
            }
        }
        sleep(LOOK).await;
    }
}
