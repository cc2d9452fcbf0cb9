//! A node is shut down in order, by its power button.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Node, PATIENCE, Scenario, play, wait_until};

use crate::{default, fast};

/// A coordinator has asked the node's BMC while the node lived.
fn wait_bmc_known(s: &Scenario, node: &Node) -> Result<()> {
    let name = node.name();
    wait_until(&format!("the BMC of {name} to be asked"), PATIENCE, || {
        s.cluster.node_info(&name)["bmc"]["says"] == "on"
    })
}

fn wait_off(node: &Node) -> Result<()> {
    wait_until("the machine to be off", PATIENCE, || node.machine().is_ok_and(|machine| !machine.on))
}

#[test]
fn the_vms_of_a_node_that_is_shut_down_run_elsewhere_once_its_bmc_says_that_it_is_off() {
    play(fast("f-shutdown", 3), |s| {
        let vms = s.start_vms([1, 2], "node2")?;
        let node = s.victim("node2");
        wait_bmc_known(s, &node)?;
        s.fault("node2 is shut down", || node.shut_down())?;
        wait_off(&node)?;
        let off = Instant::now();
        // Asked every 20 s, and twice in 10 s.
        s.recover_elsewhere(&vms, "node2", off, Duration::from_mins(1))?;
        ensure!(!node.machine()?.on, "whoever switched it off may be working on it");
        s.note("an operator switches node2 on");
        node.start()?;
        s.cluster.wait_node("node2", "daemon_state", "run")
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_node_whose_daemon_alone_has_stopped_keeps_its_vms() {
    play(fast("f-stopped", 3), |s| {
        let vms = s.start_vms([1], "node2")?;
        let node = s.node("node2");
        wait_bmc_known(s, &node)?;
        s.fault("pvcd of node2 is stopped", || {
            node.run(&["/bin/systemctl", "stop", "pvcd.service"], PATIENCE).map(drop)
        })?;
        let mut explained = String::new();
        let told = wait_until("the reason to be told", PATIENCE, || {
            explained = s.pvc(&["node", "explain", "node2"]).unwrap_or_else(|e| format!("{e:#}"));
            explained.contains("its BMC says that its machine has power")
        });
        s.note(explained.trim());
        told?;
        crate::pass(Duration::from_secs(45))?;
        node.run(&["/bin/systemctl", "start", "pvcd.service"], PATIENCE)?;
        s.cluster.wait_node("node2", "daemon_state", "run")?;
        s.untouched(&vms)
    });
}

#[test]
fn a_node_that_is_to_flush_at_its_shutdown_sends_its_guests_away_first_and_takes_them_back() {
    play(default("f-flush-unit", 3), |s| {
        let node = s.node("node2");
        node.run(&["/bin/systemctl", "enable", "--now", "pvc-flush.service"], PATIENCE)?;
        let vms = s.start_vms([1, 2], "node2")?;
        s.fault("node2 is shut down", || node.shut_down())?;
        wait_off(&node)?;
        for vm in &vms {
            ensure!(s.cluster.home(vm)? != "node2", "{} was not sent away", vm.name);
        }
        s.note("an operator switches node2 on");
        node.start()?;
        let back = wait_until("the guests to be back", PATIENCE, || {
            vms.iter().all(|vm| s.cluster.home(vm).is_ok_and(|home| home == "node2"))
        });
        if back.is_err() {
            // Whether it was asked for at all.
            let journal = ["/bin/journalctl", "--no-pager", "-u", "pvc-flush.service"];
            s.note(node.run(&journal, PATIENCE).unwrap_or_else(|e| format!("{e:#}")));
        }
        back?;
        for vm in &vms {
            s.cluster.wait_settled(vm, "node2")?;
        }
        vms.iter().try_for_each(|vm| s.cluster.check_counted_once(vm))
    });
}
