//! Guests with disks in a real Ceph.

use anyhow::{Context as _, Result, ensure};
use chrono::Datelike as _;
use pvc_lab::{
    Behaviour, Cluster, LabOptions, Node, PATIENCE, Vm,
    guest::{Written, writing_guest_xml},
    wait_until,
};

use pvc_lab::observers::tree::History;

use crate::{fast_timings, storage_tasks::refused};

fn written(vm: &Vm, node: &Node) -> Vec<Written> {
    Written::all(&node.guest_console(&vm.name))
}

fn acknowledged(vm: &Vm, node: &Node) -> u64 {
    let all = written(vm, node).into_iter();
    all.filter_map(|told| match told {
        Written::Acknowledged(number) => Some(number),
        Written::Found(_) => None,
    })
    .max()
    .unwrap_or(0)
}

pub(crate) fn run(name: &str, nodes: u8, test: impl FnOnce(&Cluster) -> Result<()>) {
    let options = LabOptions::new(name, env!("CARGO_BIN_EXE_pvc-lab"));
    let options = options.nodes(nodes).timings(fast_timings()).with_storage();
    let cluster = Cluster::up(options).unwrap_or_else(|e| panic!("{e:?}"));
    if let Err(e) = test(&cluster) {
        panic!("{e:?}");
    }
}

/// Waits until a guest has written something more.
pub(crate) fn writes_on(vm: &Vm, node: &Node) -> Result<()> {
    let before = acknowledged(vm, node);
    wait_until("it to write on", PATIENCE, || acknowledged(vm, node) > before + 5)
        .with_context(|| node.guest_console(&vm.name))
}

/// Has a guest write on a node; the client by which it does, as it is recorded.
fn writes(cluster: &Cluster, vm: &Vm, on: &str) -> Result<String> {
    let (node, image) = (cluster.node(on), cluster.lab.create_image(&vm.name)?);
    cluster.define_and_start(vm, on, &writing_guest_xml(&vm.name, &vm.uuid, 96, &image))?;
    wait_until("it to write", PATIENCE, || acknowledged(vm, &node) > 10)
        .with_context(|| node.guest_console(&vm.name))?;
    let key = format!("/pvc/vm_clients/{}@{on}", vm.uuid);
    wait_until("its client to be recorded", PATIENCE, || tree(cluster, &key).contains(&image))?;
    let record: serde_json::Value = serde_json::from_str(&tree(cluster, &key)).context("the record")?;
    Ok(record["clients"][0].as_str().context("a client")?.to_owned())
}

/// Waits until it runs elsewhere than on node3, has looked at its disk, and writes on: where that is, and what it found.
fn writes_elsewhere(cluster: &Cluster, vm: &Vm) -> Result<(Node, u64)> {
    cluster.wait_elsewhere(std::slice::from_ref(vm), "node3")?;
    let new = cluster.node(&cluster.home(vm)?);
    let found = || {
        written(vm, &new).into_iter().find_map(|told| match told {
            Written::Found(number) => Some(number),
            Written::Acknowledged(_) => None,
        })
    };
    wait_until("it to look at its disk", PATIENCE, || found().is_some())?;
    let found = found().context("it has looked")?;
    wait_until("it to write on", PATIENCE, || acknowledged(vm, &new) > found)?;
    Ok((new, found))
}

fn is_shut_out(cluster: &Cluster, client: &str) -> Result<()> {
    let blocklist = cluster.lab.ceph(&["osd", "blocklist", "ls"])?;
    let until = blocklist.lines().find_map(|line| line.strip_prefix(client)).unwrap_or_default();
    let year = until.trim().get(..4).and_then(|year| year.parse().ok()).unwrap_or(0);
    // Ceph's own time-out would shut it out for an hour, after half a minute.
    ensure!(year >= chrono::Utc::now().year() + 9, "{client} is not shut out for years:\n{blocklist}");
    Ok(())
}

#[test]
fn a_guest_with_an_rbd_disk_whose_node_is_killed_runs_elsewhere_with_all_that_it_wrote() {
    run("ha-rbd", 3, |cluster| {
        let (vm, node) = (Vm::number(1), cluster.node("node3"));
        let client = writes(cluster, &vm, "node3")?;
        node.kill()?;
        let (_, found) = writes_elsewhere(cluster, &vm)?;
        let before = acknowledged(&vm, &node);
        ensure!(found >= before, "{before} was acknowledged, {found} was found");
        is_shut_out(cluster, &client)?;
        let locks = cluster.pvc(&["storage", "locks"])?;
        ensure!(locks.contains(&vm.name) && locks.contains("heard"), "{locks}");
        // What is left of its process went with the boot of its machine.
        cluster.wait_node("node3", "daemon_state", "run")?;
        let listed = cluster.pvc(&["storage", "fence", "list"])?;
        let line = listed.lines().find(|line| line.contains(&client)).unwrap_or_default();
        ensure!(
            line.contains(&vm.name) && line.contains("node3") && line.contains("may be lifted"),
            "{listed}"
        );
        cluster.pvc(&["storage", "fence", "lift", "--yes", &client])?;
        let blocklist = cluster.lab.ceph(&["osd", "blocklist", "ls"])?;
        ensure!(!blocklist.contains(&client), "{blocklist}");
        cluster.check_never_twice(std::slice::from_ref(&vm))
    });
}

#[test]
fn a_guest_whose_process_is_killed_is_shut_out_before_it_starts_again() {
    run("ha-rbd-crash", 1, |cluster| {
        let (vm, node) = (Vm::number(1), cluster.node("node1"));
        let client = writes(cluster, &vm, "node1")?;
        let before = acknowledged(&vm, &node);
        node.run(&["/usr/bin/pkill", "-KILL", "qemu-system"], PATIENCE)?;
        wait_until("it to write on", PATIENCE, || {
            let found =
                written(&vm, &node).into_iter().any(|told| matches!(told, Written::Found(n) if n >= before));
            found && acknowledged(&vm, &node) > before
        })
        .with_context(|| node.guest_console(&vm.name))?;
        is_shut_out(cluster, &client)
    });
}

/// What is recorded follows the guest, so that a later death of the node that it left shuts nobody out.
#[test]
fn a_guest_with_an_rbd_disk_migrates_while_it_writes_and_its_record_moves_with_it() {
    run("ha-rbd-move", 3, |cluster| {
        let (vm, from, to) = (Vm::number(1), cluster.node("node3"), cluster.node("node2"));
        let client = writes(cluster, &vm, "node3")?;
        cluster.pvc(&["vm", "migrate", "-t", "node2", &vm.name])?;
        cluster.wait_settled(&vm, "node2")?;
        let at_least = acknowledged(&vm, &from);
        wait_until("it to write on", PATIENCE, || acknowledged(&vm, &to) > at_least + 3)
            .with_context(|| to.guest_console(&vm.name))?;
        let record = |node: &str| tree(cluster, &format!("/pvc/vm_clients/{}@{node}", vm.uuid));
        wait_until("its record to move", PATIENCE, || {
            record("node3").is_empty() && !record("node2").is_empty()
        })?;
        ensure!(!record("node2").contains(&client), "it has another client there: {}", record("node2"));

        from.kill()?;
        cluster.wait_node("node3", "daemon_state", "dead")?;
        cluster.wait_node("node3", "daemon_state", "run")?;
        let at_least = acknowledged(&vm, &to);
        wait_until("it to write on", PATIENCE, || acknowledged(&vm, &to) > at_least + 3)?;
        let blocklist = cluster.lab.ceph(&["osd", "blocklist", "ls"])?;
        let now = record("node2");
        let shut_out = |line: &str| now.contains(line.split(' ').next().unwrap_or_default());
        ensure!(
            !blocklist.lines().filter(|line| line.starts_with("10.")).any(shut_out),
            "{now}\n{blocklist}"
        );
        Ok(())
    });
}

/// The BMC lies, so the proof is none and the guest lives on when its node thaws: the storage fence is all that is left.
#[test]
fn a_guest_that_thaws_after_another_was_started_writes_nothing_more() {
    run("ha-rbd-frozen", 3, |cluster| {
        let (vm, node) = (Vm::number(1), cluster.node("node3"));
        let client = writes(cluster, &vm, "node3")?;
        node.set_bmc(Behaviour::Liar)?;
        node.pause()?;
        let (new, found) = writes_elsewhere(cluster, &vm)?;
        is_shut_out(cluster, &client)?;
        refused(cluster, &["storage", "fence", "lift", "--yes", &client], "has not booted since")?;
        // Its own daemon ends it when it hears of the claim; nothing of it may land before that.
        node.resume()?;
        let old = || cluster.processes.of(&vm.uuid).into_iter().find(|run| run.node == "node3");
        wait_until("the old one to be ended", PATIENCE, || old().is_some_and(|run| run.ended.is_some()))?;
        let before = acknowledged(&vm, &node);
        ensure!(found >= before, "the old one was told that {before} is written, {found} was found before");
        let at_least = acknowledged(&vm, &new);
        wait_until("the new one to write on", PATIENCE, || acknowledged(&vm, &new) > at_least + 3)?;
        Ok(())
    });
}

#[test]
fn the_tree_says_what_cephs_own_tools_say_and_how_old_that_is() {
    run("ha-ceph", 1, |cluster| {
        cluster.lab.create_image("one")?;
        wait_until("rados df to be what the tool says", PATIENCE, || {
            let tool = cluster.lab.rados(&["df"]).unwrap_or_default();
            tool.contains("vms") && tool.trim() == tree(cluster, "/ceph/radosdf").trim()
        })
        .with_context(|| tree(cluster, "/ceph/radosdf"))?;
        ensure!(tree(cluster, "/ceph").contains("health: HEALTH_OK"), "{}", tree(cluster, "/ceph"));
        let log = || cluster.node("node1").read_file("/var/log/pvc/pvcd.log").unwrap_or_default();
        wait_until("a keepalive to tell of it", PATIENCE, || {
            log().contains("Ceph: HEALTH_OK; 3 OSDs: 3 up, 3 in; 0 of 0 GiB used")
        })
        .with_context(log)?;

        let monitor =
            |signal: &str| cluster.lab.exec_in_switch(&["/usr/bin/pkill", signal, "ceph-mon"], PATIENCE);
        let trouble = || tree(cluster, "/pvc/ceph").contains(r#""trouble":"Ceph did not answer in time"#);
        monitor("-STOP")?.ok()?;
        wait_until("the figures to be told as old", PATIENCE, trouble)?;
        ensure!(tree(cluster, "/ceph").contains("health: HEALTH_OK"), "what was known stays");
        monitor("-CONT")?.ok()?;
        wait_until("Ceph to answer again", PATIENCE, || !trouble())?;
        let log = log();
        ensure!(log.contains("Ceph answers again"), "{log}");
        ensure!(
            !log.contains("the keepalive could not be written"),
            "a frozen Ceph held up a keepalive:\n{log}"
        );
        Ok(())
    });
}

/// The key's value now, as the servers' own logs have it.
pub(crate) fn tree(cluster: &Cluster, path: &str) -> String {
    let history = History::of(&cluster.lab).unwrap_or_default();
    history.of_key(path).last().and_then(|(_, value)| value.map(str::to_owned)).unwrap_or_default()
}
