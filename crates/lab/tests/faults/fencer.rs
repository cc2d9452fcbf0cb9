//! The node that fences dies itself, at each step of the fence: another one goes on, and every VM is recovered exactly once.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use pvc_lab::{
    Behaviour, Node, PATIENCE, Scenario,
    observers::tree::{Follower, History},
    play,
};
use serde_json::Value;

use crate::{default, fast, kill_daemon};

/// A dead daemon's jobs are nobody's until its session has ended.
const IN_THE_END: Duration = Duration::from_mins(1);
const VICTIM: &str = "node4";
const RECORD: &str = "/pvc/fence/node4";

/// Kills the victim, and `act` on its fencer as soon as that has recorded `step`.
fn strike(s: &Scenario, step: &str, act: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let vms = s.start_vms([1, 2], VICTIM)?;
    let node = s.victim(VICTIM);
    let mut follower = Follower::start(&s.cluster.lab)?;
    let died = s.fault("node4 loses its power", || node.kill())?;
    let by = follower.wait_for(&format!("a fencer at {step}"), PATIENCE, |path, value| {
        let record: Value = serde_json::from_str(value.filter(|_| path == RECORD)?).ok()?;
        (record["step"] == step).then(|| record["by"].as_str().map(str::to_owned))?
    })?;
    let fencer = s.node(&by);
    s.fault(&format!("{by}, which fences, dies at {step}"), || act(&fencer))?;
    s.recover_elsewhere(&vms, VICTIM, died, IN_THE_END)
}

/// An error unless the fence was continued by another life of a daemon: then the blow came when there was something to do.
fn somebody_went_on(s: &Scenario) -> Result<()> {
    let history = History::of(&s.cluster.lab)?;
    let writers: BTreeSet<_> = history.of_key(RECORD).map(|(t, _)| t.session).collect();
    ensure!(writers.len() > 1, "the fence was over before its fencer died: the blow was too late");
    Ok(())
}

fn daemon_dies_at(name: &str, step: &str) {
    play(fast(name, 4), |s| {
        strike(s, step, kill_daemon)?;
        // The record is removed when it is over.
        s.wait_fences_over()?;
        somebody_went_on(s)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencers_daemon_that_dies_before_the_shot_is_succeeded() {
    daemon_dies_at("f-fencer-shooting", "shooting");
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencers_daemon_that_dies_with_the_proof_in_hand_is_succeeded() {
    daemon_dies_at("f-fencer-proven", "proven");
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencers_daemon_that_dies_when_the_vms_have_new_homes_is_succeeded() {
    daemon_dies_at("f-fencer-recovered", "recovered");
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencers_daemon_that_dies_after_it_shot_in_vain_is_succeeded() {
    play(fast("f-fencer-failed", 4), |s| {
        let node = s.node(VICTIM);
        node.cut_bmc()?;
        strike(s, "failed", |fencer| {
            kill_daemon(fencer)?;
            node.heal_bmc()
        })?;
        s.wait_fences_over()?;
        somebody_went_on(s)
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencer_that_loses_its_power_in_the_shot_is_fenced_too_and_its_job_is_done_by_a_third() {
    play(fast("f-fencer-node", 4), |s| {
        // Slow enough that the fencer dies before the power-off is over.
        s.node(VICTIM).set_bmc(Behaviour::Slow { ms: 1500 })?;
        let mut fencer = None;
        strike(s, "shooting", |node| {
            fencer = Some(node.name());
            s.victim(&node.name()).kill()
        })?;
        s.wait_fences_over()?;
        somebody_went_on(s)?;
        let fencer = fencer.context("no fencer")?;
        ensure!(s.node(&fencer).machine()?.on, "{fencer} was not switched on again");
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_fencer_that_freezes_in_the_shot_does_nothing_of_the_job_when_it_goes_on() {
    play(default("f-fencer-frozen", 4), |s| {
        s.node(VICTIM).set_bmc(Behaviour::Slow { ms: 1500 })?;
        let mut frozen = None;
        // Longer than its session lasts, shorter than the silence that is death. The daemon alone: with a machine that leads ZooKeeper
        // everybody's measurements of the silence would start over.
        let signal = |node: &Node, signal: &str| {
            node.run(&["/bin/systemctl", "kill", &format!("--signal={signal}"), "pvcd"], PATIENCE).map(drop)
        };
        strike(s, "shooting", |node| {
            frozen = Some(node.clone());
            signal(node, "STOP")
        })?;
        signal(&frozen.context("no fencer")?, "CONT")?;
        s.wait_fences_over()?;
        somebody_went_on(s)
    });
}
