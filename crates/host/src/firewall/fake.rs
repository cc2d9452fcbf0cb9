//! A packet filter in memory: it holds what was loaded, and counts what it is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pvc_core::{model::rule::Body, plan::firewall::Ruleset};
use tokio::sync::watch;

use super::{Count, Firewall, FirewallError, Listing, OwnFile};

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
        self.changed.send_replace(());
    }

    /// Somebody adds a rule to one of our tables.
    pub fn meddle(&self, rule: &str) {
        self.state().foreign.push_str(rule);
        self.changed.send_replace(());
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
        drop(state);
        self.changed.send_replace(());
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
}

#[async_trait]
impl Firewall for FakeFirewall {
    async fn load(&self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        let mut state = self.state();
        state.admit("load the firewall", ruleset)?;
        (state.standing, state.foreign) = (Some(ruleset.clone()), String::new());
        state.done.push("load");
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
        state.standing = Some(after.clone());
        state.done.push("change");
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    async fn listing(&self) -> Result<Option<Listing>, FirewallError> {
        let state = self.state();
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
            self.state().foreign.push_str(text);
        }
        self.changed.send_replace(());
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
