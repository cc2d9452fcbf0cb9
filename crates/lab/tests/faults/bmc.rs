//! A BMC that is not what it should be, while its node is dead or frozen.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Behaviour, Node, PATIENCE, Scenario, Vm, play, wait_until};

use crate::{SOON, fast};

/// Without a proof of death the node's VMs are nobody's, and the operator is told what to do.
fn nothing_is_touched(s: &Scenario, vms: &[Vm], node: &Node, told: &str) -> Result<()> {
    let name = node.name();
    s.cluster.wait_node(&name, "daemon_state", "dead")?;
    let mut explained = String::new();
    let wait = wait_until("the failure of the fence to be told", PATIENCE, || {
        explained = s.cluster.pvc(&["node", "explain", &name]).unwrap_or_else(|e| format!("{e:#}"));
        explained.contains("confirm-dead") && explained.contains(told)
    });
    s.note(explained.trim());
    wait?;
    for vm in vms {
        let elsewhere = s.cluster.processes.where_is(&vm.uuid).into_iter().find(|on| *on != name);
        ensure!(elsewhere.is_none(), "{} runs on {elsewhere:?} without a proof of death", vm.name);
    }
    Ok(())
}

/// The operator's word, when it is taken: while the silent daemon's session lasts, the operator is told to try again.
fn confirm_dead(s: &Scenario, node: &Node) -> Result<Instant> {
    let mut asked = Instant::now();
    wait_until("the death to be believed", PATIENCE, || {
        asked = Instant::now();
        s.pvc(&["node", "confirm-dead", "--yes", &node.name()]).is_ok()
    })?;
    Ok(asked)
}

fn freeze(s: &Scenario, node: &Node) -> Result<()> {
    s.cluster.lab.drop_frames(node, None)?;
    node.pause()
}

/// Thaws a node of which something else was said: its guests, which run elsewhere, must end at once.
fn guests_end_when_it_thaws(s: &Scenario, vms: &[Vm], node: &Node) -> Result<()> {
    s.cluster.lab.undrop()?;
    let thawed = Instant::now();
    node.resume()?;
    s.note(format!("{} goes on", node.name()));
    let on_node = |vm: &Vm| s.cluster.processes.where_is(&vm.uuid).contains(&node.name());
    wait_until("its guests to end", PATIENCE, || !vms.iter().any(on_node))?;
    let took = thawed.elapsed();
    s.note(format!("the guests of {} ended after {took:?}", node.name()));
    ensure!(took < Duration::from_secs(5), "its guests ended after {took:?}");
    Ok(())
}

#[test]
fn a_node_that_was_declared_dead_and_lives_on_ends_its_guests_at_once() {
    play(fast("f-undead", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.undead("node3");
        let boot = node.boot_id()?;
        s.fault("node3 freezes, and its BMC is away", || {
            node.cut_bmc()?;
            freeze(s, &node)
        })?;
        nothing_is_touched(s, &vms, &node, "")?;
        // The operator is wrong: the machine is only frozen.
        confirm_dead(s, &node)?;
        s.cluster.wait_elsewhere(&vms, "node3")?;
        guests_end_when_it_thaws(s, &vms, &node)?;
        s.cluster.wait_node("node3", "daemon_state", "run")?;
        ensure!(node.boot_id()? == boot);
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn an_operators_word_that_a_node_is_dead_ends_when_the_node_comes_back() {
    play(fast("f-old-word", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        let fencers = [s.node("node1"), s.node("node2")];
        let signal = |signal: &str| -> Result<()> {
            let kill = ["/bin/systemctl", "kill", signal, "pvcd.service"];
            fencers.iter().try_for_each(|fencer| fencer.run(&kill, PATIENCE).map(drop))
        };
        s.fault("node3 freezes, and its BMC is away", || {
            node.cut_bmc()?;
            freeze(s, &node)
        })?;
        nothing_is_touched(s, &vms, &node, "")?;
        // Nobody acts on the word before the node is back.
        signal("--signal=STOP")?;
        let said = confirm_dead(s, &node);
        s.cluster.lab.undrop()?;
        node.resume()?;
        s.note("node3 goes on");
        let back = s.cluster.wait_node("node3", "daemon_state", "run");
        signal("--signal=CONT")?;
        said?;
        back?;
        s.wait_fences_over()?;
        s.cluster.wait_node("node3", "daemon_state", "run")?;
        s.untouched(&vms)?;
        s.fault("node3 loses its power, and its BMC is still away", || node.kill())?;
        nothing_is_touched(s, &vms, &node, "")?;
        let confirmed = confirm_dead(s, &node)?;
        s.recover_elsewhere(&vms, "node3", confirmed, SOON)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_wrong_bmc_password_is_told_and_nothing_is_touched_until_an_operator_confirms_the_death() {
    play(fast("f-bmc-password", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        let file = "/etc/pvc/pvcd.yaml";
        let wrong = node.read_file(file)?.replace("pass: labpass", "pass: wrong-secret");
        node.write_file(file, wrong.as_bytes())?;
        node.run(&["/bin/systemctl", "restart", "pvcd"], PATIENCE)?;
        s.cluster.wait_node("node3", "daemon_state", "run")?;
        s.fault("node3 loses its power, and its BMC has another password than pvcd.yaml", || node.kill())?;
        nothing_is_touched(s, &vms, &node, "admin")?;
        let told = s.pvc(&["node", "explain", "node3"])?;
        ensure!(!told.contains("wrong-secret"), "the password is told: {told}");
        let confirmed = confirm_dead(s, &node)?;
        s.recover_elsewhere(&vms, "node3", confirmed, SOON)?;
        node.start()?;
        wait_until("the node to answer", PATIENCE, || node.boot_id().is_ok())?;
        let right = wrong.replace("pass: wrong-secret", "pass: labpass");
        node.write_file(file, right.as_bytes())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_slow_bmc_delays_the_recovery_and_does_not_prevent_it() {
    play(fast("f-bmc-slow", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        node.set_bmc(Behaviour::Slow { ms: 2500 })?;
        let died = s.fault("node3 freezes, and its BMC takes 2.5 s for each thing", || freeze(s, &node))?;
        s.recover_elsewhere(&vms, "node3", died, Duration::from_mins(1))
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_bmc_that_says_off_of_a_dead_node_is_as_good_as_an_honest_one() {
    play(fast("f-bmc-liar-dead", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        node.set_bmc(Behaviour::Liar)?;
        let died = s.fault("node3 loses its power; its BMC says off whatever is so", || node.kill())?;
        s.recover_elsewhere(&vms, "node3", died, SOON)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_frozen_node_whose_bmc_lies_that_it_is_off_ends_its_guests_as_soon_as_it_goes_on() {
    play(fast("f-bmc-liar", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.undead("node3");
        node.set_bmc(Behaviour::Liar)?;
        let froze = s.fault("node3 freezes; its BMC says off and does nothing", || freeze(s, &node))?;
        s.recover_elsewhere(&vms, "node3", froze, SOON)?;
        guests_end_when_it_thaws(s, &vms, &node)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_bmc_that_accepts_a_reset_and_ignores_it_is_believed_until_the_node_goes_on() {
    play(fast("f-bmc-reset", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.undead("node3");
        node.set_bmc(Behaviour::OnlyResets)?;
        let froze =
            s.fault("node3 freezes; its BMC refuses off, and ignores a reset", || freeze(s, &node))?;
        s.recover_elsewhere(&vms, "node3", froze, SOON)?;
        guests_end_when_it_thaws(s, &vms, &node)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn while_a_bmc_accepts_off_and_does_nothing_nothing_is_touched_and_the_shot_is_repeated() {
    play(fast("f-bmc-idle", 3), |s| {
        let vms = s.start_vms([1, 2], "node3")?;
        let node = s.victim("node3");
        node.set_bmc(Behaviour::Idle)?;
        s.fault("node3 freezes; its BMC accepts everything and does nothing", || freeze(s, &node))?;
        nothing_is_touched(s, &vms, &node, "does not say that it is off")?;
        let mended = Instant::now();
        node.set_bmc(Behaviour::Honest)?;
        s.note("the BMC is mended");
        s.recover_elsewhere(&vms, "node3", mended, Duration::from_mins(1))
    });
}
