//! `./lab` as a person types it, with the daemon: what the README promises, and what is said when it cannot be kept.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::{fs, time::Duration};

use pvc_lab::{Output, program};

/// Brings down what the test brought up, however it ends.
struct Named(&'static str);

impl Named {
    fn lab(&self, arguments: &str) -> Output {
        let mut lab = program::command(env!("CARGO_BIN_EXE_pvc-lab"));
        lab.args(["--name", self.0]).args(arguments.split(' ')).env("RUST_BACKTRACE", "0");
        program::output(lab, b"", Duration::from_mins(5)).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let down = self.lab("down");
        assert!(down.success(), "{down}");
    }
}

#[test]
fn the_first_command_ends_with_a_vm_that_runs_and_prints() {
    let named = Named("t-cli");
    let up = named.lab("up --nodes 2").ok().unwrap();
    assert!(up.contains("pvcd runs on every node") && up.contains("demo"), "{up}");
    assert!(up.contains("sudo ./lab --name t-cli down"), "{up}");

    let status = named.lab("status").ok().unwrap();
    let nodes: Vec<_> = status.lines().skip(1).collect();
    assert_eq!(nodes.len(), 2, "{status}");
    assert!(nodes.iter().all(|line| line.contains("active")), "{status}");
    assert_eq!(status.matches("demo (running)").count(), 1, "{status}");
    assert!(named.lab("exec node2 pvc vm log demo").ok().unwrap().contains("LABGUEST ready"));
    assert!(named.lab("log node1 -u pvcd").ok().unwrap().contains("node1"));

    let code = named.lab("exec node1 /bin/sh -c exit\t7").code;
    assert_eq!(code, Some(7), "the exit code of a program on a node");
    assert_eq!(named.lab("exec node1 /bin/pwd").ok().unwrap(), "/\n");
    named.lab("kill node2").ok().unwrap();
    named.lab("cut node1").ok().unwrap();
    let status = named.lab("status").ok().unwrap();
    assert!(status.contains("node2  off") && status.contains("cut"), "{status}");
    assert!(named.lab("kill node3").stderr.contains("it has node1 to node2"));
}

#[test]
fn a_daemon_that_does_not_come_up_makes_up_fail_and_tell_why() {
    let binaries = tempfile::tempdir().unwrap();
    fs::write(binaries.path().join("pvcd"), "#!/bin/sh\necho the daemon has no luck today >&2\nexit 1\n")
        .unwrap();
    for other in ["pvc", "pvc-api"] {
        fs::copy("/bin/true", binaries.path().join(other)).unwrap();
    }
    program::run("/bin/chmod", ["-R", "755", &binaries.path().to_string_lossy()], Duration::from_secs(20))
        .unwrap();
    let named = Named("t-luckless");
    let up = named.lab(&format!("up --nodes 1 --deadline 15 --binaries {}", binaries.path().display()));
    assert_eq!(up.code, Some(1), "{up}");
    assert!(up.stderr.contains("in vain for pvcd.service on node1"), "{up}");
    assert!(up.stderr.contains("no luck today"), "{up}");
    // It stays up to be looked at.
    assert!(named.lab("exec node1 /bin/true").success());
}

#[test]
fn a_command_without_a_lab_says_what_to_do() {
    let named = Named("t-none");
    let status = named.lab("status");
    assert_eq!(status.code, Some(1));
    assert!(status.stderr.contains("./lab up"), "{status}");
}
