//! A cluster of coordinators whose daemons do what [`plan`] says, on a tree with sessions, with a kernel that ends lifetimes late, in
//! steps of a tenth of a second. Faults come as [`Event`]s; each round checks that at most one node has the addresses.
//!
//! Servers are as unkind as ZooKeeper's: they tell the leader once a second whom they have heard of, and nothing when they lost it;
//! then they answer what is read for ten seconds more. A write is answered by the leader, and counts no session's time.

use super::*;
use proptest::test_runner::TestCaseError;

/// Tenths of a second.
type Tick = u64;

/// What servers grant.
const SESSIONS: [Tick; 4] = [50, 60, 100, 150];
/// How often a server tells the leader whom it has heard of.
const TELL: Tick = 10;
/// For how long a server without a leader answers what is read.
const ORPHAN: Tick = 100;
/// How late the kernel may remove an address.
const KERNEL_LATE: Tick = 12;
/// After so long without answers a client notices.
const NOTICE: Tick = 40;

#[derive(Debug, Clone)]
pub(super) enum Event {
    /// kill -9 of the daemon.
    Kill(usize),
    /// The daemon starts, if it does not run.
    Restart(usize),
    /// No way to the store.
    Cut(usize),
    Heal(usize),
    /// The server that it uses loses its leader.
    Orphan(usize),
    /// All processes; the kernel goes on.
    Freeze(usize),
    Thaw(usize),
    /// The daemon stops in order.
    Stop(usize),
    /// Power off, with proof, by somebody else.
    Fence(usize),
    Desired(Option<usize>),
}

#[derive(Debug, Clone)]
struct Machine {
    name: NodeName,
    daemon: Option<Daemon>,
    frozen: bool,
    cut: bool,
    /// Until when the server answers what is read, though it has no leader.
    orphan: Option<Tick>,
    /// The server has heard of the session since it told the leader last.
    untold: bool,
    /// When the floating addresses' lifetimes end.
    addresses: Option<Tick>,
    daemon_state: DaemonState,
    router_state: RouterState,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Daemon {
    session: u64,
    timeout: Tick,
    tenure: Option<i64>,
    last_answer: Tick,
    /// What was answered since the leader certainly heard of it.
    answers: Vec<Tick>,
    leader_heard: Tick,
    wrote: Tick,
    connected: bool,
    inherited: bool,
    services: bool,
    stopping: bool,
    attempts: Attempts,
    view: ClusterView,
}

#[derive(Debug)]
pub(super) struct World {
    now: Tick,
    random: u64,
    zxid: i64,
    desired: (Option<usize>, i64),
    holder: Option<(usize, u64)>,
    /// When the leader last heard of each, and its time-out.
    sessions: BTreeMap<u64, (Tick, Tick)>,
    fenced: BTreeMap<NodeName, Entry<Fence>>,
    machines: Vec<Machine>,
}

fn duration(ticks: Tick) -> Duration {
    Duration::from_millis(ticks * 100)
}

fn tick(duration: Duration) -> Tick {
    Tick::try_from(duration.as_millis() / 100).unwrap()
}

fn moment(tick: Tick) -> Moment {
    Moment(duration(tick))
}

impl Daemon {
    fn answered(&mut self, now: Tick) {
        self.last_answer = now;
        self.answers.push(now);
    }

    /// A write was acknowledged: as `pvc_store::Heard` has it.
    fn wrote(&mut self, now: Tick) {
        self.wrote = now;
        let told = |answer: &Tick| answer + TELL <= now;
        let newest = self.answers.iter().copied().filter(told).max();
        self.leader_heard = newest.unwrap_or(0).max(self.leader_heard);
        self.answers.retain(|answer| !told(answer));
    }
}

impl World {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let machine = |n: usize| Machine {
            name: name(["a", "b", "c"][n]),
            daemon: None,
            frozen: false,
            cut: false,
            orphan: None,
            untold: false,
            addresses: None,
            daemon_state: DaemonState::Stop,
            router_state: RouterState::Secondary,
        };
        let mut world = Self {
            now: 1000,
            random: seed | 1,
            zxid: 1,
            desired: (None, 1),
            holder: None,
            sessions: BTreeMap::new(),
            fenced: BTreeMap::new(),
            machines: (0..nodes).map(machine).collect(),
        };
        (0..nodes).for_each(|n| world.happen(Event::Restart(n)));
        world
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.is_multiple_of(of)
    }

    fn write(&mut self) -> i64 {
        self.zxid += 1;
        self.zxid
    }

    fn grant(&mut self) -> Tick {
        let a = usize::from(self.chance(2)) * 2 + usize::from(self.chance(2));
        SESSIONS[a]
    }

    fn open_session(&mut self) -> (u64, Tick) {
        let (session, timeout) = (self.write().unsigned_abs(), self.grant());
        self.sessions.insert(session, (self.now, timeout));
        (session, timeout)
    }

    pub(super) fn happen(&mut self, event: Event) {
        let count = self.machines.len();
        let there = |n: usize| n % count;
        match event {
            Event::Kill(n) => self.machines[there(n)].daemon = None,
            Event::Cut(n) => self.machines[there(n)].cut = true,
            Event::Heal(n) => {
                let machine = &mut self.machines[there(n)];
                machine.cut = false;
                if machine.orphan.take().is_some() {
                    self.tell(there(n));
                }
            }
            Event::Orphan(n) => {
                self.machines[there(n)].orphan.get_or_insert(self.now + ORPHAN);
            }
            Event::Freeze(n) => self.machines[there(n)].frozen = true,
            Event::Thaw(n) => {
                self.machines[there(n)].frozen = false;
                self.tell(there(n));
            }
            Event::Stop(n) => {
                if let Some(daemon) = &mut self.machines[there(n)].daemon {
                    daemon.stopping = true;
                }
            }
            Event::Restart(n) => self.restart(there(n)),
            Event::Fence(n) => {
                let machine = &mut self.machines[there(n)];
                (machine.daemon, machine.addresses, machine.frozen) = (None, None, false);
                machine.daemon_state = DaemonState::Dead;
                let node = machine.name.clone();
                let step = FenceStep::Proven { proof: Proof::PowerOff };
                let job = FenceJob {
                    step,
                    instance: None,
                    by: "x".into(),
                    at_unix_s: 0,
                    confirmed_dead: None,
                    asked: None,
                    boot: Some("boot".into()),
                    freed: std::collections::BTreeSet::new(),
                    earlier: Vec::new(),
                    keepalive_version: None,
                };
                self.fenced.insert(node.clone(), Entry::Good(Fence { node, job, version: 0, fencer: None }));
            }
            Event::Desired(n) => self.desired = (n.map(there), self.write()),
        }
    }

    fn restart(&mut self, n: usize) {
        let machine = &self.machines[n];
        if machine.cut
            || machine.orphan.is_some()
            || machine.frozen
            || machine.daemon.as_ref().is_some_and(|d| !d.stopping)
        {
            return;
        }
        let inherited = machine.addresses.is_some();
        let (session, timeout) = self.open_session();
        self.machines[n].daemon_state = DaemonState::Run;
        self.machines[n].router_state = RouterState::Secondary;
        self.machines[n].daemon = Some(Daemon {
            session,
            timeout,
            tenure: None,
            last_answer: self.now,
            answers: Vec::new(),
            leader_heard: self.now,
            wrote: self.now,
            connected: true,
            inherited,
            services: false,
            stopping: false,
            attempts: Attempts::default(),
            view: self.view(),
        });
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, ticks: u32) -> Result<(), TestCaseError> {
        for _ in 0..ticks {
            self.now += 1;
            for machine in &mut self.machines {
                machine.addresses = machine.addresses.filter(|end| self.now < end + KERNEL_LATE);
            }
            self.tell_leader();
            self.end_sessions();
            let first = usize::from(self.chance(2));
            for i in 0..self.machines.len() {
                self.live((i + first) % self.machines.len())?;
            }
        }
        Ok(())
    }

    /// Each server when its time has come, if it can.
    fn tell_leader(&mut self) {
        let now = self.now;
        for n in 0..self.machines.len() {
            let machine = &mut self.machines[n];
            if machine.orphan.is_some_and(|until| now >= until) {
                // It closes its connections then, and forgets.
                machine.orphan = None;
                machine.untold = false;
                if let Some(daemon) = &mut machine.daemon {
                    daemon.connected = false;
                }
            }
            // The server dies with the way to it.
            machine.untold &= !machine.cut;
            if (now + n as Tick * 3).is_multiple_of(TELL) {
                self.tell(n);
            }
        }
    }

    /// A server tells the leader whom it has heard of, as it is asked to; also first of all when their connection passes packets again.
    fn tell(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        if machine.cut || machine.frozen || machine.orphan.is_some() {
            return;
        }
        if std::mem::take(&mut machine.untold)
            && let Some(session) = machine.daemon.as_ref().map(|d| d.session)
            && let Some((heard, _)) = self.sessions.get_mut(&session)
        {
            *heard = self.now;
        }
    }

    /// As early as the servers ever do.
    fn end_sessions(&mut self) {
        let now = self.now;
        self.sessions.retain(|_, (heard, timeout)| now < *heard + *timeout);
        self.holder = self.holder.filter(|(_, session)| self.sessions.contains_key(session));
    }

    /// One machine's daemon lives for a tick.
    fn live(&mut self, n: usize) -> Result<(), TestCaseError> {
        let machine = &self.machines[n];
        if machine.frozen {
            return Ok(());
        }
        let (cut, orphan) = (machine.cut, machine.orphan.is_some());
        let Some(mut daemon) = machine.daemon.clone() else { return Ok(()) };
        if orphan && daemon.connected {
            daemon.answered(self.now);
        } else if cut || orphan {
            daemon.connected = false;
        } else {
            if !self.sessions.contains_key(&daemon.session) {
                (daemon.session, daemon.timeout) = self.open_session();
                daemon.tenure = None;
                (daemon.answers, daemon.leader_heard) = (Vec::new(), self.now);
            } else if !daemon.connected {
                // Another server takes the session over, and grants what it grants.
                daemon.timeout = self.grant();
                self.sessions.insert(daemon.session, (self.now, daemon.timeout));
            }
            daemon.connected = true;
            self.machines[n].untold = true;
            daemon.answered(self.now);
            if self.now >= daemon.wrote + tick(write_every(duration(daemon.timeout))) {
                daemon.wrote(self.now);
            }
            // The mirror may lag.
            if !self.chance(4) {
                daemon.view = self.view();
            }
        }
        self.machines[n].daemon = Some(daemon);
        for _ in 0..12 {
            if !self.step(n) {
                break;
            }
            let holders = self.holders();
            if holders.len() > 1 {
                return Err(TestCaseError::fail(format!("{holders:?} have the addresses\n{self:#?}")));
            }
        }
        Ok(())
    }

    /// One step of a plan; false if there is none to do now.
    fn step(&mut self, n: usize) -> bool {
        let now = self.now;
        let machine = &self.machines[n];
        let me = machine.name.clone();
        let Some(mut daemon) = machine.daemon.clone() else { return false };
        let cut = machine.cut || machine.orphan.is_some();
        let current = now < daemon.last_answer + NOTICE;
        if current {
            daemon.attempts.saw(&daemon.view, moment(now));
            let holds = daemon.view.primary_holder.as_ref() == Some(&me);
            daemon.tenure = daemon.tenure.filter(|_| holds);
        }
        let (session, heard) = (duration(daemon.timeout), moment(daemon.leader_heard));
        let lifetime = lifetime_s(heard, session, moment(now));
        let held = match machine.addresses {
            None => Held::default(),
            Some(end) => {
                let fresh = lifetime.is_none_or(|l| now + u64::from(l) * 10 <= end + 20);
                Held { any: true, all: true, fresh, inherited: daemon.inherited }
            }
        };
        let planned = plan(&Facts {
            me: &me,
            runs: !daemon.stopping,
            view: &daemon.view,
            view_is_current: current,
            tenure: daemon.tenure,
            keep_until: Some(keep_until(heard, session)),
            held,
            services: daemon.services,
            attempts: &daemon.attempts,
            now: moment(now),
        });
        let Next::Do(step) = planned.next else {
            let over = daemon.stopping && daemon.tenure.is_none() && !held.any;
            if over {
                self.sessions.remove(&daemon.session);
                self.machines[n].daemon_state = DaemonState::Stop;
            }
            self.machines[n].daemon = (!over).then_some(daemon);
            return false;
        };
        let done = match &step {
            Step::Hold => {
                daemon.inherited = false;
                self.machines[n].addresses = lifetime.map(|l| now + u64::from(l) * 10);
                lifetime.is_some()
            }
            Step::Drop | Step::Release => {
                daemon.inherited = false;
                self.machines[n].addresses = None;
                step == Step::Drop || !cut && self.commit(n, &mut daemon, &step)
            }
            Step::StartServices | Step::StopServices => {
                daemon.services = step == Step::StartServices;
                true
            }
            _ if cut => false,
            _ => self.commit(n, &mut daemon, &step),
        };
        self.machines[n].daemon = Some(daemon);
        done
    }

    /// A transaction, and the mirror that shows it.
    fn commit(&mut self, n: usize, daemon: &mut Daemon, step: &Step) -> bool {
        let holder = self.holder.map(|(n, _)| n);
        let done = match step {
            Step::Take { again } => {
                let possible = if *again { holder == Some(n) } else { holder.is_none() };
                if possible {
                    self.holder = Some((n, daemon.session));
                    daemon.tenure = Some(self.write());
                }
                possible
            }
            Step::Discharge(dead) => {
                let possible = holder.is_some_and(|h| {
                    // The transaction checks that it has not come back.
                    self.machines[h].name == *dead && self.machines[h].daemon_state == DaemonState::Dead
                });
                if possible {
                    self.holder = None;
                    self.zxid += 1;
                }
                possible
            }
            Step::Release => {
                let possible = holder == Some(n);
                if possible {
                    self.holder = None;
                    self.machines[n].router_state = RouterState::Secondary;
                    daemon.attempts.stepped_down(moment(self.now));
                    daemon.tenure = None;
                    self.zxid += 1;
                }
                possible
            }
            Step::Answer => {
                let possible = self.desired.1 == daemon.view.primary_node.zxid;
                if possible {
                    self.desired = (Some(n), self.write());
                }
                possible
            }
            Step::Say(state) => {
                self.machines[n].router_state = *state;
                self.zxid += 1;
                true
            }
            Step::Hold | Step::Drop | Step::StartServices | Step::StopServices => true,
        };
        // A commit is an answer, and the mirror catches up before the next step; a conflict is looked at in the next tick.
        daemon.wrote(self.now);
        daemon.answered(self.now);
        daemon.view = self.view();
        done
    }

    fn view(&self) -> ClusterView {
        let entry = |m: &Machine| (m.name.clone(), node(m.name.as_str(), m.daemon_state, m.router_state));
        ClusterView {
            nodes: Arc::new(self.machines.iter().map(entry).collect()),
            primary_node: field(self.desired.0.map(|n| self.machines[n].name.clone()), self.desired.1),
            primary_holder: self.holder.map(|(n, _)| self.machines[n].name.clone()),
            fences: Arc::new(self.fenced.clone()),
            ..ClusterView::default()
        }
    }

    pub(super) fn holders(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|n| self.machines[*n].addresses.is_some()).collect()
    }

    pub(super) fn ask_for(&self) -> Option<usize> {
        self.desired.0
    }

    pub(super) fn router_states(&self, state: RouterState) -> Vec<usize> {
        (0..self.machines.len()).filter(|n| self.machines[*n].router_state == state).collect()
    }
}
