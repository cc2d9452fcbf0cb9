//! A node dies, or seems to.

use std::time::Duration;

use anyhow::ensure;
use pvc_lab::{PATIENCE, play, wait_until};

use crate::{SOON, default, fast};

#[test]
fn the_vms_of_a_killed_node_run_elsewhere_within_40_s_of_default_timing() {
    play(default("f-killed", 3), |s| {
        let vms = s.start_vms([1, 2], "node2")?;
        let node = s.victim("node2");
        let boot = node.boot_id()?;
        let died = s.fault("node2 loses its power", || node.kill())?;
        s.recover_elsewhere(&vms, "node2", died, Duration::from_secs(40))?;
        // The last keepalive may have been five seconds old.
        ensure!(died.elapsed() > Duration::from_secs(24), "only a silence of 30 s is death");
        for vm in &vms {
            ensure!(s.cluster.wait_settled(vm, &s.cluster.home(vm)?)?["last_node"] == "node2");
        }
        wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))
    });
}

#[test]
fn a_killed_nodes_vms_run_elsewhere_within_seconds_where_three_seconds_of_silence_are_death() {
    play(fast("f-killed-fast", 3), |s| {
        let vms = s.start_vms([1, 2], "node2")?;
        let node = s.victim("node2");
        let died = s.fault("node2 loses its power", || node.kill())?;
        s.recover_elsewhere(&vms, "node2", died, SOON)
    });
}

#[test]
fn a_frozen_node_is_switched_off_before_its_vms_start_elsewhere() {
    play(fast("f-frozen", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        let boot = node.boot_id()?;
        // Its processes are all there, and its kernel would still complete handshakes.
        let froze = s.fault("node3 freezes and is silent", || {
            s.cluster.lab.drop_frames(&node, None)?;
            node.pause()
        })?;
        s.recover_elsewhere(&vms, "node3", froze, SOON)?;
        s.cluster.lab.undrop()?;
        wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))
    });
}

#[test]
fn a_node_that_freezes_for_less_than_the_silence_that_is_death_is_left_alone() {
    play(default("f-blink", 3), |s| {
        let vms = s.start_vms([1], "node3")?;
        let node = s.node("node3");
        let boot = node.boot_id()?;
        let froze = s.fault("node3 freezes for 15 s", || node.pause())?;
        wait_until("the time", PATIENCE, || froze.elapsed() > Duration::from_secs(15))?;
        node.resume()?;
        s.cluster.wait_counting("node3", &vms[0])?;
        s.recovered("the guest", froze.elapsed() - Duration::from_secs(15), SOON)?;
        ensure!(node.boot_id()? == boot, "it was fenced");
        s.untouched(&vms)
    });
}
