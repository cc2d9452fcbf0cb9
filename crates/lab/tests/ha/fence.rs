//! Fencing and recovery: a silent node is proven dead, then its VMs run elsewhere; never before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pvc_lab::{PATIENCE, Vm, wait_until};

use crate::{default_timings, fast_timings, on};

#[test]
fn the_vms_of_a_node_whose_processes_all_died_run_elsewhere_within_40_s_of_default_timing() {
    on("ha-kill", 3, default_timings(), |cluster| {
        let vms = [1, 2].map(Vm::number);
        cluster.start_vms(&vms, "node2")?;
        let node = cluster.node("node2");

        let died = Instant::now();
        node.kill()?;
        let took = cluster.wait_elsewhere(&vms, "node2")? - died;
        println!("recovered {took:?} after the death");
        assert!(took < Duration::from_secs(40), "recovered after {took:?}");
        // The last keepalive may have been five seconds old.
        assert!(
            took > Duration::from_secs(24),
            "recovered after {took:?}, but only silence of 30 s is death"
        );
        wait_until("the node to be switched on again", PATIENCE, || {
            node.machine().is_ok_and(|seen| seen.on)
        })?;
        cluster.wait_node("node2", "daemon_state", "run")?;
        for vm in &vms {
            let home = cluster.home(vm)?;
            assert_ne!(home, "node2");
            assert_eq!(cluster.wait_settled(vm, &home)?["last_node"], "node2");
        }
        cluster.check_never_twice(&vms)
    });
}

#[test]
fn a_frozen_node_is_switched_off_before_its_vms_start_elsewhere() {
    on("ha-freeze", 3, fast_timings(), |cluster| {
        let vms = [1, 2].map(Vm::number);
        cluster.start_vms(&vms, "node3")?;
        let node = cluster.node("node3");
        let boot = node.boot_id()?;

        // Its processes are all there, and its kernel would still complete handshakes.
        cluster.lab.drop_frames(&node, None)?;
        node.pause()?;
        cluster.wait_elsewhere(&vms, "node3")?;
        cluster.check_never_twice(&vms)?;
        cluster.lab.undrop()?;
        wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))?;
        cluster.wait_node("node3", "daemon_state", "run")?;
        cluster.check_never_twice(&vms)
    });
}

#[test]
fn a_node_that_was_declared_dead_and_lives_on_ends_its_guests_at_once() {
    on("ha-zombie", 3, fast_timings(), |cluster| {
        let vms = [1, 2].map(Vm::number);
        cluster.start_vms(&vms, "node3")?;
        let node = cluster.node("node3");
        let boot = node.boot_id()?;

        node.cut_bmc()?;
        cluster.lab.drop_frames(&node, None)?;
        node.pause()?;
        cluster.wait_node("node3", "daemon_state", "dead")?;
        let mut explained = String::new();
        wait_until("the failure of the fence to be told", PATIENCE, || {
            explained = cluster.pvc(&["node", "explain", "node3"]).unwrap_or_else(|e| format!("{e:#}"));
            explained.contains("confirm-dead")
        })
        .with_context(|| explained.clone())?;
        for vm in &vms {
            assert_eq!(
                cluster.processes.where_is(&vm.uuid),
                ["node3"],
                "without a proof of death: {explained}"
            );
        }

        // The operator is wrong: the machine is only frozen.
        cluster.pvc(&["node", "confirm-dead", "--yes", "node3"])?;
        cluster.wait_elsewhere(&vms, "node3")?;
        let homes = vms.iter().map(|vm| cluster.home(vm)).collect::<Result<Vec<_>>>()?;
        cluster.lab.undrop()?;
        let resumed = Instant::now();
        node.resume()?;
        let on_node = |vm: &Vm| cluster.processes.where_is(&vm.uuid).contains(&node.name());
        wait_until("its guests to end", PATIENCE, || !vms.iter().any(on_node))?;
        let took = resumed.elapsed();
        println!("the guests of the resumed node ended after {took:?}");
        assert!(took < Duration::from_secs(5), "its guests ended after {took:?}");

        cluster.wait_node("node3", "daemon_state", "run")?;
        assert_eq!(node.boot_id()?, boot);
        for (vm, home) in vms.iter().zip(homes) {
            cluster.wait_settled(vm, &home)?;
            cluster.wait_counting(&home, vm)?;
        }
        Ok(())
    });
}
