//! Three machines, their libvirts and daemons, and the tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::*, NODES, events::Event};
use crate::model::{Progress, Suspension};

/// The truth: the tree, and what lives where.
pub(super) struct World {
    pub(super) vm: Vm,
    pub(super) zxid: i64,
    pub(super) lives: BTreeMap<NodeName, LocalState>,
    /// Whose libvirt is so slow that starts are given up.
    pub(super) slow: BTreeSet<NodeName>,
    /// Whose libvirt has yet to do a start that was given up.
    pub(super) late: BTreeSet<NodeName>,
    pub(super) migration: Option<Journey>,
    /// Whose libvirt has it on record that it left there by a migration.
    pub(super) left: BTreeSet<NodeName>,
    /// Whose copy is older than what has executed elsewhere since.
    pub(super) old: BTreeSet<NodeName>,
    pub(super) dead: BTreeSet<NodeName>,
    pub(super) cut: bool,
    pub(super) attempts: BTreeMap<NodeName, Attempts>,
    /// What each node believes the tree to be: may be old.
    pub(super) view: BTreeMap<NodeName, Vm>,
    pub(super) now: Moment,
}

/// A migration as the libvirts of both sides do it among themselves.
#[derive(Debug, Clone)]
pub(super) struct Journey {
    pub(super) from: NodeName,
    pub(super) to: NodeName,
    pub(super) phase: Phase,
    pub(super) endless: bool,
    pub(super) began: Moment,
    /// The daemon that began it waits for its end.
    pub(super) awaited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Copying,
    /// Held on both sides.
    Switching,
    /// Complete and held at the target, which has said so; its process at the source is held and about to end.
    Arrived,
}

pub(super) fn node(n: usize) -> NodeName {
    name(NODES[n])
}

impl World {
    /// It is off, or runs on `a`.
    pub(super) fn new(method: MigrationMethod, runs: bool) -> Self {
        let mut vm = if runs { vm(Start, "a", "a") } else { vm(Stop, "a", "") };
        vm.migration_method = method;
        if !runs {
            vm.claim.version = None;
            vm.claim.zxid = 0;
        }
        let nodes = [0, 1, 2].map(node);
        Self {
            zxid: 100,
            lives: nodes
                .iter()
                .map(|n| (n.clone(), if runs && n.as_str() == "a" { Active } else { Off }))
                .collect(),
            slow: BTreeSet::new(),
            late: BTreeSet::new(),
            migration: None,
            left: BTreeSet::new(),
            old: BTreeSet::new(),
            dead: BTreeSet::new(),
            cut: false,
            attempts: nodes.iter().map(|n| (n.clone(), Attempts::default())).collect(),
            view: nodes.iter().map(|n| (n.clone(), vm.clone())).collect(),
            vm,
            now: Moment::secs(1),
        }
    }

    pub(super) fn current(&self, key: VmKey) -> Option<i32> {
        match key {
            VmKey::State => self.vm.state.version,
            VmKey::Node => self.vm.node.version,
            VmKey::Claim => self.vm.claim.version,
            _ => Some(3),
        }
    }

    pub(super) fn commit(&mut self, change: VmChange) -> bool {
        let VmChange::Update { expect, set, .. } = change else { panic!("plans only update") };
        if expect.iter().any(|&(key, version)| self.current(key) != version) {
            return false;
        }
        self.zxid += 1;
        for value in set {
            match value {
                VmSet::State(s) => write(&mut self.vm.state, s, self.zxid),
                VmSet::Node(n) => write(&mut self.vm.node, n, self.zxid),
                VmSet::Claim(c) => write(&mut self.vm.claim, c, self.zxid),
                VmSet::FailedReason(r) => {
                    (self.vm.failed_reason.value, self.vm.failed_reason.zxid) = (r, self.zxid);
                }
                VmSet::LastNode(n) => self.vm.last_node.value = n,
                other => panic!("{other:?}"),
            }
        }
        true
    }

    pub(super) fn migration_seen_by(&self, me: &NodeName) -> Option<Migration> {
        let journey = self.migration.as_ref()?;
        let elapsed = self.now.since(journey.began);
        // It goes on as long as time passes, and has sent everything many times over only if it is endless.
        let total = if journey.endless { 1 } else { 1 << 20 };
        let progress = Progress { elapsed, total, sent: elapsed.as_secs(), remaining: 1 };
        if journey.from == *me {
            Some(Migration::Leaving(progress))
        } else {
            (journey.to == *me && journey.phase != Phase::Arrived).then_some(Migration::Arriving)
        }
    }

    pub(super) fn plan(&mut self, me: &NodeName) -> (Vm, Next) {
        let vm = self.view[me].clone();
        let migration = self.migration_seen_by(me).filter(|_| needs_migration(me, &vm, self.lives[me]));
        let attempts = self.attempts.get_mut(me).unwrap();
        attempts.notice(&vm, self.now);
        if let Some(Migration::Leaving(progress)) = migration {
            attempts.progressed(&vm, progress, self.now);
        }
        let facts = Facts {
            me,
            vm: Some(&vm),
            orphan: None,
            tidies_up: false,
            last_word: Ok(()),
            local_state: self.lives[me],
            migration,
            halt: None,
            left: needs_record(me, &vm, self.lives[me]) && self.left.contains(me),
            target: if self.dead.contains(&vm.node.value) { Err("it is dead") } else { Ok(()) },
            definition: Ok(()),
            standing: Standing::Current,
            attempts: &self.attempts[me],
            now: self.now,
        };
        let next = plan(&facts).next;
        (vm, next)
    }

    pub(super) fn step(&mut self, me: &NodeName) {
        if self.dead.contains(me) {
            return;
        }
        let (mut vm, mut next) = self.plan(me);
        if next == Next::Do(Step::PowerOff) && !vm.claim.value.names(me) || next == Next::Do(Step::Resume) {
            // As the reconciler: nothing is ended for want of a claim, or let go on, before the view has caught up.
            self.view.insert(me.clone(), self.vm.clone());
            (vm, next) = self.plan(me);
        }
        let Next::Do(step) = next else { return };
        let now = self.now;
        match &step {
            Step::Start => {
                self.attempts.get_mut(me).unwrap().start_attempted(&vm, now);
                if self.slow.contains(me) {
                    self.late.insert(me.clone());
                } else {
                    self.turn(me, Active);
                }
            }
            Step::PowerOff => self.end(me),
            Step::Suspend => self.turn(me, LocalState::Suspended(Suspension::Elsewhere)),
            Step::AskGuestToShutDown => self.attempts.get_mut(me).unwrap().asked_to_shut_down(&vm, now),
            Step::LookAt(to) => {
                let peer_state = match self.lives[to] {
                    _ if self.cut || self.dead.contains(to) => PeerState::Unknown("no route".into()),
                    Active => PeerState::Active,
                    Held | Arrived | Unstarted => PeerState::Held,
                    _ => PeerState::Off,
                };
                let attempts = self.attempts.get_mut(me).unwrap();
                attempts.looked(&vm, to, peer_state, now);
                attempts.heard(&vm, to, Ok(()));
            }
            Step::Migrate(to) => self.migrate(me, to, &vm),
            Step::AbortMigration => {
                self.attempts.get_mut(me).unwrap().aborts(&vm, now);
                if self.migration.as_ref().is_some_and(|j| j.from == *me && j.phase == Phase::Copying) {
                    self.fail();
                }
            }
            Step::Resume => self.resume(me),
            step => {
                if self.commit(change(step, &vm, me).unwrap()) {
                    let attempts = self.attempts.get_mut(me).unwrap();
                    match step {
                        Step::Claim => attempts.claimed(&vm),
                        Step::Share(_) => attempts.shared(&vm),
                        _ => {}
                    }
                }
            }
        }
    }

    pub(super) fn migrate(&mut self, me: &NodeName, to: &NodeName, vm: &Vm) {
        let attempts = self.attempts.get_mut(me).unwrap();
        attempts.migrates(vm, self.now);
        let can = self.lives[me] == Active
            && self.lives[to] == Off
            && self.migration.is_none()
            && !self.cut
            && !self.dead.contains(to);
        if !can {
            return attempts.migration_failed(vm, "it cannot".into(), self.now);
        }
        self.turn(to, Held);
        self.old.insert(to.clone());
        self.migration = Some(Journey {
            from: me.clone(),
            to: to.clone(),
            phase: Phase::Copying,
            endless: false,
            began: self.now,
            awaited: true,
        });
    }

    pub(super) fn resume(&mut self, me: &NodeName) {
        if self.migration_seen_by(me).is_none() && matches!(self.lives[me], Unstarted | Held | Arrived) {
            self.turn(me, Active);
        }
    }

    /// What executes makes every copy elsewhere an old one; only a migration brings a new one.
    pub(super) fn turn(&mut self, n: &NodeName, local_state: LocalState) {
        self.lives.insert(n.clone(), local_state);
        match local_state {
            Active => {
                let copies =
                    self.lives.iter().filter(|(other, local_state)| *other != n && **local_state != Off);
                self.old.extend(copies.map(|(other, _)| other.clone()));
                self.left.remove(n);
            }
            Held | Unstarted | LocalState::Suspended(_) => drop(self.left.remove(n)),
            Arrived | Off | LocalState::Unknown => drop(self.old.remove(n)),
        }
    }

    pub(super) fn advance(&mut self) {
        let Some(journey) = &mut self.migration else { return };
        let (from, to) = (journey.from.clone(), journey.to.clone());
        match journey.phase {
            Phase::Copying if journey.endless => {}
            Phase::Copying => {
                journey.phase = Phase::Switching;
                self.turn(&from, Held);
            }
            Phase::Switching => {
                journey.phase = Phase::Arrived;
                self.turn(&to, Arrived);
            }
            Phase::Arrived if !self.left.contains(&from) => drop(self.left.insert(from)),
            Phase::Arrived => {
                self.turn(&from, Off);
                self.migration = None;
            }
        }
    }

    /// It goes on at its source; unless it is on record as arrived, then there is no way back.
    pub(super) fn fail(&mut self) {
        let Some(journey) = self.migration.take() else { return };
        if self.left.contains(&journey.from) {
            return self.turn(&journey.from, Off);
        }
        if journey.phase != Phase::Arrived {
            self.turn(&journey.to, Off);
        }
        if self.lives[&journey.from] == Held {
            self.turn(&journey.from, Active);
        }
        if journey.awaited {
            let vm = self.view[&journey.from].clone();
            self.attempts.get_mut(&journey.from).unwrap().migration_failed(&vm, "it failed".into(), self.now);
        }
    }

    /// The source's libvirt is gone: before the switch nothing has happened; after that nobody there knows the outcome.
    pub(super) fn lose_source(&mut self, arrives: bool) {
        let Some(journey) = &self.migration else { return };
        match journey.phase {
            Phase::Copying => self.fail(),
            Phase::Switching => {
                let (to, local_state) = (journey.to.clone(), if arrives { Arrived } else { Off });
                self.turn(&to, local_state);
                self.migration = None;
            }
            // Once it is on record its process is ended by the next libvirt.
            Phase::Arrived if self.left.contains(&journey.from) => self.fail(),
            Phase::Arrived => self.migration = None,
        }
    }

    /// What lives there ends.
    pub(super) fn end(&mut self, n: &NodeName) {
        match &self.migration {
            Some(journey) if journey.from == *n => {
                self.turn(&n.clone(), Off);
                self.fail();
            }
            Some(journey) if journey.to == *n => self.fail(),
            _ => {}
        }
        self.turn(n, Off);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Desired(state, n) => {
                self.zxid += 1;
                write(&mut self.vm.state, state, self.zxid);
                write(&mut self.vm.node, node(n), self.zxid);
            }
            Event::Look(n) if self.dead.contains(&node(n)) => {}
            Event::Look(n) => drop(self.view.insert(node(n), self.vm.clone())),
            Event::Step(n) => self.step(&node(n)),
            Event::Round => {
                for n in 0..NODES.len() {
                    self.happen(Event::Look(n));
                    self.step(&node(n));
                }
            }
            Event::Crash(n) => {
                self.attempts.insert(node(n), Attempts::default());
                if let Some(journey) = self.migration.as_mut().filter(|j| j.from == node(n)) {
                    journey.awaited = false;
                }
            }
            Event::Vanish(n) => self.end(&node(n)),
            Event::Advance => self.advance(),
            Event::Fail => self.fail(),
            Event::LoseReply => {
                if self.migration.as_ref().is_some_and(|journey| journey.phase == Phase::Arrived) {
                    self.fail();
                }
            }
            Event::Restart(n, arrives) => {
                self.late.remove(&node(n));
                match &self.migration {
                    Some(journey) if journey.from == node(n) => self.lose_source(arrives),
                    Some(journey) if journey.to == node(n) => self.fail(),
                    _ => {}
                }
            }
            Event::Slow(n, true) => drop(self.slow.insert(node(n))),
            Event::Slow(n, false) => drop(self.slow.remove(&node(n))),
            Event::Late(n) => {
                if self.late.remove(&node(n)) && self.lives[&node(n)] == Off {
                    self.turn(&node(n), Unstarted);
                }
            }
            Event::Die(n, arrives) => {
                let n = node(n);
                if self.migration.as_ref().is_some_and(|j| j.from == n) {
                    self.lose_source(arrives);
                }
                self.end(&n);
                self.late.remove(&n);
                self.attempts.insert(n.clone(), Attempts::default());
                self.dead.insert(n);
            }
            Event::Fence(n) => self.fence(&node(n)),
            Event::Cut(cut) => {
                self.cut = cut;
                if cut && self.migration.as_ref().is_some_and(|j| j.phase == Phase::Copying) {
                    self.fail();
                }
            }
            Event::Hurry => {
                if let Some(journey) = &mut self.migration {
                    journey.endless = true;
                }
            }
            Event::Pass(s) => self.now = self.now + Duration::from_secs(s.into()),
        }
    }

    /// What recovery does once a node is proven dead; then the node is there again, with nothing on it.
    pub(super) fn fence(&mut self, n: &NodeName) {
        if !self.dead.contains(n) {
            return;
        }
        self.zxid += 1;
        let claim = self.vm.claim.value.after_the_end_on(n);
        if claim != self.vm.claim.value {
            write(&mut self.vm.claim, claim, self.zxid);
        }
        let shall_run = matches!(self.vm.state.value, Start | Restart | Migrate);
        if self.vm.node.value == *n && self.vm.claim.value.is_empty() && shall_run {
            let home = [0, 1, 2].map(node).into_iter().find(|other| !self.dead.contains(other));
            if let Some(home) = home {
                write(&mut self.vm.node, home, self.zxid);
                write(&mut self.vm.state, Start, self.zxid);
            }
        }
        self.dead.remove(n);
        self.view.insert(n.clone(), self.vm.clone());
    }

    pub(super) fn executing(&self) -> Vec<&NodeName> {
        self.lives.iter().filter(|(_, local_state)| **local_state == Active).map(|(n, _)| n).collect()
    }
}

fn write<T>(field: &mut Field<T>, value: T, zxid: i64) {
    *field = Field { value, version: Some(field.version.map_or(0, |v| v + 1)), zxid };
}
