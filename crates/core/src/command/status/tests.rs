use std::sync::Arc;

use super::*;
use crate::{
    command::testing::{field, id, name, node, view, vm},
    model::{BmcWord, DomainState, Entry, Fence, FenceJob, FenceStep, Field, Problem, Proof, VmId, Word},
    plan::placement::Overcommitted,
};

/// Everything well: three coordinators, hv1 primary, web1 on hv1.
fn well() -> ClusterView {
    let mut nodes = [node("hv1"), node("hv2"), node("hv3")];
    nodes[0].report.running = vec![id(1)];
    nodes[0].report.mem_alloc_mib = 100;
    let mut view = view(&nodes, &[vm(VmState::Start, "hv1")]);
    view.primary_node = field(Some(name("hv1")));
    view.primary_holder = Some(name("hv1"));
    view
}

fn change(view: &mut ClusterView, node: &str, how: impl Fn(&mut Node)) {
    let mut changed = view.node(&name(node)).unwrap().clone();
    how(&mut changed);
    Arc::make_mut(&mut view.nodes).insert(name(node), Arc::new(changed));
}

fn add(view: &mut ClusterView, number: u8, called: &str, state: VmState) -> VmId {
    let mut added = vm(state, "");
    (added.id, added.name) = (id(number), called.parse().unwrap());
    Arc::make_mut(&mut view.vms).insert(added.id, Arc::new(Entry::Good(added)));
    id(number)
}

fn status(view: &ClusterView) -> Status {
    survey(facts(view))
}

fn facts(view: &ClusterView) -> Facts<'_> {
    const NO_FLUSHES: &BTreeMap<NodeName, FlushProgress> = &BTreeMap::new();
    const NOBODY: &BTreeMap<NodeName, u64> = &BTreeMap::new();
    const NONE: &BTreeMap<VmId, String> = &BTreeMap::new();
    const COMPLETE: &BTreeSet<VmId> = &BTreeSet::new();
    const UNASKED: &BTreeMap<NodeName, BmcReport> = &BTreeMap::new();
    const NO_TROUBLES: &BTreeMap<NodeName, Vec<Trouble>> = &BTreeMap::new();
    const ENOUGH: &Reserve = &Reserve { overcommitted: Vec::new(), not_absorbed: Vec::new() };
    Facts {
        view,
        flushes: NO_FLUSHES,
        silent_s: NOBODY,
        damaged: NONE,
        bare: COMPLETE,
        bmcs: UNASKED,
        reserve: ENOUGH,
        networks: NO_TROUBLES,
        primary_says: None,
    }
}

/// What is found, the level as `!` or `-`.
fn found(status: &Status) -> Vec<String> {
    let mark = |level| if level == Level::Wrong { "!" } else { "-" };
    status.findings.iter().map(|f| format!("{} {}", mark(f.level), f.what)).collect()
}

#[test]
fn a_cluster_that_is_well_is_only_counted() {
    let status = status(&well());
    assert_eq!(found(&status), Vec::<String>::new());
    assert_eq!(status.primary, Some(name("hv1")));
    let expected = Totals {
        nodes: Count { well: 3, of: 3 },
        nodes_ready: 3,
        coordinators: Count { well: 3, of: 3 },
        vms: Count { well: 1, of: 1 },
        memory_mib: 3000,
        memory_allocated_mib: 100,
        ..Totals::default()
    };
    assert_eq!(status.totals, expected);
}

#[test]
fn sums_that_are_too_large_are_the_largest_number() {
    let mut view = well();
    for node in ["hv1", "hv2"] {
        change(&mut view, node, |node| {
            (node.report.mem_total_mib, node.report.mem_alloc_mib) = (u64::MAX, u64::MAX - 1);
        });
    }
    let totals = status(&view).totals;
    assert_eq!((totals.memory_mib, totals.memory_allocated_mib), (u64::MAX, u64::MAX));
}

#[test]
fn what_is_wrong_stands_before_what_goes_on() {
    let mut view = well();
    view.maintenance = true;
    change(&mut view, "hv1", |n| n.domain_state = field(DomainState::Flush));
    change(&mut view, "hv3", |n| n.daemon_state = field(DaemonState::Dead));
    add(&mut view, 2, "broke", VmState::Failed);
    add(&mut view, 3, "late", VmState::Start);
    let flushes =
        [(name("hv1"), FlushProgress { total: 5, left: 3, moving: 2, ..FlushProgress::default() })].into();
    let status = survey(Facts { flushes: &flushes, ..facts(&view) });
    assert_eq!(
        found(&status),
        [
            "! hv3 is dead",
            "! VM broke has failed",
            "! VM late is to run and is not seen running",
            "- hv1 is sending its VMs away: 3 of 5 VMs left, 2 moving",
            "- maintenance is on: nobody is fenced, no watchdog is armed",
        ]
    );
    assert_eq!(status.findings[1].todo.as_deref(), Some("pvc vm explain broke"));
    assert_eq!((status.totals.nodes.well, status.totals.vms), (2, Count { well: 1, of: 2 }));
}

#[test]
fn each_trouble_has_its_words() {
    type Trouble = (fn(&mut ClusterView), &'static str);
    let troubles: [Trouble; 12] = [
        (
            |v| change(v, "hv2", |n| n.daemon_state = field(DaemonState::Stop)),
            "! the daemon of hv2 is stopped",
        ),
        (
            |v| change(v, "hv2", |n| n.daemon_state = field(DaemonState::Init)),
            "- the daemon of hv2 is starting",
        ),
        (
            |v| change(v, "hv2", |n| n.domain_state = field(DomainState::Flushed)),
            "- hv2 takes no VMs: it is flushed",
        ),
        (
            |v| change(v, "hv1", |n| n.domain_state = field(DomainState::Flushed)),
            "- hv1 takes no VMs: it is flushed, and 1 VM(s) still run on it",
        ),
        (
            |v| change(v, "hv2", |n| n.report.running = vec![id(1)]),
            "! VM web1 is reported by more than one node",
        ),
        (
            |v| {
                change(v, "hv1", |n| n.report.running.clear());
                change(v, "hv2", |n| n.report.running = vec![id(1)]);
            },
            "! VM web1 runs elsewhere than asked",
        ),
        (
            |v| {
                let stopped = add(v, 2, "off", VmState::Stop);
                change(v, "hv1", |n| n.report.running.push(stopped));
            },
            "- VM off is to be off and still runs",
        ),
        (
            |v| {
                add(v, 2, "moving", VmState::Migrate);
            },
            "- VM moving is migrating, restarting or shutting down",
        ),
        (|v| v.primary_holder = None, "! nobody is primary: hv1 is to be"),
        (|v| v.primary_node = field(None), "- hv1 is stepping down as primary"),
        (
            |v| v.primary_node = field(Some(name("hv2"))),
            "- hv2 is to become primary, hv1 holds the floating addresses",
        ),
        (
            |v| v.strays = Arc::new(vec![Problem { key: "/domains/x".into(), what: "no UUID".into() }]),
            "! broken key /domains/x: no UUID",
        ),
    ];
    for (trouble, words) in troubles {
        let mut view = well();
        trouble(&mut view);
        assert_eq!(found(&status(&view)), [words]);
    }
}

#[test]
fn what_a_node_that_does_not_answer_may_be_executing_is_never_well() {
    let stopped = |v: &mut ClusterView, running: Vec<VmId>| {
        change(v, "hv3", |n| {
            n.daemon_state = field(DaemonState::Stop);
            n.report.running.clone_from(&running);
            n.last_word.zxid = 50;
        });
    };
    let claimed = |v: &mut ClusterView, vm: VmId, claim: &str, zxid| {
        let mut found = v.vm(vm).unwrap().clone();
        found.claim = Field { zxid, ..field(claim.parse().unwrap()) };
        Arc::make_mut(&mut v.vms).insert(vm, Arc::new(Entry::Good(found)));
    };
    let silence = "! the daemon of hv3 is stopped".to_owned();
    // `node2,node1?`: it runs where it shall, and where somebody said last that it does.
    let twice = "! VM web1 is reported by more than one node".to_owned();
    for (claim, zxid, said) in [("", 40, true), ("hv1", 40, true), ("hv1", 60, false), ("", 60, false)] {
        let mut view = well();
        stopped(&mut view, vec![id(1)]);
        claimed(&mut view, id(1), claim, zxid);
        assert_eq!(found(&status(&view)).contains(&twice), said, "{claim:?} {zxid}");
    }
    let off = "! VM off is to be off and may still run on a node that does not answer".to_owned();
    for (claim, running) in [("", vec![id(2)]), ("hv3", vec![])] {
        let mut view = well();
        add(&mut view, 2, "off", VmState::Stop);
        claimed(&mut view, id(2), claim, 40);
        stopped(&mut view, running);
        assert_eq!(found(&status(&view)), [silence.clone(), off.clone()], "{claim:?}");
    }
}

#[test]
fn the_claim_on_a_vm_that_is_not_defined_any_more_is_told_until_it_is_given_up() {
    let gone = format!("VM {} is not defined any more, and", id(9));
    let with = |claim: &str| {
        let mut view = well();
        let entry = Entry::Good(field(claim.parse().unwrap()));
        view.orphan_claims = Arc::new([(id(9), Arc::new(entry))].into());
        view
    };
    assert_eq!(found(&status(&with(""))), Vec::<String>::new());
    assert_eq!(found(&status(&with("hv2"))), [format!("- {gone} hv2 is about to give up its claim")]);
    let mut runs = with("hv2");
    change(&mut runs, "hv2", |n| n.report.running = vec![id(9)]);
    assert_eq!(found(&status(&runs)), [format!("! {gone} runs on hv2")]);
    change(&mut runs, "hv2", |n| n.daemon_state = field(DaemonState::Stop));
    let unheard = status(&runs);
    assert_eq!(found(&unheard)[1], format!("! {gone} may still run on hv2, which does not answer"));
    assert_eq!(unheard.findings[1].todo, Some(format!("pvc vm explain {}", id(9))));
}

#[test]
fn what_runs_and_nobody_in_the_tree_knows_of_is_told() {
    let mut view = well();
    change(&mut view, "hv2", |n| n.report.running = vec![id(8), id(9)]);
    change(&mut view, "hv3", |n| n.report.running = vec![id(9)]);
    let told = status(&view);
    let both = format!("VMs {} and {}", id(8), id(9));
    assert_eq!(found(&told), [format!("! {both} run on hv2, hv3 and are not in the state tree")]);
    assert_eq!(told.findings[0].todo, Some(format!("pvc vm explain {}", id(8))));
    let mut view = well();
    change(&mut view, "hv3", |n| {
        n.report.running = vec![id(9)];
        n.daemon_state = field(DaemonState::Stop);
    });
    let last =
        format!("! VM {} was last seen on hv3, which does not answer, and is not in the state tree", id(9));
    assert!(found(&status(&view)).contains(&last), "{:?}", found(&status(&view)));
    change(&mut view, "hv3", |n| n.daemon_state = field(DaemonState::Dead));
    assert_eq!(found(&status(&view)), ["! hv3 is dead"], "its guests ended with it");
    // After a wiped tree there may be hundreds.
    let mut view = well();
    change(&mut view, "hv2", |n| n.report.running = (10..90).map(id).collect());
    assert!(found(&status(&view))[0].ends_with("and 75 more run on hv2 and are not in the state tree"));
}

#[test]
fn a_definition_is_told_to_be_damaged_while_its_vm_is_well() {
    let damaged = [(id(1), "there is no XML element".to_owned()), (id(5), "of a VM that is gone".to_owned())];
    let view = well();
    let told = survey(Facts { damaged: &damaged.into(), ..facts(&view) });
    let what = "! VM web1 has a definition that is damaged or missing, and could not be started again";
    assert_eq!(found(&told), [what]);
    assert_eq!(told.findings[0].todo.as_deref(), Some("pvc vm explain web1"));
}

#[test]
fn what_does_not_execute_is_not_well() {
    for (halt, told) in [
        (Halt::IoError, "! VM web1 is stopped by an I/O error"),
        (Halt::Crashed, "! VM web1 has crashed"),
        (Halt::Paused, "- VM web1 is paused"),
        (Halt::Asleep, "- VM web1 sleeps"),
    ] {
        let mut view = well();
        change(&mut view, "hv1", |n| n.report.halted = vec![(id(1), halt)]);
        let status = status(&view);
        assert_eq!((found(&status), status.totals.vms), (vec![told.to_owned()], Count { well: 0, of: 1 }));
    }
}

#[test]
fn what_failed_runs_elsewhere_or_may_still_run_is_not_counted_as_asked() {
    let mut view = well();
    add(&mut view, 2, "off", VmState::Stop);
    add(&mut view, 3, "broke", VmState::Failed);
    let stays = add(&mut view, 4, "stays", VmState::Stop);
    let strays = add(&mut view, 5, "strays", VmState::Start);
    change(&mut view, "hv2", |n| n.report.running = vec![strays]);
    change(&mut view, "hv3", |n| {
        n.report.running = vec![stays];
        n.last_word.zxid = 50;
        n.daemon_state = field(DaemonState::Stop);
    });
    let totals = status(&view).totals;
    assert_eq!((totals.vms, totals.vms_off, totals.vms_failed), (Count { well: 1, of: 2 }, 1, 1));
}

#[test]
fn a_fence_is_told_with_its_step_and_who_works_on_it() {
    let words = |step: FenceStep, confirmed_dead: bool| {
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
        let mut view = well();
        let fence = Fence { node: name("hv3"), job, version: 1, fencer: Some(name("hv2")) };
        view.fences = Arc::new([(name("hv3"), Entry::Good(fence))].into());
        found(&status(&view)).remove(0)
    };
    let failed = || FenceStep::Failed { reason: "no route".into(), attempts: 2 };
    assert_eq!(words(FenceStep::Shooting, false), "- hv3 is being fenced by hv2: its power is being cut");
    assert_eq!(
        words(failed(), false),
        "! hv3 is being fenced by hv2: its power could not be cut in 2 attempt(s): no route"
    );
    assert!(words(failed(), true).starts_with("- "), "somebody has answered that");
    let proven = words(FenceStep::Proven { proof: Proof::PowerOff }, false);
    assert_eq!(
        proven,
        "- hv3 is being fenced by hv2: its BMC reports power off; its storage clients are being shut out"
    );
}

#[test]
fn a_missing_quorum_is_the_first_thing_said() {
    let mut view = well();
    for hv in ["hv2", "hv3"] {
        change(&mut view, hv, |n| n.daemon_state = field(DaemonState::Dead));
    }
    assert_eq!(
        found(&status(&view))[0],
        "! only 1 of 3 coordinators work: one more failure may end the state store"
    );
    let silent = [(name("hv1"), 40)].into();
    let quiet = survey(Facts { silent_s: &silent, ..facts(&view) });
    assert_eq!(found(&quiet)[0], "! no coordinator works: nobody is fenced, nobody is primary");
    assert!(found(&quiet).contains(&"! hv1 has been silent for 40 s".to_owned()));
    assert_eq!(found(&status(&ClusterView::default()))[0], "! there is no coordinator");
}

#[test]
fn many_vms_in_one_trouble_are_one_line() {
    let mut view = well();
    for number in 2..=9 {
        add(&mut view, number, &format!("vm{number}"), VmState::Failed);
    }
    assert_eq!(found(&status(&view)), ["! VMs vm2, vm3, vm4, vm5, vm6 and 3 more have failed"]);
    let names = |n: usize| (1..=n).map(|i| format!("v{i}")).collect::<Vec<_>>();
    assert_eq!((listed(&names(1)), listed(&names(3))), ("VM v1".into(), "VMs v1, v2 and v3".into()));
}

#[test]
fn what_the_primary_says_is_the_matter_is_wrong_while_it_is_primary() {
    let mut view = well();
    let said = Explanation {
        by: "hv1".into(),
        at_unix_s: 1,
        doing: "primary coordinator".into(),
        because: "primary with trouble".into(),
        error: Some("API: did not start within 10 s".into()),
    };
    let found_with = |view: &ClusterView, said: &Explanation| {
        found(&survey(Facts { primary_says: Some(said), ..facts(view) }))
    };
    let trouble = "! hv1 is primary with trouble: API: did not start within 10 s".to_owned();
    view.primary_holder = Some(name("hv1"));
    assert!(found_with(&view, &said).contains(&trouble));
    assert!(!found_with(&view, &Explanation { error: None, ..said.clone() }).contains(&trouble));
    view.primary_holder = Some(name("hv2"));
    assert!(!found_with(&view, &said).contains(&trouble), "hv1 is primary no more");
}

#[test]
fn a_bmc_that_cannot_be_used_is_told_while_its_node_lives() {
    let view = well();
    let report = |host: &str, word: BmcWord| BmcReport {
        word,
        host: host.into(),
        by: "hv1".into(),
        at_unix_s: 0,
        on_in_boot: None,
    };
    let refused = BmcWord::WrongCredentials { why: "the BMC lom2 refuses user admin: bad password".into() };
    let said = |word: BmcWord| {
        let bmcs = [(name("hv1"), report("lom1", BmcWord::On)), (name("hv2"), report("lom2", word))].into();
        found(&survey(Facts { bmcs: &bmcs, ..facts(&view) }))
    };
    assert_eq!(said(BmcWord::On), Vec::<String>::new());
    assert_eq!(
        said(refused),
        ["! hv2 cannot be fenced if it dies: the BMC lom2 refuses user admin: bad password"]
    );
    assert_eq!(said(BmcWord::NotConfigured), ["- hv2 cannot be fenced if it dies: it has no BMC configured"]);
    assert!(said(BmcWord::Elsewhere)[0].contains("it is another machine's"));
    let same =
        [(name("hv1"), report("lom1", BmcWord::On)), (name("hv2"), report("LOM1", BmcWord::On))].into();
    assert_eq!(
        found(&survey(Facts { bmcs: &same, ..facts(&view) })),
        ["! hv1 and hv2 name the same BMC, lom1: fencing one may switch off another"]
    );
}

#[test]
fn memory_that_a_nodes_death_would_take_is_told() {
    let view = well();
    let over = Overcommitted { node: name("hv2"), reserved_mib: 1200, total_mib: 1000 };
    let reserve = Reserve { overcommitted: vec![over], not_absorbed: vec![(name("hv1"), vec![id(1)])] };
    assert_eq!(
        found(&survey(Facts { reserve: &reserve, ..facts(&view) })),
        [
            "! the VMs of hv2 may take 1200 MiB of memory, it has 1000",
            "- if hv1 dies, no node has room for VM web1"
        ]
    );
}

#[test]
fn troubles_of_networks_are_counted_and_lead_to_their_explanation() {
    let mut view = well();
    let vni = "100".parse().unwrap();
    let network = crate::model::Network { description: "web".into(), ..crate::model::Network::bare(vni) };
    view.networks = Arc::new([(vni, Arc::new(network))].into());
    let refused = Trouble::of(vni, "a rule is refused");
    let gone = Trouble::of("101".parse().unwrap(), "of one that is not there");
    let away = Trouble::of_all("the database is away").with_todo("see to it");
    let networks = BTreeMap::from([
        (name("hv1"), vec![away, refused.clone(), gone]),
        (name("hv2"), vec![refused, Trouble::of(vni, "its bridge cannot be made")]),
    ]);
    let status = survey(Facts { networks: &networks, ..facts(&view) });
    assert_eq!(
        found(&status),
        ["! client networks on hv1: the database is away", "! network 100 (web) has 2 troubles on hv1, hv2"]
    );
    let todos: Vec<_> = status.findings.iter().filter_map(|found| found.todo.as_deref()).collect();
    assert_eq!(todos, ["see to it", "pvc network explain 100"]);
}
