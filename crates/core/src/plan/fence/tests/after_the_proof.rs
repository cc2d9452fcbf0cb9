//! What becomes of the VMs of a node that is proven dead, and of the node itself.

use super::*;

#[test]
fn after_the_proof_its_vms_get_new_homes_and_it_is_powered_on_and_the_job_ends_when_they_run() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(proven());
    c.vms.push(Vm { node: field(name("x")), ..vm(VmState::Start, "x") });
    assert!(c.recovers("x"));
    c.attempts.recovery_failed("no room".into(), Moment::secs(999));
    assert_eq!(c.next("x"), Next::Do(Step::PowerOn), "it may bring its memory back");
    c.attempts.told_to_power_on(Moment::secs(1000));
    assert_eq!(c.next("x"), Next::Wait(Some(Moment::secs(1004))));
    assert!(waits(&c.plan("x"), "no room"));

    c.vms[0] = Vm { node: field(name("b")), last_node: field(Some(name("x"))), ..vm(VmState::Start, "") };
    let recovered = FenceStep::Recovered { proof: Proof::PowerOff };
    assert_eq!(c.next("x"), Next::Do(Step::Record(recovered.clone())));
    c.fences[0].job.step = recovered;
    assert!(waits(&c.plan("x"), "web1 on b"));
    c.node("b").daemon_state = field(DaemonState::Init);
    assert!(waits(&c.plan("x"), "web1 on b"), "its daemon starts over");
    c.node("b").daemon_state = field(DaemonState::Dead);
    assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Done)), "the fence of b takes care of it");
    c.node("b").daemon_state = field(DaemonState::Run);
    c.vms[0].claim = field("b".parse().unwrap());
    c.node("b").report = NodeReport { running: vec![id(1)], ..NodeReport::default() };
    assert!(waits(&c.plan("x"), "web1 on b"), "it said so before the move");
    c.node("b").keepalive_zxid = 2;
    c.node("b").report.cannot_start = Some("libvirt is away".into());
    assert!(waits(&c.plan("x"), "web1 on b"), "it repeats what it knew of its libvirt");
    c.node("b").report.cannot_start = None;
    assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Done)));
}

#[test]
fn a_node_that_is_back_after_the_proof_is_left_alone() {
    for step in [proven(), FenceStep::Recovered { proof: Proof::PowerOff }] {
        let mut c = case(&[("a", 0), ("b", 1), ("x", 2)]).with_job(step);
        c.vms.push(Vm { node: field(name("x")), ..vm(VmState::Start, "x") });
        c.fences[0].job.asked = Some(word());
        for state in [DaemonState::Init, DaemonState::Run] {
            c.node("x").daemon_state = field(state);
            assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Back)), "{state}");
        }
        let key = "/nodes/x/daemonstate".to_owned();
        c.node("x").problems.push(crate::model::Problem { key, what: "no state".into() });
        assert_ne!(c.next("x"), Next::Do(Step::Finish(End::Back)), "somebody has spoilt it");
        c.node("x").keepalive_version = Some(99);
        assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Back)), "it speaks");
    }
}

#[test]
fn vms_with_rbd_images_wait_for_the_storage_fence_and_the_others_do_not() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(proven());
    let rbd = Vm { rbd_images: vec!["vms/web1".into()], node: field(name("x")), ..vm(VmState::Start, "x") };
    c.vms.push(rbd.clone());
    c.storage = true;
    assert_eq!(c.next("x"), Next::Do(Step::ShutOutStorage));
    c.attempts.storage_failed("ceph does not answer".into(), Moment::secs(999));
    assert_eq!(c.next("x"), Next::Do(Step::PowerOn), "it may be what Ceph waits for, and no sooner");
    c.attempts.told_to_power_on(Moment::secs(1000));
    assert!(waits(&c.plan("x"), "ceph does not answer"));
    c.vms.push(Vm { id: id(2), rbd_images: vec![], ..rbd });
    assert!(c.recovers("x"), "the one without");
    c.fences[0].job.step = FenceStep::StorageFenced { proof: Proof::PowerOff };
    assert!(c.recovers("x"));

    c.fences[0].job.step = proven();
    c.vms.pop();
    c.storage = false;
    c.attempts.taken();
    c.attempts.told_to_power_on(Moment::secs(1000));
    for n in ["a", "b"] {
        c.node(n).storage = Some(false);
    }
    assert!(waits(&c.plan("x"), "no coordinator that works manages storage"));
}

#[test]
fn a_coordinator_without_storage_leaves_the_fence_to_one_that_has_it() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(proven());
    let there = Vm { node: field(name("x")), ..vm(VmState::Start, "x") };
    c.vms.push(there.clone());
    c.vms.push(Vm { id: id(2), ..there });
    c.sizes.insert(id(1), Size { needs_storage: true, ..Size::default() });
    c.storage = false;
    assert_eq!(c.next("x"), Next::Do(Step::Leave), "before anything else: b does that, too");
    assert!(c.plan("x").why.contains("1 VM(s) with RBD disks wait until b"), "{}", c.plan("x").why);
    c.attempts.left();
    let mut left = c.left_to_others();
    assert!(waits(&left.plan("x"), "until b, which manages storage, goes on"), "it does not take it again");
    left.storage = true;
    assert_eq!(left.next("x"), Next::Do(Step::TakeOver), "as b sees it");

    left.storage = false;
    left.node("b").daemon_state = field(DaemonState::Dead);
    assert_eq!(left.next("x"), Next::Do(Step::TakeOver), "for the others, and to say what is waited for");
}

#[test]
fn what_the_dead_node_is_shut_out_of_starts_elsewhere_and_the_rest_waits() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(proven());
    c.storage = true;
    let rbd = Vm { rbd_images: vec!["vms/web1".into()], node: field(name("x")), ..vm(VmState::Start, "x") };
    c.vms.extend([rbd.clone(), Vm { id: id(2), ..rbd }]);
    c.attempts.told_to_power_on(Moment::secs(1000));
    c.attempts.storage_failed("web1: its header is gone".into(), Moment::secs(999));
    assert!(waits(&c.plan("x"), "2 VM(s) wait"));
    c.fences[0].job.freed.insert(id(2));
    assert!(c.recovers("x"));
    c.attempts.recovery_failed("no room".into(), Moment::secs(998));
    let plan = c.plan("x");
    assert_eq!(plan.next, Next::Wait(Some(Moment::secs(1003))));
    for why in ["1 VM(s) wait for a new home: no room", "1 VM(s) wait until it is shut out", "header is gone"]
    {
        assert!(plan.why.contains(why), "{}", plan.why);
    }
    c.vms.pop();
    c.attempts.storage_failed("web1: its header is gone".into(), Moment::secs(990));
    assert_eq!(c.next("x"), Next::Do(Step::ShutOutStorage), "again, for the rest");
}

#[test]
fn of_a_node_that_is_dead_and_not_to_be_recovered_only_the_claims_are_released() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(proven());
    c.settings.successful = Action::Nothing;
    c.attempts.told_to_power_on(Moment::secs(1000));
    c.vms.push(Vm { node: field(name("x")), ..vm(VmState::Start, "x") });
    let orders = recover::orders(&name("x"), &c.view(), &Sizes::new(), Action::Nothing, |_| false);
    assert_eq!(orders.iter().map(|o| &o.what).collect::<Vec<_>>(), [&recover::What::Release]);
    assert!(c.recovers("x"));
    c.vms[0].claim = field("".parse().unwrap());
    assert!(c.plan("x").why.contains("stay assigned"), "{}", c.plan("x").why);
}
