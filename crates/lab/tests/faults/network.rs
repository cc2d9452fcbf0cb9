//! Networks fail: all of them for one node, or only the way to ZooKeeper, to its peers, to the BMCs; one way only, or now and then.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{
    Dropped, Node, PATIENCE, Peer, Scenario, Traffic, Vm, Way, observers::tree::Follower, play, wait_until,
};
use serde_json::Value;

use crate::{
    SOON, default, fast, pass,
    zookeeper::{boots, leader},
};

/// Drops this traffic between a node and each of the others.
pub(crate) fn drop_from_others(s: &Scenario, node: &Node, traffic: Traffic) -> Result<()> {
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
        let back = Instant::now();
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
        let first = follower.wait_for("a failed to power it off", PATIENCE, |path, record| {
            let record: Value = serde_json::from_str(record.filter(|_| path == "/pvc/fence/node4")?).ok()?;
            (record["step"] == "failed").then(|| record["by"].as_str().map(str::to_owned))?
        })?;
        s.fault(&format!("all but {first}, which failed to power it off, reach the BMCs again"), || {
            lab.undrop()?;
            reaches_no_bmc(&first)
        })?;
        s.recover_elsewhere(&vms, "node4", died, Duration::from_mins(1))
    });
}

/// The harder case: the node whose ZooKeeper leads, so that the others have to elect before they can judge.
fn cut_one_way(name: &str, way: Way, what: &str) {
    play(fast(name, 3), |s| {
        let first = leader(s)?.name();
        let vms = s.start_vms([1, 2], &first)?;
        let node = s.victim(&first);
        let boot = node.boot_id()?;
        let cut = s.fault(&format!("{first}, whose ZooKeeper leads, {what}"), || {
            s.cluster.lab.lose(Dropped { way, ..Dropped::all_of(node.number()) })
        })?;
        s.recover_elsewhere(&vms, &first, cut, Duration::from_mins(1))?;
        s.cluster.lab.undrop()?;
        wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_that_is_heard_and_hears_nobody_is_fenced_and_its_vms_run_elsewhere() {
    cut_one_way("f-deaf", Way::To, "is heard and hears nobody");
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_that_hears_and_is_not_heard_is_fenced_and_its_vms_run_elsewhere() {
    cut_one_way("f-mute", Way::From, "hears and is not heard");
}

/// Three of ten of these frames are lost, for a minute.
fn lose(s: &Scenario, what: &str, frames: impl IntoIterator<Item = Dropped>) -> Result<()> {
    let lab = &s.cluster.lab;
    s.fault(&format!("three of ten frames {what} are lost"), || {
        frames.into_iter().try_for_each(|frames| lab.lose(Dropped { percent: 30, ..frames }))
    })?;
    pass(Duration::from_mins(1))?;
    lab.undrop()?;
    s.note("no frame is lost any more");
    Ok(())
}

/// What nobody took for death: since the network is `back` no guest was touched, desired states are reached, and nobody is fenced, not even
/// later.
fn left_alone(s: &Scenario, vms: &[Vm], before: &[String], back: Instant) -> Result<()> {
    s.untouched(vms)?;
    wait_until("commands to be taken", PATIENCE, || {
        s.cluster.pvc(&["vm", "migrate", "--no-wait", &vms[0].name]).is_ok()
    })?;
    let home = s.cluster.home(&vms[0])?;
    s.cluster.wait_settled(&vms[0], &home)?;
    s.recovered("a desired state", back.elapsed(), Duration::from_mins(1))?;
    // Time enough for somebody who took the silence for death.
    pass(s.cluster.lab.options().timings.fence_after() + Duration::from_secs(10))?;
    ensure!(boots(s)? == before, "a node was fenced");
    s.untouched(&vms[1..])
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_minute_in_which_three_of_ten_frames_are_lost_stops_no_guest_and_fences_nobody() {
    play(default("f-lossy", 3), |s| {
        let vms = [s.start_vms([1], "node1")?, s.start_vms([2], "node2")?].concat();
        let before = boots(s)?;
        let nodes = s.cluster.lab.nodes();
        let sent = nodes.iter().map(|node| Dropped { way: Way::From, ..Dropped::all_of(node.number()) });
        lose(s, "that nodes send", sent)?;
        left_alone(s, &vms, &before, Instant::now())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn where_three_seconds_are_death_a_minute_in_which_three_of_ten_frames_are_lost_runs_no_vm_twice() {
    play(fast("f-lossy-fast", 3), |s| {
        let mut vms = Vec::new();
        for (number, node) in [(1, "node1"), (2, "node2"), (3, "node3")] {
            vms.extend(s.start_vms([number], node)?);
            // It may well be silent for so long.
            s.victim(node);
        }
        // What goes to the BMCs is not: who is taken for dead can be powered off.
        let between = [("node1", 2), ("node1", 3), ("node2", 3)].map(|(node, peer)| {
            let peer = Peer::Node(peer);
            Dropped { peer, ..Dropped::all_of(s.node(node).number()) }
        });
        lose(s, "between nodes", between)?;
        let back = Instant::now();
        wait_until("every VM to run", PATIENCE, || {
            vms.iter().all(|vm| s.cluster.processes.where_is(&vm.uuid).len() == 1)
        })?;
        s.recovered("the VMs", back.elapsed(), Duration::from_mins(2))
    });
}

/// The node's cables come and go for a minute; it ends with the cables plugged.
fn flap(s: &Scenario, node: &Node, out: Duration, plugged: Duration) -> Result<Instant> {
    let what = format!("the cables of {} are out for {out:?}, again and again", node.name());
    let began = s.fault(&what, || Ok(()))?;
    while began.elapsed() < Duration::from_mins(1) {
        node.cut()?;
        pass(out)?;
        node.heal()?;
        pass(plugged)?;
    }
    s.note(format!("the cables of {} stay in", node.name()));
    Ok(Instant::now())
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_whose_cables_come_and_go_faster_than_silence_is_death_is_left_alone() {
    play(default("f-flap", 3), |s| {
        let node = leader(s)?;
        let vms = s.start_vms([1, 2], &node.name())?;
        let before = boots(s)?;
        let back = flap(s, &node, Duration::from_secs(4), Duration::from_secs(4))?;
        left_alone(s, &vms, &before, back)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_whose_cables_come_and_go_more_slowly_than_silence_is_death_is_fenced_and_its_vms_run_elsewhere() {
    play(fast("f-flap-slow", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        let began = Instant::now();
        flap(s, &node, Duration::from_secs(6), Duration::from_secs(4))?;
        s.recover_elsewhere(&vms, "node3", began, SOON)
    });
}
