use std::sync::Arc;

use super::*;
use crate::{
    command::testing::{field, id, name, node, view, vm},
    model::{Entry, Fence, FenceJob, FenceStep, Problem, Proof, Replaced, VmState},
};

const A: &str = "4c4c4544-0042-3510-8052-b4c04f564231";
const B: &str = "5d5d5655-1153-4621-9163-c5d15f675342";
/// What a vendor put into every board that it made.
const VENDORS: &str = "abababab-0000-1111-2222-333344445555";
const INSTALLED: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4";
const ANEW: &str = "4e232ad8d5d6515bbb207e3b59beaeb5";

/// A machine in a boot, with the UUID of its firmware and its machine-id, as far as it has them.
fn machine(uuid: Option<&str>, installation: Option<&str>, boot: &str) -> MachineRecord {
    MachineRecord {
        id: MachineId::of(uuid, None, None, installation),
        boot: boot.into(),
        host: "hv1".into(),
        since_unix_s: 1,
        replaced: None,
    }
}

fn claimed() -> Ties {
    Ties { words: vec!["it claims web1".into()] }
}

/// How it is decided where something claims the name, and where nothing does.
fn both(recorded: &Recorded, me: &MachineRecord, others: &[MachineRecord]) -> (Option<Taken>, Option<Taken>) {
    let taken = |ties: &Ties| match decide(recorded, me, others, Some(ties)) {
        Decision::Take(taken) => Some(taken),
        Decision::Refuse(_) => None,
        Decision::LookForTies => panic!("it was told"),
    };
    let (claimed, free) = (taken(&claimed()), taken(&Ties::default()));
    let asks = decide(recorded, me, others, None);
    assert_eq!(
        asks == Decision::LookForTies,
        claimed.is_none() && free.is_some(),
        "claims are looked for where they decide"
    );
    (claimed, free)
}

#[test]
fn who_may_have_a_name_that_a_machine_had() {
    use Taken::{InstalledAnew, Itself};
    let recorded = [(Some(A), Some(INSTALLED)), (Some(A), None), (None, Some(INSTALLED)), (None, None)];
    // By its firmware and its installation, in the boot that is recorded and in another: what it is where the name is claimed.
    // `None`: another machine.
    let table = [
        // Has both.
        (0, Some(A), Some(INSTALLED), Some(Itself), Some(Itself)),
        (0, Some(A), None, Some(Itself), Some(Itself)),
        (0, Some(A), Some(ANEW), None, Some(InstalledAnew)),
        // A cloned disk.
        (0, Some(B), Some(INSTALLED), None, None),
        (0, Some(B), Some(ANEW), None, None),
        (0, Some(B), None, None, None),
        // A cloned disk in a board without an id.
        (0, None, Some(INSTALLED), Some(Itself), None),
        (0, None, Some(ANEW), None, None),
        (0, None, None, Some(Itself), None),
        // Had firmware only.
        (1, Some(A), Some(INSTALLED), Some(Itself), Some(Itself)),
        (1, Some(A), None, Some(Itself), Some(Itself)),
        (1, Some(B), Some(INSTALLED), None, None),
        (1, None, Some(INSTALLED), Some(Itself), None),
        (1, None, None, Some(Itself), None),
        // Had no firmware to be known by, or is a container.
        (2, None, Some(INSTALLED), Some(Itself), Some(Itself)),
        (2, None, Some(ANEW), None, None),
        (2, None, None, Some(Itself), None),
        (2, Some(A), Some(INSTALLED), Some(Itself), None),
        (2, Some(A), Some(ANEW), None, None),
        // Had nothing.
        (3, None, None, Some(Itself), None),
        (3, None, Some(INSTALLED), Some(Itself), None),
        (3, Some(A), Some(INSTALLED), Some(Itself), None),
    ];
    for (had, uuid, installation, in_this_boot, in_another) in table {
        let had = machine(recorded[had].0, recorded[had].1, "b1");
        for (boot, expected) in [("b1", in_this_boot), ("b2", in_another)] {
            let me = machine(uuid, installation, boot);
            let decided = both(&Recorded::Machine(had.clone()), &me, &[]);
            let free = expected.unwrap_or(Taken::Unclaimed);
            assert_eq!(decided, (expected, Some(free)), "had {had:?}\nis {me:?}");
        }
    }
}

#[test]
fn a_name_that_no_machine_had_is_free_and_one_with_a_record_that_says_nothing_is_not() {
    let me = machine(Some(A), Some(INSTALLED), "b1");
    assert_eq!(both(&Recorded::Nobody, &me, &[]), (Some(Taken::First), Some(Taken::First)));
    assert_eq!(both(&Recorded::Unreadable, &me, &[]), (None, Some(Taken::Unclaimed)));
}

#[test]
fn serials_tell_machines_apart_that_have_one_uuid_and_a_chassis_alone_does_not_make_one_machine() {
    let with = |uuid: Option<&str>, board: Option<&str>, chassis: Option<&str>, boot: &str| MachineRecord {
        id: MachineId::of(uuid, board, chassis, Some(INSTALLED)),
        ..machine(None, None, boot)
    };
    let itself = Some(Taken::Itself);
    for (had, me, expected) in [
        (with(Some(A), Some("S1"), None, "b1"), with(Some(A), Some("S2"), None, "b2"), None),
        (with(Some(A), Some("S1"), None, "b1"), with(Some(A), None, None, "b2"), itself),
        (with(None, Some("S1"), None, "b1"), with(None, Some("S1"), None, "b2"), itself),
        (with(Some(A), None, Some("C1"), "b1"), with(Some(A), None, Some("C2"), "b2"), None),
        (with(Some(A), None, Some("C1"), "b1"), with(None, None, Some("C1"), "b2"), None),
    ] {
        assert_eq!(both(&Recorded::Machine(had.clone()), &me, &[]).0, expected, "{had:?} {me:?}");
    }
    // Two servers of one chassis, with two installations.
    let (had, mut me) = (with(None, None, Some("C1"), "b1"), with(None, None, Some("C1"), "b2"));
    me.id.machine_id = Some(ANEW.into());
    assert_eq!(both(&Recorded::Machine(had), &me, &[]).0, None);
}

#[test]
fn an_id_that_another_node_has_too_is_its_vendors_and_says_nothing() {
    let others = [machine(Some(VENDORS), Some(ANEW), "b9")];
    let had = Recorded::Machine(machine(Some(VENDORS), Some(INSTALLED), "b1"));
    let reinstalled = machine(Some(VENDORS), Some("5f343be9e6e7626ccc318f4c6acfbfc6"), "b2");
    assert_eq!(both(&had, &reinstalled, &[]).0, Some(Taken::InstalledAnew));
    assert_eq!(both(&had, &reinstalled, &others).0, None, "it may be any machine of that vendor");
    let rebooted = machine(Some(VENDORS), Some(INSTALLED), "b2");
    assert_eq!(both(&had, &rebooted, &others).0, Some(Taken::Itself));
}

#[test]
fn a_machine_that_was_said_to_be_gone_is_refused_until_it_has_rebooted_and_any_other_takes_its_name() {
    let word = Replaced { by: "an operator on desk".into(), at_unix_s: 7 };
    let had = MachineRecord { replaced: Some(word), ..machine(Some(A), Some(INSTALLED), "b1") };
    let had = Recorded::Machine(had);
    let gone = machine(Some(A), Some(INSTALLED), "b1");
    assert_eq!(both(&had, &gone, &[]), (None, None));
    let replacement = Some(Taken::Replacement);
    for me in [
        machine(Some(A), Some(INSTALLED), "b2"),
        machine(Some(A), Some(ANEW), "b2"),
        machine(Some(B), Some(INSTALLED), "b2"),
        machine(None, None, "b2"),
    ] {
        assert_eq!(both(&had, &me, &[]), (replacement, replacement), "{me:?}");
    }
}

#[test]
fn a_machine_knows_itself_in_its_boot_under_whatever_name() {
    let had = machine(Some(A), Some(INSTALLED), "b1");
    for (me, expected) in [
        (machine(Some(A), Some(INSTALLED), "b1"), true),
        (machine(Some(A), Some(INSTALLED), "b2"), false),
        (machine(Some(B), Some(INSTALLED), "b1"), false),
    ] {
        assert_eq!(is_this_boot(&had, &me), expected, "{me:?}");
    }
}

#[test]
fn a_refusal_says_which_machine_has_the_name_and_what_it_may_be_executing() {
    let had = Recorded::Machine(machine(Some(A), Some(INSTALLED), "b1"));
    let Decision::Refuse(refused) = decide(&had, &machine(Some(B), None, "b2"), &[], Some(&claimed())) else {
        panic!("it took the name");
    };
    let expected = format!("the name belongs to another machine, hv1 (hardware {A}), and it claims web1");
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn what_ties_a_name_to_its_machine() {
    use DaemonState::{Dead, Run, Stop};
    let fence = |step| {
        let job = FenceJob {
            step,
            instance: None,
            by: "hv2".into(),
            at_unix_s: 1,
            confirmed_dead: None,
            asked: None,
            boot: None,
            freed: std::collections::BTreeSet::new(),
            earlier: Vec::new(),
            keepalive_version: None,
        };
        Entry::Good(Fence { node: name("hv1"), job, version: 1, fencer: None })
    };
    let ties = |view: &ClusterView| Ties::of(&name("hv1"), view).to_string();
    let said = |state, running: &[u8]| {
        let mut node = node("hv1");
        node.daemon_state = field(state);
        node.report.running = running.iter().map(|n| id(*n)).collect();
        node
    };
    let free = "nothing claims it";
    assert_eq!(ties(&ClusterView::default()), free, "nobody knows it");
    assert_eq!(
        ties(&view(&[said(Run, &[])], &[vm(VmState::Start, ""), vm(VmState::Stop, "hv2")])),
        free,
        "a desired state is no claim"
    );
    assert_eq!(ties(&view(&[said(Stop, &[])], &[vm(VmState::Start, "hv1")])), "it claims web1");
    assert_eq!(ties(&view(&[said(Run, &[])], &[vm(VmState::Migrate, "hv2 hv1")])), "it claims web1");
    assert_eq!(ties(&view(&[said(Stop, &[1, 2])], &[])), "2 VM(s) ran on it by its last word");
    assert_eq!(ties(&view(&[said(Dead, &[1])], &[])), free, "what it said before its proven death is void");
    assert_eq!(
        ties(&view(&[said(Dead, &[1])], &[vm(VmState::Start, "hv1")])),
        "it claims web1",
        "nobody released it"
    );
    for step in [FenceStep::Shooting, FenceStep::Recovered { proof: Proof::PowerOff }] {
        let mut view = view(&[said(Dead, &[])], &[]);
        view.fences = Arc::new([(name("hv1"), fence(step))].into());
        assert_eq!(ties(&view), "its fence is not over");
    }
    let problem = || vec![Problem { key: "k".into(), what: "w".into() }];
    let mut spoilt = said(Run, &[]);
    spoilt.problems = vec![Problem { key: "/nodes/hv1/runningdomains".into(), what: "w".into() }];
    let mut unreadable = view(&[spoilt], &[]);
    unreadable.vms = Arc::new([(id(3), Arc::new(Entry::Bad(problem())))].into());
    let mut orphan = view(&[], &[]);
    orphan.orphan_claims = Arc::new([(id(4), Arc::new(Entry::Good(field("hv1".parse().unwrap()))))].into());
    assert_eq!(ties(&orphan), "it claims 1 VM(s) that somebody has undefined");
    unreadable.orphan_claims = Arc::new([(id(4), Arc::new(Entry::Bad(problem())))].into());
    assert_eq!(
        ties(&unreadable),
        "2 VM(s) cannot be read, whose claims may name it, its last word on what it runs cannot be read"
    );
}
