//! Of a dead node whose VMs have RBD disks, over the fake Ceph.

use pvc_host::ceph::fake::FakeWriter;

use super::*;

#[tokio::test(start_paused = true)]
async fn vms_with_rbd_images_stay_where_nobody_manages_storage_and_the_others_do_not() {
    let w = world(SETTINGS).await;
    w.set(1, vec![VmSet::RbdImages(vec!["vms/one".into()])]).await;
    w.machine("x").hang();
    w.until("the others run elsewhere", 40, async |w| {
        (2..4).all(|n| w.runs_on(n).iter().any(|node| node.as_str() != "x"))
    })
    .await;
    w.until("it is told why", 10, async |w| {
        let told = schema::node::read_explanation(&*w.eye, &name("x")).await.unwrap();
        told.is_some_and(|told| told.unwrap().because.contains("no coordinator that works manages storage"))
    })
    .await;
    assert!(w.vm(1).await.claim.value.is_only(&name("x")), "its claim protects the image");
    w.until("it runs where it was", 60, async |w| w.runs_on(1) == [name("x")]).await;
    is_over(&w).await;
}

/// `x`, whose VM 1 has RBD images, and of the others only some manage storage.
async fn world_with_rbd(able: &[&str]) -> (World, FakeWriter) {
    let w = World::with_storage(&NODES, SETTINGS, able).await;
    let image = "vms/one".parse().unwrap();
    w.ceph.create(&image);
    w.running("x", 1..4).await;
    w.set(1, vec![VmSet::RbdImages(vec!["vms/one".into()])]).await;
    let writer = w.ceph.open(&image, std::net::Ipv4Addr::new(10, 0, 0, 9));
    assert!(writer.write(1));
    (w, writer)
}

#[tokio::test(start_paused = true)]
async fn whichever_coordinator_wins_a_fence_one_that_manages_storage_shuts_the_dead_node_out() {
    for able in ["a", "b"] {
        let (w, old) = world_with_rbd(&[able]).await;
        w.machine("x").hang();
        recovered(&w, 45).await;
        assert!(!old.write(2), "{able} manages storage");
        is_over(&w).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_looked_at_holds_up_no_other_vm_of_its_node() {
    let (w, old) = world_with_rbd(&["a", "b"]).await;
    w.set(2, vec![VmSet::RbdImages(vec!["vms/two".into()])]).await;
    let two = "vms/two".parse().unwrap();
    w.ceph.spoil(&two, true);
    w.machine("x").hang();
    w.until("the others run elsewhere", 60, async |w| {
        [1, 3].iter().all(|n| w.runs_on(*n).iter().any(|node| node.as_str() != "x"))
    })
    .await;
    assert!(!old.write(2));
    assert_eq!(w.vm(2).await.claim.value.to_string(), "x", "{:?}", w.fence("x").await);
    w.until("it is told which waits", 10, async |w| {
        let told = schema::vm::read_explanation(&*w.eye, id(2)).await.unwrap();
        told.is_some_and(|told| told.unwrap().because.contains("its header is gone"))
    })
    .await;
    w.ceph.spoil(&two, false);
    recovered(&w, 15).await;
    is_over(&w).await;
}

#[tokio::test(start_paused = true)]
async fn a_fencer_that_is_overtaken_while_ceph_hangs_shuts_nobody_out_who_runs_by_then() {
    let (w, old) = world_with_rbd(&["a", "b"]).await;
    w.ceph.take(Duration::from_secs(4));
    w.power.plug("x-lom", false);
    w.until(
        "it is shut out",
        60,
        async |w| matches!(w.fence("x").await, Some(f) if f.job.step.proof().is_some()),
    )
    .await;
    let fencer = w.fence("x").await.unwrap().fencer.unwrap();
    sleep(Duration::from_secs(1)).await;
    // Its request goes on, and the other coordinator takes the job.
    w.machine(fencer.as_str()).store.expire();
    recovered(&w, 150).await;
    let new = w.ceph.open(&"vms/one".parse().unwrap(), std::net::Ipv4Addr::new(10, 0, 0, 2));
    sleep(Duration::from_mins(3)).await;
    assert!(!old.write(2) && new.write(3));
}
