//! Self-fencing: a node that has lost the cluster ends its own guests, the others count on that and on nothing less, and what
//! stops in order or is under maintenance resets nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pvc_lab::{Cluster, Node, PATIENCE, Timings, Vm, devices::watchdog, wait_until};

use crate::{fast_timings, on};

const SOON: Duration = Duration::from_mins(1);
/// Keepalives of 1 s, and a node that could not write twelve of them resets itself: the others get on without it in half of that, even
/// if its ZooKeeper was the leader.
const SUICIDE: u32 = 12;
const WITHIN: Duration = Duration::from_secs(12);
/// From when a keepalive was due to when it was sent, and from the reset to the death of the last process, on a busy machine.
const BUSY: Duration = Duration::from_secs(8);

/// Nobody else may reset a node: what resets it is itself.
fn alone() -> Timings {
    Timings { suicide_intervals: SUICIDE, fence_intervals: 0, ..fast_timings() }
}

/// Whether its daemon has the watchdog open, as the kernel tells it.
fn is_armed(node: &Node) -> bool {
    let opened =
        node.exec(&["/bin/sh", "-c", "readlink /proc/$(pidof pvcd)/fd/* | grep -qx /dev/watchdog"], SOON);
    opened.is_ok_and(|seen| seen.success())
}

fn wait_armed(node: &Node, armed: bool) -> Result<()> {
    let what = format!("the watchdog of {} to be {}", node.name(), if armed { "armed" } else { "disarmed" });
    wait_until(&what, PATIENCE, || is_armed(node) == armed)
}

/// When the last process of the VM on that node ended.
fn ended(cluster: &Cluster, vm: &Vm, node: &str) -> Result<Instant> {
    let mut end = None;
    wait_until(&format!("the end of {} on {node}", vm.name), PATIENCE, || {
        let mut runs = cluster.processes.of(&vm.uuid);
        runs.retain(|run| run.node == node);
        end = runs.first().and_then(|run| run.ended);
        end.is_some()
    })?;
    end.context("it never ran")
}

fn wait_booted(node: &Node, before: &str) -> Result<()> {
    wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != before))
}

#[test]
fn a_node_without_zookeeper_resets_itself_and_a_frozen_one_is_reset_by_its_watchdog() {
    on("ha-selffence", 3, alone(), |cluster| {
        let vms = [2, 3].map(Vm::number);
        let (two, three) = (cluster.node("node2"), cluster.node("node3"));
        for (vm, node) in vms.iter().zip([&two, &three]) {
            cluster.start_vms(std::slice::from_ref(vm), &node.name())?;
            wait_armed(node, true)?;
        }
        let (boot_two, boot_three) = (two.boot_id()?, three.boot_id()?);

        // Its own ZooKeeper has no quorum.
        cluster.lab.drop_frames(&three, None)?;
        let cut = Instant::now();
        let took = ended(cluster, &vms[1], "node3")? - cut;
        println!("cut off, its guest ended after {took:?}");
        assert!(took + Duration::from_secs(1) > WITHIN && took < WITHIN + BUSY, "after {took:?}");
        wait_booted(&three, &boot_three)?;
        let said = three.console();
        assert!(
            said.contains("this machine resets itself: no keepalive was acknowledged by ZooKeeper"),
            "{said}"
        );

        // Two of three ZooKeepers are needed when the other node is frozen.
        cluster.lab.undrop()?;
        cluster.wait_node("node3", "daemon_state", "run")?;
        two.pause()?;
        let frozen = Instant::now();
        let took = ended(cluster, &vms[0], "node2")? - frozen;
        println!("frozen, its guest ended after {took:?}");
        assert!(took + Duration::from_secs(1) > WITHIN && took < WITHIN + BUSY, "after {took:?}");
        assert!(two.console().contains(watchdog::EXPIRED_LINE));
        wait_booted(&two, &boot_two)?;

        for (vm, node) in vms.iter().zip(["node2", "node3"]) {
            cluster.wait_node(node, "daemon_state", "run")?;
            cluster.wait_settled(vm, node)?;
            cluster.wait_counting(node, vm)?;
        }
        cluster.check_never_twice(&vms)
    });
}

#[test]
fn what_cannot_be_shot_is_recovered_once_it_must_have_reset_itself_and_not_before() {
    let timings = Timings {
        suicide_intervals: SUICIDE,
        fence_intervals: SUICIDE,
        failed_fence: "migrate".into(),
        ..fast_timings()
    };
    on("ha-promise", 3, timings, |cluster| {
        let vms = [1, 2].map(Vm::number);
        cluster.start_vms(&vms, "node3")?;
        let node = cluster.node("node3");
        wait_armed(&node, true)?;
        let boot = node.boot_id()?;

        node.cut_bmc()?;
        cluster.lab.drop_frames(&node, None)?;
        let cut = Instant::now();
        let began = cluster.wait_elsewhere(&vms, "node3")?;
        println!("cut off and out of reach of its BMC, its guests ran elsewhere after {:?}", began - cut);
        // What it promised, half of it more, and 10 s, from the last keepalive that the others saw.
        let promised = WITHIN * 3 / 2 + Duration::from_secs(10);
        assert!(began - cut + Duration::from_secs(1) > promised, "after {:?}", began - cut);
        assert!(began - cut < promised + Duration::from_secs(15), "after {:?}", began - cut);
        for vm in &vms {
            let gone = ended(cluster, vm, "node3")?;
            ensure!(gone < began, "{} was started before it had ended", vm.name);
            println!("{} ended {:?} before", vm.name, began - gone);
        }
        wait_booted(&node, &boot)?;
        cluster.lab.undrop()?;
        node.heal_bmc()?;
        cluster.wait_node("node3", "daemon_state", "run")?;
        for vm in &vms {
            let home = cluster.home(vm)?;
            assert_ne!(home, "node3");
            cluster.wait_settled(vm, &home)?;
        }
        cluster.check_never_twice(&vms)
    });
}

#[test]
fn maintenance_and_a_stop_in_order_disarm_the_watchdog() {
    on("ha-disarm", 3, alone(), |cluster| {
        let vm = Vm::number(1);
        cluster.start_vms(std::slice::from_ref(&vm), "node3")?;
        let node = cluster.node("node3");
        let boot = node.boot_id()?;
        let longer = |what: &str| {
            let began = Instant::now();
            wait_until(what, PATIENCE, || began.elapsed() > WITHIN + BUSY)
        };
        wait_armed(&node, true)?;

        cluster.pvc(&["maintenance", "on"])?;
        wait_armed(&node, false)?;
        cluster.lab.drop_frames(&node, None)?;
        longer("the time of the watchdog under maintenance")?;
        cluster.lab.undrop()?;
        cluster.pvc(&["maintenance", "off"])?;
        wait_armed(&node, true)?;

        node.run(&["/bin/systemctl", "stop", "pvcd"], PATIENCE)?;
        longer("the time of the watchdog after a stop")?;
        node.run(&["/bin/systemctl", "start", "pvcd"], PATIENCE)?;
        wait_armed(&node, true)?;

        // kill -9 is no stop in order: the watchdog goes on, and the next daemon is in time to feed it.
        node.run(&["/usr/bin/pkill", "-KILL", "-x", "pvcd"], PATIENCE)?;
        longer("the time of the watchdog after kill -9")?;
        wait_armed(&node, true)?;

        assert_eq!(node.boot_id()?, boot, "it was reset");
        assert_eq!(cluster.processes.of(&vm.uuid).len(), 1, "the guest was stopped");
        cluster.wait_counting("node3", &vm)
    });
}
