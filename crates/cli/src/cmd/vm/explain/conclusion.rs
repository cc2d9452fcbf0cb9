//! The one sentence an operator came for. Pure; the first cause that suffices is the answer.

use pvc_core::model::{DaemonState, Entry, NodeName, Vm, VmState};

use super::Facts;
use crate::read::{Runners, silent};

/// Why the VM is as it is, and what to do if something is to be done.
pub(super) fn conclude(facts: &Facts) -> String {
    let vm = match &facts.entry {
        Entry::Good(vm) => vm,
        Entry::Bad(_) => {
            return "Nothing is done with this VM until the broken keys above are put right.".to_owned();
        }
    };
    if facts.running.now.len() > 1 {
        return format!(
            "It is reported by more than one node ({}): look at them at once.",
            list(&facts.running.now)
        );
    }
    match vm.state.value {
        VmState::Start | VmState::Restart | VmState::Migrate => to_run(facts, vm),
        VmState::Stop | VmState::Shutdown | VmState::Delete => to_be_off(facts, vm),
        VmState::Failed => format!(
            "It failed: {}. Nothing is tried again until you ask: `pvc vm start {}`.",
            if vm.failed_reason.value.is_empty() {
                "no reason is given"
            } else {
                vm.failed_reason.value.trim_end_matches('.')
            },
            vm.name
        ),
    }
}

fn to_run(facts: &Facts, vm: &Vm) -> String {
    let node = &vm.node.value;
    let settled = vm.state.value == VmState::Start
        && facts.running.now == [node.clone()]
        && vm.claim.value.is_only(node);
    if let Some(out_of_order) = daemon_trouble(facts, node) {
        let running = if facts.running == Runners::default() { "is to run" } else { "was last seen running" };
        return format!("It {running} on {node}, but {out_of_order}.");
    }
    if settled && facts.said.is_none() {
        return format!("All is well: it runs on {node}, as asked.");
    }
    if let Err(problem) = &facts.definition {
        return format!("It cannot be started: its definition is refused: {problem}.");
    }
    if let Some(said) = said(facts) {
        return said;
    }
    let others: Vec<NodeName> = vm.claim.value.iter().filter(|claimant| *claimant != node).cloned().collect();
    if !others.is_empty() {
        return format!(
            "{node} waits until {} no longer may be executing it.{}",
            list(&others),
            absent(facts, &others)
        );
    }
    if settled {
        return format!("All is well: it runs on {node}, as asked.");
    }
    if vm.claim.value.names(node) {
        return format!("{node} has claimed it and is about to {} it.", vm.state.value);
    }
    format!(
        "{node} has not taken it up yet. That takes less than a second; if it stays so, see the log of pvcd on {node}."
    )
}

fn to_be_off(facts: &Facts, vm: &Vm) -> String {
    let claimants: Vec<NodeName> = vm.claim.value.iter().cloned().collect();
    if let Some(node) = claimants.iter().find(|node| daemon_trouble(facts, node).is_some()) {
        let trouble = daemon_trouble(facts, node).unwrap_or_default();
        return format!("{node} may still be executing it, but {trouble}.");
    }
    if let Some(said) = said(facts) {
        return said;
    }
    let name = &vm.name;
    match (vm.state.value, &claimants[..], &facts.running.now[..]) {
        (VmState::Stop, [], []) => "All is well: it is off, as asked.".to_owned(),
        (VmState::Delete, [], []) => {
            format!("It is off and about to be removed. If nobody does: `pvc vm undefine {name}`.")
        }
        (_, [], []) => {
            let node = &vm.node.value;
            match daemon_trouble(facts, node) {
                Some(trouble) => format!("It is off; {node} would say so, but {trouble}."),
                None => format!("It is off, and {node} is about to say so."),
            }
        }
        (_, [], running) => format!(
            "Nobody claims it, but {} reports to run it; that should end within seconds.",
            list(running)
        ),
        (VmState::Shutdown, claimants, _) => format!("{} waits for the guest to shut down.", list(claimants)),
        (_, claimants, _) => format!("{} is about to power it off.", list(claimants)),
    }
}

fn said(facts: &Facts) -> Option<String> {
    let said = facts.said.as_ref()?.as_ref().ok()?;
    let error = said.error.as_ref().map(|e| format!(" The last attempt failed: {e}.")).unwrap_or_default();
    Some(format!("{} is {}: {}.{error}", said.by, said.doing, said.because.trim_end_matches('.')))
}

/// Why a node's daemon cannot do anything now.
fn daemon_trouble(facts: &Facts, node: &NodeName) -> Option<String> {
    let daemon = facts.nodes.iter().find(|daemon| daemon.node == *node)?;
    if let Some(silence) = daemon.silent_s {
        return Some(silent(silence));
    }
    match daemon.state {
        None => Some("there is no such node (or its keys are broken: `pvc node list`)".to_owned()),
        Some(DaemonState::Run) => None,
        Some(DaemonState::Init) => Some("its daemon is starting".to_owned()),
        Some(DaemonState::Shutdown | DaemonState::Stop) => {
            Some("its daemon is stopped: start pvcd there".to_owned())
        }
        Some(DaemonState::Dead) => Some("the node is dead: bring it back".to_owned()),
    }
}

fn absent(facts: &Facts, nodes: &[NodeName]) -> String {
    let trouble = nodes.iter().find_map(|node| daemon_trouble(facts, node).map(|trouble| (node, trouble)));
    trouble.map(|(node, trouble)| format!(" As for {node}, {trouble}.")).unwrap_or_default()
}

fn list(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use pvc_core::model::{Claim, Explanation, Field, Problem};

    use super::{super::Daemon, *};

    fn field<T>(value: T) -> Field<T> {
        Field { value, version: Some(1), zxid: 1 }
    }

    /// A VM on hv1 in a state, with claimants, runners and the state of hv1's daemon.
    fn facts(state: VmState, claim: &str, running: &[&str], daemon: Option<DaemonState>) -> Facts {
        let id = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        let claim: Claim = claim.parse().unwrap();
        let hv = |node: &str, state| Daemon { node: node.parse().unwrap(), state, silent_s: None };
        let others = claim.iter().map(NodeName::as_str).filter(|n| *n != "hv1");
        let nodes = std::iter::once(hv("hv1", daemon))
            .chain(others.map(|n| hv(n, Some(DaemonState::Dead))))
            .collect();
        let vm = Vm {
            id,
            name: "web1".parse().unwrap(),
            state: field(state),
            node: field("hv1".parse().unwrap()),
            last_node: field(None),
            failed_reason: field(String::new()),
            claim: field(claim),
            rbd_images: Vec::new(),
            xml_version: Some(0),
        };
        Facts {
            name: "web1".into(),
            id,
            entry: Entry::Good(vm),
            nodes,
            running: Runners {
                now: running.iter().map(|n| n.parse().unwrap()).collect(),
                before: Vec::new(),
            },
            said: None,
            definition: Ok(()),
            console_log: None,
        }
    }

    #[test]
    fn each_situation_has_its_sentence() {
        use VmState::{Delete, Failed, Restart, Shutdown, Start, Stop};
        let run = Some(DaemonState::Run);
        for (facts, expected) in [
            (facts(Start, "hv1", &["hv1"], run), "All is well: it runs on hv1, as asked."),
            (facts(Start, "", &[], run), "hv1 has not taken it up yet."),
            (facts(Start, "hv1", &[], run), "hv1 has claimed it and is about to start it."),
            (
                facts(Start, "", &[], Some(DaemonState::Stop)),
                "It is to run on hv1, but its daemon is stopped",
            ),
            (facts(Start, "hv1", &[], Some(DaemonState::Dead)), "It is to run on hv1, but the node is dead"),
            (facts(Start, "", &[], None), "It is to run on hv1, but there is no such node"),
            (
                facts(Start, "hv2", &[], run),
                "hv1 waits until hv2 no longer may be executing it. As for hv2, the node is dead",
            ),
            (
                facts(Start, "hv1 hv2", &["hv1", "hv2"], run),
                "It is reported by more than one node (hv1, hv2)",
            ),
            (facts(Restart, "hv1", &["hv1"], run), "hv1 has claimed it and is about to restart it."),
            (facts(Stop, "", &[], run), "All is well: it is off, as asked."),
            (facts(Stop, "hv1", &["hv1"], run), "hv1 is about to power it off."),
            (
                facts(Stop, "hv1", &[], Some(DaemonState::Dead)),
                "hv1 may still be executing it, but the node is dead",
            ),
            (facts(Shutdown, "hv1", &["hv1"], run), "hv1 waits for the guest to shut down."),
            (facts(Shutdown, "", &[], run), "It is off, and hv1 is about to say so."),
            (
                facts(Shutdown, "", &[], Some(DaemonState::Stop)),
                "It is off; hv1 would say so, but its daemon is stopped",
            ),
            (facts(Delete, "", &[], run), "It is off and about to be removed."),
            (facts(Failed, "", &[], run), "It failed: no reason is given."),
        ] {
            let sentence = conclude(&facts);
            assert!(sentence.starts_with(expected), "{facts:?}: {sentence}");
            assert!(sentence.ends_with('.'), "{sentence}");
        }
    }

    #[test]
    fn what_the_daemon_says_goes_before_what_can_be_guessed() {
        let mut facts = facts(VmState::Shutdown, "hv1", &["hv1"], Some(DaemonState::Run));
        facts.said = Some(Ok(Explanation {
            by: "hv1".into(),
            at_unix_s: 1,
            doing: "waiting for the guest to shut down".into(),
            because: "asked 2 times; power off in 61 s".into(),
            error: None,
        }));
        assert_eq!(
            conclude(&facts),
            "hv1 is waiting for the guest to shut down: asked 2 times; power off in 61 s."
        );
    }

    #[test]
    fn a_silent_node_is_not_believed() {
        let mut facts = facts(VmState::Start, "hv1", &["hv1"], Some(DaemonState::Run));
        facts.nodes[0].silent_s = Some(77);
        assert!(
            conclude(&facts).starts_with(
                "It was last seen running on hv1, but nothing has been heard of its daemon for 77 s"
            ),
            "{}",
            conclude(&facts)
        );
    }

    #[test]
    fn broken_keys_and_definitions_are_the_cause_that_is_named() {
        let mut broken = facts(VmState::Start, "", &[], Some(DaemonState::Run));
        broken.definition = Err("<uuid> is missing (line 1): add it".into());
        assert!(conclude(&broken).contains("<uuid> is missing"));
        broken.entry = Entry::Bad(vec![Problem { key: "/domains/x/state".into(), what: "rubbish".into() }]);
        assert!(conclude(&broken).starts_with("Nothing is done with this VM"));
    }
}
