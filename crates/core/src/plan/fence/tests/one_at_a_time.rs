//! Which of several fences go on.

use super::*;

/// Of a node that lives, as an operator asked for it; nobody works on it yet.
fn asked(node: &str) -> Fence {
    let mut fence = fence(node, FenceStep::Shooting);
    fence.job.asked = Some(word());
    Fence { fencer: None, ..fence }
}

#[test]
fn while_one_node_is_shot_no_other_is() {
    let mut c = case(&[("a", 0), ("b", 1), ("c", 1), ("d", 1), ("x", 30), ("y", 500)]);
    c.node("y").daemon_state = field(DaemonState::Dead);
    c.fences.push(fence("y", FenceStep::Shooting));
    assert!(waits(&c.plan("x"), "y is being fenced"));
    for over in [failed(), proven(), FenceStep::Recovered { proof: Proof::PowerOff }] {
        c.fences = vec![fence("y", over.clone())];
        assert_eq!(c.next("x"), DECLARE, "{over:?}");
    }
}

#[test]
fn a_fence_that_waits_for_a_quorum_holds_up_no_other() {
    let mut c = case(&[("a", 0), ("b", 0), ("c", 60), ("h", 30), ("i", 1)]);
    for hypervisor in ["h", "i"] {
        c.node(hypervisor).mode = DaemonMode::Hypervisor;
    }
    c.node("c").daemon_state = field(DaemonState::Stop);
    assert_eq!(c.next("h"), DECLARE);
    c.fences = vec![asked("b")];
    assert!(
        waits(&c.plan("b"), "1 of 3 coordinators would be left")
            || matches!(c.next("b"), Next::Do(Step::AskServers(_)))
    );
    assert_eq!(c.next("h"), DECLARE, "b is not powered off before c is back");
    c.fences.push(asked("i"));
    assert_eq!(c.next("i"), Next::Do(Step::TakeOver), "the same for one that an operator asked for");
    c.fences.pop();
    c.fences[0].fencer = Some(name("b"));
    assert!(waits(&c.plan("h"), "b is being fenced"), "who works on it may know more");
    c.node("c").daemon_state = field(DaemonState::Run);
    c.nodes[2].1 = 1;
    c.fences[0].fencer = None;
    assert!(waits(&c.plan("h"), "b is being fenced"), "it is the first to go on");
}

#[test]
fn a_coordinator_that_another_node_powers_off_is_not_counted_on() {
    let mut c = case(&[("a", 0), ("b", 0), ("x", 0)]);
    c.fences = vec![asked("x")];
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver));
    c.fences.push(Fence { fencer: Some(name("c")), ..asked("y") });
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver), "y is no coordinator");
    c.fences[1] = Fence { fencer: Some(name("x")), ..asked("b") };
    assert!(waits(&c.plan("x"), "b is being fenced"));
    c.fences = vec![asked("b"), Fence { fencer: Some(name("b")), ..asked("x") }];
    assert!(
        waits(&c.plan("b"), "1 of 3 coordinators would be left"),
        "b comes before x, but x may be off in a moment"
    );
}
