//! Daemons are killed: no guest notices, nothing is done twice, nothing is forgotten.

use std::time::Duration;

use anyhow::{Result, ensure};
use pvc_lab::{Scenario, play};

use crate::{
    default,
    load::{Dice, under_load},
    pass,
};

/// Kills daemons, each of a node that has one just now, at moments that look random.
fn kill(s: &Scenario, times: u32, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut killed = 0;
    while killed < times {
        pass(Duration::from_millis(300 + dice.below(1700)))?;
        let node = *dice.choose(&["node1", "node2", "node3"]);
        if s.node(node).kill_service("pvcd.service")? {
            killed += 1;
            s.fault(&format!("pvcd of {node} is killed ({killed} of {times})"), || Ok(()))?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn daemons_that_are_killed_a_hundred_times_at_random_moments_under_load_lose_and_double_nothing() {
    play(default("f-kills", 3), |s| {
        let witnesses = [s.start_vms([1], "node1")?, s.start_vms([2], "node2")?].concat();
        let busy = s.start_vms([3, 4], "node3")?;
        let work = under_load(s, &busy, 0x5eed_0001, || kill(s, 100, 0x5eed_0002))?;
        ensure!(work.done > 20, "there was no load: {work:?}");
        s.untouched(&witnesses)
    });
}

#[test]
fn daemons_that_are_killed_ten_times_under_load_lose_and_double_nothing() {
    play(default("f-kills-few", 3), |s| {
        let witnesses = s.start_vms([1], "node1")?;
        let busy = s.start_vms([3], "node3")?;
        let work = under_load(s, &busy, 0x5eed_0003, || kill(s, 10, 0x5eed_0004))?;
        ensure!(work.done > 2, "there was no load: {work:?}");
        s.untouched(&witnesses)
    });
}
