//! Daemons and libvirtds are killed: no guest notices, nothing is done twice, nothing is forgotten.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use pvc_lab::{Node, PATIENCE, Scenario, Vm, play, wait_until};

use crate::{default, kill_daemon, load::under_load, pass};

/// Kills daemons, each of a node that has one just now, at moments that look random.
fn kill(s: &Scenario, times: u32, seed: u64) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let mut killed = 0;
    while killed < times {
        pass(Duration::from_millis(300 + rng.u64(..1700)))?;
        let node = rng.choice(["node1", "node2", "node3"]).context("no node")?;
        if s.node(node).kill_service("pvcd.service")? {
            killed += 1;
            s.fault(&format!("pvcd of {node} is killed ({killed} of {times})"), || Ok(()))?;
        }
    }
    Ok(())
}

/// How often daemons of a node said that they started a VM.
fn starts(node: &Node, vm: &Vm) -> Result<usize> {
    let log = ["/bin/journalctl", "--no-pager", "--quiet", "--unit=pvcd"];
    Ok(node.run(&log, PATIENCE)?.matches(&format!("{}: started", vm.name)).count())
}

/// It is powered off and started as an operator wants.
fn obeys(s: &Scenario, vm: &Vm) -> Result<()> {
    s.pvc(&["vm", "stop", &vm.name])?;
    ensure!(s.cluster.processes.where_is(&vm.uuid).is_empty(), "{} is not off", vm.name);
    s.pvc(&["vm", "start", &vm.name]).map(drop)
}

#[test]
fn a_guest_survives_kill_9_of_the_daemon_which_adopts_it_and_repeats_nothing() {
    play(default("f-adopted", 1), |s| {
        let vms = s.start_vms([1], "node1")?;
        let node = s.node("node1");
        s.fault("pvcd is killed", || kill_daemon(&node))?;
        // A command to the restarted daemon proves that it works, and comes after what it did at its start.
        let second = s.start_vms([2], "node1")?;
        s.untouched(&vms)?;
        ensure!(starts(&node, &vms[0])? == 1, "the restarted daemon started it again");
        obeys(s, &vms[0])?;
        s.untouched(&second)
    });
}

#[test]
fn a_guest_survives_kill_9_of_libvirtd_and_obeys_afterwards() {
    play(default("f-libvirtd", 1), |s| {
        let vms = s.start_vms([1], "node1")?;
        let node = s.node("node1");
        let kill = ["/bin/systemctl", "kill", "--kill-who=main", "--signal=KILL", "libvirtd"];
        s.fault("libvirtd is killed", || node.run(&kill, PATIENCE).map(drop))?;
        node.wait_libvirt(PATIENCE)?;
        s.untouched(&vms)?;
        obeys(s, &vms[0])
    });
}

#[test]
fn a_guest_that_is_destroyed_behind_the_daemons_back_is_restarted() {
    play(default("f-destroyed", 1), |s| {
        let vm = s.start_vms([1], "node1")?.remove(0);
        let destroy = ["/usr/bin/virsh", "-q", "destroy", &vm.name];
        let ended =
            s.fault("the guest is destroyed", || s.node("node1").run(&destroy, PATIENCE).map(drop))?;
        wait_until("another process of it", PATIENCE, || {
            let runs = s.cluster.processes.of(&vm.uuid);
            runs.len() == 2 && runs[1].ended.is_none()
        })?;
        s.recovered("the guest", ended.elapsed(), Duration::from_secs(30))
    });
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
