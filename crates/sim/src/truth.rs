//! What is the case, apart from what anybody believes: the sum of the events so far.
//!
//! Never asks a daemon or a fake anything, so that a history alone makes the same truth (checkers' tests write histories).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use pvc_core::model::{NodeName, VmId};

use crate::{
    event::{self, Author, Commit, Event, Net, Phase, Stamped, VANDAL},
    keys,
};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Truth {
    /// The time of the last event.
    pub now: Duration,
    /// What the run does.
    pub phase: Phase,
    /// When that began.
    pub phase_since: Duration,
    /// Every machine that was ever heard of.
    pub machines: BTreeMap<NodeName, Machine>,
    /// Guests' processes, by VM and machine.
    pub guests: BTreeMap<VmId, BTreeMap<NodeName, Run>>,
    /// Guests' processes that no daemon has started, until they are claimed: nobody in the cluster answers for these, only for how long
    /// they execute.
    pub strangers: BTreeMap<(VmId, NodeName), Run>,
    /// What is started next there is started by no daemon, though its claim names the machine.
    by_hand: Option<(VmId, NodeName)>,
    /// Until when machines have floating addresses.
    pub addresses: BTreeMap<IpAddr, BTreeMap<NodeName, Duration>>,
    /// Directions in which nothing passes.
    pub cuts: BTreeSet<(Net, NodeName, NodeName)>,
    /// Who leads ZooKeeper.
    pub leader: Option<NodeName>,
    /// Keys that hold what nobody can read, with what they held before.
    spoilt: BTreeMap<String, Option<Vec<u8>>>,
    /// When such keys could be read again …
    mended: BTreeMap<String, Duration>,
    /// … and when the vandal last wrote to them.
    vandalised: BTreeMap<String, Duration>,
}

/// A machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The boot that has power, if any.
    pub boot: Option<u64>,
    /// Since when it has or has not.
    pub power_since: Duration,
    /// Its programs do not run.
    pub frozen: bool,
    /// Its BMC may lie now, or has lied in this boot.
    pub bmc_lies: bool,
    /// Its daemon.
    pub daemon: Daemon,
    /// Since when that is so.
    pub daemon_since: Duration,
    /// Runs of the daemon so far.
    pub runs: u64,
    /// Libvirt.
    pub libvirt: Option<event::Libvirt>,
    /// Since when no guest can be started there, since the node lacks something.
    pub lacks: Option<Duration>,
    /// Its daemon's last session.
    pub session: Option<u64>,
    /// Whether that has a connection; `None`: it is over.
    pub connected: Option<bool>,
    /// Since when that is so.
    pub connected_since: Duration,
}

/// A daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Daemon {
    /// There is no process.
    #[default]
    Absent,
    /// It runs.
    Runs,
    /// It is there and does not run.
    Frozen,
}

/// Why a guest does not execute that no daemon holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Somebody has paused it, or it has met an I/O error.
    Halted,
    /// It has crashed.
    Crashed,
}

/// A guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Whether it executes, as long as its machine does.
    pub executes: bool,
    /// Whether it ever has.
    pub executed: bool,
    /// If not, whether that is its own or an operator's matter.
    pub stands: Option<Stands>,
    /// The boot of its machine.
    pub boot: u64,
    /// Since when it is there.
    pub began: Duration,
    /// No daemon has started it.
    pub by_hand: bool,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            now: Duration::ZERO,
            phase: Phase::Calm,
            phase_since: Duration::ZERO,
            machines: BTreeMap::new(),
            guests: BTreeMap::new(),
            strangers: BTreeMap::new(),
            by_hand: None,
            addresses: BTreeMap::new(),
            cuts: BTreeSet::new(),
            leader: None,
            spoilt: BTreeMap::new(),
            mended: BTreeMap::new(),
            vandalised: BTreeMap::new(),
        }
    }
}

impl Machine {
    /// Whether its programs run.
    pub fn works(&self) -> bool {
        self.boot.is_some() && !self.frozen
    }
}

fn stands(what: event::Guest) -> Option<Stands> {
    match what {
        event::Guest::Halted => Some(Stands::Halted),
        event::Guest::Crashed => Some(Stands::Crashed),
        event::Guest::Executes | event::Guest::Held | event::Guest::Gone => None,
    }
}

impl Truth {
    /// Whether a commit was asked for by a daemon that has ended since.
    pub(crate) fn is_last_word(&self, commit: &Commit) -> bool {
        let Author::Daemon { node, run } = &commit.by else { return false };
        let machine = self.machine(node);
        machine.daemon == Daemon::Absent || machine.runs != *run
    }

    /// Takes an event in.
    pub fn apply(&mut self, stamped: &Stamped) {
        let now = stamped.at;
        self.now = now;
        match &stamped.event {
            Event::Machine { node, what } => self.machine_turns(node, *what, now),
            Event::Daemon { node, what } => {
                let machine = self.machines.entry(node.clone()).or_default();
                machine.daemon_since = now;
                machine.daemon = match what {
                    event::Daemon::Started { run } => {
                        machine.runs = *run;
                        Daemon::Runs
                    }
                    event::Daemon::Thawed => Daemon::Runs,
                    event::Daemon::Frozen => Daemon::Frozen,
                    event::Daemon::Killed | event::Daemon::Ended(_) => Daemon::Absent,
                };
            }
            Event::Libvirt { node, what } => {
                self.machines.entry(node.clone()).or_default().libvirt = Some(*what);
            }
            Event::Lacks { node, lacks } => {
                self.machines.entry(node.clone()).or_default().lacks = lacks.then_some(now);
            }
            Event::Guest { vm, node, what } => self.guest_turns(*vm, node, *what, now),
            Event::Stranger { vm, node, claimed: true } => self.by_hand = Some((*vm, node.clone())),
            Event::Stranger { vm, node, claimed: false } => {
                let boot = self.machine(node).boot.unwrap_or_default();
                self.strangers.insert(
                    (*vm, node.clone()),
                    Run { executes: true, executed: true, stands: None, boot, began: now, by_hand: true },
                );
            }
            Event::Commit(commit) => {
                self.adopt(commit);
                self.spoil(commit);
            }
            Event::Address { node, address, until } => {
                let holders = self.addresses.entry(*address).or_default();
                match until {
                    Some(until) => holders.insert(node.clone(), *until),
                    None => holders.remove(node),
                };
            }
            Event::Link { net, from, to, cut } => {
                let direction = (*net, from.clone(), to.clone());
                if *cut {
                    self.cuts.insert(direction);
                } else {
                    self.cuts.remove(&direction);
                }
            }
            Event::Leader(leader) => self.leader.clone_from(leader),
            Event::Session { node, what } => {
                let machine = self.machines.entry(node.clone()).or_default();
                let (session, connected) = match what {
                    event::Session::Connected { session } => (*session, Some(true)),
                    event::Session::Silent { session } => (*session, Some(false)),
                    event::Session::Ended { session } => (*session, None),
                };
                // The session of an earlier run may end, and a connection that the run had asked for come about, when that of the
                // next run, whose number is higher, has long begun.
                let is_newer = machine.session.is_none_or(|last| last < session);
                if machine.session == Some(session) || connected == Some(true) && is_newer {
                    machine.session = Some(session);
                    machine.connected = connected;
                    machine.connected_since = now;
                }
            }
            Event::Phase(phase) => {
                self.phase = *phase;
                self.phase_since = now;
            }
            Event::Asked { .. }
            | Event::LetGo { .. }
            | Event::Synced { .. }
            | Event::Bmc { .. }
            | Event::ShutOut { .. }
            | Event::Forward { .. }
            | Event::Leased { .. }
            | Event::GivenUp { .. }
            | Event::Command { .. }
            | Event::Fault { .. }
            | Event::Log { .. }
            | Event::Wrote { .. }
            | Event::Blocklist { .. } => {}
        }
    }

    fn machine_turns(&mut self, node: &NodeName, what: event::Machine, now: Duration) {
        let machine = self.machines.entry(node.clone()).or_default();
        match what {
            event::Machine::On { boot } => {
                machine.boot = Some(boot);
                machine.power_since = now;
            }
            event::Machine::Off => {
                machine.boot = None;
                machine.power_since = now;
                machine.frozen = false;
                machine.bmc_lies = false;
                machine.daemon = Daemon::Absent;
                machine.libvirt = None;
                for runs in self.guests.values_mut() {
                    runs.remove(node);
                }
                self.strangers.retain(|(_, on), _| on != node);
                for holders in self.addresses.values_mut() {
                    holders.remove(node);
                }
            }
            event::Machine::Frozen => machine.frozen = true,
            event::Machine::Thawed => machine.frozen = false,
            event::Machine::ClockJumped(_) => {}
            event::Machine::BmcLies(lies) => machine.bmc_lies |= lies,
        }
    }

    fn guest_turns(&mut self, vm: VmId, node: &NodeName, what: event::Guest, now: Duration) {
        if let Some(run) = self.strangers.get_mut(&(vm, node.clone())) {
            run.executes = what == event::Guest::Executes;
            run.stands = stands(what);
            if what == event::Guest::Gone {
                self.strangers.remove(&(vm, node.clone()));
            }
            return;
        }
        let boot = self.machines.get(node).and_then(|machine| machine.boot).unwrap_or_default();
        let runs = self.guests.entry(vm).or_default();
        let executes = match what {
            event::Guest::Executes => true,
            event::Guest::Held | event::Guest::Halted | event::Guest::Crashed => false,
            event::Guest::Gone => {
                runs.remove(node);
                if runs.is_empty() {
                    self.guests.remove(&vm);
                }
                return;
            }
        };
        let by_hand = self.by_hand.take_if(|what| *what == (vm, node.clone())).is_some();
        let run = runs.entry(node.clone()).or_insert(Run {
            executes,
            executed: false,
            stands: None,
            boot,
            began: now,
            by_hand,
        });
        run.executes = executes;
        run.executed |= executes;
        run.stands = stands(what);
    }

    /// A stranger whose machine may be executing it, by a claim, is none any more.
    fn adopt(&mut self, commit: &event::Commit) {
        if self.strangers.is_empty() {
            return;
        }
        for change in &commit.changes {
            let Some((vm, "claim")) = keys::of_vm(&change.path) else { continue };
            let first = change.is().split_whitespace().next();
            if let Some(Ok(node)) = first.map(str::parse::<NodeName>)
                && let Some(run) = self.strangers.remove(&(vm, node.clone()))
            {
                self.guests.entry(vm).or_default().insert(node, run);
            }
        }
    }

    /// What the vandal writes nobody can read, until he puts it right, or somebody else writes there.
    fn spoil(&mut self, commit: &event::Commit) {
        let by_vandal = commit.by == Author::Client(VANDAL);
        for change in &commit.changes {
            if by_vandal {
                self.vandalised.insert(change.path.clone(), self.now);
            }
            let held = |key: &Option<event::Key>| key.as_ref().map(|key| key.data.clone());
            let is_right = |before: &Option<Vec<u8>>| !by_vandal || *before == held(&change.after);
            match self.spoilt.get(&change.path) {
                Some(before) if is_right(before) => {
                    self.spoilt.remove(&change.path);
                    self.mended.insert(change.path.clone(), self.now);
                }
                None if by_vandal => drop(self.spoilt.insert(change.path.clone(), held(&change.before))),
                _ => {}
            }
        }
    }

    /// Whether nobody can read a key now.
    pub fn is_spoilt(&self, path: &str) -> bool {
        self.spoilt.contains_key(path)
    }

    /// Whether nobody can read some key below a path that ends in `/`.
    pub fn is_spoilt_below(&self, path: &str) -> bool {
        self.spoilt.keys().any(|spoilt| spoilt.starts_with(path))
    }

    /// Whether the vandal has written to a key in this last while, to spoil it or to put it right.
    pub fn was_written_by_vandal(&self, path: &str, within: Duration) -> bool {
        self.vandalised.get(path).is_some_and(|at| self.now <= *at + within)
    }

    /// Whether nobody could read a key at some time of this last while.
    pub fn was_spoilt(&self, path: &str, within: Duration) -> bool {
        self.is_spoilt(path) || self.mended.get(path).is_some_and(|at| self.now <= *at + within)
    }

    /// How long ago that was.
    pub fn since(&self, at: Duration) -> Duration {
        self.now.saturating_sub(at)
    }

    /// A machine; one that was never heard of is off.
    pub fn machine(&self, node: &NodeName) -> Machine {
        self.machines.get(node).cloned().unwrap_or_default()
    }

    /// Where a VM executes now.
    pub fn executing(&self, vm: VmId) -> impl Iterator<Item = (&NodeName, &Run)> {
        let runs = self.guests.get(&vm).into_iter().flatten();
        runs.filter(|(node, run)| run.executes && self.machines.get(*node).is_some_and(Machine::works))
    }

    /// Where a VM's guest stands that was paused or has met an I/O error.
    pub fn halted(&self, vm: VmId) -> impl Iterator<Item = &NodeName> {
        let runs = self.guests.get(&vm).into_iter().flatten();
        runs.filter(|(_, run)| run.stands == Some(Stands::Halted)).map(|(node, _)| node)
    }

    /// Which machines answer for an address now.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &NodeName> {
        let holders = self.addresses.get(&address).into_iter().flatten();
        holders.filter(|(_, until)| **until > self.now).map(|(node, _)| node)
    }

    /// Whether anything gets from one to the other.
    pub fn passes(&self, net: Net, from: &NodeName, to: &NodeName) -> bool {
        from == to && net != Net::Bmc || !self.cuts.contains(&(net, from.clone(), to.clone()))
    }
}
