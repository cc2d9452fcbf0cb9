//! Networks fail: all of them for one node, or only the way to ZooKeeper, to its peers, to the BMCs.

use std::time::Duration;

use anyhow::{Result, ensure};
use pvc_lab::{Node, PATIENCE, Peer, Scenario, Traffic, play, tree::Follower, wait_until};
use serde_json::Value;

use crate::{SOON, fast, pass};

/// Drops this traffic between a node and each of the others.
fn drop_from_others(s: &Scenario, node: &Node, traffic: Traffic) -> Result<()> {
    let others = s.cluster.lab.nodes().into_iter().filter(|other| other.number() != node.number());
    others
        .into_iter()
        .try_for_each(|other| s.cluster.lab.drop_some(node, Peer::Node(other.number().get()), traffic))
}

#[test]
fn a_node_that_is_cut_off_from_everything_is_fenced_and_its_vms_run_elsewhere() {
    play(fast("f-cut", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        let boot = node.boot_id()?;
        let cut = s.fault("the cables of node3 are pulled", || node.cut())?;
        s.recover_elsewhere(&vms, "node3", cut, SOON)?;
        node.heal()?;
        wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_that_is_cut_off_from_zookeeper_only_is_fenced_and_its_vms_run_elsewhere() {
    play(fast("f-cut-zk", 4), |s| {
        let vms = s.start_vms([1, 2], "node4")?;
        let node = s.victim("node4");
        let cut =
            s.fault("node4 does not reach ZooKeeper", || drop_from_others(s, &node, Traffic::ZooKeeper))?;
        s.recover_elsewhere(&vms, "node4", cut, SOON)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_coordinator_that_is_cut_off_from_the_other_zookeepers_is_fenced_and_its_vms_run_elsewhere() {
    play(fast("f-cut-quorum", 3), |s| {
        let vms = s.start_vms([1, 2], "node2")?;
        let node = s.victim("node2");
        let what = "node2 reaches its own ZooKeeper only";
        let cut = s.fault(what, || drop_from_others(s, &node, Traffic::ZooKeeper))?;
        s.recover_elsewhere(&vms, "node2", cut, SOON)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_that_reaches_zookeeper_but_no_peer_is_left_alone_and_its_vm_stays_until_it_can_migrate() {
    play(fast("f-cut-peers", 4), |s| {
        let vms = s.start_vms([1], "node4")?;
        let (node, vm) = (s.node("node4"), &vms[0]);
        let life = s.cluster.life("node4", vm)?;
        s.fault("node4 reaches its peers' ZooKeepers and nothing else of them", || {
            drop_from_others(s, &node, Traffic::AllButZooKeeper)
        })?;
        // Longer than the silence that is death.
        pass(Duration::from_secs(10))?;
        s.untouched(&vms)?;
        s.pvc(&["vm", "migrate", "--no-wait", "-t", "node1", &vm.name])?;
        // Longer than the target is waited for; the guest counts on.
        pass(Duration::from_secs(35))?;
        s.cluster.wait_counting("node4", vm)?;
        s.note(s.pvc(&["vm", "explain", &vm.name])?);
        s.cluster.lab.undrop()?;
        s.cluster.wait_settled(vm, &s.cluster.home(vm)?)?;
        s.pvc(&["vm", "migrate", "-t", "node1", &vm.name])?;
        s.cluster.wait_settled(vm, "node1")?;
        ensure!(s.cluster.life("node1", vm)? == life, "the guest started over");
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn while_no_bmc_is_reached_nothing_of_a_dead_node_is_touched_and_its_vms_are_recovered_when_one_is() {
    play(fast("f-bmc-net", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        let lab = &s.cluster.lab;
        s.fault("the network of the BMCs fails, and node3 loses its power", || {
            lab.nodes().iter().try_for_each(|node| lab.drop_some(node, Peer::Bmcs, Traffic::All))?;
            node.kill()
        })?;
        s.cluster.wait_node("node3", "daemon_state", "dead")?;
        wait_until("the failure of the fence to be told", PATIENCE, || {
            s.cluster.pvc(&["node", "explain", "node3"]).is_ok_and(|told| told.contains("confirm-dead"))
        })?;
        for vm in &vms {
            ensure!(s.cluster.processes.where_is(&vm.uuid).is_empty(), "started without a proof of death");
        }
        lab.undrop()?;
        let back = std::time::Instant::now();
        s.note("the network of the BMCs is back");
        s.recover_elsewhere(&vms, "node3", back, SOON)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencer_that_does_not_reach_the_bmc_leaves_the_shot_to_one_that_does() {
    play(fast("f-bmc-far", 4), |s| {
        let vms = s.start_vms([1, 2], "node4")?;
        let node = s.victim("node4");
        let lab = &s.cluster.lab;
        let reaches_no_bmc = |name: &str| lab.drop_some(&lab.node(name), Peer::Bmcs, Traffic::All);
        let mut follower = Follower::start(lab)?;
        let died = s.fault("nobody reaches the BMCs, and node4 loses its power", || {
            ["node1", "node2", "node3"].into_iter().try_for_each(reaches_no_bmc)?;
            node.kill()
        })?;
        let first = follower.wait_for("a shot in vain", PATIENCE, |path, record| {
            let record: Value = serde_json::from_str(record.filter(|_| path == "/pvc/fence/node4")?).ok()?;
            (record["step"] == "failed").then(|| record["by"].as_str().map(str::to_owned))?
        })?;
        s.fault(&format!("all but {first}, which shot in vain, reach the BMCs again"), || {
            lab.undrop()?;
            reaches_no_bmc(&first)
        })?;
        s.recover_elsewhere(&vms, "node4", died, Duration::from_mins(1))
    });
}
