//! Tasks of a real Ceph that are to end before they are done, and others that go on beside what takes long.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Cluster, PATIENCE, wait_until};
use serde_json::Value;

use crate::{
    storage::run,
    storage_tasks::{nobody_is_shut_out, refused},
};

/// Asks for something and does not wait for it: its number.
fn ask(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let said = cluster.pvc(&[&["storage"], words, &["--no-wait"]].concat())?;
    let number = said.split_whitespace().nth(1).context("a number")?;
    Ok(number.to_owned())
}

fn info(cluster: &Cluster, task: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.pvc(&["--format", "json", "task", "info", task])?)?)
}

/// Waits until Ceph has said how far it is.
fn is_under_way(cluster: &Cluster, task: &str) -> Result<()> {
    wait_until("it to be under way", PATIENCE, || {
        info(cluster, task).is_ok_and(|task| task["progress"].is_number())
    })
}

fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    let (images, snapshots) =
        (cluster.lab.rbd(&["ls", "data"])?, cluster.lab.rbd(&["snap", "ls", "--all", "data/disk"])?);
    ensure!(images.trim() == "disk" && !snapshots.contains("pvc-task"), "{images} {snapshots}");
    Ok(())
}

#[test]
fn a_task_is_cancelled_where_nothing_is_lost_and_others_go_on_beside_it() {
    run("ha-cancel", 1, |cluster| {
        let storage = |words: &[&str]| cluster.pvc(&[&["storage"], words].concat());
        storage(&["pool", "add", "data", "8"])?;
        storage(&["volume", "add", "data", "disk", "32M"])?;
        // It holds nothing, and it takes Ceph a minute to see that.
        storage(&["volume", "resize", "data", "disk", "256G"])?;

        let copy = ask(cluster, &["volume", "clone", "data", "disk", "copy"])?;
        is_under_way(cluster, &copy)?;
        let began = Instant::now();
        storage(&["volume", "add", "data", "other", "16M"])?;
        storage(&["snapshot", "add", "data", "disk", "daily"])?;
        storage(&["volume", "remove", "--yes", "data", "other"])?;
        println!("three tasks beside a copy: {:.1?}", began.elapsed());
        ensure!(info(cluster, &copy)?["state"] == "running", "{}", info(cluster, &copy)?);
        let began = Instant::now();
        let said = cluster.pvc(&["task", "cancel", &copy])?;
        println!("a copy was cancelled within {:.1?}", began.elapsed());
        ensure!(said.contains("cancelled by"), "{said}");
        nothing_is_left(cluster)?;
        nobody_is_shut_out(cluster)?;

        // Who is to end it dies before it hears of that.
        let copy = ask(cluster, &["volume", "clone", "data", "disk", "copy"])?;
        is_under_way(cluster, &copy)?;
        cluster.pvc(&["task", "cancel", &copy, "--no-wait"])?;
        ensure!(cluster.node("node1").kill_service("pvcd.service")?, "there was no pvcd");
        let said = cluster.pvc(&["task", "cancel", &copy])?;
        ensure!(said.contains("cancelled by"), "{said}");
        nothing_is_left(cluster)?;

        // What is lost by now goes on.
        for (words, why) in [
            (&["snapshot", "rollback", "--yes", "data", "disk", "daily"][..], "would hold neither"),
            (&["volume", "remove", "--yes", "data", "disk"], "does not come back"),
        ] {
            if words[0] == "volume" {
                storage(&["snapshot", "remove", "--yes", "data", "disk", "daily"])?;
            }
            let task = ask(cluster, words)?;
            is_under_way(cluster, &task)?;
            refused(cluster, &["task", "cancel", &task], why)?;
            ensure!(info(cluster, &task)?["state"] == "running", "{words:?}");
            cluster.pvc(&["task", "wait", &task])?;
        }
        ensure!(cluster.lab.rbd(&["ls", "data"])?.trim().is_empty());
        refused(cluster, &["task", "cancel", "1"], "it is over")
    });
}
