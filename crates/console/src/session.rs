//! One client at one VM's console, for as long as it likes.
//!
//! ```text
//!   seeking ──open──► open ──closed, lost, moved away──► seeking ──off, taken, not found in time──► ended
//! ```
//! Typed and printed bytes pass as they are.

use std::{pin::Pin, sync::Arc, time::Duration};

use pvc_core::{
    command::{Refusal, RefusalKind},
    model::{NodeName, VmId},
};
use pvc_host::hypervisor::console::{Console, Consoles, End, Heard, Hold};
use pvc_operate::{
    Cluster, Failure,
    vm::{Home, Whereabouts},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    Nodes,
    seek::{Found, Seek},
    watched::Watched,
};

/// How long a guest that shall run is waited for at first …
const AT_FIRST: Duration = Duration::from_secs(10);
/// … and when it was there: the death of its node, too, is over by then as a rule.
const AGAIN: Duration = Duration::from_mins(3);
/// A search that takes longer is told.
const WORTH_A_WORD: Duration = Duration::from_secs(1);
/// How long what is still printed by a guest whose claim has moved is listened to.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What was typed while it moved is for it; what was typed longer ago is for nobody: another system may be there by then.
const HELD_FOR: Duration = Duration::from_secs(5);
/// So much of it, bytes.
const HELD: usize = 4096;

/// What a client wants.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Which VM.
    pub vm: VmId,
    /// What becomes of somebody else who has its console.
    pub hold: Hold,
    /// Whether a VM that is off is waited for.
    pub wait: bool,
    /// Whether this client has had it open, and lost its way to it: what keeps it from opening may pass, and whoever has it may be this client still.
    pub again: bool,
}

/// What a client is told.
#[derive(Debug)]
pub enum Event {
    /// The console is open, for the first time or again; a line that says of whom and where.
    Opened(String),
    /// The guest has printed this.
    Printed(Vec<u8>),
    /// A line about what goes on.
    Said(String),
    /// It is over: in order, and why, or not.
    Ended(Result<String, Failure>),
}

/// See the module's documentation.
pub struct Session {
    cluster: Arc<Cluster>,
    consoles: Arc<dyn Consoles>,
    nodes: Nodes,
    wanted: Wanted,
    state: State,
    /// Where it was open last, and what it is called.
    was_at: Option<(NodeName, Home)>,
    /// What was typed while it was not open.
    held: Vec<u8>,
}

enum State {
    Seeking(Search),
    Open(Opened),
    Ended,
}

/// What came of it, and the whereabouts that it has used.
type Sought = (Whereabouts, Result<Found, Failure>);

struct Search {
    under_way: Pin<Box<dyn Future<Output = Sought> + Send>>,
    since: Instant,
    is_told: bool,
    /// Why it was closed: whoever has it now has taken it, if not.
    was_lost: bool,
}

struct Opened {
    console: Console,
    node: NodeName,
    watched: Watched,
    /// Its claim is another node's: until then what it still prints is listened to.
    leave_at: Option<Instant>,
}

impl Session {
    /// Begins to look for the console.
    pub fn begin(cluster: Arc<Cluster>, consoles: Arc<dyn Consoles>, nodes: Nodes, wanted: Wanted) -> Self {
        let mut this =
            Self { cluster, consoles, nodes, wanted, state: State::Ended, was_at: None, held: Vec::new() };
        let whereabouts = Whereabouts::watch(&this.cluster, wanted.vm);
        this.seek(whereabouts, wanted.hold, wanted.again, false);
        this
    }

    /// Whether this client has had it open.
    fn has_had_it(&self) -> bool {
        self.wanted.again || self.was_at.is_some()
    }

    /// Types this. `false`: there is no room for it, and nothing was typed.
    #[must_use]
    pub fn write(&mut self, typed: &[u8]) -> bool {
        let has_had_it = self.has_had_it();
        match &mut self.state {
            State::Open(open) => open.console.write(typed),
            State::Seeking(_) if has_had_it && self.held.len() + typed.len() <= HELD => {
                self.held.extend(typed);
                true
            }
            State::Seeking(_) | State::Ended => false,
        }
    }

    /// What happens next. Nothing is lost when this future is dropped; after [`Event::Ended`] nothing comes.
    pub async fn next(&mut self) -> Event {
        loop {
            let has_had_it = self.has_had_it();
            let told = match &mut self.state {
                State::Open(open) => open.next(&self.cluster).await,
                State::Seeking(search) => {
                    let tell = sleep_until(search.since + WORTH_A_WORD);
                    let found = tokio::select! {
                        found = &mut search.under_way => found,
                        () = tell, if !search.is_told && has_had_it => {
                            search.is_told = true;
                            return Event::Said("the console is closed: waiting until the VM executes again".to_owned());
                        }
                    };
                    let (since, was_lost) = (search.since, search.was_lost);
                    self.found(found.0, found.1, since, was_lost)
                }
                State::Ended => std::future::pending().await,
            };
            match told {
                Told::Event(event) => return event,
                Told::Closed { was_lost } => self.seek_again(was_lost),
            }
        }
    }

    fn seek_again(&mut self, was_lost: bool) {
        let State::Open(open) = std::mem::replace(&mut self.state, State::Ended) else { return };
        let Opened { console, watched, .. } = open;
        drop(console);
        let whereabouts = watched.into_whereabouts(&self.cluster, self.wanted.vm);
        // Never by force: two who take it from each other would go on for ever.
        self.seek(whereabouts, Hold::IfFree, was_lost, false);
    }

    fn seek(&mut self, whereabouts: Whereabouts, hold: Hold, was_lost: bool, until_it_runs: bool) {
        let since = Instant::now();
        let within = if self.has_had_it() { AGAIN } else { AT_FIRST };
        let seek = Seek {
            cluster: Arc::clone(&self.cluster),
            consoles: Arc::clone(&self.consoles),
            nodes: self.nodes.clone(),
            id: self.wanted.vm,
            hold,
            is_patient: self.has_had_it(),
            may_be_ours: was_lost,
            until_it_runs,
            until: (!self.wanted.wait).then_some(since + within),
        };
        let under_way = Box::pin(seek.seek(whereabouts));
        self.state = State::Seeking(Search { under_way, since, is_told: until_it_runs, was_lost });
    }

    fn found(
        &mut self,
        whereabouts: Whereabouts,
        found: Result<Found, Failure>,
        since: Instant,
        was_lost: bool,
    ) -> Told {
        let ended = |end| Told::Event(Event::Ended(end));
        self.state = State::Ended;
        match found {
            Ok(Found::Open(mut console, node, home)) => {
                let held = std::mem::take(&mut self.held);
                // Nothing was typed on it before: there is room.
                if since.elapsed() < HELD_FOR && !held.is_empty() {
                    let _ = console.write(&held);
                }
                let line = match &self.was_at {
                    None => format!("VM {} on {node}", home.name),
                    Some((before, _)) if *before == node => format!("VM {} on {node}, as before", home.name),
                    Some((before, _)) => format!("VM {} has moved from {before} to {node}", home.name),
                };
                self.was_at = Some((node.clone(), home));
                let open = Opened { console, node, watched: Watched::new(whereabouts), leave_at: None };
                self.state = State::Open(open);
                Told::Event(Event::Opened(line))
            }
            Ok(Found::Off(home)) if self.wanted.wait => {
                self.held.clear();
                self.seek(whereabouts, Hold::IfFree, was_lost, true);
                Told::Event(Event::Said(format!("VM {} is off: waiting until it starts", home.name)))
            }
            Ok(Found::Off(home)) if self.has_had_it() => ended(Ok(format!("VM {} is off", home.name))),
            Ok(Found::Off(home)) => ended(Err(Failure::Refused(Refusal {
                kind: RefusalKind::Refused,
                what: format!("the console of VM {} was not opened", home.name),
                why: "the VM is off".to_owned(),
                todo: format!("`pvc vm start {}`, or wait for it with --wait", home.name),
            }))),
            Err(failure) => ended(Err(failure)),
        }
    }
}

/// What came of listening.
enum Told {
    Event(Event),
    Closed { was_lost: bool },
}

impl Opened {
    async fn next(&mut self, cluster: &Arc<Cluster>) -> Told {
        loop {
            let leave_at = self.leave_at;
            let leave = async {
                match leave_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                heard = self.console.next() => return told(heard),
                home = self.watched.home(cluster) => {
                    // What cannot be read is no news of the guest.
                    let Ok(home) = home else { continue };
                    let has_left = !home.nodes.is_empty() && !home.nodes.contains(&self.node);
                    self.leave_at = has_left.then(|| self.leave_at.unwrap_or(Instant::now() + LAST_WORDS));
                }
                () = leave => return Told::Closed { was_lost: true },
            }
        }
    }
}

fn told(heard: Heard) -> Told {
    Told::Event(match heard {
        Heard::Printed(bytes) => Event::Printed(bytes),
        Heard::Lost(bytes) => Event::Said(format!(
            "{bytes} bytes were printed faster than they could be shown, and are left out"
        )),
        Heard::Ended(end) => return Told::Closed { was_lost: matches!(end, End::Lost(_)) },
    })
}
