//! Guests that stop executing while their processes live: an I/O error of a disk, somebody's hand.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use pvc_lab::{Node, PATIENCE, Scenario, Vm, play, wait_until};

use crate::{default, pass};

const COMMAND: Duration = Duration::from_secs(20);

/// A guest whose firmware reads a disk to boot from it; every read fails.
fn with_a_bad_disk(node: &Node, vm: &Vm) -> Result<String> {
    node.write_file("/root/errors", b"[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\n")?;
    node.run(&["/usr/bin/truncate", "-s", "1M", "/root/disk"], COMMAND)?;
    let drive = "file=blkdebug:/root/errors:/root/disk,format=raw,if=ide,rerror=stop,werror=stop";
    Ok(format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{}</name><uuid>{}</uuid>
<memory unit='MiB'>16</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices>
<qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='{drive}'/></qemu:commandline></domain>",
        vm.name, vm.uuid
    ))
}

fn virsh(node: &Node, command: &str, vm: &Vm) -> Result<()> {
    node.run(&["/usr/bin/virsh", "-q", command, &vm.name], COMMAND).map(drop)
}

/// It is told to stand in every place, no command calls that a success, and nobody touches it.
fn is_told_and_left_alone(s: &Scenario, vm: &Vm, reason: &str, status: &str) -> Result<()> {
    wait_until("it to be told", PATIENCE, || s.cluster.vm(vm)["not_executing"] == reason)?;
    let said = s.pvc(&["status"])?;
    ensure!(said.contains(status), "{said}");
    let said = s.pvc(&["vm", "explain", &vm.name])?;
    ensure!(said.contains("does not execute") && said.contains("virsh resume"), "{said}");
    ensure!(s.pvc(&["vm", "start", &vm.name]).is_err(), "success is told of what does not execute");
    pass(Duration::from_secs(20))?;
    s.untouched(std::slice::from_ref(vm))?;
    ensure!(s.cluster.vm(vm)["not_executing"] == reason);
    Ok(())
}

fn goes_on(s: &Scenario, vm: &Vm) -> Result<()> {
    virsh(&s.node("node1"), "resume", vm)?;
    wait_until("nothing to be told any more", PATIENCE, || s.cluster.vm(vm)["not_executing"].is_null())?;
    s.untouched(std::slice::from_ref(vm))
}

fn executed_since(s: &Scenario, vm: &Vm, since: Instant) -> bool {
    s.cluster.processes.of(&vm.uuid).iter().filter_map(|run| run.executed).any(|(from, _)| from > since)
}

#[test]
fn a_guest_that_somebody_or_an_io_error_has_stopped_is_told_and_left_alone() {
    play(default("f-halted", 1), |s| {
        let vm = s.start_vms([1], "node1")?.remove(0);
        let node = s.node("node1");
        let life = s.cluster.life("node1", &vm)?;
        s.fault("somebody pauses a guest", || virsh(&node, "suspend", &vm))?;
        let paused = Instant::now();
        is_told_and_left_alone(s, &vm, "paused", "is paused")?;
        // The observer of processes, which judges all scenarios, sees the same.
        ensure!(!executed_since(s, &vm, paused), "a paused guest counts as executing");
        let resumed = Instant::now();
        goes_on(s, &vm)?;
        wait_until("it to be seen executing", PATIENCE, || executed_since(s, &vm, resumed))?;
        s.cluster.wait_counting("node1", &vm)?;
        ensure!(s.cluster.life("node1", &vm)? == life, "{} started over", vm.name);

        let bad = Vm::number(2);
        let path = s.cluster.lab.layout().state().join("bad.xml");
        fs::write(&path, with_a_bad_disk(&node, &bad)?)?;
        s.pvc(&["vm", "define", "-t", "node1", &path.display().to_string()])?;
        s.fault("a disk has an I/O error", || s.pvc(&["vm", "start", "--no-wait", &bad.name]).map(drop))?;
        is_told_and_left_alone(s, &bad, "io-error", "is stopped by an I/O error")?;
        // It hears no power button, and nobody waits 90 s for it.
        let asked = Instant::now();
        s.pvc(&["vm", "shutdown", &bad.name])?;
        ensure!(asked.elapsed() < Duration::from_mins(1), "{:?}", asked.elapsed());
        ensure!(s.cluster.processes.where_is(&bad.uuid).is_empty(), "{} is not off", bad.name);
        s.untouched(&[vm])
    });
}
