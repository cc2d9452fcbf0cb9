//! The Debian packages on a node: installed, upgraded, removed, purged, while a guest runs. Needs root, as the lab does.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::{fs, path::Path, time::Duration};

use pvc_lab::{
    Cluster, LabOptions, Node, Vm,
    program::{command, output},
    wait_until,
};

const SOON: Duration = Duration::from_mins(2);
const IN_NODE: &str = "/srv/shared";

/// Packages the programs that the tests were built with.
fn build(to: &Path) {
    let built = Path::new(env!("CARGO_BIN_EXE_pvc-lab")).parent().unwrap();
    let mut xtask = command(built.join("xtask"));
    xtask.arg("deb").arg("--binaries").arg(built).arg("--to").arg(to);
    output(xtask, b"", Duration::from_mins(5)).unwrap().ok().unwrap();
}

/// Runs a line of a shell that must succeed on a node; what it prints.
fn on(node: &Node, line: &str) -> String {
    node.run(&["/bin/sh", "-ec", line], SOON).unwrap().trim().to_owned()
}

fn active(node: &Node) -> String {
    on(node, "systemctl is-active pvcd || true")
}

fn process(node: &Node) -> String {
    on(node, "systemctl show -p MainPID --value pvcd")
}

#[test]
fn packages_are_installed_upgraded_and_removed_while_a_guest_runs_on() {
    let packages = tempfile::tempdir().unwrap();
    build(packages.path());
    let cluster = Cluster::up(LabOptions::new("t-packages", env!("CARGO_BIN_EXE_pvc-lab")).nodes(1)).unwrap();
    let vm = Vm::number(1);
    cluster.start_vms(std::slice::from_ref(&vm), "node1").unwrap();
    let node = cluster.node("node1");
    let guest = |what: &str| {
        let seen = on(&node, "pgrep -c -x qemu-system-x86");
        assert_eq!(seen, "1", "{what}");
        on(&node, "pgrep -x qemu-system-x86")
    };
    let first = guest("started by the lab's own daemon");

    // The lab's programs and units make room.
    on(
        &node,
        "systemctl disable --now pvcd && cp /etc/pvc/pvcd.yaml /root && rm -r /etc/pvc /usr/sbin/pvcd /usr/sbin/pvc-api /usr/bin/pvc",
    );
    on(
        &node,
        "rm /etc/systemd/system/pvcd.service /etc/systemd/system/pvc-flush.service && systemctl daemon-reload",
    );
    for package in fs::read_dir(packages.path()).unwrap() {
        let package = package.unwrap();
        fs::copy(package.path(), cluster.lab.layout().shared().join(package.file_name())).unwrap();
    }
    let install = |name: &str| on(&node, &format!("dpkg -i {IN_NODE}/{name}_*.deb 2>&1"));

    install("pvc-client");
    install("pvcd");
    install("pvc-api");
    assert_eq!(on(&node, "systemctl is-enabled pvcd || true"), "disabled", "nothing starts from the sample");
    assert_eq!(active(&node), "inactive");
    assert_eq!(
        on(&node, "stat -c '%a %U' /etc/pvc /etc/pvc/pvcd.yaml /etc/pvc/pvc-api.yaml"),
        "700 root\n600 root\n600 root"
    );
    on(&node, "zgrep -q SYNOPSIS /usr/share/man/man1/pvc-vm-migrate.1.gz");

    on(&node, "cp /root/pvcd.yaml /etc/pvc/pvcd.yaml && pvcd --check-config /etc/pvc/pvcd.yaml");
    // The unit is active once the node is in `run`.
    on(&node, "systemctl enable --now pvcd");
    cluster.wait_settled(&vm, "node1").unwrap();
    assert_eq!(guest("taken over"), first);

    let before = process(&node);
    install("pvcd");
    wait_until("the upgraded daemon to run", SOON, || active(&node) == "active" && process(&node) != before)
        .unwrap();
    cluster.wait_node("node1", "daemon_state", "run").unwrap();
    on(&node, "cmp /root/pvcd.yaml /etc/pvc/pvcd.yaml");
    assert_eq!(guest("upgraded"), first);

    // An upgrade does not wait for a cluster that is away, and the daemon is there when it is back.
    on(&node, "systemctl stop zookeeper");
    install("pvcd");
    on(&node, "systemctl start zookeeper");
    cluster.wait_node("node1", "daemon_state", "run").unwrap();
    assert_eq!(guest("upgraded without ZooKeeper"), first);

    on(&node, "dpkg -r pvc-api 2>&1");
    assert_eq!(on(&node, "systemctl is-active pvc-api || true"), "inactive");
    on(&node, "dpkg -r pvcd 2>&1");
    assert_ne!(active(&node), "active");
    on(&node, "cmp /root/pvcd.yaml /etc/pvc/pvcd.yaml");
    assert_eq!(guest("removed"), first);
    on(&node, "dpkg -P pvcd pvc-api 2>&1");
    on(&node, "! test -e /etc/pvc && ! test -e /etc/systemd/system/multi-user.target.wants/pvcd.service");
    assert_eq!(guest("purged"), first);
}
