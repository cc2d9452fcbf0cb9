use proptest::prelude::*;

use super::*;

const SIX: Option<Duration> = Some(Duration::from_secs(6));
const SURE: Option<Promise> = Some(Promise(Some(6)));
const TOLD: Told = Told::Known(Promise(Some(6)));

fn facts() -> Facts {
    Facts {
        within: SIX,
        maintenance: false,
        stopping: false,
        acknowledged: false,
        armed: None,
        told: Told::Nothing,
    }
}

#[test]
fn it_is_armed_by_the_first_acknowledged_keepalive_and_fed_by_the_others() {
    let armed = Facts { armed: SURE, ..facts() };
    for (f, step) in [
        (facts(), None),
        (Facts { acknowledged: true, ..facts() }, Some(Step::Arm(Duration::from_secs(6)))),
        (Facts { acknowledged: true, within: None, ..facts() }, None),
        (armed, Some(Step::Tell(SURE))),
        (Facts { told: TOLD, ..armed }, None),
        (Facts { told: TOLD, acknowledged: true, ..armed }, Some(Step::Feed)),
        (Facts { told: Told::Unknown, ..armed }, Some(Step::Tell(SURE))),
        // An old promise, or one that somebody else wrote, before anything is armed.
        (Facts { told: TOLD, ..facts() }, Some(Step::Tell(None))),
        (Facts { told: Told::Unknown, acknowledged: true, ..facts() }, Some(Step::Tell(None))),
        // Another guard than the one that the others were told of.
        (Facts { told: TOLD, armed: Some(Promise(None)), ..facts() }, Some(Step::Tell(Some(Promise(None))))),
    ] {
        assert_eq!(plan(&f), step, "{f:?}");
    }
}

#[test]
fn maintenance_and_a_stop_disarm_it_after_the_others_were_told() {
    let armed = Facts { armed: SURE, told: TOLD, ..facts() };
    for off in [
        Facts { maintenance: true, ..armed },
        Facts { stopping: true, ..armed },
        Facts { within: None, ..armed },
    ] {
        assert_eq!(plan(&off), Some(Step::Tell(None)), "{off:?}");
        let unknown = Facts { told: Told::Unknown, ..off };
        assert_eq!(plan(&unknown), Some(Step::Tell(None)), "the tree may promise it still: {off:?}");
        assert_eq!(plan(&Facts { told: Told::Nothing, ..off }), Some(Step::Disarm), "{off:?}");
        assert_eq!(plan(&Facts { told: Told::Nothing, armed: None, ..off }), None, "{off:?}");
        let acknowledged = Facts { acknowledged: true, ..off };
        assert_eq!(plan(&acknowledged), Some(Step::Feed), "until they were told it is fed: {off:?}");
        let unarmed = Facts { acknowledged: true, armed: None, told: Told::Nothing, ..off };
        assert_eq!(plan(&unarmed), None, "nothing arms it: {off:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Keepalives, desired states and failures in any order, answers that are lost among them: the tree never promises a reset that would
    /// not come.
    #[test]
    fn the_others_are_never_told_of_a_guard_that_is_not_there(
        events in prop::collection::vec((any::<[bool; 3]>(), 0_u8..4), 1..40),
    ) {
        let (mut f, mut tree) = (facts(), None);
        for ([acknowledged, maintenance, stopping], writes) in events {
            (f.acknowledged, f.maintenance, f.stopping) = (acknowledged, maintenance, stopping || f.stopping);
            let mut steps = 0;
            while let Some(step) = plan(&f) {
                steps += 1;
                prop_assert!(steps < 8, "it comes to rest: {f:?}");
                match (step, writes) {
                    (Step::Arm(_) | Step::Feed, _) => {
                        prop_assert!(f.acknowledged, "only an acknowledged keepalive feeds: {f:?}");
                        f.acknowledged = false;
                        f.armed = f.armed.or(SURE);
                    }
                    (Step::Tell(told), 0 | 1) => (f.told, tree) = (Told::written(told), told),
                    // Done, and not answered.
                    (Step::Tell(told), 2) => {
                        (f.told, tree) = (Told::Unknown, told);
                        break;
                    }
                    // Neither.
                    (Step::Tell(_), _) => {
                        f.told = Told::Unknown;
                        break;
                    }
                    (Step::Disarm, _) => f.armed = None,
                }
                prop_assert!(tree.is_none() || tree == f.armed, "{f:?}");
            }
            prop_assert!(tree.is_none() || tree == f.armed, "{f:?}");
            if writes < 2 && (f.maintenance || f.stopping) {
                prop_assert!(f.armed.is_none() && tree.is_none(), "{f:?}");
            }
        }
    }

    /// Whatever the device: the last feed before an end leaves it no time to fire after the deadline, and it never fires before.
    #[test]
    fn a_device_neither_fires_early_nor_late(allowed_s in 1_u64..120, device_s in 1_u64..120, jitter_ms in 0_u64..300) {
        let (allowed, timeout) = (Duration::from_secs(allowed_s), Duration::from_secs(device_s));
        let start = Moment::secs(100);
        let mut guarded = Guarded { deadline: start + allowed, fed: start, device: Device::After(timeout) };
        let mut now = start;
        loop {
            match guarded.act(now) {
                Act::Wait(until) => {
                    prop_assert!(until > now && until <= guarded.deadline);
                    now = until + Duration::from_millis(jitter_ms);
                    if until < guarded.deadline {
                        prop_assert!(until < guarded.fed + timeout, "it would have fired meanwhile");
                    }
                }
                Act::Feed => guarded.fed = now,
                Act::End => break,
            }
        }
        prop_assert!(now >= guarded.deadline);
        let fires = guarded.fed + timeout;
        prop_assert!(fires <= guarded.deadline + Duration::from_millis(jitter_ms) || guarded.fed == start, "{fires:?}");
    }
}

#[test]
fn only_a_device_that_tells_when_it_fires_is_counted_on() {
    let within = Duration::from_millis(29_500);
    for (device, promise) in [
        (Device::After(Duration::from_secs(10)), Some(30)),
        (Device::After(Duration::from_mins(1)), Some(60)),
        (Device::Software(Duration::from_mins(1)), None),
        (Device::Unknown, None),
        (Device::None, None),
    ] {
        assert_eq!(device.promise(within), Promise(promise), "{device:?}");
    }
}

#[test]
fn a_device_that_tells_nothing_is_fed_every_second_until_the_deadline() {
    let guarded =
        |fed| Guarded { deadline: Moment::secs(10), fed: Moment::secs(fed), device: Device::Unknown };
    for (fed, now, act) in [
        (4, 4, Act::Wait(Moment::secs(5))),
        (4, 5, Act::Feed),
        (9, 9, Act::Wait(Moment::secs(10))),
        (10, 9, Act::Wait(Moment::secs(10))),
        (9, 10, Act::End),
    ] {
        assert_eq!(guarded(fed).act(Moment::secs(now)), act, "fed {fed}, now {now}");
    }
    let bare = Guarded { device: Device::None, ..guarded(0) };
    assert_eq!(
        bare.act(Moment::secs(3)),
        Act::Wait(Moment::secs(10)),
        "without a device there is only the end"
    );
}
