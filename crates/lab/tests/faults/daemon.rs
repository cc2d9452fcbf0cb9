//! Daemons are killed: no guest notices, nothing is done twice, nothing is forgotten.

use std::time::Duration;

use anyhow::ensure;
use pvc_lab::play;

use crate::{
    default,
    load::{Dice, under_load},
    pass,
};

const KILLS: u32 = 100;

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn daemons_that_are_killed_a_hundred_times_at_random_moments_under_load_lose_and_double_nothing() {
    play(default("f-kills", 3), |s| {
        let witnesses = [s.start_vms([1], "node1")?, s.start_vms([2], "node2")?].concat();
        let busy = s.start_vms([3, 4], "node3")?;
        let work = under_load(s, &busy, 0x5eed_0001, || {
            let mut dice = Dice::new(0x5eed_0002);
            for kill in 1..=KILLS {
                pass(Duration::from_millis(300 + dice.below(1700)))?;
                let node = *dice.choose(&["node1", "node2", "node3"]);
                s.fault(&format!("pvcd of {node} is killed ({kill} of {KILLS})"), || {
                    s.node(node).kill_service("pvcd.service")
                })?;
            }
            Ok(())
        })?;
        ensure!(work.done > 20, "there was no load: {work:?}");
        s.untouched(&witnesses)
    });
}

#[test]
fn daemons_that_are_killed_ten_times_under_load_lose_and_double_nothing() {
    play(default("f-kills-few", 3), |s| {
        let witnesses = s.start_vms([1], "node1")?;
        let busy = s.start_vms([3], "node3")?;
        let work = under_load(s, &busy, 0x5eed_0003, || {
            let mut dice = Dice::new(0x5eed_0004);
            for _ in 0..10 {
                pass(Duration::from_millis(300 + dice.below(1700)))?;
                let node = *dice.choose(&["node1", "node2", "node3"]);
                s.fault(&format!("pvcd of {node} is killed"), || s.node(node).kill_service("pvcd.service"))?;
            }
            Ok(())
        })?;
        ensure!(work.done > 2, "there was no load: {work:?}");
        s.untouched(&witnesses)
    });
}
