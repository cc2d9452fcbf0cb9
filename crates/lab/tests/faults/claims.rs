//! A client of the 0.5 generation deletes a VM that runs, and defines and starts it elsewhere, while the daemon that could tell is away.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Scenario, Vm, beating_guest_xml, play, wait_until};

use crate::{default, pass};

const COMMAND: Duration = Duration::from_mins(1);

/// The end of the guest, its boot elsewhere, and what a busy machine adds.
const MOVED: Duration = Duration::from_mins(1);

/// As such a client: it waits two seconds each for a stop and a delete, and asks nobody whether they were done.
fn redefine(s: &Scenario, vm: &Vm, to: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let definition = folder.path().join("vm.xml");
    std::fs::write(&definition, beating_guest_xml(&vm.name, &vm.uuid, 96))?;
    let definition = definition.to_string_lossy();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old_client.py");
    let servers = s.cluster.lab.zk_connect_string();
    for words in [&["undefine", &vm.name][..], &["define", &*definition, to], &["start", &vm.name]] {
        s.note(format!("an old client: {} {}", words[0], vm.name));
        let program = [&["/usr/bin/python3", script, "-z", &servers], words].concat();
        s.cluster.lab.exec_in_switch(&program, COMMAND)?.ok()?;
    }
    Ok(())
}

/// It stays where it is, the operator is told why, and it moves when the daemon is back.
fn moves_when_its_daemon_is_back(
    s: &Scenario,
    vm: &Vm,
    (from, to): (&str, &str),
    wait: Duration,
    back: &[&str],
) -> Result<()> {
    redefine(s, vm, to)?;
    pass(wait)?;
    ensure!(s.cluster.processes.where_is(&vm.uuid) == [from], "{} is not where it was", vm.name);
    let explained = s.pvc(&["vm", "explain", &vm.name])?;
    s.note(explained.lines().last().unwrap_or_default());
    ensure!(explained.contains(from) && !explained.contains("All is well"), "{explained}");
    let began = Instant::now();
    s.note(format!("the daemon of {from} is back"));
    s.node(from).run(back, COMMAND)?;
    wait_until("the VM to move", MOVED, || s.cluster.processes.where_is(&vm.uuid) == [to])?;
    s.recovered(&vm.name, began.elapsed(), MOVED)?;
    s.cluster.wait_settled(vm, to)?;
    s.cluster.wait_counting(to, vm)
}

#[test]
fn a_vm_that_an_old_client_defines_anew_elsewhere_waits_for_the_daemon_that_may_be_executing_it() {
    play(default("f-redefined", 3), |s| {
        let vm = s.start_vms([1], "node2")?.remove(0);
        let stop = ["/bin/systemctl", "stop", "pvcd"];
        s.fault("pvcd of node2 is stopped", || s.node("node2").run(&stop, COMMAND).map(drop))?;
        let start = ["/bin/systemctl", "start", "pvcd"];
        moves_when_its_daemon_is_back(s, &vm, ("node2", "node3"), Duration::from_secs(10), &start)?;
        // Shorter than it takes to be fenced.
        let freeze = ["/bin/systemctl", "kill", "--kill-who=main", "--signal=STOP", "pvcd"];
        s.fault("pvcd of node3 is frozen", || s.node("node3").run(&freeze, COMMAND).map(drop))?;
        let thaw = ["/bin/systemctl", "kill", "--kill-who=main", "--signal=CONT", "pvcd"];
        moves_when_its_daemon_is_back(s, &vm, ("node3", "node2"), Duration::from_secs(2), &thaw)
    });
}
