//! The real program against a real ZooKeeper: what operators type and see, and the codes that scripts rely on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use support::{Answer, Cluster, definition, eventually, handles_interrupt, id, interrupt};

#[test]
fn init_prepares_a_store_once_and_never_touches_what_exists() {
    let cluster = Cluster::empty();
    let before = cluster.pvc(&["vm", "list"]);
    assert_eq!(before.code, 3, "{before:?}");
    assert!(before.stderr.contains("`pvc init`"), "{before:?}");
    assert!(cluster.ok(&["init", "--yes"]).contains("keys created"));
    cluster.set("/primary_node", "hv1");
    assert!(cluster.ok(&["init"]).contains("already"));
    assert_eq!(cluster.get("/primary_node").unwrap(), "hv1");
    assert_eq!(cluster.ok(&["vm", "list"]), "NAME  UUID  ASKED  NODE  RUNS ON  MIGRATED\n");
}

#[test]
fn a_vm_lives_from_define_to_undefine() {
    let cluster = Cluster::with_nodes(&["hv1", "hv2"]);
    cluster.start_daemons();
    let defined = cluster.define("web1", 1, &["-t", "hv2"]);
    assert_eq!(defined.stdout, format!("VM web1 ({}) is defined on hv2\n", id(1)), "{defined:?}");
    assert_eq!(cluster.ok(&["vm", "dump", "web1"]), definition("web1", 1));
    assert!(cluster.ok(&["vm", "explain", "web1"]).contains("All is well: it is off, as asked."));
    assert_eq!(cluster.ok(&["vm", "start", "web1"]), "VM web1 runs on hv2\n");
    let again = cluster.pvc(&["vm", "start", "web1"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, "VM web1 runs on hv2\n"), "{again:?}");
    assert!(again.stderr.contains("it is to run already"), "{again:?}");
    insta::assert_snapshot!("list", cluster.ok(&["vm", "list"]));
    insta::assert_snapshot!("list_long", cluster.ok(&["vm", "list", "-l"]));
    insta::assert_snapshot!("info", cluster.ok(&["vm", "info", "web1"]));
    insta::assert_snapshot!("info_long", cluster.ok(&["vm", "info", "-l", &id(1).to_string()]));
    insta::assert_snapshot!("explain", cluster.ok(&["vm", "explain", "web1"]));
    insta::assert_snapshot!("nodes", cluster.ok(&["node", "list"]));
    insta::assert_snapshot!("node_info", cluster.ok(&["node", "info", "-l", "hv2"]));
    assert_eq!(cluster.ok(&["vm", "restart", "web1"]), "VM web1 runs on hv2\n");
    assert_eq!(cluster.ok(&["vm", "shutdown", "web1"]), "VM web1 is off\n");
    assert_eq!(cluster.ok(&["vm", "start", "web1"]), "VM web1 runs on hv2\n");
    assert_eq!(cluster.ok(&["vm", "stop", "web1"]), "VM web1 is off\n");
    assert_eq!(cluster.ok(&["vm", "start", "--no-wait", "web1"]), "VM web1 is to start\n");
    assert_eq!(cluster.ok(&["vm", "undefine", "web1"]), format!("VM web1 ({}) is undefined\n", id(1)));
    assert_eq!(cluster.get(&format!("/domains/{}", id(1))), None);
}

#[test]
fn json_is_stable() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &["--format", "json"]).stdout.lines().count(), 3);
    insta::assert_snapshot!("list_json", cluster.ok(&["--format", "json", "vm", "list", "--long"]));
    insta::assert_snapshot!("info_json", cluster.ok(&["vm", "info", "web1", "--format", "json"]));
    insta::assert_snapshot!("explain_json", cluster.ok(&["vm", "explain", "web1", "--format", "json"]));
    insta::assert_snapshot!("nodes_json", cluster.ok(&["node", "list", "--format", "json"]));
    assert_eq!(cluster.ok(&["vm", "list", "-r", "--format", "json"]), "[\n  \"web1\"\n]\n");
}

#[test]
fn every_refusal_has_its_exit_code_and_says_what_to_do() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    let check = |answer: Answer, code: i32, words: &[&str]| {
        assert_eq!(answer.code, code, "{answer:?}");
        assert_eq!(answer.stdout, "", "{answer:?}");
        assert!(words.iter().all(|word| answer.stderr.contains(word)), "{words:?}: {answer:?}");
        assert_eq!(answer.stderr.lines().count(), 1, "printed once: {answer:?}");
    };
    check(cluster.define("web1", 2, &[]), 3, &["has this name", "choose another name"]);
    check(cluster.define("web2", 1, &[]), 3, &["belongs to VM web1", "uuidgen"]);
    check(cluster.define("web2", 2, &["-t", "hv9"]), 4, &["no node \"hv9\"", "did you mean hv1?"]);
    check(cluster.define_xml("rubbish", &[]), 3, &["is refused", "no well-formed XML", "line 1"]);
    check(cluster.pvc(&["vm", "define", "/nonexistent"]), 1, &["read /nonexistent", "No such file"]);
    check(cluster.pvc(&["vm", "start", "web2"]), 4, &["no VM \"web2\"", "did you mean web1?"]);
    check(cluster.pvc(&["vm", "restart", "web1"]), 3, &["its state is stop", "use `start`"]);
    check(cluster.pvc(&["node", "info", "hv2"]), 4, &["did you mean hv1?"]);
    check(cluster.pvc(&["vm", "list", "-t", "hv2"]), 4, &["did you mean hv1?"]);
    assert_eq!(cluster.pvc(&["vm", "list", "["]).code, 2);
    assert_eq!(cluster.pvc(&["vm", "fly"]).code, 2);
    cluster.set("/nodes/hv1/daemonstate", "stop");
    check(cluster.pvc(&["vm", "start", "web1"]), 3, &["no node's daemon runs"]);
}

#[test]
fn a_broken_vm_is_a_row_of_question_marks_and_breaks_nothing_else() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    for (number, name) in [(1, "good"), (2, "nostate"), (3, "noxml"), (4, "noname")] {
        assert_eq!(cluster.define(name, number, &[]).code, 0);
    }
    cluster.set(&format!("/domains/{}/state", id(2)), "on fire\u{1b}[2J");
    cluster.set(&format!("/domains/{}/xml", id(3)), "<domain");
    cluster.set(&format!("/domains/{}", id(4)), "");
    let mut txn = pvc_store::Transaction::default();
    let mode = pvc_store::CreateMode::Persistent;
    txn.ops.push(pvc_store::Op::Create { path: "/domains/rubbish".into(), data: Vec::new(), mode });
    cluster.runtime.block_on(cluster.store.commit(txn)).unwrap();
    insta::assert_snapshot!("broken_list", cluster.ok(&["vm", "list", "-l"]));
    let explained = cluster.ok(&["vm", "explain", "nostate"]);
    assert!(explained.contains("so it stays as it is: `pvc vm start nostate`"), "{explained}");
    assert!(!explained.contains('\u{1b}'), "{explained}");
    assert_eq!(cluster.pvc(&["vm", "start", "--no-wait", "nostate"]).code, 0);
    assert_eq!(cluster.get(&format!("/domains/{}/state", id(2))).as_deref(), Some("start"));
    assert_eq!(cluster.ok(&["vm", "list", "-r", "-s", "stop", "^g"]), "good\n");
    cluster.set("/nodes/hv1/domainstate", "rubbish");
    assert!(cluster.ok(&["node", "list"]).contains("? /nodes/hv1/domainstate"));
}

#[test]
fn waiting_is_bounded_and_says_what_is_waited_for() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    let began = Instant::now();
    let answer = cluster.pvc(&["vm", "start", "--wait", "1", "web1"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(answer.stderr.contains("The command stands"), "{answer:?}");
    assert_eq!(cluster.get(&format!("/domains/{}/state", id(1))).unwrap(), "start");
    let said = cluster.pvc(&["vm", "explain", "web1"]);
    assert!(said.stdout.contains("hv1 has not taken it up yet"), "{said:?}");
}

#[test]
fn a_failure_is_reported_with_its_reason_while_one_waits() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    let child = cluster
        .command(&["vm", "start", "web1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let state = format!("/domains/{}/state", id(1));
    eventually("the desired state is written", || cluster.get(&state).unwrap() == "start");
    cluster.set(&format!("/domains/{}/failedreason", id(1)), "no such bridge");
    cluster.set(&state, "failed");
    let answer: Answer = child.wait_with_output().unwrap().into();
    assert_eq!(
        (answer.code, answer.stderr.as_str()),
        (1, "pvc: VM web1 failed: no such bridge\n"),
        "{answer:?}"
    );
    assert!(cluster.ok(&["vm", "explain", "web1"]).contains("It failed: no such bridge."));
}

#[test]
fn ctrl_c_ends_the_waiting_and_not_the_desired_state() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    let child = cluster
        .command(&["vm", "start", "web1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let state = format!("/domains/{}/state", id(1));
    eventually("the desired state is written", || cluster.get(&state).unwrap() == "start");
    eventually("the program handles Ctrl-C", || handles_interrupt(&child));
    interrupt(&child);
    let answer: Answer = child.wait_with_output().unwrap().into();
    assert_eq!(answer.code, 130, "{answer:?}");
    assert!(answer.stderr.contains("is to start all the same"), "{answer:?}");
    assert_eq!(cluster.get(&state).unwrap(), "start");
}

#[test]
fn nothing_is_removed_while_a_dead_node_may_be_executing_it() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    cluster.set(&format!("/pvc/claim/{}", id(1)), "hv1");
    cluster.set("/nodes/hv1/daemonstate", "dead");
    let answer = cluster.pvc(&["vm", "undefine", "--wait", "1", "web1"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("hv1 may still be executing it"), "{answer:?}");
    assert!(answer.stderr.contains("the daemon of hv1 is in state dead"), "{answer:?}");
    assert!(cluster.ok(&["vm", "explain", "web1"]).contains("but the node is dead"));
    cluster.set(&format!("/pvc/claim/{}", id(1)), "");
    assert_eq!(cluster.pvc(&["vm", "undefine", "web1"]).code, 0);
}

#[test]
fn a_vm_whose_daemon_has_stopped_is_remembered_with_a_question_mark() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    cluster.start_daemons();
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    assert_eq!(cluster.ok(&["vm", "start", "web1"]), "VM web1 runs on hv1\n");
    cluster.set("/nodes/hv1/daemonstate", "stop");
    assert!(
        cluster.ok(&["vm", "list"]).ends_with("start  hv1   hv1?     no\n"),
        "{}",
        cluster.ok(&["vm", "list"])
    );
    let explained = cluster.ok(&["vm", "explain", "web1"]);
    assert!(explained.contains("It was last seen running on hv1, but its daemon is stopped"), "{explained}");
    cluster.set("/nodes/hv1/daemonstate", "dead");
    assert!(cluster.ok(&["vm", "list"]).ends_with("start  hv1   -        no\n"));
}

#[test]
fn the_console_is_printed_and_followed_line_by_line() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &[]).code, 0);
    let key = format!("/domains/{}/consolelog", id(1));
    cluster.set(&key, "one\ntwo\nthree\n");
    assert_eq!(cluster.ok(&["vm", "log", "-l", "2", "web1"]), "two\nthree\n");
    let mut child =
        cluster.command(&["vm", "log", "-f", "-l", "1", "web1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "three");
    cluster.set(&key, "two\nthree\nfour\n");
    assert_eq!(lines.next().unwrap(), "four");
    cluster.set(&key, "four\nfive\nsix\n");
    assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["five", "six"]);
    interrupt(&child);
    assert!(child.wait().unwrap().success());
    assert!(lines.next().is_none());
}

#[test]
fn a_vm_without_a_console_log_says_how_to_have_one() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    let xml = definition("web1", 1).replace("<log file='/var/log/libvirt/web1.log' append='on'/>", "");
    assert_eq!(cluster.define_xml(&xml, &[]).code, 0);
    let answer = cluster.pvc(&["vm", "log", "web1"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{answer:?}");
    assert!(answer.stderr.contains("<log file="), "{answer:?}");
}

#[test]
fn a_store_that_does_not_answer_is_reported_within_seconds() {
    let mut cluster = Cluster::with_nodes(&[]);
    cluster.zookeeper.stop();
    let began = Instant::now();
    let answer = cluster.pvc(&["vm", "list"]);
    assert_eq!(answer.code, 5, "{answer:?}");
    assert!(answer.stderr.contains(&cluster.zookeeper.connect_string()), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn the_servers_are_found_in_the_nodes_configuration() {
    let cluster = Cluster::with_nodes(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pvcd.yaml");
    let run = || {
        let mut command = cluster.command(&["vm", "list", "-r"]);
        Answer::from(command.env_remove("PVC_ZOOKEEPER").env("PVCD_CONFIG_FILE", &file).output().unwrap())
    };
    let missing = run();
    assert_eq!(missing.code, 5, "{missing:?}");
    assert!(missing.stderr.contains("pvcd.yaml"), "{missing:?}");
    let server = cluster.zookeeper.connect_string();
    std::fs::write(&file, format!("pvc:\n  cluster:\n    coordinators:\n      - {server}\n")).unwrap();
    let found = run();
    assert_eq!(found.code, 0, "{found:?}");
}

#[test]
fn completions_need_no_cluster() {
    let cluster = Cluster::empty();
    for shell in ["bash", "zsh", "fish"] {
        let mut command = cluster.command(&["completions", shell]);
        let answer = Answer::from(command.env("PVC_ZOOKEEPER", "127.0.0.1:1").output().unwrap());
        assert!(answer.code == 0 && answer.stdout.contains("undefine"), "{shell}: {answer:?}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let cluster = Cluster::empty();
    let folder = tempfile::tempdir().unwrap();
    let mut command = cluster.command(&["man-pages", folder.path().to_str().unwrap()]);
    let answer = Answer::from(command.env("PVC_ZOOKEEPER", "127.0.0.1:1").output().unwrap());
    assert_eq!(answer.code, 0, "{answer:?}");
    for page in ["pvc.1", "pvc-vm.1", "pvc-vm-migrate.1", "pvc-network-dhcp-static-add.1"] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
}

#[test]
fn addresses_are_reserved_listed_and_freed_and_what_guests_say_commands_no_terminal() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    let network = "network add -d web -p managed -i 10.1.0.0/24 -g 10.1.0.1 --dhcp --dhcp-start 10.1.0.10 --dhcp-end 10.1.0.19 100";
    cluster.ok(&network.split(' ').collect::<Vec<_>>());
    let add = |words: &str| {
        let words = format!("network dhcp static add {words}");
        cluster.pvc(&words.split(' ').collect::<Vec<_>>())
    };
    let done = add("web 10.1.0.11 52:54:00:00:00:0A db");
    assert_eq!(done.stdout, "10.1.0.11 is reserved for 52:54:00:00:00:0a in network 100\n", "{done:?}");
    let own = "/networks/100/dhcp4_reservations/52:54:00:00:00:0a";
    assert_eq!(cluster.get(own).as_deref(), Some("static"));
    assert_eq!(cluster.get(&format!("{own}/hostname")).as_deref(), Some("db"));
    let refused = add("web 10.1.0.1 52:54:00:00:00:0b");
    assert!(refused.code != 0 && refused.stderr.contains("the network's gateway"), "{refused:?}");
    assert_eq!(add("web 10.1.0.12 52:54:00:00:00:0a db").code, 0);
    cluster.set(&format!("{own}/hostname"), "evil\u{1b}[2J");
    let list = cluster.ok(&["network", "dhcp", "list", "100"]);
    assert!(list.contains("10.1.0.12") && !list.contains("10.1.0.11") && list.contains("static"), "{list}");
    assert!(list.contains("0 of 9 addresses") && list.contains("\n? "), "{list}");
    assert!(!list.contains('\u{1b}'), "{list:?}");
    let json = cluster.ok(&["--format", "json", "network", "dhcp", "static", "list", "web"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["leases"][0]["timestamp"], "static", "{json}");
    cluster.ok(&["network", "dhcp", "static", "remove", "web", "10.1.0.12"]);
    assert_eq!(cluster.get(own), None);
    let again = cluster.pvc(&["network", "dhcp", "static", "remove", "web", "10.1.0.12"]);
    assert!(again.code != 0 && again.stderr.contains("no reservation"), "{again:?}");
}

#[test]
fn a_definition_is_changed_from_a_file_or_an_editor_and_what_was_typed_is_never_lost() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    assert_eq!(cluster.define("web1", 1, &["-t", "hv1"]).code, 0);
    let xml = || cluster.ok(&["vm", "dump", "web1"]);
    // An editor that replaces one text, whatever it does to the file.
    let edit = |from: &str, to: &str| -> Answer {
        let mut command = cluster.command(&["vm", "modify", "-e", "web1"]);
        command.env("VISUAL", "").env("EDITOR", format!("sed -i 's/{from}/{to}/'"));
        command.output().unwrap().into()
    };
    assert_eq!(edit("512", "256").stdout, "the definition of VM web1 is changed\n");
    assert!(xml().contains("256") && !xml().contains("512"), "{}", xml());
    assert_eq!(edit("nowhere", "").stdout, "nothing was changed\n");

    let refused = edit("<memory.*memory>", "");
    assert_eq!(refused.code, 3, "{refused:?}");
    let path = refused.stderr.lines().find_map(|line| line.split("what you have written is in ").nth(1));
    let kept = std::fs::read_to_string(path.unwrap()).unwrap();
    assert!(kept.contains("web1") && !kept.contains("256"), "{kept}");
    std::fs::remove_file(path.unwrap()).unwrap();
    assert!(xml().contains("256"), "it stays as it was");
    let failed = cluster.command(&["vm", "modify", "-e", "web1"]).env("VISUAL", "false").output().unwrap();
    let failed = Answer::from(failed);
    assert!(
        failed.stderr.contains("the editor (false) ended") && !failed.stderr.contains("is in /"),
        "{failed:?}"
    );
    let saved = "sed -i 's/256/8/' \"$1\"; exit 3 #";
    let failed = cluster.command(&["vm", "modify", "-e", "web1"]).env("VISUAL", saved).output().unwrap();
    let failed = Answer::from(failed);
    let path = failed.stderr.lines().find_map(|line| line.split("what you have written is in ").nth(1));
    assert!(std::fs::read_to_string(path.unwrap()).unwrap().contains(">8<"), "{failed:?}");
    std::fs::remove_file(path.unwrap()).unwrap();

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), xml().replace("256", "128")).unwrap();
    let path = file.path().to_str().unwrap();
    cluster.ok(&["vm", "modify", "--restart", "web1", path]);
    assert!(xml().contains("128"));
    let neither = cluster.pvc(&["vm", "modify", "web1"]);
    assert_eq!(neither.code, 2, "{neither:?}");

    // Somebody else is faster: an editor that does so while it is open.
    let other = format!("{} vm modify web1 {path}; sed -i s/128/64/", env!("CARGO_BIN_EXE_pvc"));
    std::fs::write(file.path(), xml().replace("128", "96")).unwrap();
    let late = cluster.command(&["vm", "modify", "-e", "web1"]).env("VISUAL", other).output().unwrap();
    let late = Answer::from(late);
    assert_eq!(late.code, 3, "{late:?}");
    assert!(late.stderr.contains("somebody else has changed its definition"), "{late:?}");
    assert!(xml().contains("96"), "{}", xml());
}

#[test]
fn a_token_is_printed_once_listed_without_it_and_removed() {
    let cluster = Cluster::with_nodes(&["hv1"]);
    let made =
        cluster.pvc(&["token", "add", "--role", "operate", "--vm", "web1", "--expires-in", "30", "ci"]);
    assert_eq!(made.code, 0, "{made:?}");
    let token = made.stdout.trim();
    assert!(
        token.len() == 64 && made.stdout.lines().count() == 1,
        "nothing else is on standard output: {made:?}"
    );
    assert!(made.stderr.contains("token ci is added") && !made.stderr.contains(token), "{made:?}");
    assert!(!cluster.get("/pvc/tokens/ci").unwrap().contains(token));
    cluster.set("/pvc/tokens/ci2", "rubbish");
    let list = cluster.ok(&["token", "list"]);
    for part in [
        "ci    operate  web1",
        &format!("…{}", &token[60..]),
        "in 30 days",
        "? nobody gets in by it: /pvc/tokens/ci2",
    ] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains(token), "{list}");
    assert_eq!(cluster.pvc(&["token", "add", "--role", "read", "ci"]).code, 3);
    assert_eq!(cluster.pvc(&["token", "add", "ci3"]).code, 2, "a role is said");
    assert!(cluster.ok(&["token", "remove", "ci2"]).contains("is removed"));
    assert!(cluster.ok(&["token", "remove", "ci"]).contains("is removed"));
    assert_eq!(cluster.pvc(&["token", "remove", "ci"]).code, 4);
}
