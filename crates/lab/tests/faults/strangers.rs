//! Instances that nobody in the cluster started: a definition with autostart, left by who used libvirt alone before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Node, PATIENCE, Scenario, Vm, beating_guest_xml, play, wait_until};

use crate::{SOON, default, fast, pass};

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

/// Without ZooKeeper, and where nobody can cut its power, into a new boot. The moment of the reset.
fn reset_cut_off(s: &Scenario, node: &Node) -> Result<Instant> {
    let boot = node.boot_id()?;
    let reset =
        s.fault(&format!("{} is reset, cut off from the others, and so is its BMC", node.name()), || {
            node.cut_bmc()?;
            node.cut()?;
            node.reset()
        })?;
    wait_until("the node to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))?;
    node.wait_libvirt(PATIENCE)?;
    Ok(reset)
}

/// Waits until the instance that was started in the new boot executes nothing.
fn wait_suspended(node: &Node, vm: &Vm) -> Result<()> {
    wait_until(&format!("{} to be suspended on {}", vm.name, node.name()), SOON, || {
        let state = node.run(&["/usr/bin/virsh", "-q", "domstate", &vm.name], COMMAND);
        state.is_ok_and(|state| state.trim() == "paused")
    })
}

#[test]
fn what_a_new_boot_starts_is_suspended_until_the_tree_is_read_and_then_goes_on() {
    // Longer than the session of the daemon before, so that nobody takes the node for dead.
    play(default("f-new-boot", 3), |s| {
        let vms = s.start_vms([1, 2], "node2")?;
        let node = s.victim("node2");
        // One is started by libvirt, the other by somebody's hand; each is where it belongs.
        leave_autostart(&node, &vms[1])?;
        let reset = reset_cut_off(s, &node)?;
        node.write_file("/root/by-hand.xml", beating_guest_xml(&vms[0].name, &vms[0].uuid, 96).as_bytes())?;
        node.run(&["/usr/bin/virsh", "-q", "create", "/root/by-hand.xml"], COMMAND)?;
        for vm in &vms {
            wait_suspended(&node, vm)?;
        }
        s.note(format!("suspended {:.1} s after the reset", reset.elapsed().as_secs_f64()));
        // A daemon that is killed before it has read the tree leaves the next one as wise.
        node.kill_service("pvcd.service")?;
        node.heal()?;
        node.heal_bmc()?;
        for vm in &vms {
            s.cluster.wait_counting("node2", vm)?;
            let since = s.cluster.processes.of(&vm.uuid).into_iter().filter(|run| run.began > reset).count();
            ensure!(since == 1, "{} was started again", vm.name);
        }
        // From now on this boot is known: without ZooKeeper its daemon may be started again, and touches nothing.
        s.fault("node2 is cut off, and its daemon killed", || {
            node.cut()?;
            node.kill_service("pvcd.service").map(drop)
        })?;
        let main_pid = ["/bin/systemctl", "show", "--value", "-p", "MainPID", "pvcd.service"];
        wait_until("its daemon to be started again", PATIENCE, || {
            node.run(&main_pid, COMMAND).is_ok_and(|pid| !["", "0"].contains(&pid.trim()))
        })?;
        // More than it takes to suspend what runs in a boot that is not known.
        pass(Duration::from_secs(4))?;
        for vm in &vms {
            s.cluster.wait_counting("node2", vm)?;
        }
        node.heal()
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn what_a_new_boot_starts_is_ended_there_if_the_boot_before_was_taken_for_dead_meanwhile() {
    play(fast("f-new-boot-dead", 3), |s| {
        let vm = s.start_vms([1], "node2")?.remove(0);
        let node = s.victim("node2");
        let life = s.cluster.life("node2", &vm)?;
        leave_autostart(&node, &vm)?;
        s.stranger(&vm, "node2", Duration::from_mins(2));
        let reset = reset_cut_off(s, &node)?;
        wait_suspended(&node, &vm)?;
        // Not before the session of the daemon before has ended.
        wait_until("an operator's word to be taken", PATIENCE, || {
            s.pvc(&["node", "confirm-dead", "-y", "node2"]).is_ok()
        })?;
        s.recover_elsewhere(std::slice::from_ref(&vm), "node2", reset, Duration::from_mins(1))?;
        s.cluster.wait_counting(&s.cluster.home(&vm)?, &vm)?;
        wait_suspended(&node, &vm)?;
        node.heal()?;
        node.heal_bmc()?;
        strange_boot(s, &node, &vm, reset)?;
        ensure!(vm.beats(&node).iter().all(|beat| beat.life == life), "it executed there for long");
        Ok(())
    });
}
