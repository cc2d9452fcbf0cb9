//! What every hypervisor does. Each test gets one that is connected, and guests of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use pvc_core::model::{DomainSpec, VmId};
use pvc_host::hypervisor::{Activity, Event, Hypervisor, HypervisorError, Suspension, Undefined};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

/// Generous: it only decides how long a failure takes.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// A hypervisor under test.
pub(crate) struct Bench {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    /// Makes definitions that it accepts.
    pub(crate) define: fn(VmId, &str) -> String,
    /// Lives as long as the hypervisor does.
    /// Its own in this process.
    pub(crate) number: u32,
    pub(crate) _keep: Option<pvc_host::testing::LibvirtdProcess>,
}

impl Bench {
    pub(crate) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        define: fn(VmId, &str) -> String,
        keep: Option<pvc_host::testing::LibvirtdProcess>,
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { hypervisor, define, number, _keep: keep }
    }

    /// Guest number `n`, called `name` and something: libvirt's test driver is one for all tests in a process.
    pub(crate) fn guest(&self, n: u32, name: &str) -> DomainSpec {
        let number = self.number;
        let id: VmId = format!("22222222-0000-4000-8000-{number:06}{n:06}").parse().unwrap();
        let name = &format!("{name}-{number}");
        let xml = (self.define)(id, name);
        DomainSpec { xml, id, name: name.parse().unwrap(), memory_mib: 16, vcpus: 1, rbd_images: Vec::new() }
    }
}

/// The next event that `wanted` accepts; others only say "look again" and may come at any time.
pub(crate) async fn event(events: &mut UnboundedReceiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    timeout(SOON, async {
        loop {
            let event = events.recv().await.expect("the hypervisor is still there");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .expect("the event came")
}

/// Makes a test of each function here for the hypervisor that `$bench` makes.
macro_rules! contract {
    ($bench:path, $($test:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            crate::contract::$test($bench().await).await;
        })+
    };
}
pub(crate) use contract;

pub(crate) async fn a_vm_is_seen_from_its_start_to_its_power_off(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "one"));
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
    hypervisor.start(&guest).await.unwrap();
    let seen = hypervisor.seen(guest.id).await.unwrap().expect("active after its start");
    assert_eq!(
        (seen.id, seen.name.as_str(), seen.activity),
        (guest.id, guest.name.as_str(), Activity::Running)
    );
    assert_eq!((seen.memory_mib, seen.vcpus), (16, 1));
    assert!(hypervisor.active().await.unwrap().contains(&seen));
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
    assert!(hypervisor.active().await.unwrap().iter().all(|seen| seen.id != guest.id));
}

pub(crate) async fn already_so_is_success(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "one"));
    hypervisor.power_off(guest.id).await.unwrap();
    hypervisor.ask_to_shut_down(guest.id).await.unwrap();
    hypervisor.start(&guest).await.unwrap();
    hypervisor.start(&guest).await.unwrap();
    assert_eq!(hypervisor.active().await.unwrap().iter().filter(|seen| seen.id == guest.id).count(), 1);
    hypervisor.power_off(guest.id).await.unwrap();
    hypervisor.power_off(guest.id).await.unwrap();
    hypervisor.start(&guest).await.unwrap();
    assert!(hypervisor.seen(guest.id).await.unwrap().is_some(), "a VM that was off starts again");
}

pub(crate) async fn a_name_that_another_vm_has_is_refused(bench: Bench) {
    let (hypervisor, first, second) = (&bench.hypervisor, bench.guest(1, "same"), bench.guest(2, "same"));
    hypervisor.start(&first).await.unwrap();
    let refused = hypervisor.start(&second).await.unwrap_err();
    assert!(matches!(&refused, HypervisorError::Refused(why) if why.contains("same")), "{refused}");
    assert!(hypervisor.seen(first.id).await.unwrap().is_some());
    assert_eq!(hypervisor.seen(second.id).await.unwrap(), None);
}

pub(crate) async fn a_definition_that_is_rubbish_is_refused_with_a_reason(bench: Bench) {
    for rubbish in ["", "rubbish", "<domain", "a\0b"] {
        let guest = DomainSpec { xml: rubbish.into(), ..bench.guest(1, "one") };
        let refused = bench.hypervisor.start(&guest).await.unwrap_err();
        assert!(
            matches!(&refused, HypervisorError::Unusable(why) if !why.is_empty()),
            "{rubbish:?}: {refused}"
        );
        assert_eq!(bench.hypervisor.seen(guest.id).await.unwrap(), None);
    }
}

pub(crate) async fn every_subscriber_is_told_of_a_start_and_an_end(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "one"));
    let mut subscribers = [hypervisor.events(), hypervisor.events()];
    for events in &mut subscribers {
        assert_eq!(events.recv().await, Some(Event::Connected), "what is so already is told first");
    }
    hypervisor.start(&guest).await.unwrap();
    for events in &mut subscribers {
        event(events, |event| *event == Event::Domain(guest.id)).await;
        while events.try_recv().is_ok() {}
    }
    hypervisor.power_off(guest.id).await.unwrap();
    for events in &mut subscribers {
        event(events, |event| *event == Event::Domain(guest.id)).await;
    }
}

pub(crate) async fn a_guest_that_ignores_its_power_button_goes_on(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "deaf"));
    hypervisor.start(&guest).await.unwrap();
    hypervisor.ask_to_shut_down(guest.id).await.unwrap();
    hypervisor.ask_to_shut_down(guest.id).await.unwrap();
    assert!(hypervisor.seen(guest.id).await.unwrap().is_some());
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
}

pub(crate) async fn many_vms_start_and_end_at_once(bench: Bench) {
    let guests: Vec<DomainSpec> = (1..=6).map(|n| bench.guest(n, &format!("vm{n}"))).collect();
    let each = |end: bool| {
        let tasks = guests.iter().cloned().map(|guest| {
            let hypervisor = bench.hypervisor.clone();
            tokio::spawn(async move {
                if end { hypervisor.power_off(guest.id).await } else { hypervisor.start(&guest).await }
            })
        });
        tasks.collect::<Vec<_>>()
    };
    for end in [false, true] {
        for task in each(end) {
            task.await.unwrap().unwrap();
        }
        let active = bench.hypervisor.active().await.unwrap();
        let ours = active.iter().filter(|seen| guests.iter().any(|guest| guest.id == seen.id)).count();
        assert_eq!(ours, if end { 0 } else { guests.len() });
    }
}

pub(crate) async fn a_suspended_guest_executes_nothing_until_it_is_resumed(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "strange"));
    hypervisor.suspend(guest.id, Suspension::Elsewhere).await.expect("what is off is nothing to suspend");
    hypervisor.start(&guest).await.unwrap();
    for (why, again) in
        [(Suspension::Elsewhere, Suspension::Unread), (Suspension::Unread, Suspension::Elsewhere)]
    {
        for asked in [why, again] {
            hypervisor.suspend(guest.id, asked).await.unwrap();
            let activity = hypervisor.seen(guest.id).await.unwrap().unwrap().activity;
            assert_eq!(activity, Activity::Suspended(why), "the first reason stays");
        }
        for _ in 0..2 {
            hypervisor.resume(guest.id).await.unwrap();
            assert_eq!(hypervisor.seen(guest.id).await.unwrap().unwrap().activity, Activity::Running);
        }
    }
    hypervisor.suspend(guest.id, Suspension::Elsewhere).await.unwrap();
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
}

pub(crate) async fn what_is_prepared_executes_nothing_until_it_is_resumed(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "ready"));
    for _ in 0..2 {
        hypervisor.prepare(&guest).await.unwrap();
        assert_eq!(hypervisor.seen(guest.id).await.unwrap().unwrap().activity, Activity::Unstarted);
    }
    for _ in 0..2 {
        hypervisor.resume(guest.id).await.unwrap();
        assert_eq!(hypervisor.seen(guest.id).await.unwrap().unwrap().activity, Activity::Running);
    }
    hypervisor.prepare(&guest).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap().unwrap().activity, Activity::Running);
    hypervisor.power_off(guest.id).await.unwrap();
    hypervisor.prepare(&guest).await.unwrap();
    hypervisor.power_off(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap(), None);
}

pub(crate) async fn what_executes_is_noted_and_what_does_not_is_left_as_it_is(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "noted"));
    hypervisor.note_executes(guest.id).await.expect("what is off is nothing to note");
    hypervisor.prepare(&guest).await.unwrap();
    hypervisor.note_executes(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap().unwrap().activity, Activity::Unstarted);
    hypervisor.resume(guest.id).await.unwrap();
    hypervisor.note_executes(guest.id).await.unwrap();
    assert_eq!(hypervisor.seen(guest.id).await.unwrap().unwrap().activity, Activity::Running);
    hypervisor.suspend(guest.id, Suspension::Elsewhere).await.unwrap();
    hypervisor.note_executes(guest.id).await.unwrap();
    assert_eq!(
        hypervisor.seen(guest.id).await.unwrap().unwrap().activity,
        Activity::Suspended(Suspension::Elsewhere)
    );
    hypervisor.power_off(guest.id).await.unwrap();
}

pub(crate) async fn what_is_not_kept_has_nothing_to_be_removed(bench: Bench) {
    let (hypervisor, guest) = (&bench.hypervisor, bench.guest(1, "fleeting"));
    hypervisor.start(&guest).await.unwrap();
    assert!(hypervisor.kept().await.unwrap().iter().all(|kept| kept.id != guest.id));
    hypervisor.power_off(guest.id).await.unwrap();
    hypervisor.end_autostart(guest.id).await.unwrap();
    assert_eq!(hypervisor.undefine(guest.id).await.unwrap(), Undefined::Gone);
}
