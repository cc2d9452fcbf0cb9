//! The fake keeps the contract, and its faults look like the real one's.

use std::{sync::Arc, time::Duration};

use pvc_core::model::VmId;
use pvc_host::hypervisor::{
    Activity, Event, Halt, Hypervisor, HypervisorError,
    fake::{Answer, Behaviour, FakeHypervisor, Outcome, PowerButton, Reach},
};
use tokio::time::{Instant, advance, sleep};

use crate::contract::{Bench, contract};

fn define(id: VmId, name: &str) -> String {
    format!("<domain><name>{name}</name><uuid>{id}</uuid></domain>")
}

async fn bench() -> Bench {
    Bench::new(FakeHypervisor::new(), define, None)
}

contract!(
    bench,
    a_vm_is_seen_from_its_start_to_its_power_off,
    already_so_is_success,
    a_name_that_another_vm_has_is_refused,
    a_definition_that_is_rubbish_is_refused_with_a_reason,
    every_subscriber_is_told_of_a_start_and_an_end,
    a_guest_that_ignores_its_power_button_goes_on,
    many_vms_start_and_end_at_once,
    a_suspended_guest_executes_nothing_until_it_is_resumed,
    what_is_prepared_executes_nothing_until_it_is_resumed,
    what_executes_is_noted_and_what_does_not_is_left_as_it_is,
    what_is_not_kept_has_nothing_to_be_removed,
);

/// A fake whose only guest behaves so.
fn with(behaviour: Behaviour) -> (Arc<FakeHypervisor>, pvc_core::model::DomainSpec) {
    let fake = FakeHypervisor::new();
    let guest = Bench::new(fake.clone(), define, None).guest(1, "one");
    fake.behave(guest.id, behaviour);
    (fake, guest)
}

async fn activity(fake: &FakeHypervisor, guest: &pvc_core::model::DomainSpec) -> Option<Activity> {
    fake.seen(guest.id).await.unwrap().map(|seen| seen.activity)
}

fn start(after: Duration, outcome: Outcome) -> Behaviour {
    Behaviour { start: Answer { after, outcome }, ..Behaviour::default() }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_a_deadline_although_the_vm_runs() {
    let (fake, guest) = with(start(Duration::ZERO, Outcome::Lost));
    let began = Instant::now();
    let error = fake.start(&guest).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Deadline { .. }), "{error}");
    assert_eq!(began.elapsed(), Duration::from_mins(1));
    assert_eq!(fake.running(), [guest.id]);
}

#[tokio::test(start_paused = true)]
async fn a_start_slower_than_its_deadline_makes_a_process_that_does_not_execute() {
    let (fake, guest) = with(start(Duration::from_secs(70), Outcome::Done));
    let error = fake.start(&guest).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Deadline { .. }), "{error}");
    assert_eq!(fake.seen(guest.id).await.unwrap(), None);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(activity(&fake, &guest).await, Some(Activity::Unstarted));
    fake.resume(guest.id).await.unwrap();
    assert_eq!(activity(&fake, &guest).await, Some(Activity::Running));
}

#[tokio::test(start_paused = true)]
async fn what_a_frozen_one_was_asked_to_start_it_makes_when_it_goes_on_and_lets_nothing_execute() {
    let (fake, guest) = with(Behaviour::default());
    fake.set_reach(Reach::Frozen);
    fake.start(&guest).await.unwrap_err();
    fake.set_reach(Reach::Up);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(activity(&fake, &guest).await, Some(Activity::Unstarted));

    fake.vanish(guest.id);
    fake.set_reach(Reach::Frozen);
    fake.start(&guest).await.unwrap_err();
    fake.set_reach(Reach::Down);
    sleep(Duration::from_secs(1)).await;
    fake.set_reach(Reach::Up);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(activity(&fake, &guest).await, None, "it has ended, and with it what it was asked");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_or_is_refused_starts_nothing() {
    for outcome in [Outcome::Hangs, Outcome::Refused("no memory".into())] {
        let (fake, guest) = with(start(Duration::from_secs(1), outcome));
        fake.start(&guest).await.unwrap_err();
        sleep(Duration::from_mins(10)).await;
        assert_eq!(fake.running(), []);
        assert_eq!(fake.counts().start, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_on_when_its_caller_gives_up() {
    let (fake, guest) = with(start(Duration::from_secs(5), Outcome::Done));
    assert!(tokio::time::timeout(Duration::from_secs(1), fake.start(&guest)).await.is_err());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(activity(&fake, &guest).await, Some(Activity::Unstarted));
}

#[tokio::test(start_paused = true)]
async fn an_obedient_guest_is_off_in_its_own_time_and_the_next_run_is_left_alone() {
    let obeyed = PowerButton::Obeyed(Duration::from_secs(3));
    let (fake, guest) = with(Behaviour { power_button: obeyed, ..Behaviour::default() });
    fake.start(&guest).await.unwrap();
    fake.ask_to_shut_down(guest.id).await.unwrap();
    assert!(fake.seen(guest.id).await.unwrap().is_some(), "asked is not done");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(fake.seen(guest.id).await.unwrap(), None);

    fake.start(&guest).await.unwrap();
    fake.ask_to_shut_down(guest.id).await.unwrap();
    fake.power_off(guest.id).await.unwrap();
    fake.start(&guest).await.unwrap();
    sleep(Duration::from_secs(4)).await;
    assert!(fake.seen(guest.id).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn losing_reach_fails_what_is_under_way_and_harms_no_guest() {
    let (fake, guest) = with(start(Duration::from_secs(5), Outcome::Done));
    let mut events = fake.events();
    let starting = tokio::spawn({
        let (fake, guest) = (fake.clone(), guest.clone());
        async move { fake.start(&guest).await }
    });
    sleep(Duration::from_secs(1)).await;
    fake.set_reach(Reach::Down);
    assert!(matches!(starting.await.unwrap(), Err(HypervisorError::Unavailable(_))));
    assert!(matches!(fake.active().await, Err(HypervisorError::Unavailable(_))));
    advance(Duration::from_secs(5)).await;
    sleep(Duration::from_secs(1)).await;
    fake.set_reach(Reach::Up);
    assert_eq!(fake.active().await.unwrap().len(), 1);
    let told: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert_eq!(told, [Event::Connected, Event::Disconnected, Event::Domain(guest.id), Event::Connected]);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_one_answers_when_it_goes_on_or_not_at_all() {
    let (fake, guest) = with(Behaviour::default());
    fake.set_reach(Reach::Frozen);
    let error = fake.power_off(guest.id).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Deadline { .. }), "{error}");
    let look = tokio::spawn({
        let fake = fake.clone();
        async move { fake.seen(guest.id).await }
    });
    sleep(Duration::from_secs(9)).await;
    fake.set_reach(Reach::Up);
    assert_eq!(look.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn what_happens_behind_our_back_is_an_event() {
    let (fake, guest) = with(Behaviour::default());
    fake.start(&guest).await.unwrap();
    let mut events = fake.events();
    fake.turn(guest.id, Activity::Halted(Halt::Paused));
    assert_eq!(
        fake.seen(guest.id).await.unwrap().map(|seen| seen.activity),
        Some(Activity::Halted(Halt::Paused))
    );
    fake.vanish(guest.id);
    assert_eq!(fake.seen(guest.id).await.unwrap(), None);
    let told: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert_eq!(told, [Event::Connected, Event::Domain(guest.id), Event::Domain(guest.id)]);
}
