//! The commands on nodes and on the whole cluster, and moves of VMs: the real program against a real ZooKeeper.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
};

use support::{Answer, Cluster, eventually, id, interrupt};

/// web1 runs on hv1; hv2 and hv3 take VMs, too.
fn running() -> Cluster {
    let cluster = Cluster::with_nodes(&["hv1", "hv2", "hv3"]);
    cluster.ready(&["hv1", "hv2", "hv3"]);
    cluster.start_daemons();
    assert_eq!(cluster.define("web1", 1, &["-t", "hv1"]).code, 0);
    assert_eq!(cluster.ok(&["vm", "start", "web1"]), "VM web1 runs on hv1\n");
    cluster
}

/// Checks a refusal: nothing on standard output, one line on standard error that holds all the words.
fn check(answer: &Answer, code: i32, words: &[&str]) {
    assert_eq!((answer.code, answer.stdout.as_str()), (code, ""), "{answer:?}");
    assert!(words.iter().all(|word| answer.stderr.contains(word)), "{words:?}: {answer:?}");
    assert_eq!(answer.stderr.lines().count(), 1, "printed once: {answer:?}");
}

#[test]
fn a_vm_migrates_returns_and_moves() {
    let cluster = running();
    let vm = |key: &str| cluster.get(&format!("/domains/{}/{key}", id(1))).unwrap();
    let claim = || cluster.get(&format!("/pvc/claim/{}", id(1))).unwrap();
    assert_eq!(cluster.ok(&["vm", "migrate", "web1"]), "VM web1 runs on hv2\n");
    assert_eq!((vm("node").as_str(), vm("lastnode").as_str(), claim().as_str()), ("hv2", "hv1", "hv2"));
    assert!(cluster.ok(&["vm", "list"]).ends_with("start  hv2   hv2      from hv1\n"));
    check(&cluster.pvc(&["vm", "migrate", "web1"]), 3, &["was migrated from hv1 already", "--force"]);
    assert_eq!(cluster.ok(&["vm", "migrate", "-f", "-t", "hv3", "web1"]), "VM web1 runs on hv3\n");
    assert_eq!(vm("lastnode"), "hv1", "the way back is kept");
    assert_eq!(cluster.ok(&["vm", "unmigrate", "web1"]), "VM web1 runs on hv1\n");
    assert_eq!(vm("lastnode"), "");
    check(&cluster.pvc(&["vm", "unmigrate", "web1"]), 3, &["has not been migrated"]);
    assert_eq!(cluster.ok(&["vm", "move", "-t", "hv2", "web1"]), "VM web1 runs on hv2\n");
    assert_eq!((vm("node").as_str(), vm("lastnode").as_str()), ("hv2", ""));
    cluster.ok(&["vm", "stop", "web1"]);
    check(&cluster.pvc(&["vm", "migrate", "web1"]), 3, &["does not run", "`move`"]);
    assert_eq!(cluster.ok(&["vm", "move", "-t", "hv1", "web1"]), "VM web1 is off and belongs to hv1 now\n");
    assert_eq!(vm("state"), "stop");
}

#[test]
fn a_target_that_would_not_do_is_refused_with_the_reason() {
    let cluster = running();
    check(&cluster.pvc(&["vm", "migrate", "-t", "hv1", "web1"]), 3, &["hv1 is its node already"]);
    check(&cluster.pvc(&["vm", "migrate", "-t", "hv9", "web1"]), 4, &["no node \"hv9\"", "did you mean"]);
    cluster.set("/nodes/hv2/domainstate", "flushed");
    check(&cluster.pvc(&["vm", "migrate", "-t", "hv2", "web1"]), 3, &["takes no VMs", "pvc node ready hv2"]);
    cluster.set("/nodes/hv3/memtotal", "100");
    let none = cluster.pvc(&["vm", "move", "web1"]);
    check(
        &none,
        3,
        &["no node can take it", "hv2 takes no VMs", "hv3 has 100 MiB of memory left, 512 MiB are needed"],
    );
    let explained = cluster.ok(&["vm", "explain", "web1"]);
    assert!(explained.contains("hv3 has 100 MiB of memory left"), "{explained}");
}

#[test]
fn status_tells_what_is_wrong_first() {
    let cluster = running();
    cluster.set("/primary_node", "hv1");
    insta::assert_snapshot!("status", cluster.ok(&["status"]));
    insta::assert_snapshot!("status_json", cluster.ok(&["status", "--format", "json"]));
    cluster.daemon_ends("hv1");
    cluster.set("/nodes/hv1/daemonstate", "dead");
    cluster.set("/nodes/hv2/domainstate", "flush");
    assert!(cluster.ok(&["maintenance", "on"]).starts_with("maintenance is on"));
    insta::assert_snapshot!("status_of_trouble", cluster.ok(&["status"]));
    insta::assert_snapshot!("explain_dead_node", cluster.ok(&["node", "explain", "hv1"]));
    insta::assert_snapshot!("explain_node_json", cluster.ok(&["node", "explain", "hv3", "--format", "json"]));
}

#[test]
fn what_would_happen_is_told_and_nothing_is_changed() {
    let cluster = running();
    cluster.set("/nodes/hv3/memtotal", "100");
    let before = cluster.get(&format!("/domains/{}/node", id(1)));
    let table = |words: &[&str]| -> Vec<String> {
        let lines = cluster.ok(&[&["plan"], words].concat());
        lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(table(&["flush", "hv1"]), ["VM MIB WOULD ON", "web1 512 migrate hv2"]);
    assert_eq!(table(&["death", "hv1"]), ["VM MIB WOULD ON", "web1 512 start hv2"]);
    assert_eq!(table(&["death", "hv2"]), ["no VM would notice"]);
    let places = table(&["vm", "web1"]);
    assert!(places[1].starts_with("hv1 ") && places[1].ends_with("is the one that it leaves"), "{places:?}");
    assert!(places[2].ends_with("would be chosen"), "{places:?}");
    assert_eq!(places[3], "hv3 100 has 100 MiB of memory left, 512 MiB are needed");
    cluster.set("/nodes/hv2/domainstate", "flushed");
    let json: serde_json::Value =
        serde_json::from_str(&cluster.ok(&["plan", "death", "hv1", "--format", "json"])).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["fate"]), (&"web1".into(), &"down".into()), "{json}");
    assert!(json[0]["why"].as_str().unwrap().contains("hv2 takes no VMs"), "{json}");
    check(&cluster.pvc(&["plan", "flush", "hv9"]), 4, &["no node \"hv9\"", "did you mean"]);
    check(&cluster.pvc(&["plan", "vm", "web9"]), 4, &["no VM \"web9\""]);
    assert_eq!(cluster.get(&format!("/domains/{}/node", id(1))), before);
}

#[test]
fn what_a_stopped_node_may_be_executing_is_told_with_what_helps() {
    let cluster = running();
    // hv3 was stopped while web1 ran there, too.
    cluster.set("/nodes/hv3/runningdomains", &id(1).to_string());
    cluster.daemon_ends("hv3");
    cluster.set("/nodes/hv3/daemonstate", "stop");
    insta::assert_snapshot!("explain_last_word", cluster.ok(&["vm", "explain", "web1"]));
    let info = cluster.ok(&["vm", "info", "web1"]);
    assert!(
        info.contains("hv1,hv3?") && info.contains("may run on:        hv3, which said so last"),
        "{info}"
    );
    assert!(cluster.ok(&["status"]).contains("VM web1 is reported by more than one node"));
    // A word that the claim has answered since is none.
    cluster.set(&format!("/pvc/claim/{}", id(1)), "hv1");
    assert!(cluster.ok(&["vm", "explain", "web1"]).contains("All is well"));
    assert!(!cluster.ok(&["vm", "info", "web1"]).contains("hv3"));
}

#[test]
fn the_claim_on_a_vm_that_a_client_has_undefined_is_told() {
    let cluster = running();
    cluster.set(&format!("/pvc/claim/{}", id(7)), "hv3");
    let uuid = id(7).to_string();
    assert!(cluster.ok(&["vm", "explain", &uuid]).contains("the claim on it is given up within a minute"));
    cluster.set("/nodes/hv3/runningdomains", &uuid);
    assert!(cluster.ok(&["vm", "explain", &uuid]).contains(&format!("`virsh destroy {uuid}` on hv3")));
    cluster.daemon_ends("hv3");
    cluster.set("/nodes/hv3/daemonstate", "stop");
    insta::assert_snapshot!("explain_undefined", cluster.ok(&["vm", "explain", &uuid]));
    insta::assert_snapshot!(
        "explain_undefined_json",
        cluster.ok(&["vm", "explain", &uuid, "--format", "json"])
    );
    let status = cluster.ok(&["status"]);
    assert!(
        status.contains(&format!("VM {uuid} is not defined any more, and may still run on hv3")),
        "{status}"
    );
    check(&cluster.pvc(&["vm", "explain", &id(8).to_string()]), 4, &["there is no VM"]);
}

#[test]
fn what_runs_and_is_not_in_the_tree_is_listed_and_explained() {
    let cluster = running();
    let uuid = id(7).to_string();
    cluster.set("/nodes/hv3/runningdomains", &uuid);
    let status = cluster.ok(&["status"]);
    assert!(status.contains(&format!("VM {uuid} runs on hv3 and is not in the state tree")), "{status}");
    insta::assert_snapshot!("list_unknown", cluster.ok(&["vm", "list"]));
    assert!(cluster.ok(&["vm", "list", "-t", "hv3"]).contains(&uuid));
    assert!(!cluster.ok(&["vm", "list", "-t", "hv1"]).contains(&uuid));
    assert!(!cluster.ok(&["vm", "list", "-r"]).contains(&uuid));
    insta::assert_snapshot!("explain_unknown", cluster.ok(&["vm", "explain", &uuid]));
    cluster.daemon_ends("hv3");
    cluster.set("/nodes/hv3/daemonstate", "stop");
    let explained = cluster.ok(&["vm", "explain", &uuid]);
    assert!(explained.contains("may still run on hv3, which said so last"), "{explained}");
}

#[test]
fn a_definition_is_told_to_be_damaged_before_somebody_starts_from_it() {
    let cluster = running();
    assert!(!cluster.ok(&["vm", "list"]).contains("damaged"));
    cluster.set(&format!("/domains/{}/xml", id(1)), "<domain");
    let told = "VM web1 has a definition that is damaged or missing, and could not be started again";
    assert!(cluster.ok(&["status"]).contains(told));
    let list = cluster.ok(&["vm", "list"]);
    assert!(list.contains("? web1: the definition is damaged: there is no XML element"), "{list}");
    let explained = cluster.ok(&["vm", "explain", "web1"]);
    assert!(explained.contains("but it could not be started again: its definition"), "{explained}");
}

#[test]
fn maintenance_is_a_switch_that_every_list_shows() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert!(cluster.ok(&["maintenance"]).starts_with("maintenance is off"));
    assert_eq!(
        cluster.ok(&["maintenance", "on"]),
        "maintenance is on: nobody is fenced, no watchdog is armed\n"
    );
    assert_eq!(cluster.get("/pvc/maintenance").unwrap(), "on");
    assert!(cluster.ok(&["maintenance", "on"]).contains("already"));
    for list in [&["vm", "list"][..], &["node", "list"], &["status"]] {
        let text = cluster.ok(list);
        assert!(text.contains("maintenance is on"), "{list:?}: {text}");
    }
    assert_eq!(cluster.ok(&["maintenance", "--format", "json"]), "{\n  \"maintenance\": true\n}\n");
    assert_eq!(cluster.ok(&["maintenance", "off"]), "maintenance is off\n");
    assert_eq!(cluster.ok(&["vm", "list"]), "NAME  UUID  ASKED  NODE  RUNS ON  MIGRATED\n");
}

#[test]
fn a_flush_is_followed_and_ctrl_c_says_what_goes_on() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    cluster.ready(&["hv1"]);
    let state = "/nodes/hv1/domainstate";
    let follow = |words: &[&str]| {
        cluster.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let child = follow(&["node", "flush", "-w", "hv1"]);
    eventually("the desired state is written", || cluster.get(state).unwrap() == "flush");
    eventually("the program handles Ctrl-C", || support::handles_interrupt(&child));
    support::interrupt(&child);
    let answer: Answer = child.wait_with_output().unwrap().into();
    assert_eq!(answer.code, 130, "{answer:?}");
    assert!(answer.stderr.contains("is to be flushed all the same"), "{answer:?}");
    assert!(answer.stderr.contains("`pvc node ready hv1` calls it off"), "{answer:?}");
    let child = follow(&["node", "flush", "--wait", "hv1"]);
    cluster.set(state, "flushed");
    let answer: Answer = child.wait_with_output().unwrap().into();
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "hv1 is flushed\n"), "{answer:?}");
    assert_eq!(cluster.ok(&["node", "unflush", "hv1"]), "hv1 is to take VMs\n");
    assert_eq!(cluster.get(state).unwrap(), "unflush");
}

#[test]
fn the_primary_is_waited_for_and_a_desired_state_that_nobody_answers_stands() {
    let cluster = Cluster::with_nodes(&["hv1", "hv2"]);
    let answer = cluster.pvc(&["node", "primary", "--wait", "1", "hv2"]);
    check(&answer, 1, &["waiting for hv2", "The command stands"]);
    assert_eq!(cluster.get("/primary_node").unwrap(), "hv2");
    assert_eq!(cluster.ok(&["node", "secondary", "--no-wait", "hv2"]), "hv2 is to step down\n");
    assert_eq!(cluster.get("/primary_node").unwrap(), "none");
    cluster.set("/nodes/hv1/daemonstate", "stop");
    check(&cluster.pvc(&["node", "primary", "hv1"]), 3, &["its daemon is in state stop"]);
}

#[test]
fn death_wants_a_yes_and_is_refused_where_it_would_do_harm() {
    let cluster = Cluster::with_nodes(&["hv1", "hv2", "hv3"]);
    check(&cluster.pvc(&["node", "fence", "-y", "hv2"]), 3, &["power controller", "confirm-dead"]);
    cluster.set("/nodes/hv2/ipmihostname", "bmc2");
    check(&cluster.pvc(&["node", "fence", "hv2"]), 2, &["The power of hv2 is cut now", "--yes"]);
    let asked = cluster.ok(&["node", "fence", "--yes", "hv2"]);
    assert!(asked.starts_with("hv2 is to be fenced\n"), "{asked}");
    let record = cluster.get("/pvc/fence/hv2").unwrap();
    assert!(record.contains("\"step\":\"shooting\"") && record.contains("\"asked\":{\"by\":"), "{record}");
    assert_eq!(cluster.get("/nodes/hv2/daemonstate").unwrap(), "dead");
    assert!(cluster.ok(&["status"]).contains("hv2 is being fenced, nobody works on it"));

    cluster.daemon_ends("hv3");
    check(&cluster.pvc(&["node", "confirm-dead", "--listen", "1", "hv3"]), 2, &["run twice", "--yes"]);
    let confirmed = cluster.ok(&["node", "confirm-dead", "--listen", "1", "-y", "hv3"]);
    assert!(confirmed.starts_with("hv3 is taken for dead\n"), "{confirmed}");
    assert!(cluster.get("/pvc/fence/hv3").unwrap().contains("\"confirmed_dead\":{\"by\":"));
    check(&cluster.pvc(&["node", "ready", "hv3"]), 3, &["it is being fenced"]);
}

#[test]
fn what_becomes_of_the_cluster_is_told_line_by_line() {
    let cluster = running();
    let follow = |format: &[&str]| -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut command = cluster.command(&[format, &["events"]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(ready.next().unwrap().unwrap().contains("Ctrl-C"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut people, mut lines) = follow(&[]);
    let (mut program, mut values) = follow(&["--format", "json"]);
    cluster.ok(&["vm", "migrate", "-t", "hv2", "web1"]);
    let mut told = Vec::new();
    while !told.iter().any(|line: &String| line.contains("claimed by") && line.ends_with("→ hv2")) {
        told.push(lines.next().unwrap().unwrap());
    }
    assert!(told.iter().any(|line| line.ends_with("VM web1: node: hv1 → hv2")), "{told:?}");
    let value: serde_json::Value = serde_json::from_str(&values.next().unwrap().unwrap()).unwrap();
    assert_eq!((&value["kind"], &value["name"]), (&"vm".into(), &"web1".into()), "{value}");
    interrupt(&people);
    assert_eq!(people.wait().unwrap().code(), Some(0));
    drop(cluster.zookeeper);
    interrupt(&program);
    program.wait().unwrap();
}
