//! Live migration: the guest goes on where it was, and runs on exactly one side whatever dies.

use anyhow::Context;
use pvc_lab::{PATIENCE, Vm, wait_until};
use serde_json::json;

use crate::{fast_timings, on};

#[test]
fn a_live_migration_and_the_way_back_are_one_life_of_the_guest() {
    on("ha-migrate", 2, fast_timings(), |cluster| {
        let vm = Vm::number(1);
        cluster.start_vms(std::slice::from_ref(&vm), "node1")?;
        let life = cluster.life("node1", &vm)?;

        cluster.pvc(&["vm", "migrate", "-t", "node2", &vm.name])?;
        assert_eq!(cluster.wait_settled(&vm, "node2")?["last_node"], "node1");
        cluster.wait_counting("node2", &vm)?;
        assert_eq!(cluster.life("node2", &vm)?, life, "the guest started over");
        wait_until("the source's process to end", PATIENCE, || {
            cluster.processes.where_is(&vm.uuid) == ["node2"]
        })?;

        cluster.pvc(&["vm", "unmigrate", &vm.name])?;
        assert_eq!(cluster.wait_settled(&vm, "node1")?["last_node"], "");
        cluster.wait_counting("node1", &vm)?;
        assert_eq!(cluster.life("node1", &vm)?, life, "the guest started over");
        cluster.check_counted_once(&vm)
    });
}

#[test]
fn the_death_of_the_target_in_a_migration_leaves_the_guest_on_one_side() {
    on("ha-migrate-dies", 3, fast_timings(), |cluster| {
        let vm = Vm::number(1);
        cluster.start_vms(std::slice::from_ref(&vm), "node1")?;
        let life = cluster.life("node1", &vm)?;

        cluster.pvc(&["vm", "migrate", "--no-wait", "-t", "node3", &vm.name])?;
        // The target's process waits for the guest's memory now.
        wait_until("the migration", PATIENCE, || cluster.processes.of(&vm.uuid).len() == 2)?;
        cluster.node("node3").kill()?;

        // Either the guest had not gone over, or it died with the target: then it is started anew.
        let mut at = Vec::new();
        wait_until("the VM to run on one side, and the wish to be answered", PATIENCE, || {
            let seen = cluster.vm(&vm);
            at = cluster.processes.where_is(&vm.uuid);
            at.len() == 1 && seen["state"] == "start" && seen["node"] == at[0] && seen["claim"] == json!(at)
        })
        .with_context(|| format!("{:#}", cluster.vm(&vm)))?;
        cluster.wait_counting(&at[0], &vm)?;
        if vm.beats(&cluster.node("node3")).is_empty() {
            let last = vm.beats(&cluster.node(&at[0])).pop().context("it counts")?;
            assert_eq!((at[0].as_str(), last.life), ("node1", life), "the guest started over");
        }
        cluster.check_counted_once(&vm)
    });
}
