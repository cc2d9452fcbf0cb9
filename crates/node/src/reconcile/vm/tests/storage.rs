//! Starts of VMs with RBD disks.

use std::net::Ipv4Addr;

use pvc_host::{ceph::Ceph as _, hypervisor::Halt};

use super::{starts::give_room, *};

fn with_rbd_disk(n: u8) -> String {
    let disk = "<devices><disk type='network' device='disk'><source protocol='rbd' name='vms/one'/><target dev='vda'/></disk></devices>";
    xml(n).replace("<devices/>", disk)
}

/// Somebody on a host has the VM's image open, as its process will have.
fn open(w: &World, host: Ipv4Addr) -> pvc_core::model::ceph::ClientAddress {
    let image = "vms/one".parse().unwrap();
    w.nodes[0].ceph.create(&image);
    w.nodes[0].ceph.open(&image, host).address
}

/// VM 1 on node `a`, off, of which a client is recorded that it had on a node that is gone.
async fn with_an_earlier_run() -> (World, pvc_core::model::ceph::ClientAddress) {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    open(&w, Ipv4Addr::LOCALHOST);
    let (earlier, images) = ("10.0.0.9:0/7".parse().unwrap(), ["vms/one".parse().unwrap()].into());
    let clients = pvc_core::model::ceph::VmClients { clients: [earlier].into(), images, boot: None };
    let (new, also) = ((&clients, None), pvc_store::Transaction::default());
    schema::vm_clients::record(&*w.operator, id(1), &"x".parse().unwrap(), new, &also).await.unwrap();
    (w, earlier)
}

#[tokio::test(start_paused = true)]
async fn a_vm_does_not_start_before_its_earlier_run_is_shut_out_of_its_images_and_says_so() {
    let (w, earlier) = with_an_earlier_run().await;
    let ceph = Arc::clone(&w.nodes[0].ceph);
    ceph.refuse_blocklist(true);
    w.ask_for(1, VmState::Start).await;
    w.until("it is told why", 5, async |w| {
        let reason = w.vm(1).await.failed_reason.value;
        reason.contains("may still be writing to its images") && reason.contains("access denied")
    })
    .await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 0, "no blocklist, no start");
    ceph.refuse_blocklist(false);
    w.until("it runs", 61, async |w| w.runs(0, 1)).await;
    assert!(ceph.blocklisted().await.unwrap().contains_key(&earlier));
    let (records, _) = schema::vm_clients::read_vm(&*w.operator, id(1)).await.unwrap();
    assert!(records.iter().all(|record| record.node == w.nodes[0].name), "{records:?}");
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_stopped_while_its_earlier_run_is_shut_out_does_not_start_after_that() {
    let (w, _) = with_an_earlier_run().await;
    w.nodes[0].ceph.take(Duration::from_secs(5));
    w.ask_for(1, VmState::Start).await;
    w.until("it is claimed", 2, async |w| !w.vm(1).await.claim.value.is_empty()).await;
    sleep(Duration::from_secs(2)).await;
    w.ask_for(1, VmState::Stop).await;
    w.until("nobody claims it", 60, async |w| w.vm(1).await.claim.value.is_empty()).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 0);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_does_not_answer_holds_up_a_start_for_a_minute_and_then_it_is_told() {
    let (w, _) = with_an_earlier_run().await;
    w.nodes[0].ceph.take(Duration::from_hours(1));
    w.ask_for(1, VmState::Start).await;
    w.until("it is told", 65, async |w| {
        w.vm(1).await.failed_reason.value.contains("the storage did not answer within 60 s")
    })
    .await;
    w.ask_for(1, VmState::Stop).await;
    w.until("nobody claims it", 65, async |w| w.vm(1).await.claim.value.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_with_rbd_disks_is_started_by_no_node_that_manages_no_storage_whoever_sent_it_there() {
    let mut w = World::new().await;
    give_room(&w).await;
    w.nodes[0].kill();
    w.nodes[0].storage = false;
    w.nodes[0].start();
    w.define(1, with_rbd_disk(1)).await;
    open(&w, Ipv4Addr::LOCALHOST);
    w.define(2, xml(2)).await;
    for n in [1, 2] {
        w.ask_for(n, VmState::Start).await;
    }
    w.until("it is told why", 5, async |w| {
        w.vm(1).await.failed_reason.value.contains("this node does not manage storage")
    })
    .await;
    w.until("another one runs", 5, async |w| w.runs(0, 2)).await;
    w.until("it runs on b", 40, async |w| w.runs(1, 1)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1);
}

#[tokio::test(start_paused = true)]
async fn a_guest_executes_nothing_before_its_ceph_clients_are_recorded() {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    let (ceph, hypervisor) = (Arc::clone(&w.nodes[0].ceph), Arc::clone(&w.nodes[0].hypervisor));
    let client = open(&w, Ipv4Addr::LOCALHOST);
    ceph.take(Duration::from_secs(1));
    w.ask_for(1, VmState::Start).await;
    w.until("its process is there", 10, async |w| w.nodes[0].hypervisor.counts().start == 1).await;
    assert_eq!(hypervisor.activity(id(1)), Some(Activity::Unstarted), "Ceph has not answered");
    w.until("it runs", 5, async |w| w.runs(0, 1)).await;
    let (records, _) = schema::vm_clients::read_vm(&*w.operator, id(1)).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0].node, &records[0].clients.clients), (&w.nodes[0].name, &[client].into()));
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_ceph_clients_cannot_be_recorded_is_ended_before_it_begins_and_it_is_told() {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    let ceph = Arc::clone(&w.nodes[0].ceph);
    open(&w, Ipv4Addr::new(10, 0, 0, 9));
    w.ask_for(1, VmState::Start).await;
    let told = async |says: &str, trouble: &str| {
        w.until("it is told", 130, async |w| {
            let reason = w.vm(1).await.failed_reason.value;
            reason.contains(says) && reason.contains(trouble)
        })
        .await;
        assert_eq!(w.nodes[0].hypervisor.activity(id(1)), None, "{trouble}");
    };
    told("its Ceph clients cannot be recorded", "knows of nobody on this node").await;
    let made = w.nodes[0].hypervisor.counts().start;
    ceph.take(Duration::from_hours(1));
    told("its images cannot be used", "no answer within 20 s").await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, made, "nothing hangs with its storage");
    ceph.take(Duration::from_secs(3));
    w.until("its process is there", 130, async |w| w.nodes[0].hypervisor.activity(id(1)).is_some()).await;
    ceph.take(Duration::from_hours(1));
    told("its Ceph clients cannot be recorded", "no answer within 20 s").await;
    ceph.take(Duration::ZERO);
    open(&w, Ipv4Addr::LOCALHOST);
    w.until("it runs", 130, async |w| w.runs(0, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_arrives_goes_on_when_its_ceph_clients_are_recorded_at_its_new_node() {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    open(&w, Ipv4Addr::LOCALHOST);
    w.ask_for(1, VmState::Start).await;
    w.until("it runs", 10, async |w| w.runs(0, 1)).await;
    let (ceph, image) = (Arc::clone(&w.nodes[1].ceph), "vms/one".parse().unwrap());
    ceph.create(&image);
    let client = ceph.open(&image, Ipv4Addr::LOCALHOST).address;
    ceph.take(Duration::from_hours(1));
    w.migrate(1, "b").await;
    w.until("it is handed over", 10, async |w| w.vm(1).await.claim.value.is_only(&w.nodes[1].name)).await;
    sleep(Duration::from_mins(3)).await;
    assert_eq!(w.nodes[1].hypervisor.activity(id(1)), Some(Activity::Arrived), "nobody could shut it out");
    let said = schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().unwrap().unwrap();
    let error = said.error.unwrap_or_default();
    assert!(error.contains("its Ceph clients") && error.contains("no answer within 20 s"), "{error}");
    ceph.take(Duration::ZERO);
    w.until("it goes on", 90, async |w| w.runs(1, 1)).await;
    let (records, _) = schema::vm_clients::read_vm(&*w.operator, id(1)).await.unwrap();
    let its = records.iter().find(|record| record.node == w.nodes[1].name).unwrap();
    assert_eq!(its.clients.clients, [client].into());
}

/// The daemon dies between the process and the record.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_daemon_has_not_recorded_is_ended_and_started_anew() {
    let mut w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    open(&w, Ipv4Addr::LOCALHOST);
    w.nodes[0].ceph.take(Duration::from_secs(3));
    w.ask_for(1, VmState::Start).await;
    w.until("its process is there", 10, async |w| w.nodes[0].hypervisor.counts().start == 1).await;
    w.nodes[0].kill();
    w.nodes[0].ceph.take(Duration::ZERO);
    w.nodes[0].start();
    w.until("it runs", 60, async |w| w.runs(0, 1)).await;
    let counts = w.nodes[0].hypervisor.counts();
    assert_eq!((counts.start, counts.power_off), (2, 1));
    assert_eq!(schema::vm_clients::read_vm(&*w.operator, id(1)).await.unwrap().0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_stopped_while_its_clients_are_recorded_does_not_begin() {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    open(&w, Ipv4Addr::LOCALHOST);
    w.nodes[0].ceph.take(Duration::from_secs(3));
    w.ask_for(1, VmState::Start).await;
    w.until("its process is there", 10, async |w| w.nodes[0].hypervisor.counts().start == 1).await;
    w.ask_for(1, VmState::Stop).await;
    w.until("it is off", 30, async |w| w.vm(1).await.claim.value.is_empty()).await;
    assert_eq!(w.nodes[0].hypervisor.counts().resume, 0, "it has never executed");
}

/// libvirt makes the process and lets nothing execute.
fn not_let_go() -> Behaviour {
    let resume = Answer { outcome: Outcome::Hangs, ..Answer::default() };
    Behaviour { resume, ..Behaviour::default() }
}

/// A VM with a disk in that pool, whose image is open here.
async fn define_in(w: &World, n: u8, pool: &str) {
    let image: pvc_core::model::ceph::ImageName = format!("{pool}/{n}").parse().unwrap();
    w.nodes[0].ceph.create(&image);
    w.nodes[0].ceph.open(&image, Ipv4Addr::LOCALHOST);
    w.define(n, with_rbd_disk(n).replace("vms/one", &image.to_string())).await;
}

#[tokio::test(start_paused = true)]
async fn starts_that_wait_for_a_pool_that_hangs_hold_up_no_other_pool_and_no_vm_without_disks() {
    let w = World::new().await;
    for n in 1..=12 {
        define_in(&w, n, "hung").await;
        w.ask_for(n, VmState::Start).await;
    }
    w.nodes[0].ceph.hang(&"hung".parse().unwrap());
    sleep(Duration::from_millis(100)).await;
    w.define(20, xml(20)).await;
    define_in(&w, 21, "healthy").await;
    for n in [20, 21] {
        w.ask_for(n, VmState::Start).await;
        w.until("it runs", 2, async |w| w.runs(0, n)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_hangs_and_that_only_an_earlier_run_used_holds_up_nobody_else() {
    let w = World::new().await;
    let hung: pvc_core::model::ceph::ImageName = "hung/one".parse().unwrap();
    for n in 1..=12 {
        define_in(&w, n, "healthy").await;
        let clients = ["10.0.0.9:0/1".parse().unwrap()].into();
        let former = pvc_core::model::ceph::VmClients { clients, images: [hung.clone()].into(), boot: None };
        let (new, also) = ((&former, None), pvc_store::Transaction::default());
        schema::vm_clients::record(&*w.operator, id(n), &"x".parse().unwrap(), new, &also).await.unwrap();
        w.ask_for(n, VmState::Start).await;
    }
    w.nodes[0].ceph.hang(&hung.pool);
    sleep(Duration::from_millis(100)).await;
    define_in(&w, 21, "healthy").await;
    w.ask_for(21, VmState::Start).await;
    w.until("it runs", 2, async |w| w.runs(0, 21)).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_cannot_be_let_go_is_no_start_that_ended() {
    let w = World::new().await;
    // Of what is not written to, no process leaves a client that the next one would have to replace.
    w.define(1, with_rbd_disk(1).replace("<target", "<readonly/><target")).await;
    w.nodes[0].hypervisor.behave(id(1), not_let_go());
    w.ask_for(1, VmState::Start).await;
    sleep(Duration::from_mins(20)).await;
    let vm = w.vm(1).await;
    assert_eq!(vm.state.value, VmState::Start, "{}", vm.failed_reason.value);
    assert!(vm.failed_reason.value.contains("was made and not let go"), "{}", vm.failed_reason.value);
    w.nodes[0].hypervisor.behave(id(1), Behaviour::default());
    w.until("it runs", 130, async |w| w.runs(0, 1) || w.runs(1, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_not_begun_and_whose_vm_is_gone_is_ended() {
    let w = World::new().await;
    define_in(&w, 1, "vms").await;
    w.nodes[0].hypervisor.behave(id(1), not_let_go());
    w.ask_for(1, VmState::Start).await;
    w.until("its process is there", 2, async |w| w.nodes[0].hypervisor.activity(id(1)).is_some()).await;
    schema::vm::apply(&*w.operator, &VmChange::Remove { id: id(1), expect: vec![] }).await.unwrap();
    w.until("it is ended", 120, async |w| w.nodes[0].hypervisor.activity(id(1)).is_none()).await;
    // What has executed is not.
    w.running(2).await;
    schema::vm::apply(&*w.operator, &VmChange::Remove { id: id(2), expect: vec![] }).await.unwrap();
    sleep(Duration::from_mins(5)).await;
    assert!(w.runs(0, 2));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_let_go_by_hand_and_pauses_later_is_neither_ended_nor_let_go() {
    let mut w = World::new().await;
    define_in(&w, 1, "vms").await;
    w.nodes[0].hypervisor.behave(id(1), not_let_go());
    w.ask_for(1, VmState::Start).await;
    w.until("its process is there", 2, async |w| w.nodes[0].hypervisor.activity(id(1)).is_some()).await;
    w.nodes[0].kill();
    w.nodes[0].hypervisor.behave(id(1), Behaviour::default());
    w.nodes[0].hypervisor.turn(id(1), Activity::Running);
    w.nodes[0].start();
    sleep(Duration::from_secs(10)).await;
    w.nodes[0].hypervisor.turn(id(1), Activity::Halted(Halt::Paused));
    sleep(Duration::from_mins(5)).await;
    assert_eq!(w.nodes[0].hypervisor.activity(id(1)), Some(Activity::Halted(Halt::Paused)));
}

#[tokio::test(start_paused = true)]
async fn a_client_at_another_address_of_this_host_is_its_own_and_the_vm_starts() {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    let other = Ipv4Addr::new(10, 0, 0, 1);
    w.nodes[0].ceph.has_address(other);
    let client = open(&w, other);
    w.ask_for(1, VmState::Start).await;
    w.until("it runs", 5, async |w| w.runs(0, 1)).await;
    let (records, _) = schema::vm_clients::read_vm(&*w.operator, id(1)).await.unwrap();
    assert_eq!(records[0].clients.clients, [client].into());
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_writes_to_what_this_ceph_does_not_have_is_not_made_and_it_is_told_what_to_do() {
    let w = World::new().await;
    w.define(1, with_rbd_disk(1)).await;
    w.ask_for(1, VmState::Start).await;
    w.until("it is told", 5, async |w| {
        let reason = w.vm(1).await.failed_reason.value;
        reason.contains("vms/one is not there")
            && reason.contains("must be in the Ceph cluster that its node uses")
    })
    .await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 0);
    // What it only reads may be anywhere, and what it writes of a transient disk is in a file.
    for (n, child) in [(2, "<readonly/>"), (3, "<transient/>")] {
        w.define(n, with_rbd_disk(n).replace("<target", &format!("{child}<target"))).await;
        w.ask_for(n, VmState::Start).await;
        w.until("it runs", 5, async |w| w.runs(0, n)).await;
    }
}
