//! Pools, volumes and snapshots in a real Ceph, as operators and old clients ask for them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Cluster, Vm, guest::writing_guest_xml};
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
