//! The rules of protocols.md section 6, one case each.

mod after_the_proof;
mod one_at_a_time;
mod renewal;
mod stopped;

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    command::testing::{field, heard, id, name, node, vm},
    model::{FenceJob, NodeReport, Problem, Vm, VmState, Word},
    plan::placement::Size,
};

const SETTINGS: Settings = Settings {
    keepalive: Duration::from_secs(5),
    fence_intervals: 6,
    successful: Action::Migrate,
    failed: Action::Nothing,
};

/// A cluster as coordinator `a` sees it at second 1000, which it has watched for ten minutes.
struct Case {
    nodes: Vec<(Node, u64)>,
    vms: Vec<Vm>,
    fences: Vec<Fence>,
    maintenance: bool,
    settings: Settings,
    storage: bool,
    sizes: Sizes,
    attempts: Attempts,
    now: u64,
}

/// Coordinators of the given names, each silent for so many seconds.
fn case(nodes: &[(&str, u64)]) -> Case {
    Case {
        nodes: nodes.iter().map(|(n, silence)| (node(n), *silence)).collect(),
        vms: Vec::new(),
        fences: Vec::new(),
        maintenance: false,
        settings: SETTINGS,
        storage: false,
        sizes: Sizes::new(),
        attempts: Attempts::default(),
        now: 1000,
    }
}

impl Case {
    fn node(&mut self, name: &str) -> &mut Node {
        &mut self.nodes.iter_mut().find(|(n, _)| n.name.as_str() == name).unwrap().0
    }

    fn view(&self) -> ClusterView {
        let nodes = self.nodes.iter().map(|(n, _)| (n.name.clone(), Arc::new(n.clone())));
        let vms = self.vms.iter().map(|vm| (vm.id, Arc::new(Entry::Good(vm.clone()))));
        let fences = self.fences.iter().map(|f| (f.node.clone(), Entry::Good(f.clone())));
        ClusterView {
            nodes: Arc::new(nodes.collect()),
            vms: Arc::new(vms.collect()),
            fences: Arc::new(fences.collect()),
            maintenance: self.maintenance,
            ..ClusterView::default()
        }
    }

    /// What `a` measured: every second, with a change of version where a silence began.
    fn liveness(&self) -> Liveness {
        let mut liveness = Liveness::new(SETTINGS.keepalive);
        let view = self.view();
        for second in self.now - 600..=self.now {
            let mut seen = view.clone();
            let nodes = Arc::make_mut(&mut seen.nodes);
            for (node, silence) in &self.nodes {
                if second + silence < self.now {
                    let earlier = Node { keepalive_version: Some(-1), ..node.clone() };
                    nodes.insert(node.name.clone(), Arc::new(earlier));
                }
            }
            let now = Moment::secs(second);
            liveness.observe(&seen, &heard(&seen, now), true, now);
        }
        liveness
    }

    fn plan(&self, about: &str) -> Plan {
        self.plan_of(about, &self.liveness())
    }

    fn plan_of(&self, about: &str, liveness: &Liveness) -> Plan {
        plan(
            &name(about),
            &Facts {
                me: &name("a"),
                view: &self.view(),
                view_is_current: true,
                liveness,
                settings: &self.settings,
                sizes: &self.sizes,
                storage: self.storage,
                attempts: &self.attempts,
                now: Moment::secs(self.now),
            },
        )
    }

    fn next(&self, about: &str) -> Next {
        self.plan(about).next
    }

    fn recovers(&self, about: &str) -> bool {
        matches!(self.next(about), Next::Do(Step::Recover(_)))
    }

    /// `x` is declared dead, and `a` works on it.
    fn with_job(mut self, step: FenceStep) -> Self {
        self.node("x").daemon_state = field(DaemonState::Dead);
        self.fences.push(fence("x", step));
        self.attempts.taken();
        self.attempts.proven_no_sooner_than(Moment::secs(self.now));
        self
    }

    /// Nobody holds the job.
    fn left_to_others(mut self) -> Self {
        self.fences[0].fencer = None;
        self
    }
}

fn fence(node: &str, step: FenceStep) -> Fence {
    Fence {
        node: name(node),
        job: FenceJob {
            step,
            instance: None,
            by: "a".into(),
            at_unix_s: 0,
            confirmed_dead: None,
            asked: None,
            boot: Some("boot".into()),
            freed: std::collections::BTreeSet::new(),
            earlier: Vec::new(),
            keepalive_version: Some(3),
        },
        version: 2,
        fencer: Some(name("a")),
    }
}

fn word() -> Word {
    Word { by: "an operator".into(), at_unix_s: 0 }
}

fn failed() -> FenceStep {
    FenceStep::Failed { reason: "no answer".into(), attempts: 1 }
}

fn proven() -> FenceStep {
    FenceStep::Proven { proof: Proof::PowerOff }
}

fn waits(plan: &Plan, word: &str) -> bool {
    matches!(plan.next, Next::Wait(_)) && plan.why.contains(word)
}

const DECLARE: Next = Next::Do(Step::Declare);

#[test]
fn a_node_that_works_is_declared_dead_after_the_configured_silence_and_not_before() {
    assert_eq!(case(&[("a", 0), ("b", 1), ("x", 30)]).next("x"), DECLARE);
    let earlier = case(&[("a", 0), ("b", 1), ("x", 29)]).next("x");
    assert_eq!(earlier, Next::Wait(Some(Moment::secs(1001))), "looked at exactly then");
}

#[test]
fn a_node_is_missed_that_works_or_is_on_its_way_to_or_from_it() {
    for (state, next) in [
        (DaemonState::Init, DECLARE),
        (DaemonState::Run, DECLARE),
        (DaemonState::Shutdown, DECLARE),
        (DaemonState::Stop, Next::Settled),
        (DaemonState::Dead, Next::Settled),
    ] {
        let mut c = case(&[("a", 0), ("b", 1), ("x", 500)]);
        c.node("x").daemon_state = field(state);
        assert_eq!(c.next("x"), next, "{state}");
    }
}

#[test]
fn a_node_whose_keys_cannot_be_read_is_fenced_like_any_other() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 30)]);
    let problem = |key: &str| Problem { key: format!("/nodes/x/{key}"), what: "rubbish".into() };
    c.node("x").problems = vec![problem("memfree"), problem("daemonstate")];
    assert_eq!(c.next("x"), DECLARE);
    let mut c = c.with_job(FenceStep::Shooting);
    c.node("x").daemon_state = field(DaemonState::Dead);
    assert_eq!(c.next("x"), Next::Do(Step::Shoot), "also if a key is spoilt in the middle");
}

#[test]
fn nobody_is_fenced_where_fencing_is_disabled_or_maintenance_is_on_or_the_view_is_old() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 500)]);
    c.maintenance = true;
    assert!(waits(&c.plan("x"), "maintenance"));
    c.maintenance = false;
    c.settings.fence_intervals = 0;
    assert_eq!(c.next("x"), Next::Settled);
    c.settings = SETTINGS;
    let old = Facts {
        me: &name("a"),
        view: &c.view(),
        view_is_current: false,
        liveness: &c.liveness(),
        settings: &SETTINGS,
        storage: false,
        sizes: &Sizes::new(),
        attempts: &Attempts::default(),
        now: Moment::secs(1000),
    };
    assert_eq!(plan(&name("x"), &old).next, Next::Wait(None));
}

#[test]
fn a_node_never_fences_itself_and_a_hypervisor_nobody() {
    assert_eq!(case(&[("a", 500), ("b", 0)]).next("a"), Next::Settled);
    let mut c = case(&[("a", 0), ("b", 0), ("x", 500)]);
    c.node("a").mode = DaemonMode::Hypervisor;
    assert_eq!(c.next("x"), Next::Settled);
}

#[test]
fn if_more_than_half_of_the_others_are_silent_nobody_is_fenced() {
    let c = case(&[("a", 0), ("b", 1), ("c", 31), ("d", 33), ("x", 30)]);
    assert!(waits(&c.plan("x"), "3 of 4 other nodes are silent"));
    assert_eq!(case(&[("a", 0), ("b", 1), ("c", 1), ("d", 33), ("x", 30)]).next("x"), DECLARE);
}

#[test]
fn those_who_would_be_suspected_within_the_same_interval_count_already() {
    let c = case(&[("a", 0), ("b", 26), ("x", 30)]);
    assert!(waits(&c.plan("x"), "2 of 2"), "b's last keepalive is of the same interval");
    let mut c = case(&[("a", 0), ("b", 20), ("x", 30)]);
    c.node("x").mode = DaemonMode::Hypervisor;
    assert_eq!(c.next("x"), DECLARE);
}

#[test]
fn a_single_silent_node_is_fenced_in_a_cluster_of_three_and_one_that_is_no_coordinator_of_two() {
    assert_eq!(case(&[("a", 0), ("b", 1), ("x", 30)]).next("x"), DECLARE);
    let mut two = case(&[("a", 0), ("x", 30)]);
    two.node("x").mode = DaemonMode::Hypervisor;
    assert_eq!(two.next("x"), DECLARE);
}

#[test]
fn a_fence_never_costs_the_quorum_of_the_coordinators() {
    assert!(waits(&case(&[("a", 0), ("x", 30)]).plan("x"), "no quorum"), "1 of 2 is none");
    for gone in [DaemonState::Dead, DaemonState::Stop] {
        let mut c = case(&[("a", 0), ("b", 500), ("x", 30)]);
        c.attempts.asked_servers(BTreeSet::new(), Moment::secs(1000));
        c.node("b").daemon_state = field(gone);
        assert!(waits(&c.plan("x"), "no quorum"), "{gone}");
        c.node("x").mode = DaemonMode::Hypervisor;
        assert_eq!(
            c.next("x"),
            Next::Do(Step::Declare),
            "a hypervisor is no part of it; 1 of 2 is left ({gone})"
        );
    }
}

#[test]
fn a_stopped_coordinator_counts_for_the_quorum_if_its_server_serves_which_is_asked_when_it_matters() {
    let mut c = case(&[("a", 0), ("b", 500), ("x", 30)]);
    c.node("b").daemon_state = field(DaemonState::Stop);
    let ask = Next::Do(Step::AskServers(vec![name("b")]));
    assert_eq!(c.next("x"), ask);
    c.attempts.asked_servers([name("b")].into(), Moment::secs(995));
    assert_eq!(c.next("x"), DECLARE);
    c.attempts.asked_servers(BTreeSet::new(), Moment::secs(995));
    let plan = c.plan("x");
    assert!(waits(&plan, "1 of 3 coordinators would be left"), "{plan:?}");
    assert_eq!(plan.next, Next::Wait(Some(Moment::secs(1005))), "and asked again");
    c.attempts.asked_servers([name("b")].into(), Moment::secs(990));
    assert_eq!(c.next("x"), ask, "an old answer is none");
    let mut job = c.with_job(FenceStep::Shooting);
    assert_eq!(job.next("x"), ask, "also before the power-off");
    job.attempts.asked_servers([name("b")].into(), Moment::secs(995));
    assert_eq!(job.next("x"), Next::Do(Step::Shoot));
    // Where it changes nothing nobody is asked.
    let mut c = case(&[("a", 0), ("b", 1), ("c", 500), ("d", 500), ("x", 30)]);
    for stopped in ["c", "d"] {
        c.node(stopped).daemon_state = field(DaemonState::Dead);
    }
    c.node("d").daemon_state = field(DaemonState::Stop);
    assert_eq!(c.next("x"), Next::Do(Step::AskServers(vec![name("d")])));
    c.node("b").daemon_state = field(DaemonState::Dead);
    assert!(waits(&c.plan("x"), "1 of 5 coordinators would be left"));
}

#[test]
fn a_coordinator_that_a_fencer_has_not_heard_yet_is_not_counted_on() {
    // `b` has been off for long, and `a` has just begun to listen: to it, `b` is not silent yet.
    let mut c = case(&[("a", 0), ("b", 1), ("x", 1)]).with_job(FenceStep::Shooting);
    c.fences[0].job.asked = Some(word());
    let mut begun = Liveness::new(SETTINGS.keepalive);
    let now = Moment::secs(c.now);
    begun.observe(&c.view(), &heard(&c.view(), now), true, now);
    assert!(waits(&c.plan_of("x", &begun), "1 of 3 coordinators would be left"));
    assert_eq!(c.next("x"), Next::Do(Step::Shoot));
}

#[test]
fn a_coordinator_that_missed_two_keepalives_is_not_counted_on() {
    let mut c = case(&[("a", 0), ("b", 9), ("h", 1), ("x", 30)]);
    c.node("h").mode = DaemonMode::Hypervisor;
    assert_eq!(c.next("x"), DECLARE);
    let mut c = case(&[("a", 0), ("b", 10), ("h", 1), ("x", 30)]);
    c.node("h").mode = DaemonMode::Hypervisor;
    assert!(
        waits(&c.plan("x"), "1 of 3 coordinators would be left"),
        "b may be dead, and x's ZooKeeper alive"
    );
    let mut c = c.with_job(FenceStep::Shooting);
    assert!(waits(&c.plan("x"), "1 of 3 coordinators would be left"), "{:?}", c.plan("x"));
    c.node("x").mode = DaemonMode::Hypervisor;
    assert_eq!(c.next("x"), Next::Do(Step::Shoot));
}

#[test]
fn a_job_is_worked_on_by_its_fencer_only_and_taken_over_when_that_is_gone() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(FenceStep::Shooting);
    assert_eq!(c.next("x"), Next::Do(Step::Shoot));
    c.fences[0].fencer = Some(name("b"));
    assert_eq!(c.next("x"), Next::Wait(None));
    c.fences[0].fencer = None;
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver));
    c.fences[0].fencer = Some(name("a"));
    c.attempts = Attempts::default();
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver), "an earlier session's key is not this one's");
}

#[test]
fn a_sign_of_life_before_the_shot_cancels_everything() {
    for step in [FenceStep::Shooting, failed()] {
        let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(step);
        c.fences[0].job.keepalive_version = Some(2);
        assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Cancelled)));
        c.fences[0].job.keepalive_version = Some(3);
        c.node("x").daemon_state = field(DaemonState::Run);
        assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Cancelled)));
        c.fences[0].job.asked = Some(word());
        assert_eq!(c.next("x"), Next::Do(Step::Shoot), "an operator wants it although it lives");
    }
}

#[test]
fn a_new_fencer_shoots_only_what_it_saw_silent_itself() {
    let c = case(&[("a", 0), ("b", 1), ("x", 12)]).with_job(FenceStep::Shooting);
    assert_eq!(c.next("x"), Next::Wait(Some(Moment::secs(1018))));
}

#[test]
fn a_failed_fence_touches_nothing_and_is_repeated() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(failed()).left_to_others();
    c.vms.push(Vm { node: field(name("x")), ..vm(VmState::Start, "x") });
    c.attempts.power_off_failed(Moment::secs(995));
    let plan = c.plan("x");
    assert_eq!(plan.next, Next::Wait(Some(Moment::secs(1025))), "{}", plan.why);
    assert!(plan.why.contains("no answer") && plan.why.contains("confirm-dead"), "{}", plan.why);
    let mut seldom = case(&[("a", 0), ("b", 1), ("x", 200)]).with_job(failed()).left_to_others();
    seldom.node("x").keepalive_interval = Some(Duration::from_secs(30));
    seldom.attempts.power_off_failed(Moment::secs(995));
    assert_eq!(seldom.next("x"), Next::Wait(Some(Moment::secs(1025))), "its BMC does not speak seldom");
    c.attempts.power_off_failed(Moment::secs(970));
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver));
    c.fences[0].fencer = Some(name("a"));
    c.attempts.taken();
    assert_eq!(c.next("x"), Next::Do(Step::Shoot));
}

#[test]
fn whoever_has_not_shot_in_vain_yet_takes_a_failed_fence_over_and_shoots_at_once() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(failed()).left_to_others();
    c.fences[0].job.by = "b".into();
    c.attempts = Attempts::default();
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver));
    c.fences[0].fencer = Some(name("a"));
    c.attempts.taken();
    assert_eq!(c.next("x"), Next::Do(Step::Shoot));
    // In vain, too: now all have tried.
    c.fences[0].fencer = None;
    c.attempts.power_off_failed(Moment::secs(1000));
    assert_eq!(c.next("x"), Next::Wait(Some(Moment::secs(1030))));
}

#[test]
fn a_failed_fence_is_proven_when_the_node_must_have_reset_itself_if_the_configuration_says_so() {
    let proof = Next::Do(Step::Record(FenceStep::Proven { proof: Proof::SelfFence }));
    let failed_for = |silence| {
        let mut c = case(&[("a", 0), ("b", 1), ("x", silence)]).with_job(failed());
        c.node("x").self_fence_s = Some(60);
        c.settings.failed = Action::Migrate;
        c.attempts.power_off_failed(Moment::secs(999));
        c.attempts.taken();
        c
    };
    assert_eq!(failed_for(100).next("x"), proof, "60 s, half of it more, and 10 s");
    assert_eq!(failed_for(100).left_to_others().next("x"), Next::Do(Step::TakeOver));
    assert_eq!(failed_for(99).next("x"), Next::Wait(Some(Moment::secs(1001))));
    let mut no_action = failed_for(400);
    no_action.settings.failed = Action::Nothing;
    assert!(matches!(no_action.next("x"), Next::Wait(_)));
    let mut no_promise = failed_for(400);
    no_promise.node("x").self_fence_s = None;
    assert!(matches!(no_promise.next("x"), Next::Wait(_)), "nobody resets it");
}

#[test]
fn an_operators_word_is_a_proof_once_the_node_is_silent() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 30)]).with_job(failed());
    c.fences[0].job.confirmed_dead = Some(word());
    let proof = FenceStep::Proven { proof: Proof::Operator };
    assert_eq!(c.next("x"), Next::Do(Step::Record(proof)));
    let mut c = case(&[("a", 0), ("b", 1), ("x", 3)]).with_job(failed());
    c.fences[0].job.confirmed_dead = Some(word());
    assert_eq!(c.next("x"), Next::Wait(Some(Moment::secs(1027))));
}

#[test]
fn an_operators_word_ends_with_the_life_that_it_was_said_about() {
    for fencer in [None, Some("a"), Some("b")] {
        let case = || {
            let mut c = case(&[("a", 0), ("b", 1), ("x", 30)]).with_job(failed());
            c.fences[0].fencer = fencer.map(name);
            c.fences[0].job.confirmed_dead = Some(word());
            c.attempts.power_off_failed(Moment::secs(995));
            c
        };
        // It spoke, and whether anybody counted a whole silence since or before is all the same.
        let mut c = case();
        c.node("x").keepalive_version = Some(4);
        assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Cancelled)), "{fencer:?}");
        let mut c = case();
        c.fences[0].job.asked = Some(word());
        c.node("x").keepalive_version = Some(4);
        assert_eq!(c.next("x"), Next::Do(Step::Unconfirm), "it is to be fenced all the same");
        c.fences[0].job.confirmed_dead = None;
        assert!(!matches!(c.next("x"), Next::Do(Step::Record(_) | Step::Finish(_))), "{fencer:?}");
        c.node("x").boot = Some("another".into());
        assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Cancelled)), "that is not who was to be fenced");
        // A new life that said nothing but that it is there.
        let mut c = case();
        c.fences[0].job.asked = Some(word());
        (c.node("x").boot, c.node("x").daemon_state) = (Some("another".into()), field(DaemonState::Init));
        assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Cancelled)));
    }
}

#[test]
fn silence_is_measured_in_the_intervals_of_who_is_silent() {
    let slow = |silence| {
        let mut c = case(&[("a", 0), ("b", 1), ("c", 1), ("x", silence)]);
        c.node("x").keepalive_interval = Some(Duration::from_secs(20));
        c
    };
    assert_eq!(slow(119).next("x"), Next::Wait(Some(Moment::secs(1001))));
    assert_eq!(slow(120).next("x"), DECLARE);
    let mut fast = case(&[("a", 0), ("b", 1), ("x", 6)]);
    fast.node("x").keepalive_interval = Some(Duration::from_secs(1));
    assert_eq!(fast.next("x"), DECLARE);
    let mut c = slow(60).with_job(failed());
    c.fences[0].job.confirmed_dead = Some(word());
    assert_eq!(c.next("x"), Next::Wait(Some(Moment::secs(1060))), "an operator's word waits for it, too");
    c.settings.fence_intervals = 0;
    assert_eq!(c.next("x"), Next::Wait(Some(Moment::secs(1060))));
}

#[test]
fn who_speaks_seldom_is_no_majority_of_the_silent_before_it_missed_a_keepalive() {
    let slow = |silence| {
        let mut c = case(&[("a", 0), ("b", 1), ("s", silence), ("x", 30)]);
        (c.node("x").mode, c.node("s").mode) = (DaemonMode::Hypervisor, DaemonMode::Hypervisor);
        c.node("s").keepalive_interval = Some(Duration::from_secs(20));
        c
    };
    assert_eq!(slow(34).next("x"), DECLARE);
    assert!(waits(&slow(35).plan("x"), "2 of 3 other nodes are silent"));
}
