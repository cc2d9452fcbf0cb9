//! A name is not a machine: clones, and machines that were installed anew.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Cluster, LabOptions, Node, PATIENCE, Timings, Vm, play, play_unjudged, wait_until};

use crate::{default, fast, pass};

const CONFIG: &str = "/etc/pvc/pvcd.yaml";

/// Nobody is fenced, and no addresses are set: two machines with one configuration would have the same.
fn unfenced(name: &str) -> LabOptions {
    let timings = Timings { fence_intervals: 0, ..fast(name, 4).timings };
    LabOptions { enable_networking: false, ..fast(name, 4).timings(timings) }
}

/// Has a machine run as another node, from now on.
fn runs_as(node: &Node, config: &str) -> Result<()> {
    node.run(&["/bin/systemctl", "stop", "pvcd"], PATIENCE)?;
    node.write_file(CONFIG, config.as_bytes())?;
    // It is ready when it has the name.
    node.run(&["/bin/systemctl", "start", "--no-block", "pvcd"], PATIENCE).map(drop)
}

fn said(node: &Node, what: &str) -> bool {
    node.read_file("/var/log/pvc/pvcd.log").is_ok_and(|log| log.contains(what))
}

fn alone_on(cluster: &Cluster, vm: &Vm, node: &str) -> Result<()> {
    let runs = cluster.processes.of(&vm.uuid);
    let lives = runs.iter().filter(|run| run.ended.is_none()).map(|run| run.node.as_str());
    ensure!(lives.eq([node]), "{} is not on {node} alone: {runs:#?}", vm.name);
    Ok(())
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_clone_is_refused_while_the_first_machine_runs_on_and_replaces_it_when_an_operator_says_so() {
    play_unjudged(unfenced("f-clone"), clone_and_replace);
}

fn clone_and_replace(cluster: &Cluster) -> Result<()> {
    let (first, clone, vm) = (cluster.node("node4"), cluster.node("node3"), Vm::number(1));
    cluster.start_vms(std::slice::from_ref(&vm), "node4")?;
    let (config, own) = (first.read_file(CONFIG)?, clone.read_file(CONFIG)?);
    // The first machine runs on in the dark; its session expires, and with it its hold on the name.
    first.cut()?;
    pass(Duration::from_secs(15))?;
    runs_as(&clone, &config)?;
    wait_until("the clone to be refused", PATIENCE, || {
        said(&clone, "this machine may not run as node4: the name belongs to another machine")
    })?;
    // Longer than it waits before it gives up, is started again, and asks again.
    pass(Duration::from_secs(40))?;
    alone_on(cluster, &vm, "node4")?;
    let shown = cluster.node_info("node4");
    ensure!(shown["running_domains"] == serde_json::json!([vm.uuid]), "the clone spoke for it: {shown:#}");
    // Power off, seen by somebody; then the word.
    first.kill()?;
    cluster.pvc(&["node", "replace", "--yes", "node4"])?;
    let said_so = Instant::now();
    cluster.wait_node("node4", "daemon_state", "run")?;
    cluster.wait_counting("node3", &vm)?;
    println!("its VM counts on the clone {:.1} s after the operator's word", said_so.elapsed().as_secs_f64());
    alone_on(cluster, &vm, "node3")?;
    cluster.check_never_twice(std::slice::from_ref(&vm))?;
    // The first machine comes back: now it is the stranger, until the other is gone and nothing claims the name.
    first.heal()?;
    first.start()?;
    wait_until("the first machine to wait", PATIENCE, || {
        said(&first, "another pvcd is registered as node4 on the machine node3")
    })?;
    alone_on(cluster, &vm, "node3")?;
    cluster.pvc(&["vm", "stop", &vm.name])?;
    runs_as(&clone, &own)?;
    cluster.wait_node("node3", "daemon_state", "run")?;
    cluster.pvc(&["vm", "start", "--no-wait", &vm.name])?;
    cluster.wait_counting("node4", &vm)?;
    cluster.check_never_twice(std::slice::from_ref(&vm))?;
    cluster.check_counted_once(&vm)
}

#[test]
fn a_node_that_was_installed_anew_comes_back_to_its_vms_without_an_operator() {
    play(default("f-anew", 3), |s| {
        let vms = s.start_vms([1], "node3")?;
        let node = s.node("node3");
        let boot = node.boot_id()?;
        node.write_file("/etc/machine-id", b"4e232ad8d5d6515bbb207e3b59beaeb5\n")?;
        let died = s.fault("node3 is reset, and another installation boots", || node.reset())?;
        wait_until("it to boot", PATIENCE, || node.boot_id().is_ok_and(|now| now != boot))?;
        s.cluster.wait_counting("node3", &vms[0])?;
        s.recovered("its VM", died.elapsed(), Duration::from_mins(1))?;
        ensure!(
            said(&node, "this machine had it before it was installed anew"),
            "it was taken for something else"
        );
        Ok(())
    });
}
