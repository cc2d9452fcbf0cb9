//! What a real libvirtd and real guests are put through: killed, frozen, absent.

use std::{sync::Arc, time::Duration};

use pvc_core::model::{DomainSpec, VmId};
use pvc_host::{
    hypervisor::{
        Activity, Event, Halt, Hypervisor, HypervisorError,
        libvirt::{Deadlines, LibvirtHypervisor},
    },
    testing::{LibvirtdProcess, tiny_guest},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    contract::{SOON, event},
    real::connect,
};

/// Short, for calls that are known to hang; power-off keeps its own, since libvirt takes 10 s to a SIGKILL.
const SHORT: Duration = Duration::from_secs(3);

fn impatient() -> Deadlines {
    Deadlines { ask: SHORT, start: SHORT, probe: Duration::from_secs(1), ..Deadlines::default() }
}

fn guest(n: u32, name: &str) -> DomainSpec {
    let id: VmId = format!("33333333-0000-4000-8000-{n:012}").parse().unwrap();
    let xml = tiny_guest(id, name);
    DomainSpec { xml, id, name: name.parse().unwrap(), memory_mib: 16, vcpus: 1, rbd_images: Vec::new() }
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let reached = timeout(SOON, async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("not so within {SOON:?}: {what}"));
}

#[test]
fn a_missing_library_is_named_with_the_package_that_has_it() {
    let missing = LibvirtHypervisor::start_with(
        "test:///default",
        "/nowhere/libvirt.so.0",
        "/nowhere".as_ref(),
        Deadlines::default(),
    );
    let error = missing.err().expect("there is no such library").to_string();
    assert!(error.contains("/nowhere/libvirt.so.0") && error.contains("libvirt0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirtd_that_is_not_there_yet_is_waited_for() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    libvirtd.kill().unwrap();
    let hypervisor = LibvirtHypervisor::start(&libvirtd.uri()).unwrap();
    let mut events = hypervisor.events();
    let unavailable = hypervisor.active().await.unwrap_err();
    assert!(matches!(unavailable, HypervisorError::Unavailable(_)), "{unavailable}");
    until("the reason is libvirt's", async || {
        matches!(hypervisor.active().await, Err(HypervisorError::Unavailable(why)) if why.contains("libvirt-sock"))
    })
    .await;
    libvirtd.launch().unwrap();
    event(&mut events, |event| *event == Event::Connected).await;
    assert_eq!(hypervisor.active().await.unwrap(), Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_a_killed_libvirtd_and_are_seen_by_the_next_one() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let guest = guest(1, "survivor");
    hypervisor.start(&guest).await.unwrap();
    let mut events = hypervisor.events();
    for _ in 0..3 {
        libvirtd.kill().unwrap();
        event(&mut events, |event| *event == Event::Disconnected).await;
        let unavailable = hypervisor.seen(guest.id).await.unwrap_err();
        assert!(matches!(unavailable, HypervisorError::Unavailable(_)), "{unavailable}");
        libvirtd.signal_guest("survivor", "0").expect("its process lives");
        libvirtd.launch().unwrap();
        event(&mut events, |event| *event == Event::Connected).await;
        assert_eq!(hypervisor.seen(guest.id).await.unwrap().expect("it is adopted").name, "survivor");
    }
    // libvirtd 9.0 tells nobody of a guest that ends while it is still taking it over, so this end may go untold.
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
    while events.try_recv().is_ok() {}
    hypervisor.start(&guest).await.unwrap();
    event(&mut events, |event| *event == Event::Domain(guest.id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_cut_short_by_a_killed_libvirtd_ends_with_unavailable() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    // Frozen first, so that the kill surely falls between question and answer.
    libvirtd.freeze().unwrap();
    let starting = tokio::spawn({
        let hypervisor = hypervisor.clone();
        async move { hypervisor.start(&guest(1, "cut")).await }
    });
    until("the start is under way", async || hypervisor.calls_under_way() == 1).await;
    libvirtd.kill().unwrap();
    let outcome = timeout(SOON, starting).await.expect("it does not hang").unwrap().unwrap_err();
    assert!(matches!(outcome, HypervisorError::Unavailable(_)), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_frozen_libvirtd_end_by_their_deadline_and_give_their_threads_back() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let deadlines = Deadlines { power_off: SHORT, ..impatient() };
    let hypervisor = connect(&libvirtd.uri(), deadlines).await;
    let mut events = hypervisor.events();
    libvirtd.freeze().unwrap();
    for round in 0..5 {
        let began = Instant::now();
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let (hypervisor, guest) = (hypervisor.clone(), guest(n, "frozen"));
                tokio::spawn(async move {
                    match n % 3 {
                        0 => hypervisor.active().await.map(drop),
                        1 => hypervisor.start(&guest).await,
                        _ => hypervisor.power_off(guest.id).await,
                    }
                })
            })
            .collect();
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert!(!matches!(error, HypervisorError::Refused(_)), "{error}");
        }
        assert!(began.elapsed() < SHORT * 6, "round {round} took {:?}", began.elapsed());
        assert!(hypervisor.calls_under_way() <= 3, "{} calls hang", hypervisor.calls_under_way());
    }
    // Whoever opens a connection is held until libvirtd goes on; that is one at most.
    until("keepalives ended the calls", async || hypervisor.calls_under_way() <= 1).await;
    libvirtd.thaw().unwrap();
    event(&mut events, |event| *event == Event::Disconnected).await;
    event(&mut events, |event| *event == Event::Connected).await;
    let active = hypervisor.active().await.unwrap();
    assert!(active.iter().all(|seen| seen.activity == Activity::Unstarted), "what came too late: {active:?}");
    until("every call has ended", async || hypervisor.calls_under_way() == 0).await;
}

async fn activity(hypervisor: &LibvirtHypervisor, guest: &DomainSpec) -> Option<Activity> {
    hypervisor.seen(guest.id).await.unwrap().map(|seen| seen.activity)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_makes_a_process_at_most_which_can_be_let_go_or_ended() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    // Time enough to be asked, and none to be done: QEMU alone takes longer to come up.
    let hasty = Deadlines { start: Duration::from_millis(60), ..Deadlines::default() };
    let hypervisor = connect(&libvirtd.uri(), hasty).await;
    let guest = guest(1, "late");
    for let_go in [true, false] {
        until("it was asked in time, and done too late", async || {
            hypervisor.power_off(guest.id).await.unwrap();
            let outcome = hypervisor.start(&guest).await;
            assert!(!matches!(outcome, Err(HypervisorError::Refused(_))), "{outcome:?}");
            until("the call to end", async || hypervisor.calls_under_way() == 0).await;
            match activity(&hypervisor, &guest).await {
                Some(Activity::Unstarted) => true,
                // It was done in time after all, or not asked.
                seen => {
                    assert_eq!(
                        seen == Some(Activity::Running),
                        outcome.is_ok(),
                        "{seen:?} after {outcome:?}"
                    );
                    false
                }
            }
        })
        .await;
        // QEMU's own word: it has never executed.
        libvirtd.virsh_says("qemu-monitor-command late --hmp info status", "prelaunch").unwrap();
        if let_go {
            hypervisor.resume(guest.id).await.unwrap();
            assert_eq!(activity(&hypervisor, &guest).await, Some(Activity::Running));
            libvirtd.virsh_says("dumpxml late", "unstarted").expect_err("the mark is gone");
            libvirtd.virsh("suspend late").unwrap();
            assert_eq!(
                activity(&hypervisor, &guest).await,
                Some(Activity::Halted(Halt::Paused)),
                "an operator's pause"
            );
            hypervisor.resume(guest.id).await.unwrap();
            assert_eq!(
                activity(&hypervisor, &guest).await,
                Some(Activity::Halted(Halt::Paused)),
                "is the operator's to end"
            );
        }
        hypervisor.power_off(guest.id).await.unwrap();
        assert_eq!(activity(&hypervisor, &guest).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_libvirtd_freezes_in_a_start_what_it_shows_as_off_afterwards_never_executes() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), impatient()).await;
    let mut late = 0;
    for round in 0..6 {
        let guest = guest(round, &format!("frozen{round}"));
        let starting = tokio::spawn({
            let (hypervisor, guest) = (hypervisor.clone(), guest.clone());
            async move { hypervisor.start(&guest).await }
        });
        sleep(Duration::from_millis(u64::from(round) * 15)).await;
        libvirtd.freeze().unwrap();
        let outcome = starting.await.unwrap();
        libvirtd.thaw().unwrap();
        let (thawed, mut was_off) = (Instant::now(), false);
        while thawed.elapsed() < SHORT {
            match hypervisor.seen(guest.id).await {
                Ok(None) => was_off = outcome.is_err(),
                Ok(Some(seen)) => {
                    assert!(!was_off || seen.activity == Activity::Unstarted, "round {round}: {seen:?}");
                    late += u32::from(was_off);
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(5)).await;
        }
        until("it is powered off", async || hypervisor.power_off(guest.id).await.is_ok()).await;
    }
    println!("it came after it was seen off in {late} looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libvirtd_killed_in_a_start_leaves_nothing_that_executes_unseen() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let mut events = hypervisor.events();
    for round in 0..6 {
        let guest = guest(round, &format!("killed{round}"));
        let starting = tokio::spawn({
            let (hypervisor, guest) = (hypervisor.clone(), guest.clone());
            async move { hypervisor.start(&guest).await }
        });
        sleep(Duration::from_millis(20 + u64::from(round) * 120)).await;
        libvirtd.kill().unwrap();
        let outcome = starting.await.unwrap();
        event(&mut events, |event| *event == Event::Disconnected).await;
        libvirtd.launch().unwrap();
        event(&mut events, |event| *event == Event::Connected).await;
        let seen = activity(&hypervisor, &guest).await;
        println!("round {round}: {seen:?} after {outcome:?}");
        match seen {
            None | Some(Activity::Unstarted) => assert!(outcome.is_err()),
            Some(activity) => assert_eq!(activity, Activity::Running),
        }
        hypervisor.power_off(guest.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_process_hangs_delays_nobody_and_can_be_powered_off() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), impatient()).await;
    let (hung, other) = (guest(1, "hung"), guest(2, "other"));
    // Started by a patient one: the time of a start is not the subject.
    let patient = connect(&libvirtd.uri(), Deadlines::default()).await;
    patient.start(&hung).await.unwrap();
    libvirtd.signal_guest("hung", "STOP").unwrap();

    let asks: Vec<_> = (0..8)
        .map(|_| {
            let (hypervisor, id) = (hypervisor.clone(), hung.id);
            tokio::spawn(async move { hypervisor.ask_to_shut_down(id).await })
        })
        .collect();
    let began = Instant::now();
    until("others are seen", async || hypervisor.active().await.is_ok_and(|active| active.len() == 1)).await;
    assert!(began.elapsed() < SHORT, "a look took {:?}", began.elapsed());
    for ask in asks {
        ask.await.unwrap().expect_err("nobody can ask a process that hangs");
    }
    patient.start(&other).await.unwrap();
    until("the hung one is powered off", async || hypervisor.power_off(hung.id).await.is_ok()).await;
    assert_eq!(hypervisor.seen(hung.id).await.unwrap(), None);
    assert!(hypervisor.seen(other.id).await.unwrap().is_some());
    until("requests to the hung one have ended", async || hypervisor.calls_under_way() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_paused_is_active_and_seen_as_paused() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let guest = guest(1, "dozing");
    hypervisor.start(&guest).await.unwrap();
    for (command, activity) in [("suspend", Activity::Halted(Halt::Paused)), ("resume", Activity::Running)] {
        let mut events = hypervisor.events();
        libvirtd.virsh(&format!("{command} dozing")).unwrap();
        event(&mut events, |event| *event == Event::Domain(guest.id)).await;
        let seen = hypervisor.seen(guest.id).await.unwrap().expect("it is active all the time");
        assert_eq!(seen.activity, activity);
        assert_eq!(hypervisor.active().await.unwrap(), [seen]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_only_defined_is_not_active_and_stays_defined() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let guest = guest(1, "defined");
    let definition = libvirtd.folder().join("defined.xml");
    std::fs::write(&definition, &guest.xml).unwrap();
    libvirtd.virsh(&format!("define {}", definition.display())).unwrap();
    assert_eq!(hypervisor.active().await.unwrap(), Vec::new());
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
    hypervisor.start(&guest).await.unwrap();
    assert!(hypervisor.seen(guest.id).await.unwrap().is_some());
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
    libvirtd.virsh("dominfo defined").expect("what an operator defined is not ours to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_killed_behind_our_back_is_an_event_and_starts_again() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor: Arc<dyn Hypervisor> = connect(&libvirtd.uri(), Deadlines::default()).await;
    let guest = guest(1, "crashing");
    hypervisor.start(&guest).await.unwrap();
    let mut events = hypervisor.events();
    assert_eq!(events.recv().await, Some(Event::Connected));
    while events.try_recv().is_ok() {}
    libvirtd.signal_guest("crashing", "KILL").unwrap();
    event(&mut events, |event| *event == Event::Domain(guest.id)).await;
    until("it is gone", async || hypervisor.seen(guest.id).await.unwrap().is_none()).await;
    hypervisor.start(&guest).await.unwrap();
    assert!(hypervisor.seen(guest.id).await.unwrap().is_some());
}
