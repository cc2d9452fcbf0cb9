//! Starts that fail, or of which nobody heard.

use pvc_core::plan::vm::REFUSED_FOR;
use pvc_host::hypervisor::Activity;
use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_vm_that_vanishes_is_started_again_after_a_second_and_gives_up_in_the_end() {
    let w = World::new().await;
    w.running(1).await;
    for starts in 2..=10 {
        w.nodes[0].hypervisor.vanish(id(1));
        w.until("it is started again", 70, async |w| w.nodes[0].hypervisor.counts().start == starts).await;
        w.until("it runs", 5, async |w| w.runs(0, 1)).await;
    }
    w.nodes[0].hypervisor.vanish(id(1));
    w.until_state(1, VmState::Failed, 5).await;
    let vm = w.vm(1).await;
    assert!(vm.failed_reason.value.contains("10 times"), "{}", vm.failed_reason.value);
    assert!(vm.claim.value.is_empty());
    w.ask_for(1, VmState::Start).await;
    w.until("a new desired state is tried at once", 1, async |w| w.runs(0, 1)).await;
    w.until("the reason is void", 1, async |w| w.vm(1).await.failed_reason.value.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_is_tried_again_until_it_succeeds_and_for_an_hour_at_most() {
    let w = World::new().await;
    w.define(1, xml(1)).await;
    let outcome = Outcome::Refused("no such bridge: br7".into());
    let start = Answer { outcome, ..Answer::default() };
    let hypervisor = &w.nodes[0].hypervisor;
    hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
    w.ask_for(1, VmState::Start).await;
    w.until("it is told why", 5, async |w| w.vm(1).await.failed_reason.value.contains("bridge: br7")).await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!(w.vm(1).await.state.value, VmState::Start);
    let tried = hypervisor.counts().start;
    assert!((15..20).contains(&tried), "1, 2, 4 … 60 s: {tried} attempts in ten minutes");
    hypervisor.behave(id(1), Behaviour::default());
    w.until("it runs", 61, async |w| w.runs(0, 1)).await;
    w.until("the reason is void", 1, async |w| w.vm(1).await.failed_reason.value.is_empty()).await;

    let outcome = Outcome::Refused("no such bridge: br7".into());
    let start = Answer { outcome, ..Answer::default() };
    hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
    hypervisor.vanish(id(1));
    let begin = Instant::now();
    w.until_state(1, VmState::Failed, 3700).await;
    assert!(begin.elapsed() >= REFUSED_FOR, "{:?}", begin.elapsed());
    let vm = w.vm(1).await;
    assert!(
        vm.failed_reason.value.contains("could not start it for 60 minutes"),
        "{}",
        vm.failed_reason.value
    );
    assert!(vm.claim.value.is_empty());
}

fn refusing(why: &str) -> Behaviour {
    let start = Answer { outcome: Outcome::Refused(why.into()), ..Answer::default() };
    Behaviour { start, ..Behaviour::default() }
}

pub(super) async fn give_room(w: &World) {
    for node in ["a", "b"].map(|n| n.parse().unwrap()) {
        let report = pvc_core::model::NodeReport { mem_total_mib: 1000, ..Default::default() };
        w.operator.commit(schema::node::report(&node, &report, None)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_node_cannot_start_runs_on_another_with_its_way_home() {
    let w = World::new().await;
    give_room(&w).await;
    w.define(1, xml(1)).await;
    w.nodes[0].hypervisor.behave(id(1), refusing("no such bridge: br7"));
    w.ask_for(1, VmState::Start).await;
    w.until("it runs on b", 40, async |w| w.runs(1, 1)).await;
    let vm = w.vm(1).await;
    assert_eq!((vm.node.value.as_str(), vm.last_node.value), ("b", Some("a".parse().unwrap())));
    w.until("the reason is void", 1, async |w| w.vm(1).await.failed_reason.value.is_empty()).await;
    assert!(w.vm(1).await.claim.value.is_only(&w.nodes[1].name));
}

#[tokio::test(start_paused = true)]
async fn what_no_node_can_start_goes_round_once_and_is_told_and_starts_when_it_can() {
    let w = World::new().await;
    give_room(&w).await;
    w.define(1, xml(1)).await;
    for node in &w.nodes {
        node.hypervisor.behave(id(1), refusing("no such bridge: br7"));
    }
    w.ask_for(1, VmState::Start).await;
    w.until("it is b's turn", 40, async |w| w.vm(1).await.node.value.as_str() == "b").await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!(w.vm(1).await.node.value.as_str(), "b", "a has refused it");
    let told = schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().unwrap().unwrap();
    assert!(
        told.because.contains("elsewhere: no node can take it: a could not start it"),
        "{}",
        told.because
    );
    w.nodes[1].hypervisor.behave(id(1), Behaviour::default());
    w.until("it runs", 61, async |w| w.runs(1, 1)).await;
    // A new desired state starts from nothing.
    w.ask_for(1, VmState::Stop).await;
    w.until("it is off", 5, async |w| !w.runs(1, 1)).await;
    w.nodes[0].hypervisor.behave(id(1), Behaviour::default());
    w.nodes[1].hypervisor.behave(id(1), refusing("no such bridge: br7"));
    w.ask_for(1, VmState::Start).await;
    w.until("it runs at home", 40, async |w| w.runs(0, 1)).await;
    assert_eq!(w.vm(1).await.last_node.value, None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_attempts_to_start_what_is_refused() {
    let w = World::new().await;
    w.define(1, xml(1)).await;
    let start = Answer { outcome: Outcome::Refused("no such bridge: br7".into()), ..Answer::default() };
    w.nodes[0].hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
    w.ask_for(1, VmState::Start).await;
    w.until("it is told why", 5, async |w| !w.vm(1).await.failed_reason.value.is_empty()).await;
    w.ask_for(1, VmState::Stop).await;
    w.until("nobody claims it", 2, async |w| w.vm(1).await.claim.value.is_empty()).await;
    let tried = w.nodes[0].hypervisor.counts().start;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, tried);
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_of_what_an_earlier_one_brought_after_all_is_no_failure() {
    let w = World::new().await;
    w.define(1, xml(1)).await;
    let outcome = Outcome::Refused("it is being started already".into());
    let start = Answer { outcome, after: Duration::from_secs(2) };
    w.nodes[0].hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
    w.ask_for(1, VmState::Start).await;
    w.until("it is asked to start", 5, async |w| w.nodes[0].hypervisor.counts().start > 0).await;
    w.nodes[0].hypervisor.put(Seen {
        id: id(1),
        name: "vm1".into(),
        activity: Activity::Running,
        memory_mib: 64,
        vcpus: 1,
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let vm = w.vm(1).await;
    assert_eq!((vm.state.value, vm.claim.value), (VmState::Start, Claim::only(&w.nodes[0].name)));
}

#[tokio::test(start_paused = true)]
async fn a_rubbish_definition_fails_its_vm_and_no_other() {
    let w = World::new().await;
    w.define(1, "<domain><name>vm1".into()).await;
    w.define(2, xml(3)).await;
    w.define(3, xml(3)).await;
    for n in 1..=3 {
        w.ask_for(n, VmState::Start).await;
    }
    w.until_state(1, VmState::Failed, 5).await;
    w.until_state(2, VmState::Failed, 5).await;
    w.until("the good one runs", 5, async |w| w.runs(0, 3)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1, "libvirt never saw the bad ones");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_start_is_looked_into_and_not_repeated() {
    let w = World::new().await;
    w.define(1, xml(1)).await;
    let start = Answer { outcome: Outcome::Lost, ..Answer::default() };
    w.nodes[0].hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
    w.ask_for(1, VmState::Start).await;
    w.until("it runs", 5, async |w| w.runs(0, 1)).await;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1);
    assert_eq!(w.vm(1).await.state.value, VmState::Start);
    assert!(w.vm(1).await.claim.value.is_only(&w.nodes[0].name));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_starts_at_once_hold_up_no_other_and_who_waits_for_a_turn_may_still_be_stopped() {
    let w = World::new().await;
    w.running(201).await;
    let after = Duration::from_secs(5);
    for n in 1..=200 {
        let start = Answer { after, ..Answer::default() };
        w.nodes[0].hypervisor.behave(id(n), Behaviour { start, ..Behaviour::default() });
        w.define(n, xml(n)).await;
        w.ask_for(n, VmState::Start).await;
    }
    let began = Instant::now();
    sleep(Duration::from_millis(100)).await;
    w.ask_for(201, VmState::Stop).await;
    w.until("what runs is stopped", 1, async |w| !w.runs(0, 201)).await;
    w.ask_for(200, VmState::Stop).await;
    w.until("what has not had its turn is free", 1, async |w| w.vm(200).await.claim.value.is_empty()).await;
    w.until("all others run", 400, async |w| w.nodes[0].hypervisor.executing().len() == 199).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 200, "one before, and 199");
    let (took, least) = (began.elapsed(), after * 199 / 4);
    assert!(took > least && took < least + Duration::from_secs(10), "four at a time: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_guests_that_cannot_be_ended_hold_up_no_start() {
    let w = World::new().await;
    for n in 1..=100 {
        w.running(n).await;
        let power_off = Answer { outcome: Outcome::Hangs, ..Answer::default() };
        w.nodes[0].hypervisor.behave(id(n), Behaviour { power_off, ..Behaviour::default() });
    }
    for n in 1..=100 {
        w.ask_for(n, VmState::Stop).await;
    }
    sleep(Duration::from_millis(100)).await;
    w.define(101, xml(101)).await;
    w.ask_for(101, VmState::Start).await;
    w.until("another one starts", 1, async |w| w.runs(0, 101)).await;
}
