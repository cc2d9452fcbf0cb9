//! What plain libvirt's users leave behind: definitions with autostart, guests that they pause themselves.

use pvc_core::model::{DomainSpec, VmId};
use pvc_host::{
    hypervisor::{Activity, Halt, Hypervisor, Kept, Suspension, Undefined, libvirt::Deadlines},
    testing::{LibvirtdProcess, tiny_guest},
};

use crate::real::connect;

fn id(n: u32) -> VmId {
    format!("33333333-0000-4000-8000-{n:012}").parse().unwrap()
}

/// Defined with autostart, as `name`.
fn define(libvirtd: &LibvirtdProcess, n: u32, name: &str) {
    let definition = libvirtd.folder().join(format!("{name}.xml"));
    std::fs::write(&definition, tiny_guest(id(n), name)).unwrap();
    libvirtd.virsh(&format!("define {}", definition.display())).unwrap();
    libvirtd.virsh(&format!("autostart {name}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_removed_while_its_guest_runs_on_and_one_that_holds_something_is_kept() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    for (n, name) in [(1, "runs"), (2, "off"), (3, "saved"), (4, "firmware")] {
        define(&libvirtd, n, name);
    }
    libvirtd.virsh("start runs").unwrap();
    libvirtd.virsh("start saved").unwrap();
    libvirtd.virsh("managedsave saved").unwrap();
    let firmware = tiny_guest(id(4), "firmware").replace(
        "</os>",
        "<loader readonly='yes' type='pflash'>/dev/null</loader><nvram>/tmp/vars.fd</nvram></os>",
    );
    std::fs::write(libvirtd.folder().join("firmware.xml"), firmware).unwrap();
    libvirtd.virsh(&format!("define {}", libvirtd.folder().join("firmware.xml").display())).unwrap();

    let mut kept = hypervisor.kept().await.unwrap();
    kept.sort_by_key(|kept| kept.id);
    assert_eq!(kept, [1, 2, 3, 4].map(|n| Kept { id: id(n), autostart: true }));
    for n in 1..=4 {
        hypervisor.end_autostart(id(n)).await.unwrap();
    }
    assert!(hypervisor.kept().await.unwrap().iter().all(|kept| !kept.autostart));
    let undefined = async |n| hypervisor.undefine(id(n)).await.unwrap();
    assert_eq!((undefined(1).await, undefined(2).await), (Undefined::Gone, Undefined::Gone));
    assert_eq!(undefined(3).await, Undefined::Holds("a saved state".into()));
    assert_eq!(undefined(4).await, Undefined::Holds("firmware variables".into()));
    let left = hypervisor.kept().await.unwrap();
    assert_eq!(left.iter().map(|kept| kept.id).collect::<Vec<_>>().len(), 2, "{left:?}");
    let active = hypervisor.active().await.unwrap();
    assert_eq!(
        active.iter().map(|seen| (seen.id, seen.activity)).collect::<Vec<_>>(),
        [(id(1), Activity::Running)]
    );
    libvirtd.virsh("start saved").expect("its state is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_suspension_outlives_libvirtd_and_is_told_from_an_operators_pause() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    for (n, name) in [(1, "ours"), (2, "paused")] {
        define(&libvirtd, n, name);
        libvirtd.virsh(&format!("start {name}")).unwrap();
    }
    hypervisor.suspend(id(1), Suspension::Elsewhere).await.unwrap();
    libvirtd.virsh("suspend paused").unwrap();
    hypervisor.suspend(id(2), Suspension::Elsewhere).await.unwrap();
    let activities = async || {
        let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
        let seen = async |n| hypervisor.seen(id(n)).await.unwrap().unwrap().activity;
        (seen(1).await, seen(2).await)
    };
    assert_eq!(
        activities().await,
        (Activity::Suspended(Suspension::Elsewhere), Activity::Halted(Halt::Paused))
    );
    libvirtd.kill().unwrap();
    libvirtd.launch().unwrap();
    assert_eq!(
        activities().await,
        (Activity::Suspended(Suspension::Elsewhere), Activity::Halted(Halt::Paused))
    );

    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    hypervisor.resume(id(1)).await.unwrap();
    hypervisor.resume(id(2)).await.unwrap();
    assert_eq!(activities().await, (Activity::Running, Activity::Halted(Halt::Paused)));
    libvirtd.virsh("suspend ours").unwrap();
    hypervisor.resume(id(1)).await.unwrap();
    assert_eq!(
        activities().await,
        (Activity::Halted(Halt::Paused), Activity::Halted(Halt::Paused)),
        "from now on it is the operator's pause"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_lets_go_is_not_taken_for_held_when_he_pauses_it_later() {
    let libvirtd = LibvirtdProcess::start().unwrap();
    let hypervisor = connect(&libvirtd.uri(), Deadlines::default()).await;
    let activity = async || hypervisor.seen(id(1)).await.unwrap().unwrap().activity;
    let guest = DomainSpec::parse(&tiny_guest(id(1), "guest")).unwrap();
    hypervisor.prepare(&guest).await.unwrap();
    libvirtd.virsh("resume guest").unwrap();
    hypervisor.note_executes(id(1)).await.unwrap();
    libvirtd.virsh("suspend guest").unwrap();
    assert_eq!(activity().await, Activity::Halted(Halt::Paused), "it was made by a start");

    libvirtd.virsh("resume guest").unwrap();
    hypervisor.suspend(id(1), Suspension::Elsewhere).await.unwrap();
    libvirtd.virsh("resume guest").unwrap();
    hypervisor.note_executes(id(1)).await.unwrap();
    libvirtd.virsh("suspend guest").unwrap();
    assert_eq!(activity().await, Activity::Halted(Halt::Paused), "it was suspended by a daemon");
    hypervisor.power_off(id(1)).await.unwrap();

    // Nobody has noted that it executes.
    hypervisor.prepare(&guest).await.unwrap();
    libvirtd.virsh("resume guest").unwrap();
    hypervisor.suspend(id(1), Suspension::Elsewhere).await.unwrap();
    assert_eq!(
        activity().await,
        Activity::Suspended(Suspension::Elsewhere),
        "something would be lost with it"
    );
}

/// libvirt's built-in test driver has one domain, which runs and is kept.
#[tokio::test(flavor = "multi_thread")]
async fn the_test_drivers_domain_is_suspended_and_its_definition_removed() {
    let hypervisor = connect("test:///default", Deadlines::default()).await;
    let kept = hypervisor.kept().await.unwrap();
    let [Kept { id, .. }] = kept[..] else { panic!("{kept:?}") };
    hypervisor.suspend(id, Suspension::Elsewhere).await.unwrap();
    assert_eq!(
        hypervisor.seen(id).await.unwrap().unwrap().activity,
        Activity::Suspended(Suspension::Elsewhere)
    );
    hypervisor.resume(id).await.unwrap();
    assert_eq!(hypervisor.seen(id).await.unwrap().unwrap().activity, Activity::Running);
    hypervisor.end_autostart(id).await.unwrap();
    assert_eq!(hypervisor.undefine(id).await.unwrap(), Undefined::Gone);
    assert_eq!(hypervisor.kept().await.unwrap(), []);
    assert!(hypervisor.seen(id).await.unwrap().is_some());
}
