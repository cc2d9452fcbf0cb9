//! What a hundred client networks with twenty rules each cost, beside none: a start, a hand-over, a change of one rule, and idling.
//!
//! A request to the kernel's netlink is not seen from outside; what is: the CPU time of the daemon and of the programs that it has run (`nft`), and how many
//! processes and threads have begun on the node.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pvc_lab::{Cluster, Node, PATIENCE};

use super::{in_lab, intervals, seconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

const NETWORKS: u32 = 100;
const RULES: u32 = 20;
const FIRST: u32 = 100;
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Each line is typed by an operator: ten networks at once are as many as fit into an answer's time.
const AT_ONCE: u32 = 10;

/// What is of the networks on a node is taken away, as a boot does.
const FORGET: &str = "systemctl stop pvcd
nft flush ruleset
for device in $(ls /sys/class/net | grep -E '^(vmbr|vxlan)'); do ip link delete $device; done
systemctl reset-failed pvcd; systemctl start --no-block pvcd";

/// All devices and all rules of the networks stand.
const STANDS: &str = "until [ $(ls /sys/class/net | grep -c '^vxlan') = 100 ] && \
    [ $(nft list table inet pvc 2>/dev/null | grep -c 'tcp dport') = 2000 ]; do sleep 0.05; done";

/// All gateways are on the node, and all servers of names run.
const SERVES: [&str; 2] = [
    "until [ $(ip -o -4 addr | grep -c ' vmbr') = 100 ]; do sleep 0.02; done",
    "until [ $(ss -Hlun 'sport = 53' | grep -c 10.9.) = 100 ]; do sleep 0.05; done",
];

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab(arguments, "bench-networks", 3, intervals(5, 6), |cluster| {
        let others: Vec<Node> =
            ["node1", "node2", "node3"].map(|name| cluster.node(name)).into_iter().collect();
        let primary = cluster.primary()?;
        let idler = others.iter().find(|node| node.name() != primary).context("three nodes")?;
        let mut rows = idle(arguments, idler, "no network")?;
        let began = Instant::now();
        define(cluster)?;
        others.iter().try_for_each(|node| sh(node, STANDS).map(drop))?;
        rows.push(Row::new(
            "100 networks × 20 rules are typed and stand on all nodes",
            "s",
            seconds(&[began.elapsed()]),
        ));
        rows.extend(idle(arguments, idler, "100 networks")?);
        rows.extend(starts(arguments, idler)?);
        rows.extend(changes(arguments, cluster, idler)?);
        rows.extend(hand_overs(arguments, cluster)?);
        Ok(rows)
    })
}

fn sh(node: &Node, script: &str) -> Result<String> {
    node.run(&["/bin/sh", "-c", script], PATIENCE)
}

/// Runs lines of `pvc` beside the nodes, one after the other.
fn type_all(cluster: &Cluster, lines: &str) -> Result<()> {
    let pvc = cluster.lab.layout().binaries().join("pvc");
    let script = format!(
        "set -e; pvc() {{ {} -z {} \"$@\" >/dev/null; }}\n{lines}",
        pvc.display(),
        cluster.lab.zk_connect_string()
    );
    cluster.lab.exec_in_switch(&["/bin/sh", "-c", &script], PATIENCE)?.ok().map(drop)
}

fn define(cluster: &Cluster) -> Result<()> {
    for first in (0..NETWORKS).step_by(usize::try_from(AT_ONCE)?) {
        let lines = (first..first + AT_ONCE).map(|number| {
            let vni = FIRST + number;
            let rules = (1..=RULES).map(|rule| {
                format!("pvc network acl add --in -d rule{rule} -r 'tcp dport {rule} accept' {vni}\n")
            });
            format!(
                "pvc network add -p managed -d net{number} -i 10.9.{number}.0/24 -g 10.9.{number}.1 {vni}\n"
            ) + &rules.collect::<String>()
        });
        type_all(cluster, &lines.collect::<String>())?;
    }
    Ok(())
}

/// What a daemon has used so far.
#[derive(Clone, Copy)]
struct Used {
    own_s: f64,
    programs_s: f64,
    begun: f64,
    resident_mib: f64,
}

fn used(node: &Node) -> Result<Used> {
    let told = sh(
        node,
        "pid=$(systemctl show -p MainPID --value pvcd); cut -d')' -f2 /proc/$pid/stat; grep VmRSS /proc/$pid/status; \
         cat /proc/sys/kernel/ns_last_pid; getconf CLK_TCK",
    )?;
    let words: Vec<&str> = told.split_whitespace().collect();
    let number = |at: usize| -> Result<f64> {
        words.get(at).and_then(|word| word.parse().ok()).with_context(|| format!("odd figures: {told}"))
    };
    // Counted from the state, the third field of `stat`: its own times are 14 and 15, its programs' 16 and 17.
    let resident = words.iter().position(|word| *word == "VmRSS:").context("no VmRSS")?;
    let ticks = number(words.len() - 1)?;
    Ok(Used {
        own_s: (number(11)? + number(12)?) / ticks,
        programs_s: (number(13)? + number(14)?) / ticks,
        begun: number(words.len() - 2)?,
        resident_mib: number(resident + 1)? / 1024.0,
    })
}

fn idle(arguments: &Arguments, node: &Node, beside: &str) -> Result<Vec<Row>> {
    // What has just changed is over.
    thread::sleep(KEEPALIVE * 4);
    let before = used(node)?;
    thread::sleep(KEEPALIVE * arguments.keepalives);
    let after = used(node)?;
    let each = |spent: f64| vec![spent * 1e3 / f64::from(arguments.keepalives)];
    Ok(vec![
        Row::new(
            format!("CPU a keepalive on a node that is not primary, {beside}"),
            "ms",
            each(after.own_s - before.own_s),
        ),
        Row::new("… of programs that it runs", "ms", each(after.programs_s - before.programs_s)),
        Row::new(
            "… processes and threads begun on the node in all, ours to look among them",
            "",
            vec![after.begun - before.begun],
        ),
        Row::new("… resident memory", "MiB", vec![after.resident_mib]),
    ])
}

fn starts(arguments: &Arguments, node: &Node) -> Result<Vec<Row>> {
    let (mut times, mut programs) = (Vec::new(), Vec::new());
    for _ in 0..arguments.repeat.min(5) {
        sh(node, FORGET)?;
        let began = Instant::now();
        sh(node, STANDS)?;
        times.push(began.elapsed());
        programs.push(used(node)?.programs_s);
    }
    Ok(vec![
        Row::new(
            "the daemon starts on a node that has nothing → 100 networks × 20 rules stand",
            "s",
            seconds(&times),
        ),
        Row::new("… CPU of programs that it ran", "s", programs),
    ])
}

fn changes(arguments: &Arguments, cluster: &Cluster, node: &Node) -> Result<Vec<Row>> {
    let (mut times, mut own, mut programs, mut begun) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..arguments.repeat {
        thread::sleep(KEEPALIVE);
        let before = used(node)?;
        let port = 5000 + round;
        let began = Instant::now();
        type_all(cluster, &format!("pvc network acl add --in -d one -r 'udp dport {port} accept' 150"))?;
        sh(
            node,
            &format!("until nft list chain inet pvc n150_in | grep -q 'dport {port} '; do sleep 0.01; done"),
        )?;
        times.push(began.elapsed());
        type_all(cluster, "pvc network acl remove 150 one")?;
        thread::sleep(KEEPALIVE);
        let after = used(node)?;
        own.push((after.own_s - before.own_s) * 1e3);
        programs.push((after.programs_s - before.programs_s) * 1e3);
        begun.push(after.begun - before.begun);
    }
    Ok(vec![
        Row::new("one rule of 2000 is typed → it stands", "s", seconds(&times))
            .target(Some(Target::AtMost(0.3))),
        Row::new("… it is added and removed: CPU of the daemon", "ms", own),
        Row::new("… of programs that it runs", "ms", programs),
        Row::new("… processes and threads begun on the node, ours to look among them", "", begun),
    ])
}

fn hand_overs(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let (mut gateways, mut names) = (Vec::new(), Vec::new());
    for _ in 0..arguments.repeat.min(5) {
        let now = cluster.primary()?;
        let next = cluster.node(if now == "node1" { "node2" } else { "node1" });
        let began = Instant::now();
        cluster.pvc(&["node", "primary", &next.name()])?;
        for (times, until) in [(&mut gateways, SERVES[0]), (&mut names, SERVES[1])] {
            sh(&next, until)?;
            times.push(began.elapsed());
        }
        cluster.primary_other_than(&now)?;
    }
    Ok(vec![
        Row::new("hand-over of the primary is typed → it has 100 gateways", "s", seconds(&gateways)),
        Row::new("… 100 servers of names listen", "s", seconds(&names)),
    ])
}
