//! A node dies, or seems to.

use std::time::{Duration, Instant};

use anyhow::ensure;
use pvc_lab::{Node, PATIENCE, play, wait_until};

use crate::{SOON, default, fast, pass};

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
#[ignore = "the whole menu: cargo xtask faults"]
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
        s.fault("node3 freezes for 15 s", || node.pause())?;
        pass(Duration::from_secs(15))?;
        let thawed = Instant::now();
        node.resume()?;
        s.cluster.wait_counting("node3", &vms[0])?;
        s.recovered("the guest", thawed.elapsed(), SOON)?;
        ensure!(node.boot_id()? == boot, "it was fenced");
        s.untouched(&vms)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn two_nodes_that_die_at_once_are_fenced_one_after_the_other_and_all_their_vms_run_elsewhere() {
    play(fast("f-two-of-five", 5), |s| {
        let vms = [s.start_vms([1, 2], "node4")?, s.start_vms([3, 4], "node5")?];
        let nodes = [s.victim("node4"), s.victim("node5")];
        let died = s.fault("node4 and node5 lose their power", || nodes.iter().try_for_each(Node::kill))?;
        s.recover_elsewhere(&vms[0], "node4", died, SOON)?;
        s.recover_elsewhere(&vms[1], "node5", died, SOON)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn while_two_of_three_nodes_are_dead_the_third_changes_nothing_and_all_vms_run_when_one_is_back() {
    play(fast("f-two-of-three", 3), |s| {
        let survivor = s.start_vms([1], "node1")?;
        let lost = [s.start_vms([2], "node2")?, s.start_vms([3], "node3")?].concat();
        let nodes = [s.victim("node2"), s.victim("node3")];
        s.fault("node2 and node3 lose their power", || nodes.iter().try_for_each(Node::kill))?;
        pass(Duration::from_secs(20))?;
        s.untouched(&survivor)?;
        for vm in &lost {
            ensure!(s.cluster.processes.where_is(&vm.uuid).is_empty(), "a minority started {}", vm.name);
        }
        let back = Instant::now();
        s.note("an operator switches node3 on");
        nodes[1].start()?;
        wait_until("the lost VMs to run", PATIENCE, || {
            lost.iter().all(|vm| s.cluster.processes.where_is(&vm.uuid).len() == 1)
        })?;
        s.recovered("the lost VMs", back.elapsed(), Duration::from_mins(1))?;
        s.untouched(&survivor)
    });
}
