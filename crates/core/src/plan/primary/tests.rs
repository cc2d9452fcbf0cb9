mod world;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::model::{Entry, Fence, FenceJob, FenceStep, Field, Node, Proof};
use world::{Event, World};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn field<T>(value: T, zxid: i64) -> Field<T> {
    Field { value, version: Some(0), zxid }
}

fn node(text: &str, state: DaemonState, router: RouterState) -> Arc<Node> {
    let (daemon_state, router_state) = (field(state, 1), field(router, 1));
    Arc::new(Node { daemon_state, router_state, ..crate::command::testing::node(text) })
}

/// Three coordinators a, b and c; a looks.
struct Case {
    view: ClusterView,
    tenure: Option<i64>,
    held: Held,
    services: bool,
    runs: bool,
    current: bool,
    now_s: u64,
    attempts: Attempts,
}

const HELD: Held = Held { any: true, all: true, fresh: true, inherited: false };

impl Case {
    fn new(desired: Option<&str>, holder: Option<&str>) -> Self {
        let mut nodes = BTreeMap::new();
        for n in ["a", "b", "c"] {
            let router = if holder == Some(n) { RouterState::Primary } else { RouterState::Secondary };
            nodes.insert(name(n), node(n, DaemonState::Run, router));
        }
        let view = ClusterView {
            nodes: Arc::new(nodes),
            primary_node: field(desired.map(name), 10),
            primary_holder: holder.map(name),
            ..ClusterView::default()
        };
        let mut attempts = Attempts::default();
        attempts.saw(&view, Moment::secs(100));
        let mine = holder == Some("a");
        Self {
            view,
            tenure: mine.then_some(5),
            held: if mine { HELD } else { Held::default() },
            services: mine,
            runs: true,
            current: true,
            now_s: 100,
            attempts,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn set(&mut self, who: &str, state: DaemonState, router: RouterState) {
        Arc::make_mut(&mut self.view.nodes).insert(name(who), node(who, state, router));
    }

    fn plan(&self) -> Plan {
        plan(&Facts {
            me: &name("a"),
            runs: self.runs,
            view: &self.view,
            view_is_current: self.current,
            tenure: self.tenure,
            keep_until: Some(Moment::secs(106)),
            held: self.held,
            services: self.services,
            attempts: &self.attempts,
            now: Moment::secs(self.now_s),
        })
    }

    fn next(&self) -> Next {
        self.plan().next
    }
}

#[test]
fn addresses_that_had_to_go_are_not_added_before_the_store_answers_again() {
    let late = |held| {
        let case = Case::new(Some("a"), Some("a"));
        let plan = case.with(|c| (c.held, c.now_s) = (held, 106)).plan();
        (plan.next, plan.why)
    };
    assert_eq!(late(HELD).0, Next::Do(Step::Drop));
    // The session may well live, and the view be current: an answer is what counts.
    for held in [Held { fresh: true, ..Held::default() }, Held::default()] {
        let (next, why) = late(held);
        assert_eq!(next, Next::Wait(Some(Moment::secs(107))), "{held:?}");
        assert!(why.contains("has taken no write"), "{why}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one row a case")]
fn every_situation_has_its_step() {
    use DaemonState::{Dead, Run, Stop};
    use RouterState::{Primary, Secondary};
    let take = |again| Next::Do(Step::Take { again });
    let table: Vec<(&str, Case, Next)> = vec![
        ("nobody, desired state none: contend", Case::new(None, None), take(false)),
        ("nobody, desired state me", Case::new(Some("a"), None), take(false)),
        (
            "nobody, desired state is another that runs: it goes first",
            Case::new(Some("b"), None),
            Next::Wait(Some(Moment::secs(105))),
        ),
        ("… but not for ever", Case::new(Some("b"), None).with(|c| c.now_s = 105), take(false)),
        (
            "nobody, the desired one lost its session",
            Case::new(Some("b"), None).with(|c| c.set("b", Run, Primary)),
            take(false),
        ),
        (
            "nobody, the desired one has stopped",
            Case::new(Some("b"), None).with(|c| c.set("b", Stop, Secondary)),
            take(false),
        ),
        ("nobody, the desired one is unknown", Case::new(Some("x"), None), take(false)),
        ("another is primary", Case::new(Some("b"), Some("b")), Next::Settled),
        (
            "another is primary, desired state me: it hands over",
            Case::new(Some("a"), Some("b")),
            Next::Wait(None),
        ),
        (
            "another is primary, addresses here",
            Case::new(Some("b"), Some("b")).with(|c| c.held = HELD),
            Next::Do(Step::Drop),
        ),
        (
            "… services here",
            Case::new(Some("b"), Some("b")).with(|c| c.services = true),
            Next::Do(Step::StopServices),
        ),
        (
            "… my routerstate is old",
            Case::new(Some("b"), Some("b")).with(|c| c.set("a", Run, Primary)),
            Next::Do(Step::Say(Secondary)),
        ),
        ("primary as desired", Case::new(Some("a"), Some("a")), Next::Settled),
        (
            "primary without addresses",
            Case::new(Some("a"), Some("a")).with(|c| c.held = Held::default()),
            Next::Do(Step::Hold),
        ),
        (
            "primary, lifetimes end soon",
            Case::new(Some("a"), Some("a")).with(|c| c.held.fresh = false),
            Next::Do(Step::Hold),
        ),
        (
            "primary, routerstate is old",
            Case::new(Some("a"), Some("a")).with(|c| c.set("a", Run, Secondary)),
            Next::Do(Step::Say(Primary)),
        ),
        (
            "primary, services not told",
            Case::new(Some("a"), Some("a")).with(|c| c.services = false),
            Next::Do(Step::StartServices),
        ),
        (
            "desired state is another: services first",
            Case::new(Some("b"), Some("a")),
            Next::Do(Step::StopServices),
        ),
        (
            "… then addresses and key",
            Case::new(Some("b"), Some("a")).with(|c| c.services = false),
            Next::Do(Step::Release),
        ),
        (
            "… which goes without them, too",
            Case::new(Some("b"), Some("a")).with(|c| {
                c.services = false;
                c.held = Held::default();
            }),
            Next::Do(Step::Release),
        ),
        ("desired state none: step down", Case::new(None, Some("a")), Next::Do(Step::StopServices)),
        (
            "desired state none from before this tenure: answered",
            Case::new(None, Some("a")).with(|c| c.tenure = Some(11)),
            Next::Do(Step::Answer),
        ),
        (
            "desired state of before this tenure: answered",
            Case::new(Some("b"), Some("a")).with(|c| c.tenure = Some(11)),
            Next::Do(Step::Answer),
        ),
        (
            "… after the addresses are there",
            Case::new(Some("b"), Some("a")).with(|c| {
                c.tenure = Some(11);
                c.held = Held::default();
            }),
            Next::Do(Step::Hold),
        ),
        (
            "desired state is no running coordinator: bounded wait",
            Case::new(Some("x"), Some("a")),
            Next::Wait(Some(Moment::secs(105))),
        ),
        (
            "… then it is answered",
            Case::new(Some("x"), Some("a")).with(|c| c.now_s = 105),
            Next::Do(Step::Answer),
        ),
        (
            "this daemon stops",
            Case::new(Some("a"), Some("a")).with(|c| c.runs = false),
            Next::Do(Step::StopServices),
        ),
        (
            "the store is away: keep",
            Case::new(Some("a"), Some("a")).with(|c| c.current = false),
            Next::Wait(Some(Moment::secs(106))),
        ),
        (
            "… until the deadline",
            Case::new(Some("a"), Some("a")).with(|c| {
                c.current = false;
                c.now_s = 106;
            }),
            Next::Do(Step::Drop),
        ),
        (
            "… which counts also if the session looks healthy",
            Case::new(Some("a"), Some("a")).with(|c| c.now_s = 106),
            Next::Do(Step::Drop),
        ),
        (
            "restarted: the key is ours, the addresses stay",
            Case::new(Some("a"), Some("a")).with(|c| {
                c.tenure = None;
                c.services = false;
                c.held.inherited = true;
            }),
            take(true),
        ),
        (
            "… unless the desired state is another",
            Case::new(Some("b"), Some("a")).with(|c| {
                c.tenure = None;
                c.services = false;
                c.held.inherited = true;
            }),
            Next::Do(Step::Drop),
        ),
        (
            "… then the key goes",
            Case::new(Some("b"), Some("a")).with(|c| {
                c.tenure = None;
                c.services = false;
                c.held = Held::default();
            }),
            Next::Do(Step::Release),
        ),
        (
            "restarted, the store is away: the kernel removes them in time",
            Case::new(Some("a"), Some("a")).with(|c| {
                c.tenure = None;
                c.current = false;
                c.held.inherited = true;
            }),
            Next::Wait(None),
        ),
        (
            "the holder is dead without proof",
            Case::new(Some("b"), Some("b")).with(|c| c.set("b", Dead, Primary)),
            Next::Settled,
        ),
    ];
    for (what, case, expected) in table {
        assert_eq!(case.next(), expected, "{what}: {}", case.plan().why);
    }
}

#[test]
fn a_proven_dead_holder_is_discharged_without_waiting_for_its_session() {
    let mut case =
        Case::new(Some("b"), Some("b")).with(|c| c.set("b", DaemonState::Dead, RouterState::Primary));
    let step = FenceStep::Proven { proof: Proof::PowerOff };
    let job = FenceJob {
        step,
        instance: None,
        by: "c".into(),
        at_unix_s: 0,
        confirmed_dead: None,
        asked: None,
        boot: Some("boot".into()),
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
        keepalive_version: None,
    };
    let fence = Fence { node: name("b"), job, version: 0, fencer: None };
    case.view.fences = Arc::new(BTreeMap::from([(name("b"), Entry::Good(fence))]));
    assert_eq!(case.next(), Next::Do(Step::Discharge(name("b"))));
    case.set("b", DaemonState::Run, RouterState::Primary);
    assert_eq!(case.next(), Next::Settled, "it came back: the proof was of another life");
}

#[test]
fn who_steps_down_lets_others_go_first_if_there_are_any() {
    let mut case = Case::new(None, None);
    case.attempts.stepped_down(Moment::secs(99));
    assert_eq!(case.next(), Next::Wait(Some(Moment::secs(104))));
    case.set("b", DaemonState::Stop, RouterState::Secondary);
    case.set("c", DaemonState::Dead, RouterState::Secondary);
    assert_eq!(case.next(), Next::Do(Step::Take { again: false }));
}

#[test]
fn lifetimes_end_after_the_daemons_deadline_and_before_the_session() {
    for session_s in [1_u64, 3, 4, 6, 10, 30] {
        let timeout = Duration::from_secs(session_s);
        for age_ms in (0..session_s * 1000).step_by(50) {
            let (answer, now) = (Moment::secs(100), Moment::secs(100) + Duration::from_millis(age_ms));
            if let Some(lifetime) = lifetime_s(answer, timeout, now) {
                let end = now + Duration::from_secs(lifetime.into()) + KERNEL_LATE;
                assert!(end <= answer + timeout, "{session_s} s: still there when the session has expired");
            }
        }
        assert!(keep_until(Moment::secs(100), timeout) < Moment::secs(100 + session_s));
        let some = lifetime_s(Moment::secs(100), timeout, Moment::secs(100)).is_some();
        assert_eq!(some, session_s > 2, "{session_s} s");
    }
}

#[test]
fn in_an_ordinary_life_the_addresses_stay() {
    for seed in 0..40 {
        let mut world = World::new(3, seed * 7919);
        world.run(100).unwrap();
        let held = world.holders();
        assert_eq!(held.len(), 1, "{world:#?}");
        for _ in 0..1000 {
            world.run(1).unwrap();
            assert_eq!(world.holders(), held, "{world:#?}");
        }
    }
}

fn any_event(nodes: usize) -> impl Strategy<Value = (u32, Event)> {
    let who = 0..nodes;
    let event = prop_oneof![
        who.clone().prop_map(Event::Kill),
        who.clone().prop_map(Event::Restart),
        who.clone().prop_map(Event::Cut),
        who.clone().prop_map(Event::Heal),
        who.clone().prop_map(Event::Orphan),
        who.clone().prop_map(Event::Freeze),
        who.clone().prop_map(Event::Thaw),
        who.clone().prop_map(Event::Stop),
        who.clone().prop_map(Event::Fence),
        prop::option::of(who.clone()).prop_map(Event::Desired),
        who.prop_map(|n| Event::Desired(Some(n))),
    ];
    (1_u32..200, event)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is killed, frozen, cut off, fenced, restarted and desired, at whatever moment: at most one node has the addresses at any
    /// instant. When it is over, one running coordinator is primary, and the desired state says so.
    #[test]
    fn at_most_one_node_has_the_addresses_and_in_the_end_one_has(
        nodes in 2_usize..4,
        seed in any::<u64>(),
        events in prop::collection::vec(any_event(3), 1..25),
    ) {
        let mut world = World::new(nodes, seed);
        world.run(100)?;
        for (after, event) in events {
            world.happen(event);
            world.run(after)?;
        }
        for n in 0..nodes {
            world.happen(Event::Thaw(n));
            world.happen(Event::Heal(n));
            world.happen(Event::Restart(n));
        }
        world.run(400)?;
        let primaries: Vec<usize> = world.holders();
        prop_assert_eq!(primaries.len(), 1, "{:#?}", world);
        prop_assert_eq!(world.ask_for(), Some(primaries[0]));
        prop_assert_eq!(world.router_states(RouterState::Primary), primaries);
    }
}
