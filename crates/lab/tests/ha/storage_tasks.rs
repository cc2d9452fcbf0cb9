//! Pools, volumes and snapshots in a real Ceph, as operators and old clients ask for them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Cluster, PATIENCE, Vm, guest::writing_guest_xml, wait_until};
use serde_json::Value;

use crate::storage::run;

/// What Ceph's own tool says an image is: its size and its snapshots, in bytes and by name; `None`: there is none.
fn image(cluster: &Cluster, image: &str) -> Option<(u64, Vec<String>)> {
    let told = |words: &[&str]| -> Option<Value> { serde_json::from_str(&cluster.lab.rbd(words).ok()?).ok() };
    let size = told(&["info", "--format", "json", image])?["size"].as_u64()?;
    let snapshots = told(&["snap", "ls", "--format", "json", image])?;
    let name = |snapshot: &Value| snapshot["name"].as_str().map(str::to_owned);
    Some((size, snapshots.as_array()?.iter().filter_map(name).collect()))
}

/// The state tree says of all volumes and snapshots what Ceph has.
fn is_told(cluster: &Cluster) -> Result<()> {
    let listed = |what: &str| -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&cluster.pvc(&["--format", "json", "storage", what, "list"])?)?)
    };
    let told = cluster.lab.rbd(&["ls", "data"])?;
    let there: Vec<&str> = told.lines().collect();
    let volumes = listed("volume")?;
    ensure!(volumes.len() == there.len(), "{volumes:?} {there:?}");
    for volume in volumes {
        let name = volume["name"].as_str().context("a name")?;
        let (size, _) = image(cluster, &format!("data/{name}")).context("Ceph has it")?;
        ensure!(volume["stats"]["size"] == size, "{volume}");
    }
    for snapshot in listed("snapshot")? {
        let name = |key: &str| snapshot[key].as_str().unwrap_or_default().to_owned();
        let (_, snapshots) = image(cluster, &format!("data/{}", name("volume"))).context("Ceph has it")?;
        ensure!(snapshots.contains(&name("snapshot")), "{snapshot}: {snapshots:?}");
    }
    Ok(())
}

pub(crate) fn refused(cluster: &Cluster, words: &[&str], why: &str) -> Result<()> {
    match cluster.pvc(words) {
        Ok(done) => anyhow::bail!("{words:?}: {done}"),
        Err(error) if format!("{error:#}").contains(why) => Ok(()),
        Err(error) => Err(error.context(format!("not because of {why:?}"))),
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn operators_make_and_unmake_volumes_and_those_of_a_vm_stay() {
    run("ha-volumes", 1, |cluster| {
        let storage = |words: &[&str]| {
            let mut all = vec!["storage"];
            all.extend(words);
            cluster.pvc(&all)
        };
        storage(&["pool", "add", "data", "8"])?;
        let pool = cluster.lab.ceph(&["osd", "pool", "ls", "detail"])?;
        ensure!(pool.contains("'data' replicated size 3 min_size 2"), "{pool}");
        ensure!(storage(&["pool", "list"])?.contains("data"), "it is in the tree");
        storage(&["volume", "add", "data", "disk", "16M"])?;
        ensure!(image(cluster, "data/disk") == Some((16 * MIB, Vec::new())));
        storage(&["volume", "resize", "data", "disk", "32M"])?;
        refused(cluster, &["storage", "volume", "resize", "data", "disk", "8M"], "would be lost")?;

        // A guest writes to it. What does not harm it is done, and it goes on.
        let (vm, node) = (Vm::number(1), cluster.node("node1"));
        cluster.define_and_start(&vm, "node1", &writing_guest_xml(&vm.name, &vm.uuid, 96, "data/disk"))?;
        let writes_on = || crate::storage::writes_on(&vm, &node);
        writes_on()?;
        storage(&["snapshot", "add", "data", "disk", "daily"])?;
        storage(&["volume", "resize", "data", "disk", "48M"])?;
        writes_on()?;
        is_told(cluster)?;
        let blocklist = cluster.lab.ceph(&["osd", "blocklist", "ls"])?;
        ensure!(
            blocklist.lines().all(|line| line.starts_with("listed 0")),
            "nobody is shut out: {blocklist}"
        );
        storage(&["snapshot", "remove", "--yes", "data", "disk", "daily"])?;
        for words in
            [&["volume", "remove", "--yes", "data", "disk"][..], &["volume", "rename", "data", "disk", "x"]]
        {
            refused(cluster, &[&["storage"], words].concat(), &format!("VM {}", vm.name))?;
        }
        cluster.pvc(&["vm", "undefine", "--yes", &vm.name])?;
        storage(&["volume", "remove", "--yes", "data", "disk"])?;
        ensure!(image(cluster, "data/disk").is_none());
        storage(&["pool", "remove", "--yes", "data"])?;
        ensure!(!cluster.lab.ceph(&["osd", "pool", "ls"])?.contains("data"));
        Ok(())
    });
}

#[test]
fn what_a_killed_daemon_had_begun_is_carried_on() {
    run("ha-tasks", 1, |cluster| {
        let node = cluster.node("node1");
        let all = [
            &["pool", "add", "data", "8"][..],
            &["volume", "add", "data", "a", "16M"],
            &["snapshot", "add", "data", "a", "one"],
            &["snapshot", "rename", "data", "a", "one", "two"],
            &["volume", "resize", "data", "a", "32M"],
            &["volume", "rename", "data", "a", "b"],
            &["volume", "add", "data", "c", "16M"],
            &["snapshot", "remove", "--yes", "data", "b", "two"],
            &["volume", "remove", "--yes", "data", "b"],
        ];
        for (number, words) in (1..).zip(all) {
            cluster.pvc(&[&["storage"], words, &["--no-wait"]].concat())?;
            // Each a little later in the task than the one before.
            std::thread::sleep(Duration::from_millis(8 * number));
            // The task may have been quicker than the kill before: then the daemon is just being started again.
            node.wait_active("pvcd.service", Duration::from_mins(1))?;
            ensure!(node.kill_service("pvcd.service")?, "there was no pvcd");
            cluster.pvc(&["task", "wait", &number.to_string(), "--within", "120"])?;
            is_told(cluster).with_context(|| format!("{words:?}"))?;
        }
        ensure!(
            image(cluster, "data/b").is_none() && image(cluster, "data/c") == Some((16 * MIB, Vec::new()))
        );
        Ok(())
    });
}

/// A checksum of what Ceph's own tool reads of an image.
pub(crate) fn contents(cluster: &Cluster, image: &str) -> Result<String> {
    // Tests beside each other have a process each.
    let file = &format!("/tmp/contents-of-an-image-{}", std::process::id());
    cluster.lab.rbd(&["export", "--no-progress", image, file])?;
    let sum = cluster.lab.exec_in_switch(&["/usr/bin/sha256sum", file], Duration::from_mins(1))?.ok()?;
    cluster.lab.exec_in_switch(&["/usr/bin/rm", file], Duration::from_mins(1))?.ok()?;
    Ok(sum)
}

pub(crate) fn nobody_is_shut_out(cluster: &Cluster) -> Result<()> {
    let blocklist = cluster.lab.ceph(&["osd", "blocklist", "ls"])?;
    ensure!(blocklist.lines().all(|line| line.starts_with("listed 0")), "{blocklist}");
    Ok(())
}

#[test]
fn a_running_vms_volume_is_cloned_and_rolled_back_when_it_is_off() {
    run("ha-clones", 1, |cluster| {
        let storage = |words: &[&str]| cluster.pvc(&[&["storage"], words].concat());
        storage(&["pool", "add", "data", "8"])?;
        storage(&["volume", "add", "data", "disk", "32M"])?;
        let (vm, node) = (Vm::number(1), cluster.node("node1"));
        cluster.define_and_start(&vm, "node1", &writing_guest_xml(&vm.name, &vm.uuid, 96, "data/disk"))?;
        crate::storage::writes_on(&vm, &node)?;
        storage(&["snapshot", "add", "data", "disk", "daily"])?;
        storage(&["volume", "clone", "data", "disk", "now"])?;
        storage(&["volume", "clone", "--snapshot", "daily", "data", "disk", "then"])?;
        crate::storage::writes_on(&vm, &node)?;
        nobody_is_shut_out(cluster)?;
        is_told(cluster)?;
        for name in ["data/now", "data/then"] {
            ensure!(image(cluster, name) == Some((32 * MIB, Vec::new())), "{name}");
            let info: Value = serde_json::from_str(&cluster.lab.rbd(&["info", "--format", "json", name])?)?;
            ensure!(info.get("parent").is_none(), "it depends on nothing: {info}");
        }
        ensure!(image(cluster, "data/disk") == Some((32 * MIB, vec!["daily".to_owned()])));

        let back = ["snapshot", "rollback", "--yes", "data", "disk", "daily"];
        refused(cluster, &[&["storage"], &back[..]].concat(), &format!("VM {}", vm.name))?;
        crate::storage::writes_on(&vm, &node)?;
        cluster.pvc(&["vm", "stop", &vm.name])?;
        let written = contents(cluster, "data/disk")?;
        storage(&back)?;
        let (now, then) = (contents(cluster, "data/disk")?, contents(cluster, "data/then")?);
        ensure!(now == then && now != written, "{written:?} {then:?} {now:?}");
        is_told(cluster)?;
        cluster.pvc(&["vm", "start", &vm.name])?;
        crate::storage::writes_on(&vm, &node)
    });
}

/// Killed at any moment: in the middle of a copy, of a rollback, and between their steps.
#[test]
fn a_clone_and_a_rollback_that_a_killed_daemon_had_begun_are_carried_on() {
    run("ha-killclone", 1, |cluster| {
        let (node, storage) =
            (cluster.node("node1"), |words: &[&str]| cluster.pvc(&[&["storage"], words].concat()));
        storage(&["pool", "add", "data", "8"])?;
        // It takes seconds, though it holds little.
        storage(&["volume", "add", "data", "disk", "32M"])?;
        storage(&["volume", "resize", "data", "disk", "64G"])?;
        let some = ["bench", "--io-type", "write", "--io-size", "4M", "--io-total", "4M", "data/disk"];
        cluster.lab.rbd(&some)?;
        storage(&["snapshot", "add", "data", "disk", "daily"])?;
        let (mut number, mut told) = (4, 0);
        for round in 0..4_u64 {
            let name = format!("copy{round}");
            for words in [
                &["volume", "clone", "data", "disk", &name][..],
                &["snapshot", "rollback", "--yes", "data", "disk", "daily"],
            ] {
                number += 1;
                storage(&[words, &["--no-wait"]].concat())?;
                // Each a little later in the task than the one before.
                std::thread::sleep(Duration::from_millis(100 + 900 * round));
                node.wait_active("pvcd.service", Duration::from_mins(1))?;
                ensure!(node.kill_service("pvcd.service")?, "there was no pvcd");
                let id = number.to_string();
                wait_until("the task to be over", PATIENCE * 4, || {
                    let task = cluster.pvc(&["--format", "json", "task", "info", &id]);
                    let task: Value =
                        task.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                    told += u32::from(task["progress"].is_number());
                    task["state"] == "done" || task["state"] == "failed"
                })?;
                cluster.pvc(&["task", "wait", &id])?;
                is_told(cluster).with_context(|| format!("{words:?}"))?;
                let all = cluster.lab.rbd(&["ls", "data"])?;
                ensure!(!all.contains("pvc-task"), "{all}");
                ensure!(image(cluster, "data/disk") == Some((65_536 * MIB, vec!["daily".to_owned()])));
            }
            ensure!(image(cluster, &format!("data/{name}")) == Some((65_536 * MIB, Vec::new())));
        }
        ensure!(told > 0, "how far it was, nobody was told");
        Ok(())
    });
}

#[test]
fn an_old_client_has_its_storage_commands_done() {
    run("ha-oldceph", 1, |cluster| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old_client.py");
        let servers = cluster.lab.zk_connect_string();
        for (line, done) in [
            ("pool_add data,8", true),
            ("volume_add data,a,16777216B", true),
            ("volume_add data,a,16777216B", false),
            ("snapshot_add data,a,one", true),
            ("snapshot_rename data,one,two", true),
            ("volume_rename data,a,b", true),
            ("volume_remove data,b", false),
            ("volume_clone data,b,c,two", true),
            ("snapshot_rollback data,b,two", true),
            ("volume_remove data,c", true),
            ("snapshot_remove data,b,two", true),
            ("volume_resize data,b,33554432B", true),
            ("osd_out 1", true),
            ("osd_in 1", true),
            ("osd_set noout", true),
            ("osd_unset noout", true),
            ("osd_in 9", false),
        ] {
            let program = ["/usr/bin/python3", script, "-z", &servers, "ask", "ceph", line];
            let answer: Value =
                serde_json::from_str(&cluster.lab.exec_in_switch(&program, Duration::from_mins(1))?.ok()?)?;
            let expected = format!("{}-{line}", if done { "success" } else { "failure" });
            ensure!(answer["answer"] == expected.as_str(), "{answer}");
            if line != "pool_add data,8" {
                is_told(cluster).context(line)?;
            }
        }
        ensure!(image(cluster, "data/b") == Some((32 * MIB, Vec::new())));
        Ok(())
    });
}
