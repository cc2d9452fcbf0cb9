//! Nodes whose daemons have stopped in order.

use super::*;

/// `x`, whose daemon stopped that long ago, and a VM that is to run there.
fn stopped(silence: u64) -> Case {
    let mut c = case(&[("a", 0), ("b", 1), ("x", silence)]);
    c.node("x").daemon_state = field(DaemonState::Stop);
    c.vms = vec![Vm { node: field(name("x")), ..vm(VmState::Start, "x") }];
    c
}

#[test]
fn the_bmc_of_a_node_that_has_stopped_with_vms_is_asked_and_nothing_is_shot() {
    assert_eq!(stopped(30).next("x"), Next::Do(Step::AskPower));
    assert_eq!(stopped(29).next("x"), Next::Wait(Some(Moment::secs(1001))));

    let mut c = stopped(500);
    c.attempts.asked_power("its BMC says that its machine has power".into(), Moment::secs(990));
    let plan = c.plan("x");
    assert!(waits(&plan, "1 VM(s) stay with it: its BMC says that its machine has power"), "{plan:?}");
    assert_eq!(plan.next, Next::Wait(Some(Moment::secs(1010))));
    c.now = 1010;
    assert_eq!(c.next("x"), Next::Do(Step::AskPower));
}

#[test]
fn nobody_asks_where_there_is_nothing_to_recover_or_nobody_is_to() {
    let without = |change: fn(&mut Case)| {
        let mut c = stopped(500);
        change(&mut c);
        c.next("x")
    };
    assert_eq!(without(|c| c.vms.clear()), Next::Settled);
    assert_eq!(without(|c| c.vms[0].state = field(VmState::Stop)), Next::Settled);
    assert_eq!(without(|c| c.settings.fence_intervals = 0), Next::Settled);
    assert_eq!(without(|c| c.settings.successful = Action::Nothing), Next::Settled);
    assert_eq!(without(|c| c.maintenance = true), Next::Wait(None));
}

#[test]
fn what_was_found_off_is_recovered_and_not_powered_on() {
    let mut c = stopped(500).with_job(FenceStep::Proven { proof: Proof::FoundOff });
    assert!(c.recovers("x"));
    c.vms.clear();
    assert_eq!(c.next("x"), Next::Do(Step::Record(FenceStep::Recovered { proof: Proof::FoundOff })));
    c.node("x").daemon_state = field(DaemonState::Init);
    assert_eq!(c.next("x"), Next::Do(Step::Finish(End::Back)));
}
