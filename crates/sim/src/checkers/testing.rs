//! Histories written by hand, for checkers' own tests.

use std::time::Duration;

use pvc_core::model::{NodeName, VmId};
use pvc_store::{Check, Op};

use super::{Checker, Timing};
use crate::{
    event::{Author, Change, Commit, Event, Key, Machine, Stamped},
    tree::Tree,
    truth::Truth,
};

/// The default timing.
pub(crate) const TIMING: Timing = Timing {
    keepalive: Duration::from_secs(5),
    fence_after: Duration::from_secs(30),
    session: Duration::from_secs(15),
};

/// A node of that name.
pub(crate) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// The daemon of a node.
pub(crate) fn daemon(name: &str) -> Author {
    Author::Daemon { node: node(name), run: 1 }
}

/// The VM of that number.
pub(crate) fn vm(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

/// Its definition, of 600 MiB.
pub(crate) fn definition(n: u8) -> String {
    format!(
        "<domain type='kvm'><name>vm{n}</name><uuid>{}</uuid><memory unit='MiB'>600</memory><devices/></domain>",
        vm(n)
    )
}

/// The path of one of its keys.
pub(crate) fn vm_key(n: u8, key: &str) -> String {
    match key {
        "claim" => format!("/pvc/claim/{}", vm(n)),
        _ => format!("/domains/{}/{key}", vm(n)),
    }
}

/// A history, and the checker that reads it.
pub(crate) struct History {
    checker: Box<dyn Checker>,
    truth: Truth,
    tree: Tree,
    now: Duration,
    zxid: i64,
}

impl History {
    /// Nothing has happened.
    pub(crate) fn new(checker: impl Checker + 'static) -> Self {
        let checker = Box::new(checker);
        Self { checker, truth: Truth::default(), tree: Tree::default(), now: Duration::ZERO, zxid: 0 }
    }

    /// It is so late.
    pub(crate) fn at_s(&mut self, seconds: u64) -> &mut Self {
        self.now = Duration::from_secs(seconds);
        self
    }

    fn outcome(&mut self, event: Event) -> Result<(), String> {
        let stamped = Stamped { at: self.now, event };
        self.truth.apply(&stamped);
        if let Event::Commit(commit) = &stamped.event {
            self.tree.apply(commit);
        }
        self.checker.step(&self.truth, &self.tree, &stamped)
    }

    /// It happens, and nothing is wrong with it.
    pub(crate) fn happens(&mut self, event: Event) -> &mut Self {
        self.outcome(event).unwrap();
        self
    }

    /// It happens, and neither the checker nor its tree sees it.
    pub(crate) fn only_truth(&mut self, event: Event) -> &mut Self {
        self.truth.apply(&Stamped { at: self.now, event });
        self
    }

    /// It happens, and that is a violation which says so.
    pub(crate) fn violated_by(&mut self, event: Event, says: &str) {
        let what = self.outcome(event).unwrap_err();
        assert!(what.contains(says), "{what}");
    }

    /// A machine is switched on.
    pub(crate) fn on(&mut self, name: &str, boot: u64) -> &mut Self {
        self.happens(Event::Machine { node: node(name), what: Machine::On { boot } })
    }

    /// A commit by an operator that sets these keys.
    pub(crate) fn writes(&mut self, keys: &[(&str, &str)]) -> &mut Self {
        let commit = self.commit(Author::Client(1), keys);
        self.happens(commit)
    }

    /// A commit that sets these keys.
    pub(crate) fn commit(&mut self, by: Author, keys: &[(&str, &str)]) -> Event {
        self.zxid += 1;
        let change = |(path, text): &(&str, &str)| {
            let before = self.tree.key(path).cloned();
            let version = before.as_ref().map_or(0, |key| key.version + 1);
            let after = Some(Key { data: text.as_bytes().to_vec(), version });
            Change { path: (*path).to_owned(), before, after }
        };
        let changes = keys.iter().map(change).collect();
        Event::Commit(Commit { by, zxid: self.zxid, ops: vec![], changes })
    }

    /// A commit that sets these keys and checks another one.
    pub(crate) fn commit_about(&mut self, by: Author, keys: &[(&str, &str)], checked: &str) -> Event {
        let mut event = self.commit(by, keys);
        if let Event::Commit(commit) = &mut event {
            commit.ops.push(Op::Check { path: checked.to_owned(), check: Check::Exists });
        }
        event
    }

    /// A commit that deletes a key.
    pub(crate) fn deletion(&mut self, by: Author, path: &str) -> Event {
        self.zxid += 1;
        let change = Change { path: path.to_owned(), before: self.tree.key(path).cloned(), after: None };
        Event::Commit(Commit { by, zxid: self.zxid, ops: vec![], changes: vec![change] })
    }

    /// A commit by a node's daemon that sets these keys, with which nothing is wrong.
    pub(crate) fn daemon_writes(&mut self, name: &str, keys: &[(&str, &str)]) -> &mut Self {
        let commit = self.commit(daemon(name), keys);
        self.happens(commit)
    }
}
