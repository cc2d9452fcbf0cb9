use pvc_core::model::{Explanation, FenceJob, Field, FlushProgress, Problem, Proof, Word};

use super::*;
use crate::{node::Vms, testing};

fn field<T>(value: T) -> Field<T> {
    Field { value, version: Some(1), zxid: 1 }
}

/// hv1, which works and takes VMs.
fn facts(state: DaemonState) -> Facts {
    let mut node = testing::node("hv1");
    node.daemon_state = field(state);
    Facts {
        node,
        silent_s: None,
        connected: true,
        maintenance: false,
        primary_asked: None,
        primary: None,
        fence: None,
        flush: None,
        said: None,
        as_primary: None,
        unfit: None,
        reserved_mib: 0,
        vms: Vms::default(),
    }
}

fn fenced(step: FenceStep, confirmed_dead: bool) -> Facts {
    let job = FenceJob {
        step,
        instance: None,
        by: "hv2".into(),
        at_unix_s: 1,
        confirmed_dead: confirmed_dead.then(|| Word { by: "an operator".into(), at_unix_s: 1 }),
        asked: None,
        boot: Some("boot".into()),
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
        keepalive_version: None,
    };
    let fencer = Some("hv2".parse().unwrap());
    let fence = Fence { node: "hv1".parse().unwrap(), job, version: 1, fencer };
    Facts { fence: Some(Entry::Good(fence)), ..facts(DaemonState::Dead) }
}

fn domains(state: DomainState) -> Facts {
    let mut facts = facts(DaemonState::Run);
    facts.node.domain_state = field(state);
    facts
}

#[test]
fn each_situation_has_its_sentence() {
    use DaemonState::{Dead, Init, Run, Shutdown, Stop};
    let failed = || FenceStep::Failed { reason: "no route".into(), attempts: 2 };
    let claims = |n: usize| Vms { claimed: vec!["web".into(); n], ..Vms::default() };
    let progress = FlushProgress { total: 4, left: 3, ..FlushProgress::default() };
    let broken = |state| {
        let mut facts = facts(state);
        facts.node.problems = vec![Problem { key: "/nodes/hv1/memfree".into(), what: "rubbish".into() }];
        facts
    };
    let table = vec![
        (facts(Run), "All is well: it works and takes VMs."),
        (facts(Init), "Its daemon is starting."),
        (facts(Shutdown), "Its daemon is stopping in order"),
        (facts(Stop), "Its daemon is stopped: start pvcd there. It claims no VMs."),
        (
            Facts { vms: claims(2), ..facts(Stop) },
            "Its daemon is stopped: start pvcd there. Its 2 VM(s) execute on without it",
        ),
        (facts(Dead), "It was fenced, and its VMs were taken care of."),
        (Facts { vms: claims(1), ..facts(Dead) }, "It is dead, and 1 VM(s) are still claimed by it"),
        (
            Facts { silent_s: Some(40), ..facts(Run) },
            "Look at it: nothing has been heard of its daemon for 40 s",
        ),
        (
            Facts { silent_s: Some(40), maintenance: true, ..facts(Run) },
            "Probably nothing has been heard of its daemon for 40 s (by its clock and this machine's); it is not fenced",
        ),
        (fenced(FenceStep::Shooting, false), "It is being fenced: its power is being cut."),
        (
            fenced(failed(), false),
            "It is silent and its power could not be cut in 2 attempt(s): no route. Nothing of it is touched",
        ),
        (fenced(failed(), true), "An operator says that it is dead: its VMs are recovered once"),
        (
            fenced(FenceStep::Recovered { proof: Proof::PowerOff }, false),
            "It is being fenced: its BMC reports power off",
        ),
        (Facts { maintenance: true, ..fenced(failed(), false) }, "It is to be fenced, but maintenance is on"),
        (domains(DomainState::Flushed), "It works and takes no VMs, as asked: `pvc node ready hv1`"),
        (domains(DomainState::Unflush), "It is taking its VMs back."),
        (
            Facts { flush: Some(Ok(progress)), ..domains(DomainState::Flush) },
            "It is sending its VMs away. 3 of 4 are left.",
        ),
        (broken(Run), "It is given no VMs until the broken keys above are put right"),
        (broken(Dead), "It was fenced, and its VMs were taken care of."),
        (
            Facts { fence: Some(Entry::Bad(Vec::new())), ..facts(Run) },
            "The record of its fence cannot be read",
        ),
    ];
    for (facts, expected) in table {
        let sentence = conclude(&facts);
        assert!(sentence.starts_with(expected), "{sentence}");
        assert!(sentence.ends_with(['.', '`']), "{sentence}");
    }
}

#[test]
fn what_the_daemon_says_goes_before_what_can_be_guessed() {
    let said = Explanation {
        by: "hv1".into(),
        at_unix_s: 1,
        doing: "flushing".into(),
        because: "2 VMs wait for room".into(),
        error: Some("no route".into()),
    };
    let facts = Facts { said: Some(Ok(said)), ..domains(DomainState::Flush) };
    assert_eq!(conclude(&facts), "hv1 is flushing: 2 VMs wait for room. The last attempt failed: no route.");
}
