//! Live migration, on fakes and between two real libvirtds: the same words for the same happenings.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use pvc_core::model::{DomainSpec, VmId};
use pvc_host::{
    hypervisor::{
        Activity, Halt, Hypervisor, HypervisorError, Migration, Peer, Transport,
        fake::{Behaviour, FakeFabric, FakeHypervisor, Journey, Reach},
        libvirt::{Deadlines, LibvirtHypervisor},
    },
    testing::{LibvirtdProcess, full_guest},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{contract::SOON, real::connect};

/// Two hypervisors and a guest that is at the first of them.
struct Pair {
    source: Arc<dyn Hypervisor>,
    target: Arc<dyn Hypervisor>,
    /// The target as the source's libvirt reaches it, and as we do.
    to: Peer,
    at: Peer,
    guest: DomainSpec,
    real: Option<Real>,
    fakes: Option<[Arc<FakeHypervisor>; 2]>,
}

/// What lives as long as the pair does.
struct Real {
    source: LibvirtdProcess,
    target: LibvirtdProcess,
    contents: PathBuf,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.contents);
    }
}

fn guest(xml: impl Fn(VmId) -> String) -> DomainSpec {
    let id: VmId = "44444444-0000-4000-8000-000000000001".parse().unwrap();
    let name = "traveller".parse().unwrap();
    DomainSpec { xml: xml(id), id, name, memory_mib: 48, vcpus: 1, rbd_images: Vec::new() }
}

async fn fakes(slow: bool) -> Pair {
    let fabric = FakeFabric::new();
    let fakes = [FakeHypervisor::new(), FakeHypervisor::new()];
    fabric.join("source", &fakes[0]);
    fabric.join("target", &fakes[1]);
    let guest = guest(|id| format!("<domain><name>traveller</name><uuid>{id}</uuid></domain>"));
    let copying = Some(Duration::from_secs(if slow { 20 } else { 1 }));
    let journey = Journey { copying, pause: Duration::from_millis(100), ..Journey::default() };
    fakes[0].behave(guest.id, Behaviour { journey, ..Behaviour::default() });
    let to = Peer { host: "target".into(), transport: Transport::Tcp };
    fakes[0].start(&guest).await.unwrap();
    let [source, target] = fakes.clone();
    Pair { source, target, at: to.clone(), to, guest, real: None, fakes: Some(fakes) }
}

async fn libvirtds(slow: bool) -> Pair {
    let [(source, _), (target, address)] = LibvirtdProcess::start_two().unwrap();
    let contents = source.folder().with_extension("contents");
    let mut seed = 1_u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    });
    fs::write(&contents, noise.take(32 << 20).collect::<Vec<u8>>()).unwrap();
    let guest = guest(|id| full_guest(id, "traveller", &contents));
    let hypervisors = [
        connect(&source.uri(), Deadlines::default()).await,
        connect(&target.uri(), Deadlines::default()).await,
    ];
    hypervisors[0].start(&guest).await.unwrap();
    if slow {
        source.limit_migration("traveller", 1).unwrap();
    }
    let to = Peer { host: address.into(), transport: Transport::Tcp };
    let at = Peer { host: address.into(), transport: Transport::Socket(target.socket()) };
    let [from, onto] = hypervisors;
    Pair {
        source: from,
        target: onto,
        to,
        at,
        guest,
        real: Some(Real { source, target, contents }),
        fakes: None,
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let reached = timeout(SOON, async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("not so within {SOON:?}: {what}"));
}

impl Pair {
    /// Whether it is on record as migrated from that side.
    async fn left(hypervisor: &Arc<dyn Hypervisor>, guest: &DomainSpec) -> bool {
        hypervisor.has_left(guest.id, &guest.name).await.unwrap()
    }

    fn begin(&self) -> JoinHandle<Result<(), HypervisorError>> {
        let (source, id, to) = (self.source.clone(), self.guest.id, self.to.clone());
        tokio::spawn(async move { source.migrate(id, &to).await })
    }

    /// Begins, and waits until bytes flow.
    async fn begin_and_copy(&self) -> JoinHandle<Result<(), HypervisorError>> {
        let call = self.begin();
        until("it is being copied", async || {
            assert!(!call.is_finished(), "it is slow");
            let migration = self.source.migration(self.guest.id).await.unwrap();
            matches!(migration, Some(Migration::Leaving(progress)) if progress.sent > 0 && progress.total > 0)
        })
        .await;
        call
    }

    async fn activity(hypervisor: &Arc<dyn Hypervisor>, id: VmId) -> Option<Activity> {
        hypervisor.seen(id).await.unwrap().map(|seen| seen.activity)
    }

    async fn source(&self) -> Option<Activity> {
        Self::activity(&self.source, self.guest.id).await
    }

    async fn target(&self) -> Option<Activity> {
        Self::activity(&self.target, self.guest.id).await
    }

    async fn there(&self) -> Option<Activity> {
        self.source.seen_at(&self.at, self.guest.id).await.unwrap().map(|seen| seen.activity)
    }

    fn kill_libvirt(&self, source: bool) {
        match (&self.real, &self.fakes) {
            (Some(real), _) => (if source { &real.source } else { &real.target }).kill().unwrap(),
            (_, Some(fakes)) => fakes[usize::from(!source)].set_reach(Reach::Down),
            _ => unreachable!(),
        }
    }

    fn launch_libvirt(&self, source: bool) {
        match (&self.real, &self.fakes) {
            (Some(real), _) => (if source { &real.source } else { &real.target }).launch().unwrap(),
            (_, Some(fakes)) => fakes[usize::from(!source)].set_reach(Reach::Up),
            _ => unreachable!(),
        }
    }

    fn pause_by_hand(&self, source: bool) {
        let name = self.guest.name.as_str();
        match (&self.real, &self.fakes) {
            (Some(real), _) => {
                (if source { &real.source } else { &real.target }).virsh(&format!("suspend {name}")).unwrap();
            }
            (_, Some(fakes)) => {
                fakes[usize::from(!source)].turn(self.guest.id, Activity::Halted(Halt::Paused));
            }
            _ => unreachable!(),
        }
    }

    /// In the end it executes at the source alone.
    async fn until_it_stayed(&self) {
        until("it is at the source only", async || {
            let there = self.source.seen_at(&self.at, self.guest.id).await;
            let here = self.source.seen(self.guest.id).await;
            let migration = self.source.migration(self.guest.id).await;
            matches!(there, Ok(None))
                && matches!(here, Ok(Some(seen)) if seen.activity == Activity::Running)
                && matches!(migration, Ok(None))
        })
        .await;
    }
}

async fn it_arrives_paused_and_is_gone_at_the_source_and_goes_on_when_it_is_let(pair: Pair) {
    let id = pair.guest.id;
    assert!(!Pair::left(&pair.source, &pair.guest).await);
    assert_eq!(pair.there().await, None);
    assert_eq!(pair.source.migration(id).await.unwrap(), None);
    pair.source.abort_migration(id).await.unwrap();
    pair.source.resume(id).await.unwrap();
    let began = Instant::now();
    pair.begin().await.unwrap().unwrap();
    let took = began.elapsed();
    assert_eq!((pair.source().await, pair.target().await), (None, Some(Activity::Arrived)));
    assert_eq!(pair.there().await, Some(Activity::Arrived));
    let pause = pair.source.pause_at(&pair.at, id).await.unwrap().expect("the target knows");
    assert!(!pause.is_zero() && pause <= took, "{pause:?} of {took:?}");
    assert!(Pair::left(&pair.source, &pair.guest).await && !Pair::left(&pair.target, &pair.guest).await);
    // Its libvirt knows what it has after a crash, too.
    pair.kill_libvirt(false);
    pair.launch_libvirt(false);
    until("it is seen again", async || pair.target.seen(id).await.is_ok()).await;
    assert_eq!(pair.target().await, Some(Activity::Arrived));
    pair.target.resume(id).await.unwrap();
    assert_eq!(pair.target().await, Some(Activity::Running));
    pair.pause_by_hand(false);
    assert_eq!(pair.target().await, Some(Activity::Halted(Halt::Paused)), "the mark is gone");
    pair.target.resume(id).await.unwrap();
    assert_eq!(pair.target().await, Some(Activity::Halted(Halt::Paused)), "what somebody paused is his");
    assert_eq!(pair.target.migration(id).await.unwrap(), None);
    let again = pair.begin().await.unwrap().unwrap_err();
    assert!(matches!(again, HypervisorError::Refused(_)), "{again}");
}

async fn each_says_what_is_installed_and_what_the_other_has(pair: Pair) {
    let here = pair.source.versions(None).await.unwrap();
    assert!(here.libvirt.release() >= (5, 6) && here.qemu.release() > (0, 0), "{here:?}");
    assert_eq!(pair.source.versions(Some(&pair.at)).await.unwrap(), here, "one machine has both");
    pair.kill_libvirt(false);
    let silent = pair.source.versions(Some(&pair.at)).await.unwrap_err();
    assert!(matches!(silent, HypervisorError::Unavailable(_)), "{silent}");
}

async fn what_somebody_has_paused_arrives_so_and_stays_so(pair: Pair) {
    let id = pair.guest.id;
    pair.pause_by_hand(true);
    assert_eq!(pair.source().await, Some(Activity::Halted(Halt::Paused)));
    pair.begin().await.unwrap().unwrap();
    assert_eq!((pair.source().await, pair.target().await), (None, Some(Activity::Halted(Halt::Paused))));
    pair.target.resume(id).await.unwrap();
    assert_eq!(pair.target().await, Some(Activity::Halted(Halt::Paused)));
}

async fn while_it_is_copied_it_executes_at_the_source_and_is_held_at_the_target(pair: Pair) {
    let id = pair.guest.id;
    let call = pair.begin_and_copy().await;
    assert_eq!((pair.source().await, pair.target().await), (Some(Activity::Running), Some(Activity::Held)));
    assert_eq!(pair.there().await, Some(Activity::Held));
    assert_eq!(pair.target.migration(id).await.unwrap(), Some(Migration::Arriving));
    pair.target.abort_migration(id).await.unwrap();
    assert!(!call.is_finished(), "the target aborts nothing");
    pair.source.abort_migration(id).await.unwrap();
    let aborted = timeout(SOON, call).await.expect("it ends").unwrap().unwrap_err();
    assert!(matches!(aborted, HypervisorError::Refused(_)), "{aborted}");
    pair.until_it_stayed().await;
    pair.source.abort_migration(id).await.unwrap();
    assert!(!Pair::left(&pair.source, &pair.guest).await);
}

async fn a_source_whose_libvirt_is_killed_keeps_its_guest(pair: Pair) {
    let call = pair.begin_and_copy().await;
    pair.kill_libvirt(true);
    let lost = timeout(SOON, call).await.expect("it ends").unwrap().unwrap_err();
    assert!(matches!(lost, HypervisorError::Unavailable(_)), "{lost}");
    pair.launch_libvirt(true);
    pair.until_it_stayed().await;
}

async fn a_target_whose_libvirt_is_killed_gets_no_guest(pair: Pair) {
    let call = pair.begin_and_copy().await;
    pair.kill_libvirt(false);
    timeout(SOON, call).await.expect("it ends").unwrap().unwrap_err();
    let silent = pair.source.seen_at(&pair.at, pair.guest.id).await.unwrap_err();
    assert!(matches!(silent, HypervisorError::Unavailable(_)), "{silent}");
    pair.launch_libvirt(false);
    pair.until_it_stayed().await;
}

async fn a_guest_that_ends_during_its_migration_is_nowhere(pair: Pair) {
    let id = pair.guest.id;
    let call = pair.begin_and_copy().await;
    pair.source.power_off(id).await.unwrap();
    timeout(SOON, call).await.expect("it ends").unwrap().unwrap_err();
    until("it is off on both", async || pair.source().await.is_none() && pair.target().await.is_none()).await;
    assert!(!Pair::left(&pair.source, &pair.guest).await, "it has ended, and not left");
}

macro_rules! on_both {
    ($($test:ident: $slow:literal),+ $(,)?) => {
        mod on_fakes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::fakes($slow).await).await;
            })+
        }
        mod on_libvirt {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::libvirtds($slow).await).await;
            })+
        }
    };
}

on_both!(
    it_arrives_paused_and_is_gone_at_the_source_and_goes_on_when_it_is_let: false,
    each_says_what_is_installed_and_what_the_other_has: false,
    what_somebody_has_paused_arrives_so_and_stays_so: false,
    while_it_is_copied_it_executes_at_the_source_and_is_held_at_the_target: true,
    a_source_whose_libvirt_is_killed_keeps_its_guest: true,
    a_target_whose_libvirt_is_killed_gets_no_guest: true,
    a_guest_that_ends_during_its_migration_is_nowhere: true,
);

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_silent_or_absent_is_an_error_soon_and_delays_no_other() {
    let [(ours, _), (other, _)] = LibvirtdProcess::start_two().unwrap();
    let ask_peer = Duration::from_secs(2);
    let deadlines = Deadlines { ask_peer, ..Deadlines::default() };
    let hypervisor: Arc<LibvirtHypervisor> = connect(&ours.uri(), deadlines).await;
    let id = guest(|_| String::new()).id;
    let absent = Peer { host: "127.0.0.1".into(), transport: Transport::Tcp };
    let error = hypervisor.seen_at(&absent, id).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::Unavailable(why) if why.contains("127.0.0.1")), "{error}");

    let socket =
        |one: &LibvirtdProcess| Peer { host: "x".into(), transport: Transport::Socket(one.socket()) };
    other.freeze().unwrap();
    let asks: Vec<_> = (0..6)
        .map(|_| {
            let (hypervisor, frozen) = (hypervisor.clone(), socket(&other));
            tokio::spawn(async move { hypervisor.seen_at(&frozen, id).await })
        })
        .collect();
    sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    assert_eq!(hypervisor.seen_at(&socket(&ours), id).await.unwrap(), None);
    assert!(began.elapsed() < ask_peer, "it waited for the frozen one");
    for ask in asks {
        let error = ask.await.unwrap().unwrap_err();
        assert!(!matches!(error, HypervisorError::Refused(_)), "{error}");
    }
    assert!(hypervisor.calls_under_way() <= 2, "{} calls hang", hypervisor.calls_under_way());
    other.thaw().unwrap();
    until("it answers again", async || hypervisor.seen_at(&socket(&other), id).await.is_ok()).await;
}
