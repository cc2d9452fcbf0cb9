//! Fences from the silence to the VMs that run elsewhere, on a paused clock, with fencers and BMCs that fail.

mod renewal;
mod storage;
mod world;

use pvc_core::model::{
    BmcReport, BmcWord, DaemonState, DomainState, FenceJob, FenceStep, Proof, VmSet, Word,
};
use pvc_host::power::fake::{Call, Off, Reach, Reset};
use pvc_store::schema;
use tokio::time::sleep;

use super::*;
use world::{BOOT, SETTINGS, World, bmc, id, name};

const NODES: [&str; 3] = ["a", "b", "x"];

/// `x`, whose VMs 1 to 3 run, in a cluster of three.
async fn world(settings: Settings) -> World {
    let w = World::new(&NODES, settings).await;
    w.running("x", 1..4).await;
    w
}

fn elsewhere(w: &World) -> bool {
    (1..4).all(|n| w.runs_on(n).iter().any(|node| node.as_str() != "x"))
}

/// Whether the nodes that work take VMs.
async fn take_vms(w: &World, state: DomainState) {
    for node in ["a", "b"] {
        let seen = w.node(&name(node)).await;
        let set = schema::node::set_domain_state(&name(node), state, seen.domain_state.version);
        pvc_store::Store::commit(&*w.eye, set).await.unwrap();
    }
}

async fn recovered(w: &World, within_s: u64) {
    w.until("its VMs run elsewhere", within_s, async |w| elsewhere(w)).await;
}

async fn is_over(w: &World) {
    w.until("the fence is over", 10, async |w| w.fence("x").await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn the_vms_of_a_node_that_lost_its_power_run_elsewhere_within_31_s_and_it_comes_back_flushed() {
    let w = world(SETTINGS).await;
    w.power.plug("x-lom", false);
    let killed = Instant::now();
    recovered(&w, 33).await;
    assert!(killed.elapsed() < Duration::from_millis(31_500), "took {:?}", killed.elapsed());
    is_over(&w).await;
    assert_eq!(w.node(&name("x")).await.domain_state.value, DomainState::Flushed);
    let counts: Vec<u32> = (1..4).map(|n| w.starts(n)).collect();
    assert_eq!(counts, [2, 2, 2], "each started once more, and once only");
    assert_eq!(w.vm(1).await.last_node.value, Some(name("x")));
    assert!(!w.power.calls("x-lom").contains(&Call::Off), "it was off already");

    sleep(BOOT + Duration::from_mins(5)).await;
    assert!(w.power.is_on("x-lom"), "it was powered on again");
    assert_eq!(w.node(&name("x")).await.daemon_state.value.as_str(), "run");
    assert!(elsewhere(&w) && w.fence("x").await.is_none(), "and nothing else happens to it");
    assert_eq!(w.starts(1), 2);
    assert!(schema::node::read_explanation(&*w.eye, &name("x")).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_with_its_guests_is_off_before_they_start_elsewhere() {
    let w = world(SETTINGS).await;
    w.power.set_off("x-lom", Off::TakesAWhile(Duration::from_secs(7)));
    w.machine("x").hang();
    recovered(&w, 45).await;
    assert_eq!(w.power.calls("x-lom").iter().filter(|call| **call == Call::Off).count(), 1);
    is_over(&w).await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_whose_keys_cannot_be_written_holds_up_nobody_elses_recovery() {
    let w = world(SETTINGS).await;
    let sealed = schema::vm::key_path(id(1), pvc_core::model::VmKey::Node);
    w.tree.seal(&sealed, true);
    w.power.plug("x-lom", false);
    w.until("the others run elsewhere", 45, async |w| {
        [2, 3].into_iter().all(|n| w.runs_on(n).iter().any(|node| node.as_str() != "x"))
    })
    .await;
    assert_eq!(w.starts(1), 1);
    let told = schema::vm::read_explanation(&*w.eye, id(1)).await.unwrap().unwrap().unwrap();
    assert!(told.because.contains("not authorized"), "{told:?}");
    w.tree.seal(&sealed, false);
    recovered(&w, 10).await;
    is_over(&w).await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_about_a_node_that_came_back_is_no_proof_of_its_next_death() {
    let w = world(SETTINGS).await;
    w.power.set_reach("x-lom", Reach::Silent);
    let seen = w.node(&name("x")).await;
    pvc_store::Store::commit(&*w.eye, schema::fence::ask(&seen, &job(true))).await.unwrap();
    w.until("the power-off has failed", 60, async |w| {
        w.fence("x").await.is_some_and(|fence| matches!(fence.job.step, FenceStep::Failed { .. }))
    })
    .await;
    w.machine("x").hang();
    sleep(Duration::from_secs(7)).await;
    let (fence, seen) = (w.fence("x").await.unwrap(), w.node(&name("x")).await);
    let said = FenceJob { confirmed_dead: Some(word()), ..fence.job.clone() };
    let confirm = schema::fence::confirm_dead(&seen, Some(&fence), &said);
    pvc_store::Store::commit(&*w.eye, confirm).await.unwrap();
    // It is back before anybody has counted a whole silence, and silent again later.
    sleep(Duration::from_secs(8)).await;
    w.machine("x").wake();
    w.until("the word is void", 10, async |w| {
        w.fence("x").await.is_none_or(|fence| fence.job.confirmed_dead.is_none())
    })
    .await;
    sleep(Duration::from_mins(1)).await;
    w.machine("x").hang();
    sleep(Duration::from_mins(5)).await;
    assert_eq!(w.starts(1), 1, "nobody has powered it off, and nothing of it is started elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_wakes_up_before_the_shot_is_not_shot() {
    let w = world(SETTINGS).await;
    w.power.set_reach("x-lom", Reach::Slow(Duration::from_secs(3)));
    w.machine("x").hang();
    w.until("it is declared dead", 40, async |w| w.fence("x").await.is_some()).await;
    w.machine("x").wake();
    is_over(&w).await;
    sleep(Duration::from_mins(2)).await;
    assert!(!w.power.calls("x-lom").contains(&Call::Off), "{:?}", w.power.calls("x-lom"));
    assert_eq!(w.node(&name("x")).await.daemon_state.value.as_str(), "run");
    assert_eq!(w.runs_on(1), [name("x")]);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_last_word_was_on_its_way_when_it_was_shot_is_recovered_all_the_same() {
    let w = world(SETTINGS).await;
    w.power.set_off("x-lom", Off::TakesAWhile(Duration::from_secs(2)));
    w.machine("x").hang();
    w.until("its power is to be cut", 40, async |w| w.power.calls("x-lom").contains(&Call::Off)).await;
    w.last_word("x").await;
    w.until("nobody concludes anything", 5, async |w| w.fence("x").await.is_none()).await;
    assert_eq!(w.node(&name("x")).await.daemon_state.value.as_str(), "run");
    recovered(&w, 45).await;
    is_over(&w).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_wakes_up_unseen_by_the_fencers_lagging_server_is_not_shot() {
    let w = world(SETTINGS).await;
    w.power.set_reach("x-lom", Reach::Slow(Duration::from_secs(3)));
    w.machine("x").hang();
    w.until("its status is asked for", 40, async |w| !w.power.calls("x-lom").is_empty()).await;
    let fencer = w.fence("x").await.unwrap().fencer.unwrap();
    w.machine(fencer.as_str()).store.fall_behind();
    w.machine("x").wake();
    sleep(Duration::from_secs(20)).await;
    assert!(!w.power.calls("x-lom").contains(&Call::Off), "{:?}", w.power.calls("x-lom"));
    w.machine(fencer.as_str()).store.catch_up();
    is_over(&w).await;
    assert_eq!((w.runs_on(1), w.starts(1)), (vec![name("x")], 1));
}

#[tokio::test(start_paused = true)]
async fn a_fencer_whose_look_at_the_node_took_long_shoots_on_a_fresh_one_only() {
    let w = world(SETTINGS).await;
    w.power.set_reach("x-lom", Reach::Slow(Duration::from_secs(1)));
    w.machine("x").hang();
    w.until("its status is asked for", 40, async |w| !w.power.calls("x-lom").is_empty()).await;
    for fencer in ["a", "b"] {
        w.machine(fencer).store.delay(Duration::from_secs(4));
    }
    sleep(Duration::from_mins(2)).await;
    assert!(!w.power.calls("x-lom").contains(&Call::Off), "what it saw may be over");
    for fencer in ["a", "b"] {
        w.machine(fencer).store.delay(Duration::ZERO);
    }
    recovered(&w, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_fence_touches_nothing_and_is_repeated_until_an_operator_confirms_the_death() {
    let w = world(SETTINGS).await;
    w.power.set_reach("x-lom", Reach::Silent);
    w.machine("x").hang();
    sleep(Duration::from_mins(10)).await;
    assert!(!elsewhere(&w), "nothing is touched");
    let fence = w.fence("x").await.unwrap();
    let FenceStep::Failed { attempts, reason } = &fence.job.step else { panic!("{fence:?}") };
    // By each of the two coordinators that are left.
    assert!((28..=40).contains(attempts) && reason.contains("no reply"), "{attempts} {reason}");
    let explained = schema::node::read_explanation(&*w.eye, &name("x")).await.unwrap().unwrap().unwrap();
    assert!(explained.because.contains("confirm-dead"), "{explained:?}");

    // It is off for certain now.
    w.power.plug("x-lom", false);
    let seen = w.node(&name("x")).await;
    let confirmed = FenceJob { confirmed_dead: Some(word()), ..fence.job.clone() };
    let txn = schema::fence::confirm_dead(&seen, Some(&fence), &confirmed);
    pvc_store::Store::commit(&*w.eye, txn).await.unwrap();
    recovered(&w, 5).await;
    is_over(&w).await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_about_a_node_that_lives_moves_nothing() {
    let w = world(SETTINGS).await;
    let seen = w.node(&name("x")).await;
    let job = FenceJob { confirmed_dead: Some(word()), ..job(false) };
    pvc_store::Store::commit(&*w.eye, schema::fence::confirm_dead(&seen, None, &job)).await.unwrap();
    is_over(&w).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!((w.runs_on(1), w.starts(1)), (vec![name("x")], 1));
}

fn word() -> Word {
    Word { by: "an operator".into(), at_unix_s: 0 }
}

fn job(asked: bool) -> FenceJob {
    FenceJob {
        step: FenceStep::Shooting,
        instance: None,
        by: "an operator".into(),
        at_unix_s: 0,
        confirmed_dead: None,
        asked: asked.then(word),
        keepalive_version: None,
        boot: None,
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_configuration_says_so_a_node_that_cannot_be_shot_is_given_its_time_to_reset_itself() {
    let w = world(Settings { failed: Action::Migrate, ..SETTINGS }).await;
    schema::node::promise(&*w.eye, &name("x"), Some(40)).await.unwrap();
    w.power.set_reach("x-lom", Reach::Silent);
    w.machine("x").hang();
    let hung = Instant::now();
    sleep(Duration::from_secs(40)).await;
    w.power.plug("x-lom", false);
    recovered(&w, 60).await;
    assert!(
        hung.elapsed() >= Duration::from_secs(65),
        "40 s, half of it more, and 10 s: {:?}",
        hung.elapsed()
    );
    assert!(hung.elapsed() < Duration::from_secs(73), "{:?}", hung.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_cannot_power_off_resets() {
    let w = world(SETTINGS).await;
    w.power.set_off("x-lom", Off::Refused);
    w.machine("x").hang();
    recovered(&w, 50).await;
    assert!(w.power.calls("x-lom").contains(&Call::Reset));
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_was_accepted_is_given_the_time_to_happen() {
    let w = world(SETTINGS).await;
    w.power.set_off("x-lom", Off::Refused);
    w.power.set_reset("x-lom", Reset::TakesAWhile(Duration::from_secs(8)));
    w.machine("x").hang();
    // Looking at the machine makes the fake notice the time.
    w.until("its VMs run elsewhere", 60, async |w| w.power.is_on("x-lom") && elsewhere(w)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_speaks_after_an_accepted_reset_was_not_reset() {
    let w = world(SETTINGS).await;
    w.power.set_off("x-lom", Off::Refused);
    w.power.set_reset("x-lom", Reset::Ignored);
    w.machine("x").hang();
    w.until("it is told to reset", 60, async |w| w.power.calls("x-lom").contains(&Call::Reset)).await;
    w.machine("x").wake();
    w.until("the fence is over", 20, async |w| w.fence("x").await.is_none()).await;
    assert_eq!((w.runs_on(1), w.starts(1)), (vec![name("x")], 1));
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_answer_is_lost_is_looked_into() {
    let w = world(SETTINGS).await;
    w.machine("x").hang();
    w.power.set_reach("x-lom", Reach::Slow(Duration::from_secs(1)));
    w.until("its status is asked for", 40, async |w| !w.power.calls("x-lom").is_empty()).await;
    w.power.set_reach("x-lom", Reach::AnswersAreLost);
    w.until("the BMC was told", 10, async |w| !w.power.is_on("x-lom")).await;
    sleep(Duration::from_secs(3)).await;
    w.power.set_reach("x-lom", Reach::Answers);
    recovered(&w, 40).await;
}

#[tokio::test(start_paused = true)]
async fn vms_that_find_no_room_stay_with_a_reason_and_go_when_there_is_some() {
    let w = world(SETTINGS).await;
    take_vms(&w, DomainState::Flushed).await;
    w.power.set_off("x-lom", Off::Works);
    w.power.plug("x-lom", false);
    // It does not come back by itself.
    w.until("it is proven dead", 40, async |w| {
        w.fence("x").await.is_some_and(|fence| fence.job.step.proof() == Some(Proof::PowerOff))
    })
    .await;
    w.power.plug("x-lom", false);
    w.until("why is said", 5, async |w| {
        let said = schema::vm::read_explanation(&*w.eye, id(1)).await.unwrap();
        said.is_some_and(|said| said.unwrap().because.contains("no node can take it"))
    })
    .await;
    assert_eq!(w.vm(1).await.node.value, name("x"));
    take_vms(&w, DomainState::Ready).await;
    recovered(&w, 10).await;
    assert!(schema::vm::read_explanation(&*w.eye, id(1)).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_the_store_fence_nobody() {
    let w = world(SETTINGS).await;
    w.machines.iter().for_each(|machine| machine.store.suspend());
    sleep(Duration::from_mins(10)).await;
    for machine in &w.machines {
        machine.store.expire();
        machine.store.resume();
        sleep(Duration::from_secs(3)).await;
    }
    sleep(Duration::from_mins(3)).await;
    assert!(w.fence("x").await.is_none());
    assert_eq!((w.runs_on(1), w.starts(1)), (vec![name("x")], 1));
    for node in NODES {
        assert!(w.power.calls(&bmc(&name(node))).is_empty(), "{node} was touched");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fencer_that_dies_at_any_moment_is_succeeded_and_every_vm_is_recovered_exactly_once() {
    for late_ms in (0..3000).step_by(60) {
        let w = world(SETTINGS).await;
        w.machines.iter().for_each(|machine| machine.store.delay(Duration::from_millis(23)));
        w.power.set_reach("x-lom", Reach::Slow(Duration::from_millis(180)));
        w.power.set_off("x-lom", Off::TakesAWhile(Duration::from_millis(700)));
        w.machine("x").hang();
        w.until("it is declared dead", 40, async |w| w.fence("x").await.is_some()).await;
        let fencer = w.fence("x").await.unwrap().fencer.unwrap();
        sleep(Duration::from_millis(late_ms)).await;
        w.machine(fencer.as_str()).restart_fencing();
        recovered(&w, 90).await;
        is_over(&w).await;
        for n in 1..4 {
            assert_eq!(w.starts(n), 2, "vm{n}, with the fencer killed {late_ms} ms after the declaration");
        }
        for node in ["a", "b"] {
            assert!(w.power.calls(&bmc(&name(node))).is_empty(), "{node} was touched");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_an_operator_wants_fenced_is_shot_although_it_lives() {
    let w = world(SETTINGS).await;
    let seen = w.node(&name("x")).await;
    pvc_store::Store::commit(&*w.eye, schema::fence::ask(&seen, &job(true))).await.unwrap();
    recovered(&w, 20).await;
    is_over(&w).await;
}

/// What goes wrong at one moment of a random world.
async fn goes_wrong(w: &World, random: &mut impl FnMut(u64) -> u64) {
    let ms = |n: u64| Duration::from_millis(n);
    let other = if random(2) == 0 { "a" } else { "b" };
    match random(8) {
        0 | 1 => w.machine(other).restart_fencing(),
        // Shorter than a fence, longer than a session.
        2 => {
            let store = &w.machine(other).store;
            store.suspend();
            store.expire();
            sleep(ms(random(15_000))).await;
            store.resume();
        }
        3 => w.machine("x").hang(),
        4 => w.machine("x").wake(),
        5 => w.power.set_reach(
            "x-lom",
            [Reach::Silent, Reach::AnswersAreLost, Reach::Answers][usize::try_from(random(3)).unwrap()]
                .clone(),
        ),
        6 => w.power.set_reach("x-lom", Reach::Slow(ms(random(3000)))),
        _ => {
            let off = [Off::Works, Off::Ignored, Off::Refused, Off::TakesAWhile(ms(random(30_000)))];
            w.power.set_off("x-lom", off[usize::try_from(random(4)).unwrap()].clone());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_no_vm_runs_twice_and_in_the_end_each_runs() {
    for seed in 1..=40_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let w = world(SETTINGS).await;
        for machine in &w.machines {
            machine.store.delay(Duration::from_millis(random(40)));
        }
        w.machine("x").hang();
        sleep(Duration::from_millis(24_000 + random(8000))).await;
        for _ in 0..12 {
            sleep(Duration::from_millis(random(6000))).await;
            goes_wrong(&w, &mut random).await;
        }
        w.power.set_reach("x-lom", Reach::Answers);
        w.power.set_off("x-lom", Off::Works);
        w.machine("x").wake();
        let what = format!("every VM runs once and no fence is left (seed {seed})");
        w.until(&what, 300, async |w| {
            (1..4).all(|n| w.runs_on(n).len() == 1) && w.fence("x").await.is_none()
        })
        .await;
        for node in ["a", "b"] {
            assert!(w.power.calls(&bmc(&name(node))).is_empty(), "{node} was touched (seed {seed})");
        }
    }
}

/// `x` stops in order; its guests execute on until somebody switches it off.
async fn stopped_in_order(w: &World) {
    w.machine("x").hang();
    pvc_store::Store::commit(&*w.eye, schema::node::set_daemon_state(&name("x"), DaemonState::Stop))
        .await
        .unwrap();
}

fn said_on(host: &str) -> BmcReport {
    let on_in_boot = Some("boot".to_owned());
    BmcReport { word: BmcWord::On, host: host.to_owned(), by: "a".to_owned(), at_unix_s: 0, on_in_boot }
}

#[tokio::test(start_paused = true)]
async fn the_vms_of_a_node_that_was_shut_down_run_elsewhere_once_its_bmc_says_that_it_is_off() {
    let w = world(SETTINGS).await;
    schema::bmc::record(&*w.eye, &name("x"), &said_on("x-lom")).await.unwrap();
    stopped_in_order(&w).await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!(w.starts(1), 1, "its machine has power: its guests execute on");
    let told = schema::node::read_explanation(&*w.eye, &name("x")).await.unwrap().unwrap().unwrap();
    assert!(told.because.contains("its BMC says that its machine has power"), "{told:?}");

    w.power.plug("x-lom", false);
    recovered(&w, 90).await;
    is_over(&w).await;
    assert_eq!(w.node(&name("x")).await.domain_state.value, DomainState::Flushed);
    sleep(Duration::from_mins(5)).await;
    assert!(!w.power.is_on("x-lom"), "who switched it off may work on it");
    let switched = |call: &&Call| **call != Call::Status;
    assert_eq!(w.power.calls("x-lom").iter().filter(switched).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_may_be_another_machines_is_no_proof_that_a_stopped_node_is_off() {
    for (said, other) in [(None, None), (Some(said_on("old-lom")), None), (Some(said_on("x-lom")), Some("b"))]
    {
        let w = world(SETTINGS).await;
        if let Some(report) = &said {
            schema::bmc::record(&*w.eye, &name("x"), report).await.unwrap();
        }
        if let Some(other) = other {
            let key = format!("/nodes/{other}/ipmihostname");
            let op = pvc_store::Op::Set { path: key, data: b"X-LOM".to_vec(), version: None };
            let txn = pvc_store::Transaction { ops: vec![op] };
            pvc_store::Store::commit(&*w.eye, txn).await.unwrap();
        }
        stopped_in_order(&w).await;
        // As far as the fake goes: the power of the machine whose BMC answers is off, while x's guests may execute.
        w.power.plug("x-lom", false);
        sleep(Duration::from_mins(10)).await;
        assert_eq!(w.starts(1), 1, "{said:?} {other:?}");
        assert!(w.fence("x").await.is_none());
    }
}
