//! The watchdogs by themselves; through their files they are tested with a node (`tests/observers.rs`).

use std::{sync::Arc, thread, time::Duration};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn started() -> (Watchdog, u64) {
    let watchdog = Watchdog::default();
    let opening = watchdog.open().unwrap();
    assert_eq!(watchdog.set_timeout(1), Some(1));
    (watchdog, opening)
}

#[test]
fn one_that_is_started_and_not_fed_expires_and_food_puts_it_off() {
    let (watchdog, _) = started();
    let watchdog = Arc::new(watchdog);
    let began = Instant::now();
    let feeder = thread::spawn({
        let watchdog = Arc::clone(&watchdog);
        move || {
            thread::sleep(SECOND / 2);
            watchdog.write(b"1");
        }
    });
    watchdog.wait_until_hungry();
    assert!(began.elapsed() > SECOND * 5 / 4, "{:?}", began.elapsed());
    assert!(watchdog.is_hungry());
    feeder.join().unwrap();
    watchdog.power_off();
    assert!(!watchdog.is_hungry(), "power off stops it");
}

#[test]
fn only_a_v_in_the_last_write_before_closing_stops_it() {
    for (writes, runs) in
        [(&["V"][..], false), (&["1", "V"], false), (&["1"], true), (&["V", "1"], true), (&[], true)]
    {
        let (watchdog, opening) = started();
        for bytes in writes {
            watchdog.write(bytes.as_bytes());
        }
        watchdog.close(opening);
        assert_eq!(watchdog.timer().fed.is_some(), runs, "{writes:?}");
    }
}

#[test]
fn it_is_open_once_at_a_time_and_a_dead_nodes_late_closing_changes_nothing() {
    let (watchdog, old) = started();
    assert_eq!(watchdog.open(), None);
    watchdog.write(b"V");
    watchdog.power_off();
    let new = watchdog.open().unwrap();
    assert_eq!(watchdog.timeout_s(), 60, "another life starts with the default");
    watchdog.close(old);
    assert_eq!(watchdog.open(), None, "the new one has it open");
    watchdog.close(new);
    assert!(watchdog.open().is_some());
}

#[test]
fn a_time_out_is_as_softdog_takes_it() {
    let watchdog = Watchdog::default();
    for (asked, now) in [(0, None), (-1, None), (65536, None), (65535, Some(65535)), (7, Some(7))] {
        assert_eq!(watchdog.set_timeout(asked), now, "{asked}");
    }
    assert_eq!(watchdog.timeout_s(), 7);
}
