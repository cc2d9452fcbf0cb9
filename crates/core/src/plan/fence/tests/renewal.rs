//! What waited longer than a proof of death holds.

use super::*;

/// The VM of `x`, proven dead by `a` at second 1000, waits for room; it is second `now`.
fn waits_for_room(proof: Proof, now: u64) -> Case {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 40)]).with_job(FenceStep::StorageFenced { proof });
    c.vms.push(Vm { node: field(name("x")), ..vm(VmState::Start, "x") });
    c.attempts.proven(Moment::secs(1000));
    c.attempts.taken();
    c.attempts.told_to_power_on(Moment::secs(1002));
    c.now = now;
    c
}

const AGAIN: Next = Next::Do(Step::Record(FenceStep::Shooting));
const ASK: Next = Next::Do(Step::AskStillOff);

#[test]
fn a_proof_holds_for_as_long_as_no_machine_boots() {
    for (proof, holds) in [
        (Proof::PowerOff, 20),
        (Proof::FoundOff, 20),
        (Proof::ResetAccepted, 20),
        (Proof::SelfFence, 60),
        (Proof::Operator, 60),
    ] {
        let last = waits_for_room(proof, 1000 + holds - 1);
        let settings = Settings { failed: Action::Migrate, ..SETTINGS };
        assert!(Case { settings, ..last }.recovers("x"), "{proof}");
        let late = waits_for_room(proof, 1000 + holds);
        assert_eq!(Case { settings, ..late }.next("x"), ASK, "{proof}");
    }
}

#[test]
fn what_is_found_off_is_proven_dead_anew_and_need_not_be_told_to_power_on_again() {
    let mut c = waits_for_room(Proof::PowerOff, 2000);
    c.attempts.found_off(Moment::secs(2000));
    assert!(c.recovers("x"));
    c.attempts.recovery_failed("no room".into(), Moment::secs(2000));
    assert!(waits(&c.plan("x"), "no room"));
    c.now = 2020;
    assert_eq!(c.next("x"), ASK);
}

#[test]
fn nobody_asks_while_there_is_no_room() {
    let mut c = waits_for_room(Proof::PowerOff, 2000);
    c.attempts.recovery_failed("no room".into(), Moment::secs(1999));
    assert!(waits(&c.plan("x"), "no room"));
    c.now = 2004;
    assert_eq!(c.next("x"), ASK, "which looks for room first");
}

#[test]
fn a_machine_that_is_on_is_given_five_minutes_to_be_heard_before_its_power_is_cut_again() {
    let mut c = waits_for_room(Proof::PowerOff, 1100);
    c.attempts.not_found_off("it is on".into(), Moment::secs(1100));
    let plan = c.plan("x");
    assert_eq!(plan.next, Next::Wait(Some(Moment::secs(1120))), "then it is asked again");
    for words in
        ["it is on; if it is off, say so with pvc node confirm-dead x", "if it is not heard in 202 s"]
    {
        assert!(plan.why.contains(words), "{}", plan.why);
    }
    c.now = 1302;
    assert_eq!(c.next("x"), ASK);
    c.attempts.not_found_off("it is on".into(), Moment::secs(1302));
    assert_eq!(c.next("x"), AGAIN);
}

#[test]
fn one_that_nobody_told_to_is_given_them_from_when_it_was_found_on() {
    let mut c = waits_for_room(Proof::FoundOff, 2000);
    c.attempts.proven(Moment::secs(1000));
    c.attempts.not_found_off("it is on".into(), Moment::secs(2000));
    assert!(waits(&c.plan("x"), "300 s"));
    c.now = 2300;
    c.attempts.not_found_off("it is on".into(), Moment::secs(2299));
    assert_eq!(c.next("x"), AGAIN);
}

#[test]
fn one_that_nobody_has_looked_at_for_long_may_just_have_been_switched_on() {
    let mut c = waits_for_room(Proof::PowerOff, 2000);
    c.attempts.not_found_off("it is on".into(), Moment::secs(2000));
    assert!(waits(&c.plan("x"), "300 s"));
}

#[test]
fn its_power_is_cut_for_that_twice_and_no_more() {
    let mut c = waits_for_room(Proof::PowerOff, 1310);
    for second in [1100, 1309] {
        c.attempts.not_found_off("it is on".into(), Moment::secs(second));
    }
    c.fences[0].job.earlier = vec![Proof::PowerOff];
    assert_eq!(c.next("x"), AGAIN);
    c.fences[0].job.earlier.push(Proof::PowerOff);
    assert!(waits(&c.plan("x"), "say so with pvc node confirm-dead x; its power is not cut any more"));
    c.attempts.found_off(Moment::secs(1310));
    assert!(c.recovers("x"), "that it is off suffices");
}

#[test]
fn where_the_bmc_does_not_answer_the_power_off_is_tried_and_an_operator_may_say_it_again() {
    let mut c = waits_for_room(Proof::Operator, 2000);
    c.attempts.proven(Moment::secs(1000));
    c.attempts.not_found_off("no answer".into(), Moment::secs(1700));
    c.attempts.not_found_off("no answer".into(), Moment::secs(1990));
    assert_eq!(c.next("x"), AGAIN);
    c.fences[0].job.confirmed_dead = Some(word());
    let job = c.fences[0].job.clone().to_be_proven_again();
    assert_eq!(
        (&job.step, &job.confirmed_dead),
        (&FenceStep::Shooting, &None),
        "the word was of another moment"
    );
    c.fences[0].job = job;
    assert_eq!(c.next("x"), Next::Do(Step::Shoot));
    c.fences[0].job.step = failed();
    c.fences[0].job.confirmed_dead = Some(word());
    assert_eq!(c.next("x"), Next::Do(Step::Record(FenceStep::Proven { proof: Proof::Operator })));
}

#[test]
fn who_takes_the_job_over_relies_on_a_proof_that_is_no_older_than_its_last_look() {
    let mut c = waits_for_room(Proof::Operator, 1010);
    c.attempts = Attempts::default();
    c.attempts.taken();
    assert_eq!(c.next("x"), ASK, "it does not know how old the proof is");
    c.attempts.proven_no_sooner_than(Moment::secs(1000));
    c.attempts.taken();
    assert!(c.recovers("x"));
    c.attempts.left();
    c.attempts.taken();
    assert!(c.recovers("x"));
}

#[test]
fn after_another_proof_it_is_powered_on_again() {
    let mut c = waits_for_room(Proof::PowerOff, 1500);
    c.attempts.proven(Moment::secs(1500));
    assert!(c.recovers("x"));
    c.vms.clear();
    assert_eq!(c.next("x"), Next::Do(Step::PowerOn));
}

#[test]
fn silence_proves_the_end_of_one_boot_and_of_no_later_one() {
    let mut c = case(&[("a", 0), ("b", 1), ("x", 500)]).with_job(failed());
    c.settings.failed = Action::Migrate;
    c.node("x").self_fence_s = Some(30);
    c.attempts.power_off_failed(Moment::secs(999));
    c = c.left_to_others();
    assert_eq!(c.next("x"), Next::Do(Step::TakeOver), "it must have reset itself");
    c.fences[0].job.earlier = vec![Proof::SelfFence];
    assert!(waits(&c.plan("x"), "say so with pvc node confirm-dead x"), "{}", c.plan("x").why);
}

#[test]
fn it_is_shut_out_of_the_storage_on_a_proof_of_that_moment_too() {
    let mut c = waits_for_room(Proof::Operator, 1059);
    c.fences[0].job.step = FenceStep::Proven { proof: Proof::Operator };
    c.vms[0].rbd_images = vec!["vms/web1".into()];
    c.storage = true;
    c.attempts.storage_failed("ceph does not answer".into(), Moment::secs(1040));
    assert_eq!(c.next("x"), Next::Do(Step::ShutOutStorage));
    c.now = 1060;
    assert_eq!(c.next("x"), ASK);
    c.attempts.recovery_failed("no room".into(), Moment::secs(1060));
    let plan = c.plan("x");
    assert!(waits(&plan, "1 VM(s) wait until it is shut out of the storage: ceph does not answer"));
    assert_eq!(plan.next, Next::Wait(Some(Moment::secs(1065))), "not when Ceph would have been asked again");
    c.storage = false;
    c.node("a").storage = Some(false);
    c.node("b").storage = Some(false);
    assert!(waits(&c.plan("x"), ""), "nobody here asks for what others could do");
}
