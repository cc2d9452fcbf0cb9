//! A node's clock jumps: nobody compares wall clocks, so nobody notices.
//!
//! All nodes of a lab share their machine's clock. What jumps is what `pvcd` and ZooKeeper of one node are told, by libfaketime between
//! them and the C library. Their monotonic clocks go on as they should, as they do when an operator or NTP sets a machine's time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use pvc_lab::{Node, PATIENCE, Scenario, observers::tree::History, play};

use crate::{fast, pass};

const HOUR_S: i64 = 3600;
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const OFFSET: &str = "/etc/lab/clock";

/// Puts the library between a node's services and their time.
fn fake_time(s: &Scenario, node: &Node) -> Result<()> {
    let unit = format!(
        "[Service]\nEnvironment=LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={OFFSET} FAKETIME_NO_CACHE=1 \
         DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n"
    );
    set(node, 0)?;
    for service in ["pvcd", "zookeeper"] {
        let folder = format!("/etc/systemd/system/{service}.service.d");
        node.run(&["/bin/mkdir", "-p", &folder], PATIENCE)?;
        node.write_file(&format!("{folder}/clock.conf"), unit.as_bytes())?;
    }
    node.run(&["/bin/systemctl", "daemon-reload"], PATIENCE)?;
    for service in ["zookeeper", "pvcd"] {
        node.run(&["/bin/systemctl", "restart", service], PATIENCE)?;
    }
    s.cluster.lab.wait_zookeeper(node.number())?;
    s.cluster.wait_node(&node.name(), "daemon_state", "run")
}

fn set(node: &Node, offset_s: i64) -> Result<()> {
    // Renamed, so that nobody reads half of it.
    node.write_file("/etc/lab/clock.new", format!("{offset_s:+}\n").as_bytes())?;
    node.run(&["/bin/mv", "/etc/lab/clock.new", OFFSET], PATIENCE).map(drop)
}

/// How far the clock by which the node wrote its last keepalive is ahead of this machine's, in seconds.
fn ahead_s(s: &Scenario, node: &str) -> Result<i64> {
    let history = History::of(&s.cluster.lab)?;
    let key = format!("/nodes/{node}/keepalive");
    let last = history.of_key(&key).filter_map(|(_, value)| value).last().context("no keepalive")?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    Ok(last.parse::<i64>()? - now)
}

fn clock_jumps(name: &str, offset_s: i64) {
    play(fast(name, 3), |s| {
        let follows =
            |node: &Node| s.cluster.lab.zookeeper_mode(node.number()).is_ok_and(|mode| mode == "follower");
        let node = s.cluster.lab.nodes().into_iter().find(follows).context("no follower")?;
        fake_time(s, &node)?;
        let name = node.name();
        let vms = s.start_vms([1], &name)?;
        ensure!(ahead_s(s, &name)?.abs() < 30);
        s.fault(&format!("the clock of {name} jumps by {offset_s} s"), || set(&node, offset_s))?;
        // Much longer than the silence that is death.
        pass(Duration::from_secs(15))?;
        let ahead = ahead_s(s, &name)?;
        ensure!((ahead - offset_s).abs() < 30, "the clock did not jump: {ahead} s");
        s.untouched(&vms)?;

        // It works on as ever: takes a desired state, gives a guest away, holds the addresses.
        let to = if name == "node1" { "node2" } else { "node1" };
        s.pvc(&["vm", "migrate", "-t", to, &vms[0].name])?;
        s.cluster.wait_settled(&vms[0], to)?;
        s.pvc(&["vm", "unmigrate", &vms[0].name])?;
        s.cluster.wait_settled(&vms[0], &name)?;
        s.pvc(&["node", "primary", &name])?;
        ensure!(s.cluster.primary()? == name);
        s.fault(&format!("the clock of {name} jumps back"), || set(&node, 0))?;
        pass(Duration::from_secs(10))?;
        ensure!(ahead_s(s, &name)?.abs() < 30, "the clock did not jump back");
        ensure!(s.cluster.primary()? == name);
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_clock_that_jumps_an_hour_ahead_and_back_disturbs_nobody() {
    clock_jumps("f-clock-ahead", HOUR_S);
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_clock_that_jumps_an_hour_back_and_ahead_disturbs_nobody() {
    clock_jumps("f-clock-back", -HOUR_S);
}
