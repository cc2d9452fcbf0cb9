//! ZooKeeper loses servers: nobody is fenced for it, no guest is touched.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pvc_lab::{LabOptions, Node, PATIENCE, Scenario, play, wait_until};

use crate::{SOON, default, fast, pass};

/// The boot of each node: none of them changes unless the node was off.
pub(crate) fn boots(s: &Scenario) -> Result<Vec<String>> {
    s.cluster.lab.nodes().iter().map(Node::boot_id).collect()
}

/// The node whose ZooKeeper leads.
pub(crate) fn leader(s: &Scenario) -> Result<Node> {
    let lab = &s.cluster.lab;
    let mut nodes = lab.nodes().into_iter();
    let leads = |node: &Node| lab.zookeeper_mode(node.number()).is_ok_and(|mode| mode == "leader");
    nodes.find(leads).context("nobody leads")
}

#[test]
fn the_death_of_zookeepers_leader_disturbs_nobody() {
    play(default("f-zk-leader", 3), |s| {
        let vms = s.start_vms([1, 2], "node2")?;
        let (before, leader) = (boots(s)?, leader(s)?);
        let died = s.fault(&format!("ZooKeeper's leader on {} is killed", leader.name()), || {
            leader.run(&["/bin/systemctl", "kill", "-s", "KILL", "zookeeper"], PATIENCE).map(drop)
        })?;
        // Desired states are done as soon as there is a leader again.
        s.pvc(&["vm", "migrate", "-t", "node3", &vms[0].name])?;
        s.cluster.wait_settled(&vms[0], "node3")?;
        s.recovered("a desired state", died.elapsed(), SOON)?;
        ensure!(boots(s)? == before, "a node was fenced");
        s.untouched(&vms[1..])
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn while_the_quorum_is_lost_nothing_starts_and_stops_and_nobody_is_fenced_when_it_is_regained() {
    play(fast("f-zk-quorum", 3), |s| {
        let first = s.start_vms([1], "node1")?;
        let second = s.start_vms([2], "node2")?;
        let before = boots(s)?;
        let two = || ["node1", "node2"].map(|name| s.node(name));
        let lost = s.fault("two of three ZooKeeper servers stop", || {
            two()
                .iter()
                .try_for_each(|node| node.run(&["/bin/systemctl", "stop", "zookeeper"], PATIENCE).map(drop))
        })?;
        // Ten times the silence that is death.
        pass(Duration::from_secs(30))?;
        let desired = s.cluster.pvc(&["vm", "stop", "--no-wait", &first[0].name]);
        ensure!(desired.is_err(), "a minority took a command: {desired:?}");
        s.untouched(&[first.clone(), second.clone()].concat())?;
        s.note(format!("the quorum was away for {:?}", lost.elapsed()));
        let back = Instant::now();
        two()
            .iter()
            .try_for_each(|node| node.run(&["/bin/systemctl", "start", "zookeeper"], PATIENCE).map(drop))?;
        wait_until("commands to be taken", PATIENCE, || {
            s.cluster.pvc(&["vm", "migrate", "--no-wait", "-t", "node3", &first[0].name]).is_ok()
        })?;
        s.cluster.wait_settled(&first[0], "node3")?;
        s.recovered("a desired state", back.elapsed(), Duration::from_mins(1))?;
        // Time enough for somebody who took the silence for death.
        pass(Duration::from_secs(10))?;
        ensure!(boots(s)? == before, "a node was fenced");
        s.untouched(&second)
    });
}

/// All of ZooKeeper stops, for so long.
fn without_zookeeper(options: LabOptions, away: Duration) {
    play(options, |s| {
        let vms = [s.start_vms([1], "node1")?, s.start_vms([2], "node2")?].concat();
        let before = boots(s)?;
        let all = |verb: &str| {
            let told = |node: Node| node.run(&["/bin/systemctl", verb, "zookeeper"], PATIENCE).map(drop);
            s.cluster.lab.nodes().into_iter().try_for_each(told)
        };
        s.fault("all ZooKeeper servers stop", || all("stop"))?;
        pass(away)?;
        s.untouched(&vms)?;
        s.note("all ZooKeeper servers start");
        all("start")?;
        let back = Instant::now();
        for node in s.cluster.lab.nodes() {
            s.cluster.wait_node(&node.name(), "daemon_state", "run")?;
        }
        s.recovered("every node", back.elapsed(), Duration::from_mins(1))?;
        // Time enough for somebody who took the silence for death.
        pass(s.cluster.lab.options().timings.fence_after() + Duration::from_secs(10))?;
        ensure!(boots(s)? == before, "a node was fenced");
        s.untouched(&vms)
    });
}

#[test]
fn a_minute_without_zookeeper_stops_no_guest_and_fences_nobody() {
    // Twenty times the silence that is death.
    without_zookeeper(fast("f-zk-away", 3), Duration::from_mins(1));
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn ten_minutes_without_zookeeper_stop_no_guest_and_fence_nobody() {
    without_zookeeper(default("f-zk-away-long", 3), Duration::from_mins(10));
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn the_vms_of_a_killed_node_that_led_zookeeper_run_elsewhere() {
    play(default("f-zk-leader-node", 3), |s| {
        let leader = leader(s)?;
        let vms = s.start_vms([1, 2], &leader.name())?;
        let node = s.victim(&leader.name());
        let died =
            s.fault(&format!("{}, whose ZooKeeper leads, loses its power", leader.name()), || node.kill())?;
        s.recover_elsewhere(&vms, &leader.name(), died, Duration::from_secs(50))
    });
}
