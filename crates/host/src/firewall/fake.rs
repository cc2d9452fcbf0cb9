//! A packet filter in memory: it holds what was loaded, and counts what it is told and asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pvc_core::{model::rule::Body, plan::firewall::Ruleset};
use tokio::sync::watch;

use super::{Count, Firewall, FirewallError, Listing, Mark, OwnFile};

/// The fake.
pub struct FakeFirewall {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    standing: Option<Ruleset>,
    /// Added by somebody else.
    foreign: String,
    /// Bodies that are not taken.
    refused: Vec<String>,
    own_files: Vec<OwnFile>,
    done: Vec<&'static str>,
    counts: BTreeMap<String, Vec<Count>>,
    /// All transactions, and those on our tables.
    generation: u32,
    touched: u64,
    cost: Cost,
    /// What somebody adds right after our next transaction.
    meddling: Option<String>,
}

/// What was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// How often all was listed.
    pub listings: usize,
    /// How many transactions it was given.
    pub transactions: usize,
    /// How long their texts were in all.
    pub bytes: usize,
}

impl FakeFirewall {
    /// One without our tables.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// What stands.
    pub fn standing(&self) -> Option<Ruleset> {
        self.state().standing.clone()
    }

    /// Somebody removes our tables.
    pub fn flush(&self) {
        self.state().standing = None;
        self.touch(1);
    }

    /// Somebody adds a rule to one of our tables.
    pub fn meddle(&self, rule: &str) {
        self.state().foreign.push_str(rule);
        self.touch(1);
    }

    /// Somebody adds a rule to one of our tables right after our next transaction, before we look at what has come of it.
    pub fn meddle_with_next(&self, rule: &str) {
        self.state().meddling = Some(rule.to_owned());
    }

    /// Somebody changes a table of their own.
    pub fn elsewhere(&self) {
        self.state().generation += 1;
    }

    /// Something was said that was not heard.
    pub fn miss(&self) {
        self.touch(2);
    }

    fn touch(&self, times: u64) {
        let mut state = self.state();
        // Each of them may be one of several that were not ours.
        state.generation += 2;
        state.touched += times;
        drop(state);
        self.changed.send_replace(());
    }

    /// What was asked of it since the last call.
    pub fn take_cost(&self) -> Cost {
        std::mem::take(&mut self.state().cost)
    }

    /// The first rule of a chain has counted so much.
    pub fn count(&self, chain: &str, packets: u64, bytes: u64) {
        self.state().counts.insert(chain.to_owned(), vec![Count { packets, bytes }]);
    }

    /// From now on these bodies, and no others, are not taken.
    pub fn refuse(&self, bodies: &[&str]) {
        self.state().refused = bodies.iter().map(|body| (*body).to_owned()).collect();
    }

    /// An operator writes a file; a text with the word `nonsense` is refused when it is loaded, one with `inet pvc` changes our tables.
    pub fn write_file(&self, name: &str, text: &str) {
        let mut state = self.state();
        state.own_files.retain(|file| file.name != name);
        state.own_files.push(OwnFile { name: name.to_owned(), text: Ok(text.to_owned()) });
    }

    /// What was done since the last call: `load`, `change` or `import`.
    pub fn take_done(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state().done)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A transaction is refused as a whole.
    fn admit(&self, doing: &'static str, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let lines = ruleset.networks.values().flat_map(|wall| wall.lines.values().flatten());
        let mut bodies = lines.filter_map(|line| line.body.as_ref());
        match bodies.find(|body| self.refused.contains(&body.to_string())) {
            Some(body) => Err(FirewallError::Refused { doing, why: format!("{body} is refused") }),
            None => Ok(()),
        }
    }

    /// A transaction of ours.
    fn stand(&mut self, doing: &'static str, ruleset: &Ruleset, text: &str) {
        self.standing = Some(ruleset.clone());
        self.done.push(doing);
        self.cost.transactions += 1;
        self.cost.bytes += text.len();
        self.generation += 1;
        self.touched += 1;
        if let Some(rule) = self.meddling.take() {
            self.foreign.push_str(&rule);
            self.generation += 1;
            self.touched += 1;
        }
    }
}

#[async_trait]
impl Firewall for FakeFirewall {
    async fn load(&self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let mut state = self.state();
        state.admit("load the firewall", ruleset)?;
        state.foreign.clear();
        state.stand("load", ruleset, &ruleset.whole());
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    async fn change(&self, before: &Ruleset, after: &Ruleset) -> Result<(), FirewallError> {
        let mut state = self.state();
        let doing = "change the firewall";
        state.admit(doing, after)?;
        if before == after {
            return Ok(());
        }
        if state.standing.as_ref() != Some(before) {
            return Err(FirewallError::Refused { doing, why: "something else stands".to_owned() });
        }
        state.stand("change", after, &after.change_from(before));
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    async fn mark(&self) -> Result<Mark, FirewallError> {
        let state = self.state();
        Ok(Mark { generation: state.generation, touched: state.touched, is_complete: true })
    }

    async fn listing(&self) -> Result<Option<Listing>, FirewallError> {
        let mut state = self.state();
        state.cost.listings += 1;
        let Some(ruleset) = &state.standing else { return Ok(None) };
        let standing = [("all".to_owned(), format!("{}{}", ruleset.whole(), state.foreign))].into();
        Ok(Some(Listing { standing, counts: state.counts.clone() }))
    }

    async fn refused(&self, bodies: &[Body]) -> Result<BTreeMap<Body, String>, FirewallError> {
        let state = self.state();
        let refused = bodies.iter().filter(|body| state.refused.contains(&body.to_string()));
        Ok(refused.map(|body| (body.clone(), "it is refused".to_owned())).collect())
    }

    fn own_files(&self) -> Vec<OwnFile> {
        self.state().own_files.clone()
    }

    async fn import(&self, text: &str) -> Result<(), FirewallError> {
        self.state().done.push("import");
        if text.contains("nonsense") {
            return Err(FirewallError::Refused { doing: "load it", why: "syntax error".to_owned() });
        }
        if text.contains("inet pvc") {
            self.meddle(text);
        } else {
            self.elsewhere();
        }
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
