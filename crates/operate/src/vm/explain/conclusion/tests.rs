use pvc_core::model::{Claim, Explanation, Field, Problem};

use super::{super::Daemon, *};

fn field<T>(value: T) -> Field<T> {
    Field { value, version: Some(1), zxid: 1 }
}

/// A VM on hv1 in a state, with claimants, runners and the state of hv1's daemon.
fn facts(state: VmState, claim: &str, running: &[&str], daemon: Option<DaemonState>) -> Facts {
    let id = "11111111-0000-4000-8000-000000000001".parse().unwrap();
    let claim: Claim = claim.parse().unwrap();
    let hv = |node: &str, state| Daemon {
        node: node.parse().unwrap(),
        state,
        cannot_start: None,
        silent_s: None,
        fence: None,
        flush: None,
    };
    let others = claim.iter().map(NodeName::as_str).filter(|n| *n != "hv1");
    let nodes =
        std::iter::once(hv("hv1", daemon)).chain(others.map(|n| hv(n, Some(DaemonState::Dead)))).collect();
    let vm = Vm {
        id,
        name: "web1".parse().unwrap(),
        state: field(state),
        node: field("hv1".parse().unwrap()),
        last_node: field(None),
        failed_reason: field(String::new()),
        claim: field(claim),
        migration_method: pvc_core::model::MigrationMethod::default(),
        rbd_images: Vec::new(),
        xml_version: Some(0),
        xml_zxid: Some(0),
        unread: std::collections::BTreeSet::new(),
        problems: Vec::new(),
    };
    Facts {
        name: "web1".into(),
        id,
        entry: Entry::Good(vm),
        nodes,
        running: Runners {
            now: running.iter().map(|n| n.parse().unwrap()).collect(),
            before: Vec::new(),
            halted: None,
        },
        last_words: Vec::new(),
        said: None,
        definition: Ok(()),
        console_log: None,
        maintenance: false,
        could_go_to: None,
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
        (facts(Start, "", &[], Some(DaemonState::Stop)), "It is to run on hv1, but its daemon is stopped"),
        (facts(Start, "hv1", &[], Some(DaemonState::Dead)), "It is to run on hv1, but the node is dead"),
        (facts(Start, "", &[], None), "It is to run on hv1, but there is no such node"),
        (
            facts(Start, "hv2", &[], run),
            "hv1 waits until hv2 no longer may be executing it. As for hv2, the node is dead",
        ),
        (facts(Start, "hv1 hv2", &["hv1", "hv2"], run), "It is reported by more than one node (hv1, hv2)"),
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
fn the_last_word_of_another_node_is_told_with_what_helps_and_is_never_well() {
    use VmState::{Start, Stop};
    let with = |state, claim, running: &[&str], other: Option<DaemonState>| {
        let mut facts = facts(state, claim, running, Some(DaemonState::Run));
        let node = "hv2".parse().unwrap();
        let hv2 = Daemon { node, state: other, cannot_start: None, silent_s: None, fence: None, flush: None };
        facts.nodes.push(hv2);
        facts.last_words = vec!["hv2".parse().unwrap()];
        conclude(&facts)
    };
    let stopped = Some(DaemonState::Stop);
    let help = " If hv2 is off for certain: `pvc node confirm-dead hv2`.";
    let said = "hv2 said last that it runs it";
    let trouble = "and its daemon is stopped: start pvcd there";
    assert_eq!(
        with(Start, "hv1", &["hv1"], stopped),
        format!("It runs on hv1, but {said}, too, {trouble}. It may run twice: look at hv2 at once.{help}")
    );
    assert_eq!(
        with(Start, "", &[], stopped),
        format!(
            "hv1 does not start it: {said}, {trouble}. It waits until hv2 says otherwise or is proven dead.{help}"
        )
    );
    assert_eq!(with(Stop, "", &[], stopped), format!("{said}, {trouble}: it may still run there.{help}"));
    let ends = format!("{said}, and does not claim it: that should end within seconds.");
    assert!(with(Start, "hv1", &["hv1"], Some(DaemonState::Run)).starts_with(&ends));
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

#[test]
fn what_does_not_execute_is_told_before_what_its_daemon_says() {
    let mut facts = facts(VmState::Start, "hv1", &["hv1"], Some(DaemonState::Run));
    facts.running.halted = Some(("hv1".parse().unwrap(), pvc_core::model::Halt::IoError));
    let told = conclude(&facts);
    let expected = "It is on hv1 and does not execute: an I/O error of a disk has stopped it. To go on: once its storage works again, `virsh \
                    resume web1` on hv1";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(facts.running.words(), "hv1 (io-error)");
}

#[test]
fn a_migration_is_told_as_one() {
    let mut facts = facts(VmState::Migrate, "hv2", &["hv2"], Some(DaemonState::Run));
    assert!(conclude(&facts).starts_with("hv1 waits until hv2"), "{}", conclude(&facts));
    facts.nodes[1].state = Some(DaemonState::Run);
    assert_eq!(conclude(&facts), "It is migrating from hv2 to hv1.");
}

#[test]
fn of_a_dead_nodes_vm_its_fence_and_its_disks_are_told() {
    let mut facts = facts(VmState::Start, "hv1", &[], Some(DaemonState::Dead));
    facts.nodes[0].fence = Some("its power is being cut".into());
    let fenced = "It is to run on hv1, but the node is dead and being fenced: its power is being cut.";
    assert_eq!(conclude(&facts), fenced);
    let Entry::Good(vm) = &mut facts.entry else { unreachable!() };
    vm.rbd_images = vec!["vms/web1".into()];
    let disks = " It has RBD disks: it is not started elsewhere before hv1 is shut out of the storage.";
    assert_eq!(conclude(&facts), format!("{fenced}{disks}"));
}

#[test]
fn a_node_that_can_start_nothing_is_the_reason_and_what_happens_next_is_said() {
    let with = |claim, running: &[&str], elsewhere: Result<&str, &str>| {
        let mut facts = facts(VmState::Start, claim, running, Some(DaemonState::Run));
        facts.nodes[0].cannot_start = Some("no libvirt".into());
        facts.could_go_to = Some(elsewhere.map(|n| n.parse().unwrap()).map_err(str::to_owned));
        conclude(&facts)
    };
    assert_eq!(
        with("", &[], Ok("hv2")),
        "It is to run on hv1, which can start no VMs: no libvirt. If that lasts for 30 s, it starts on another node, such as hv2."
    );
    assert_eq!(
        with("", &[], Err("no node can take it")),
        "It is to run on hv1, which can start no VMs: no libvirt. It waits, since no node can take it."
    );
    assert!(with("hv1", &[], Ok("hv2")).contains("It is not started elsewhere"));
    assert!(
        with("hv1", &["hv1"], Ok("hv2")).starts_with("All is well"),
        "{}",
        with("hv1", &["hv1"], Ok("hv2"))
    );
}
