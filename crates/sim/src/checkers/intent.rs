//! 15. What an operator last asked for is what comes of it.
//!
//! No stop is lost, nothing starts unwanted, no command is overwritten without a word, and a VM that was sent away keeps its way home.
//!
//! Remembers what was last asked of each VM and node, by whom, and what he was told (a client that finds that it is desired already writes
//! nothing, and its operator counts on it). What a daemon asks for in between (a flush, a recovery) changes nothing of that. What is lost
//! is seen when a calm phase ends; what is overwritten, at once.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{FenceJob, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Author, Change, Commit, Event, Phase, Stamped, Told},
    tree::Tree,
    truth::{Run, Truth},
};

use crate::keys;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Intent {
    vms: BTreeMap<VmId, Asked>,
    nodes: BTreeMap<NodeName, Asked>,
    /// When VMs were deleted.
    deleted: BTreeMap<VmId, Duration>,
    /// When nodes were taken for dead whose BMCs lie.
    lied_about: BTreeMap<NodeName, Vec<Duration>>,
}

/// What was last asked for.
#[derive(Debug)]
struct Asked {
    /// That it runs; of a node: that it takes VMs.
    wanted: bool,
    by: u32,
    zxid: i64,
    at_s: u64,
}

impl Checker for Intent {
    fn invariant(&self) -> u8 {
        15
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Command { client, told: Some(told), .. } => self.told(truth, tree, *client, told),
            Event::Commit(commit) => match &commit.by {
                Author::Client(client) => self.asked(truth, tree, commit, *client),
                Author::Daemon { node, .. } => {
                    self.voided(commit);
                    self.believed(truth, commit);
                    return overwrites(tree, commit, node);
                }
                Author::Servers => {}
            },
            Event::Phase(Phase::Settled) => return self.came_of_it(truth, tree),
            _ => {}
        }
        Ok(())
    }
}

impl Intent {
    fn told(&mut self, truth: &Truth, tree: &Tree, client: u32, told: &Told) {
        let newer = self.vms.get(&told.vm).is_some_and(|asked| asked.zxid > told.seen);
        // What somebody asked for while he read is newer than his word.
        if !newer && runs(tree.vm(told.vm, "state")) == Some(told.runs) {
            let at_s = truth.now.as_secs();
            self.vms.insert(told.vm, Asked { wanted: told.runs, by: client, zxid: told.seen, at_s });
        }
    }

    fn asked(&mut self, truth: &Truth, tree: &Tree, commit: &Commit, by: u32) {
        let asked = |wanted| Asked { wanted, by, zxid: commit.zxid, at_s: truth.now.as_secs() };
        for change in &commit.changes {
            match (keys::of_vm(&change.path), keys::of_node(&change.path)) {
                (Some((vm, "state")), _) => {
                    if change.after.is_none() {
                        self.deleted.insert(vm, truth.now);
                    }
                    // Every definition begins with `stop`, which nobody asked for.
                    let wanted = runs(change.is()).filter(|_| change.before.is_some());
                    match wanted {
                        Some(wanted) => drop(self.vms.insert(vm, asked(wanted))),
                        None => drop(self.vms.remove(&vm)),
                    }
                }
                // Who gives a VM that is off another place takes it out of the hands of the flush that shut it down.
                (Some((vm, "node" | "lastnode")), _)
                    if tree.vm(vm, "state") == "stop" && self.vms.get(&vm).is_some_and(|a| a.wanted) =>
                {
                    self.vms.remove(&vm);
                }
                (_, Some((node, "domainstate"))) => match change.is() {
                    "unflush" => drop(self.nodes.insert(node, asked(true))),
                    "flush" => drop(self.nodes.insert(node, asked(false))),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// A node that was fenced takes VMs when it is asked again.
    fn voided(&mut self, commit: &Commit) {
        for change in commit.changes.iter().filter(|_| commit.is_about("/pvc/fence/")) {
            if let Some((node, "domainstate")) = keys::of_node(&change.path) {
                self.nodes.remove(&node);
            }
        }
    }

    fn believed(&mut self, truth: &Truth, commit: &Commit) {
        for change in &commit.changes {
            let Some(node) = keys::of_fence(&change.path) else { continue };
            let job = serde_json::from_str::<FenceJob>(change.is()).ok();
            if job.is_some_and(|job| job.step.proof().is_some()) && truth.machine(&node).bmc_lies {
                self.lied_about.entry(node).or_default().push(truth.now);
            }
        }
    }

    fn came_of_it(&self, truth: &Truth, tree: &Tree) -> Result<(), String> {
        for vm in tree.vms() {
            let Some(asked) = self.vms.get(&vm) else { continue };
            let state = tree.vm(vm, "state");
            // What somebody has paused is where he wanted it.
            let executes = truth.executing(vm).next().is_some() || truth.halted(vm).next().is_some();
            let told_why = state == "failed" && !tree.vm(vm, "failedreason").is_empty();
            if executes != asked.wanted && !(asked.wanted && told_why) {
                let (what, is) = if asked.wanted { ("runs", "does not") } else { ("is off", "runs") };
                return Err(format!(
                    "client {} asked at second {} that {vm} {what}, and it {is}: state {state}, node {}, lastnode {:?}, reason {:?}",
                    asked.by,
                    asked.at_s,
                    tree.vm(vm, "node"),
                    tree.vm(vm, "lastnode"),
                    tree.vm(vm, "failedreason"),
                ));
            }
        }
        for (node, asked) in &self.nodes {
            let (state, shall) =
                (tree.node(node, "domainstate"), if asked.wanted { "ready" } else { "flushed" });
            if state != shall {
                let (by, at) = (asked.by, asked.at_s);
                return Err(format!(
                    "client {by} asked at second {at} that {node} becomes {shall}, and it is {state}"
                ));
            }
        }
        // What was started by hand since is somebody's own; and of what a machine executes that was taken for dead by a lie, nobody could know.
        let outlives = |(vm, deleted): &(&VmId, &Duration)| {
            truth
                .executing(**vm)
                .any(|(node, run)| run.began < **deleted && !self.was_lied_about(node, run, **deleted))
                && tree.vms().all(|defined| defined != **vm)
        };
        let outlives = self.deleted.iter().find(outlives);
        outlives.map_or(Ok(()), |(vm, _)| Err(format!("{vm} runs, and was undefined while it did")))
    }
}

impl Intent {
    /// Whether its node was taken for dead by a lie while it ran there, before this.
    fn was_lied_about(&self, node: &NodeName, run: &Run, before: Duration) -> bool {
        let mut lies = self.lied_about.get(node).into_iter().flatten();
        lies.any(|at| (run.began..=before).contains(at))
    }
}

/// Whether a VM with this desired state shall run; `None`: the word says neither.
fn runs(state: &str) -> Option<bool> {
    match state {
        "start" | "restart" | "migrate" => Some(true),
        "stop" | "shutdown" => Some(false),
        _ => None,
    }
}

/// What a daemon may do to the keys that say where a VM is to be, and from where it came.
fn overwrites(tree: &Tree, commit: &Commit, by: &NodeName) -> Result<(), String> {
    for change in &commit.changes {
        if change.path == "/pvc/maintenance" {
            return Err(format!("{by} writes whether maintenance is on"));
        }
        let (was, is) = (change.was(), change.is());
        // One that is deleted, or new, has no way.
        if change.before.is_none() || change.after.is_none() || was == is {
            continue;
        }
        let allowed = match keys::of_vm(&change.path) {
            Some((vm, "node")) => moves(tree, commit, by, vm, is),
            Some((vm, "lastnode")) if names_a_node(was) => forgets(tree, commit, vm, was, is),
            _ => true,
        };
        if !allowed {
            return Err(format!("{by} overwrites {} without a word: {was:?} becomes {is:?}", change.path));
        }
    }
    Ok(())
}

fn names_a_node(text: &str) -> bool {
    text != "None" && text.parse::<NodeName>().is_ok()
}

fn beside<'a>(commit: &'a Commit, vm: VmId, key: &str) -> Option<&'a Change> {
    commit.changes.iter().find(|change| keys::of_vm(&change.path) == Some((vm, key)))
}

/// A VM is moved with a way back, on its way back, by a recovery, with a reason, or to who adopts it.
fn moves(tree: &Tree, commit: &Commit, by: &NodeName, vm: VmId, to: &str) -> bool {
    let way_back = tree.vm(vm, "lastnode");
    let came_from = beside(commit, vm, "lastnode").map_or(way_back, Change::was);
    let returns = by.as_str() == to && tree.node(by, "domainstate") == "unflush";
    let reason = beside(commit, vm, "failedreason").is_some_and(|change| !change.is().is_empty());
    // An old client left the choice to the daemons; or nobody can read what was chosen (decision 92).
    let unnamed = beside(commit, vm, "node").is_some_and(|change| !names_a_node(change.was()));
    // It ran there when it was defined, which could not know (decision 75).
    let adopted = by.as_str() == to && beside(commit, vm, "claim").is_some_and(|change| change.is() == to);
    !way_back.is_empty()
        || adopted
        || came_from == to
        || returns
        || reason
        || unnamed
        || commit.is_about("/pvc/fence/")
}

/// A way home ends at home, or is replaced by that of a recovery, or of a flush that shuts the VM down where it is.
fn forgets(tree: &Tree, commit: &Commit, vm: VmId, was: &str, is: &str) -> bool {
    let node = tree.vm(vm, "node");
    // With both on one node the flush marks what it has to start again: there is no other key for it.
    let shut_down = is == node && beside(commit, vm, "state").is_some_and(|c| c.is() == "shutdown");
    node == was || shut_down || commit.is_about("/pvc/fence/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, node, vm},
        event::{Guest, Machine},
    };

    fn path(key: &str) -> String {
        format!("/domains/{}/{key}", vm(1))
    }

    /// A VM that is defined on `a`, and was never asked for.
    fn history() -> History {
        let mut history = History::new(Intent::default());
        history.on("a", 1).on("b", 1).writes(&[
            (&format!("/domains/{}", vm(1)), "web"),
            (&path("state"), "stop"),
            (&path("node"), "a"),
            (&path("lastnode"), ""),
            (&path("failedreason"), ""),
        ]);
        history
    }

    fn turns(what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node("a"), what }
    }

    fn told(runs: bool, seen: i64) -> Event {
        let told = Some(Told { vm: vm(1), runs, seen });
        Event::Command { client: 3, text: "a desired state".into(), outcome: "already so".into(), told }
    }

    const SETTLED: Event = Event::Phase(Phase::Settled);

    #[test]
    fn a_stop_that_is_lost_and_a_start_that_is_lost_are_violations() {
        let mut stop = history();
        stop.writes(&[(&path("state"), "stop")]).happens(turns(Guest::Executes));
        stop.violated_by(SETTLED, "asked at second 0 that");
        let mut start = history();
        start.writes(&[(&path("state"), "start")]).daemon_writes("a", &[(&path("state"), "stop")]);
        start.violated_by(SETTLED, "runs, and it does not");
        let mut failed = history();
        failed.writes(&[(&path("state"), "start")]);
        failed.daemon_writes("a", &[(&path("state"), "failed"), (&path("failedreason"), "no image")]);
        failed.happens(SETTLED);
    }

    #[test]
    fn the_stop_of_a_definition_is_nobodys_word() {
        history().happens(turns(Guest::Executes)).happens(SETTLED);
    }

    #[test]
    fn who_is_told_that_it_is_to_be_off_already_counts_on_it() {
        let mut history = history();
        history.writes(&[(&path("state"), "start")]);
        history.daemon_writes("a", &[(&path("state"), "shutdown"), (&path("lastnode"), "a")]);
        history.daemon_writes("a", &[(&path("state"), "stop")]).happens(told(false, 4));
        history.daemon_writes("a", &[(&path("state"), "start"), (&path("lastnode"), "")]);
        history.happens(turns(Guest::Executes));
        history.violated_by(SETTLED, "client 3 asked at second 0 that");
        // Whoever asked for something after he had read is newer.
        let mut newer = self::history();
        newer.writes(&[(&path("state"), "start")]).happens(turns(Guest::Executes));
        newer.happens(told(false, 1)).happens(SETTLED);
    }

    #[test]
    fn what_a_flush_shut_down_is_to_run_again() {
        let mut history = history();
        history.writes(&[(&path("state"), "start")]);
        history.daemon_writes("a", &[(&path("state"), "shutdown"), (&path("lastnode"), "a")]);
        history.daemon_writes("a", &[(&path("state"), "stop")]);
        history.violated_by(SETTLED, "runs, and it does not");
    }

    #[test]
    fn a_node_is_as_it_was_last_asked_to_be_unless_it_was_fenced_since() {
        let key = "/nodes/a/domainstate";
        let mut lost = history();
        lost.writes(&[(key, "flush")]).writes(&[(key, "unflush")]);
        lost.daemon_writes("a", &[(key, "flushed")]);
        lost.violated_by(SETTLED, "that a becomes ready, and it is flushed");
        let mut fenced = history();
        fenced.writes(&[(key, "unflush")]);
        let recovered = fenced.commit_about(daemon("b"), &[(key, "flushed")], "/pvc/fence/a");
        fenced.happens(recovered).happens(SETTLED);
    }

    #[test]
    fn a_vm_is_not_moved_without_a_way_back_or_a_reason() {
        let (home, last, why) = (path("node"), path("lastnode"), path("failedreason"));
        let mut silent = history();
        let event = silent.commit(daemon("a"), &[(&home, "b")]);
        silent.violated_by(event, "\"a\" becomes \"b\"");
        history().daemon_writes("a", &[(&home, "b"), (&last, "a")]);
        for nobody in ["None", "what / is this?"] {
            history().writes(&[(&home, nobody)]).daemon_writes("a", &[(&home, "b")]);
        }
        history().daemon_writes("a", &[(&home, "b"), (&why, "the target has no room")]);
        let mut unflush = history();
        unflush.writes(&[("/nodes/b/domainstate", "unflush")]).daemon_writes("b", &[(&home, "b")]);
        let mut recovery = history();
        let event = recovery.commit_about(daemon("b"), &[(&home, "b")], "/pvc/fence/a");
        recovery.happens(event);
        let state = path("state");
        let mut defined = history();
        defined.writes(&[(&state, "start")]);
        let event = defined.commit(daemon("b"), &[(&home, "b"), (&state, "start")]);
        defined.violated_by(event, "\"a\" becomes \"b\"");
        history().daemon_writes("b", &[(&home, "b"), (&state, "start"), (&path("claim"), "b")]);
    }

    #[test]
    fn a_way_home_ends_at_home() {
        let (home, last) = (path("node"), path("lastnode"));
        let away = || {
            let mut history = history();
            history.writes(&[(&home, "b"), (&last, "a")]);
            history
        };
        away().daemon_writes("a", &[(&home, "a"), (&last, "")]);
        for (to, is) in [("b", ""), ("c", "b")] {
            let mut lost = away();
            let event = lost.commit(daemon("b"), &[(&home, to), (&last, is)]);
            lost.violated_by(event, "without a word");
        }
    }

    #[test]
    fn what_is_undefined_while_it_runs_does_not_go_on() {
        let mut history = history();
        history.happens(turns(Guest::Executes));
        for key in [path("state"), format!("/domains/{}", vm(1))] {
            let event = history.deletion(Author::Client(1), &key);
            history.at_s(10).happens(event);
        }
        history.violated_by(SETTLED, "was undefined while it did");
    }

    #[test]
    fn what_was_undefined_when_a_lie_had_been_believed_is_nobodys_fault_and_else_it_is() {
        const PROVEN: &str =
            r#"{"step":"proven","proof":"power-off","instance":null,"by":"b","at_unix_s":0}"#;
        for believed in [true, false] {
            let mut history = history();
            history.happens(turns(Guest::Executes));
            history.happens(Event::Machine { node: node("a"), what: Machine::BmcLies(true) });
            if believed {
                history.daemon_writes("b", &[("/pvc/fence/a", PROVEN)]);
            }
            for key in [path("state"), format!("/domains/{}", vm(1))] {
                let event = history.deletion(Author::Client(1), &key);
                history.at_s(10).happens(event);
            }
            if believed {
                history.happens(SETTLED);
            } else {
                history.violated_by(SETTLED, "was undefined while it did");
            }
        }
    }
}
