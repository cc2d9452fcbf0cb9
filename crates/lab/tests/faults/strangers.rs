//! Instances that nobody in the cluster started: a definition with autostart, left by who used libvirt alone before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Node, PATIENCE, Scenario, Vm, beating_guest_xml, play, wait_until};

use crate::default;

/// A stranger may be there, suspended, until its node's daemon has its name: the session of its predecessor lasts 15 s. Its process ends
/// some seconds later.
const SUSPENDED: Duration = Duration::from_secs(45);

const COMMAND: Duration = Duration::from_secs(20);

/// Has libvirt on a node start the VM at each boot.
fn leave_autostart(node: &Node, vm: &Vm) -> Result<()> {
    node.write_file("/root/stranger.xml", beating_guest_xml(&vm.name, &vm.uuid, 96).as_bytes())?;
    node.run(&["/usr/bin/virsh", "-q", "define", "/root/stranger.xml"], COMMAND)?;
    node.run(&["/usr/bin/virsh", "-q", "autostart", &vm.name], COMMAND)?;
    // What the daemon sees of it now it takes away within a minute: it has to be on the disk at once.
    node.run(&["/bin/sync"], COMMAND)?;
    Ok(())
}

/// Waits for the stranger that libvirt starts when the node has booted, and for its end; no other part of the VM is touched.
fn strange_boot(s: &Scenario, node: &Node, vm: &Vm, since: Instant) -> Result<()> {
    let strange = || {
        let runs = s.cluster.processes.of(&vm.uuid);
        runs.into_iter().find(|run| run.node == node.name() && run.began > since)
    };
    wait_until("libvirt to start the stranger", PATIENCE, || strange().is_some())?;
    wait_until("the stranger to end", PATIENCE, || strange().is_some_and(|run| run.ended.is_some()))?;
    let lasted = strange().and_then(|run| Some(run.ended?.duration_since(run.began))).unwrap_or_default();
    s.recovered("the stranger's end", lasted, SUSPENDED)?;
    wait_until("libvirt's own definition to be removed", PATIENCE, || {
        let listed = node.run(&["/usr/bin/virsh", "-q", "list", "--all", "--name"], COMMAND);
        listed.is_ok_and(|names| !names.lines().any(|name| name == vm.name))
    })?;
    let log = node.read_file("/var/log/pvc/pvcd.log").unwrap_or_default();
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains("autostart") || line.contains("suspended")).collect();
    s.note(format!("its daemon says: {told:#?}"));
    Ok(())
}

#[test]
fn a_guest_that_autostarts_where_it_does_not_belong_is_suspended_before_its_daemon_waits_for_its_name() {
    play(default("f-autostart", 3), |s| {
        let vm = s.start_vms([1], "node3")?.remove(0);
        let node = s.node("node2");
        leave_autostart(&node, &vm)?;
        s.stranger(&vm, "node2", SUSPENDED);
        // Back within seconds: its old session lives on, and its new daemon has to wait for the end of that.
        let reset = s.fault("node2 is reset", || node.reset())?;
        strange_boot(s, &node, &vm, reset)?;
        ensure!(vm.beats(&node).is_empty(), "it executed for long enough to boot and to count");
        ensure!(s.cluster.processes.where_is(&vm.uuid) == ["node3"]);
        s.cluster.wait_counting("node3", &vm)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_guest_that_autostarts_on_its_old_node_after_it_was_recovered_elsewhere_is_ended_there() {
    play(default("f-autostart-dead", 3), |s| {
        let vm = s.start_vms([1], "node2")?.remove(0);
        let node = s.victim("node2");
        let life = s.cluster.life("node2", &vm)?;
        leave_autostart(&node, &vm)?;
        let died = s.fault("node2 loses its power", || node.kill())?;
        s.stranger(&vm, "node2", SUSPENDED);
        // The fence switches it on again.
        strange_boot(s, &node, &vm, died)?;
        s.recover_elsewhere(std::slice::from_ref(&vm), "node2", died, Duration::from_mins(1))?;
        ensure!(vm.beats(&node).iter().all(|beat| beat.life == life), "it executed there for long");
        let home = s.cluster.home(&vm)?;
        ensure!(home != "node2" && s.cluster.processes.where_is(&vm.uuid) == [home]);
        Ok(())
    });
}
