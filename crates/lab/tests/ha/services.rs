//! Units of the real systemd: what runs on the primary moves with it and never holds it up, and what a node needs is started.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Cluster, LabOptions, Node, PATIENCE, layout::Net, wait_until};

use crate::{default_timings, fast_timings, on};

const API: &str = "pvc-api.service";
const SOON: Duration = Duration::from_mins(1);

/// Gives a node an API that starts so.
fn install_api(node: &Node, service: &str) -> Result<()> {
    let unit = format!("[Unit]\nDescription=What a test takes for the API\n[Service]\n{service}\n");
    node.write_file(&format!("/etc/systemd/system/{API}"), unit.as_bytes())?;
    node.run(&["/bin/systemctl", "daemon-reload"], SOON)?;
    Ok(())
}

fn state(node: &Node) -> String {
    let seen = node.exec(&["/bin/systemctl", "show", "--property=ActiveState", "--value", API], SOON);
    seen.map(|seen| seen.stdout.trim().to_owned()).unwrap_or_default()
}

/// Waits until the API runs on that node and on no other.
fn wait_api_only_on(cluster: &Cluster, name: &str) -> Result<()> {
    let mut states = Vec::new();
    wait_until(&format!("the API to run on {name} only"), PATIENCE, || {
        states = cluster.lab.nodes().iter().map(|node| (node.name(), state(node))).collect();
        states.iter().all(|(node, state)| state == if node == name { "active" } else { "inactive" })
    })
    .map_err(|late| late.context(format!("{states:?}")))
}

#[test]
fn the_api_runs_where_the_primary_is_and_one_that_hangs_does_not_hold_up_a_hand_over() {
    let mut options = LabOptions::new("ha-api", env!("CARGO_BIN_EXE_pvc-lab")).timings(default_timings());
    options.enable_api = true;
    let cluster = Cluster::up(options).unwrap_or_else(|e| panic!("{e:?}"));
    if let Err(e) = the_api_follows(&cluster) {
        panic!("{e:?}");
    }
}

fn the_api_follows(cluster: &Cluster) -> Result<()> {
    let well = "ExecStart=/bin/sleep infinity";
    let nodes = cluster.lab.nodes();
    nodes.iter().try_for_each(|node| install_api(node, well))?;
    let first = cluster.primary()?;
    let others: Vec<&Node> = nodes.iter().filter(|node| node.name() != first).collect();
    let [next, stuck] = others[..] else { panic!("three nodes") };
    let hand_over = |to: &str| -> Result<Duration> {
        let began = Instant::now();
        cluster.pvc(&["node", "primary", to])?;
        ensure!(cluster.primary()? == to);
        Ok(began.elapsed())
    };

    let took = hand_over(&next.name())?;
    wait_api_only_on(cluster, &next.name())?;
    println!("with an API: {took:?}");

    // It never says that it is ready, and never obeys: systemd waits for it in both directions.
    install_api(
        stuck,
        "Type=notify\nExecStart=/bin/sh -c \"trap '' TERM; sleep infinity\"\nTimeoutStartSec=infinity\nTimeoutStopSec=infinity",
    )?;
    let took = hand_over(&stuck.name())?;
    println!("to a node whose API hangs in its start: {took:?}");
    wait_until("the API to hang in its start", PATIENCE, || state(stuck) == "activating")?;
    ensure!(cluster.holders(Net::Upstream) == [stuck.name()], "it is primary all the same");
    let mut told = String::new();
    wait_until("the trouble to be told", PATIENCE, || {
        told = cluster.pvc(&["status"]).unwrap_or_else(|e| format!("{e:#}"));
        told.contains("is primary with trouble: API: did not start")
    })
    .map_err(|late| late.context(told.clone()))?;

    let took = hand_over(&next.name())?;
    println!("from a node whose API hangs: {took:?}");
    ensure!(took < SOON, "the hand-over took {took:?}");
    wait_until("the API to run where the primary is", PATIENCE, || state(next) == "active")?;

    // The old one is told to stop, and does when it can.
    stuck.run(&["/bin/systemctl", "kill", "-s", "KILL", API], SOON)?;
    wait_until("the stuck one to be gone", PATIENCE, || {
        ["inactive", "failed"].contains(&state(stuck).as_str())
    })
}

#[test]
fn what_a_node_needs_is_started_with_its_daemon_and_what_runs_already_is_left_alone() {
    on("ha-units", 3, fast_timings(), |cluster| {
        let node = cluster.node("node3");
        let systemctl = |arguments: &[&str]| node.run(&[&["/bin/systemctl"], arguments].concat(), PATIENCE);
        let process = |unit: &str| systemctl(&["show", "--property=MainPID", "--value", unit]);
        // Sockets would start libvirtd when it is asked for.
        let sockets =
            ["libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd-tcp.socket"];
        systemctl(&["stop", "pvcd"])?;
        systemctl(&[&["stop", "zookeeper", "libvirtd"], &sockets[..]].concat())?;
        // The nodes have the programs of the machine that the lab is on, which may have FRR; masked is as if it had not.
        systemctl(&["stop", "frr"]).ok();
        systemctl(&["mask", "frr.service"])?;
        ensure!(!node.is_active("zookeeper") && !node.is_active("libvirtd"));

        systemctl(&["start", "pvcd"])?;
        for unit in ["zookeeper", "libvirtd"] {
            node.wait_active(unit, PATIENCE)?;
        }
        cluster.wait_node("node3", "daemon_state", "run")?;
        let (zookeeper, libvirtd) = (process("zookeeper")?, process("libvirtd")?);

        systemctl(&["restart", "pvcd"])?;
        cluster.wait_node("node3", "daemon_state", "run")?;
        let log = node.read_file("/var/log/pvc/pvcd.log")?;
        for unit in ["zookeeper.service", "libvirtd.service"] {
            let started = log.matches(&format!("service {unit} was started")).count();
            ensure!(started == 1, "{unit} was started {started} times:\n{log}");
        }
        ensure!(log.contains("service frr.service is not installed"), "{log}");
        ensure!((zookeeper, libvirtd) == (process("zookeeper")?, process("libvirtd")?), "they go on");
        Ok(())
    });
}
