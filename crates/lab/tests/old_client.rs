//! The promise to clients of the 0.5 generation: they work unchanged. `old_client.py` is such a client; it reads and writes
//! exactly the keys of docs/state-schema.md and ends with an error at anything unexpected.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::PathBuf, time::Duration};

use pvc_lab::{Lab, LabOptions, guest_xml, wait_until};
use serde_json::Value;

const VM: &str = "5a5a5a5a-0000-4000-8000-000000000001";
const NAME: &str = "veteran";
/// Guests boot without hardware virtualisation, perhaps beside another lab.
const PATIENCE: Duration = Duration::from_mins(3);

struct OldClient<'a> {
    lab: &'a Lab,
    script: String,
    servers: String,
}

impl<'a> OldClient<'a> {
    fn new(lab: &'a Lab) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old_client.py").to_owned();
        Self { lab, script, servers: lab.zk_connect_string() }
    }

    /// What it printed; panics with its traceback if it failed.
    fn run(&self, arguments: &[&str]) -> String {
        let mut program = vec!["/usr/bin/python3", &self.script, "-z", &self.servers];
        program.extend(arguments);
        let seen = self.lab.exec_in_switch(&program, Duration::from_mins(1)).unwrap();
        seen.ok().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// All nodes and VMs, every key of them read.
    fn list(&self) -> Value {
        serde_json::from_str(&self.run(&["list"])).unwrap()
    }

    fn vm(&self) -> Option<Value> {
        let all = self.list();
        all["vms"].as_array().unwrap().iter().find(|vm| vm["uuid"] == VM).cloned()
    }

    fn wait_for_vm(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        wait_until(what, PATIENCE, || self.vm().as_ref().is_some_and(&is_so))
            .unwrap_or_else(|late| panic!("{late}; last seen: {:?}", self.vm()));
    }

    /// On which nodes the VM runs, as the nodes say.
    fn running_on(&self) -> Vec<String> {
        let all = self.list();
        let runs = |node: &&Value| node["runningdomains"].as_array().unwrap().iter().any(|vm| vm == VM);
        all["nodes"].as_array().unwrap().iter().filter(runs).map(|node| node["name"].to_string()).collect()
    }

    fn wait_running_on(&self, nodes: &[&str]) {
        let expected: Vec<_> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
        wait_until(&format!("the VM to run on {nodes:?}"), PATIENCE, || self.running_on() == expected)
            .unwrap();
    }

    /// How often the guest has booted, as its console says.
    fn boots(&self) -> usize {
        self.run(&["log", NAME]).matches("LABGUEST ready").count()
    }
}

#[test]
fn a_client_of_the_0_5_generation_defines_starts_lists_logs_shuts_down_restarts_and_undefines_a_vm() {
    let options = LabOptions::new("veteran", PathBuf::from(env!("CARGO_BIN_EXE_pvc-lab")));
    let lab = Lab::up(options).unwrap();
    // Such clients end with an error where the root keys do not exist yet.
    for node in lab.nodes() {
        node.wait_active("pvcd.service", PATIENCE).unwrap();
    }
    let old = OldClient::new(&lab);
    wait_until("all nodes to be in run", PATIENCE, || {
        let nodes = old.run(&["list"]);
        nodes.matches("\"daemonstate\": \"run\"").count() == 3
    })
    .unwrap();

    wait_until("a primary", PATIENCE, || {
        let nodes = old.run(&["list"]);
        nodes.contains("\"routerstate\": \"primary\"")
    })
    .unwrap();
    for (pipeline, line) in [("ceph", "osd_out 3"), ("domains", &format!("flush_locks {VM}"))] {
        let answer: Value = serde_json::from_str(&old.run(&["ask", pipeline, line])).unwrap();
        assert_eq!(answer["answer"], format!("failure-{line}"), "nothing serves it yet");
    }

    let folder = tempfile::tempdir().unwrap();
    let definition = folder.path().join("vm.xml");
    std::fs::write(&definition, guest_xml(NAME, VM, 96)).unwrap();
    old.run(&["define", definition.to_str().unwrap(), "node2"]);
    let defined = old.vm().unwrap();
    assert_eq!((&defined["state"], &defined["node"]), (&"stop".into(), &"node2".into()));

    old.run(&["start", NAME]);
    old.wait_running_on(&["node2"]);
    wait_until("the guest's console in its log", PATIENCE, || old.boots() == 1).unwrap();
    assert_eq!(old.vm().unwrap()["state"], "start");

    old.run(&["restart", NAME]);
    old.wait_for_vm("the answer to restart", |vm| vm["state"] == "start");
    wait_until("the guest's second boot in its log", PATIENCE, || old.boots() == 2).unwrap();
    old.wait_running_on(&["node2"]);

    old.run(&["shutdown", NAME]);
    old.wait_for_vm("the answer to shutdown", |vm| vm["state"] == "stop");
    old.wait_running_on(&[]);
    let guests = lab.node("node2").run(&["/usr/bin/virsh", "-q", "list", "--name"], PATIENCE).unwrap();
    assert_eq!(guests.trim(), "", "the guest is off when the answer says so");

    old.run(&["start", NAME]);
    old.wait_running_on(&["node2"]);
    old.run(&["undefine", NAME]);
    assert_eq!(old.vm(), None);
    wait_until("the undefined VM to be off", PATIENCE, || {
        let guests = lab.node("node2").run(&["/usr/bin/virsh", "-q", "list", "--name"], PATIENCE);
        guests.is_ok_and(|guests| guests.trim().is_empty())
    })
    .unwrap();
    old.wait_running_on(&[]);
    lab.down().unwrap();
}
