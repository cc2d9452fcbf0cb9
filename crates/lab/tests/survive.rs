//! Guests outlive whatever happens around them: the daemon, libvirtd and ZooKeeper are killed under a running guest, and the
//! guest itself is ended behind the daemon's back. The guest's process is the witness: the same process is the same guest.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::PathBuf, time::Duration};

use pvc_lab::{Lab, LabOptions, Node, guest_xml, wait_until};

const UUID: &str = "0ddba110-0000-4000-8000-000000000001";
const VM: &str = "witness";
/// Machines are slow when they build beside the test.
const PATIENCE: Duration = Duration::from_mins(2);
const AT_ONCE: Duration = Duration::from_secs(30);

struct Cluster {
    lab: Lab,
    node: Node,
}

impl Cluster {
    /// One node with a running guest.
    fn up(name: &str) -> Self {
        let options = LabOptions::new(name, PathBuf::from(env!("CARGO_BIN_EXE_pvc-lab"))).nodes(1);
        let lab = Lab::up(options).unwrap();
        let node = lab.node("node1");
        node.wait_active("pvcd.service", PATIENCE).unwrap();
        let cluster = Self { lab, node };
        cluster.define(VM, UUID);
        cluster.pvc(&["vm", "start", VM]);
        cluster
    }

    fn define(&self, name: &str, uuid: &str) {
        let file = format!("/root/{name}.xml");
        self.node.write_file(&file, guest_xml(name, uuid, 96).as_bytes()).unwrap();
        self.pvc(&["vm", "define", &file]);
    }

    fn pvc(&self, arguments: &[&str]) -> String {
        let mut program = vec!["/usr/bin/pvc"];
        program.extend(arguments);
        self.node.run(&program, PATIENCE).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The processes that execute the VM.
    fn guests(&self, name: &str) -> Vec<String> {
        let pattern = format!("qemu-system.*guest={name},");
        let found = self.node.exec(&["/usr/bin/pgrep", "--full", &pattern], AT_ONCE).unwrap();
        found.stdout.lines().map(str::to_owned).collect()
    }

    fn wait_for_guest(&self, name: &str, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut seen = vec![];
        wait_until(what, PATIENCE, || {
            seen = self.guests(name);
            assert!(seen.len() <= 1, "{name} runs twice: {seen:?}");
            is_so(&seen)
        })
        .unwrap_or_else(|late| panic!("{late:#}; logs in {}", self.lab.collect_logs().display()));
        seen
    }

    fn main_pid(&self, unit: &str) -> String {
        let show = ["/bin/systemctl", "show", "--property=MainPID", "--value", unit];
        self.node.run(&show, AT_ONCE).unwrap().trim().to_owned()
    }

    fn kill_9(&self, unit: &str) {
        let pid = self.main_pid(unit);
        assert_ne!(pid, "0", "{unit} does not run");
        self.node.run(&["/bin/kill", "-9", &pid], AT_ONCE).unwrap();
        wait_until("it is started again", PATIENCE, || {
            !["0", pid.as_str()].contains(&self.main_pid(unit).as_str())
        })
        .unwrap();
    }

    /// How often daemons of this node said that they started or powered off a VM.
    fn said(&self, what: &str) -> usize {
        let log = ["/bin/journalctl", "--no-pager", "--quiet", "--unit=pvcd"];
        self.node.run(&log, AT_ONCE).unwrap().matches(what).count()
    }

    fn wait_for_list(&self, words: &str) {
        wait_until(&format!("{words:?} in `pvc vm info`"), PATIENCE, || {
            self.pvc(&["--format", "json", "vm", "info", VM]).contains(words)
        })
        .unwrap_or_else(|late| panic!("{late:#}; {}", self.pvc(&["vm", "explain", VM])));
    }
}

#[test]
fn a_guest_survives_kill_9_of_the_daemon_which_adopts_it_and_repeats_nothing() {
    let cluster = Cluster::up("survive-pvcd");
    let before = cluster.wait_for_guest(VM, "the guest", |seen| seen.len() == 1);
    cluster.kill_9("pvcd.service");
    cluster.node.wait_active("pvcd.service", PATIENCE).unwrap();
    // A wish to the restarted daemon proves that it works, and comes after what it did at its start.
    cluster.define("second", "0ddba110-0000-4000-8000-000000000002");
    cluster.pvc(&["vm", "start", "second"]);
    assert_eq!(cluster.guests(VM), before, "the guest was disturbed");
    assert_eq!(cluster.said(&format!("{VM}: started")), 1, "the restarted daemon started it again");
    cluster.pvc(&["vm", "stop", VM]);
    assert_eq!(cluster.guests(VM).len(), 0, "the adopted guest obeys");
}

#[test]
fn a_guest_survives_kill_9_of_libvirtd_and_obeys_afterwards() {
    let cluster = Cluster::up("survive-libvirtd");
    let before = cluster.wait_for_guest(VM, "the guest", |seen| seen.len() == 1);
    cluster.kill_9("libvirtd.service");
    cluster.node.wait_libvirt(PATIENCE).unwrap();
    assert_eq!(cluster.guests(VM), before, "the guest was disturbed");
    cluster.pvc(&["vm", "stop", VM]);
    assert_eq!(cluster.guests(VM).len(), 0);
    cluster.pvc(&["vm", "start", VM]);
    cluster.wait_for_guest(VM, "the guest once more", |seen| seen.len() == 1);
}

#[test]
fn a_minute_without_zookeeper_disturbs_no_guest_and_wishes_are_done_on_its_return() {
    let cluster = Cluster::up("survive-zookeeper");
    let before = cluster.wait_for_guest(VM, "the guest", |seen| seen.len() == 1);
    let daemon = cluster.main_pid("pvcd.service");
    cluster.node.run(&["/bin/systemctl", "stop", "zookeeper.service"], PATIENCE).unwrap();
    // The outage is the test: six session time-outs long.
    std::thread::sleep(Duration::from_mins(1));
    assert_eq!(cluster.guests(VM), before, "the guest was disturbed");
    cluster.node.run(&["/bin/systemctl", "start", "zookeeper.service"], PATIENCE).unwrap();
    cluster.lab.wait_zookeeper(cluster.node.number()).unwrap();
    cluster.pvc(&["vm", "stop", "--no-wait", VM]);
    cluster.wait_for_guest(VM, "the wish to stop to be done", <[String]>::is_empty);
    assert_eq!(cluster.main_pid("pvcd.service"), daemon, "the daemon recovers by itself");
}

#[test]
fn a_guest_that_is_destroyed_behind_the_daemons_back_is_restarted() {
    let cluster = Cluster::up("survive-destroy");
    let before = cluster.wait_for_guest(VM, "the guest", |seen| seen.len() == 1);
    cluster.node.run(&["/usr/bin/virsh", "destroy", VM], AT_ONCE).unwrap();
    cluster.wait_for_guest(VM, "another process of the guest", |seen| seen.len() == 1 && seen != before);
    cluster.wait_for_list("\"state\": \"start\"");
}
