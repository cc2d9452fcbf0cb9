//! A disk is full. The one under the consoles and logs: guests and the daemon go on without them. The one under a ZooKeeper: the others
//! go on; under all of them: as if there were no ZooKeeper.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Beat, Node, PATIENCE, Scenario, play, wait_until};

use crate::{
    SOON, default, fast, pass,
    zookeeper::{boots, leader},
};

const AT_ONCE: Duration = Duration::from_secs(30);

/// Fills a file system until nothing fits any more.
fn fill(node: &Node, folder: &str) -> Result<()> {
    // It ends with an error, as it should.
    node.exec(&["/bin/dd", "if=/dev/zero", &format!("of={folder}/filler"), "bs=4k"], AT_ONCE)?;
    let more =
        node.exec(&["/bin/sh", "-c", &format!("echo x > {folder}/more && test -s {folder}/more")], AT_ONCE)?;
    ensure!(!more.success(), "{folder} is not full");
    Ok(())
}

/// Removes what filled it.
fn make_room(node: &Node, folder: &str) -> Result<()> {
    node.run(&["/bin/rm", "-f", &format!("{folder}/filler"), &format!("{folder}/more")], AT_ONCE).map(drop)
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn on_a_full_disk_guests_run_start_and_migrate_and_their_consoles_go_on_when_there_is_room() {
    play(fast("f-disk", 3), |s| {
        let node = s.node("node1");
        for folder in ["/var/log/libvirt", "/var/log/pvc"] {
            node.run(&["/bin/mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], AT_ONCE)?;
        }
        node.run(&["/bin/systemctl", "restart", "pvcd"], PATIENCE)?;
        s.cluster.wait_node("node1", "daemon_state", "run")?;
        let vms = s.start_vms([1, 2], "node1")?;
        let (stays, restarts) = (&vms[0], &vms[1]);
        let life = s.cluster.life("node1", stays)?;
        s.fault("the disk of consoles and logs on node1 is full", || {
            fill(&node, "/var/log/libvirt")?;
            fill(&node, "/var/log/pvc")
        })?;
        let printed = || Beat::all(&node.guest_console(&stays.name)).len();
        // The file's last page is filled first.
        let mut full = printed();
        wait_until("the console to stand still", PATIENCE, || {
            let before = std::mem::replace(&mut full, printed());
            before == full && pass(Duration::from_secs(4)).is_ok() && printed() == full
        })?;
        s.untouched(&vms)?;
        s.cluster.wait_node("node1", "daemon_state", "run")?;

        // Desired states are done as ever.
        s.pvc(&["vm", "stop", &restarts.name])?;
        s.pvc(&["vm", "start", &restarts.name])?;
        s.cluster.wait_settled(restarts, "node1")?;
        s.pvc(&["vm", "migrate", "-t", "node2", &stays.name])?;
        s.cluster.wait_settled(stays, "node2")?;
        s.cluster.wait_counting("node2", stays)?;
        s.pvc(&["vm", "unmigrate", &stays.name])?;
        s.cluster.wait_settled(stays, "node1")?;
        ensure!(printed() == full, "there was room all the time");

        for folder in ["/var/log/libvirt", "/var/log/pvc"] {
            make_room(&node, folder)?;
        }
        let room = Instant::now();
        s.note("there is room again");
        wait_until("the console to go on", PATIENCE, || printed() > full)?;
        s.recovered("the console", room.elapsed(), AT_ONCE)?;
        ensure!(s.cluster.life("node1", stays)? == life, "{} started over", stays.name);
        Ok(())
    });
}

const ZOOKEEPER: &str = "/var/lib/zookeeper";

/// Moves a node's ZooKeeper to a disk that is small enough to be filled.
fn move_zookeeper_to_a_small_disk(s: &Scenario, node: &Node) -> Result<()> {
    let run = |program: &[&str]| node.run(program, PATIENCE).map(drop);
    run(&["/bin/systemctl", "stop", "zookeeper"])?;
    run(&["/bin/cp", "-a", "--sparse=always", ZOOKEEPER, "/run/zookeeper"])?;
    run(&["/bin/mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", ZOOKEEPER])?;
    run(&["/bin/cp", "-a", "--sparse=always", "/run/zookeeper/.", ZOOKEEPER])?;
    run(&["/bin/systemctl", "start", "zookeeper"])?;
    s.cluster.lab.wait_zookeeper(node.number())
}

/// Fills these disks, until each server has met it and none of them serves.
fn fill_zookeepers(s: &Scenario, nodes: &[Node]) -> Result<Instant> {
    let names = nodes.iter().map(Node::name).collect::<Vec<_>>().join(", ");
    let full = s.fault(&format!("the disk of ZooKeeper on {names} is full"), || {
        nodes.iter().try_for_each(|node| fill(node, ZOOKEEPER))
    })?;
    let told = "journalctl -b -u zookeeper --no-pager | grep -q 'No space left on device'";
    let met = |node: &Node| node.exec(&["/bin/sh", "-c", told], AT_ONCE).is_ok_and(|seen| seen.success());
    wait_until("the servers to meet it", PATIENCE, || nodes.iter().all(met))?;
    wait_until("the servers to serve nobody", PATIENCE, || !nodes.iter().any(|node| serves(s, node)))?;
    s.note(format!("served by {names} until {:?} after that", full.elapsed()));
    Ok(full)
}

fn serves(s: &Scenario, node: &Node) -> bool {
    s.cluster.lab.zookeeper_mode(node.number()).is_ok()
}

/// What an operator does; nobody starts a server. When there was room.
fn make_room_for_zookeepers(s: &Scenario, nodes: &[Node]) -> Result<Instant> {
    let back = nodes.iter().find(|node| serves(s, node)).map(Node::name);
    ensure!(back.is_none(), "{back:?} served with a full disk");
    s.note("there is room again");
    let room = Instant::now();
    nodes.iter().try_for_each(|node| make_room(node, ZOOKEEPER))?;
    Ok(room)
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_full_disk_under_zookeepers_leader_stops_no_guest_and_it_serves_again_when_there_is_room() {
    play(default("f-zk-disk", 3), |s| {
        s.cluster.lab.nodes().iter().try_for_each(|node| move_zookeeper_to_a_small_disk(s, node))?;
        let node = leader(s)?;
        let vms = s.start_vms([1, 2], "node2")?;
        let before = boots(s)?;
        let full = fill_zookeepers(s, std::slice::from_ref(&node))?;
        // The server takes part in the elections, in which it is of no use: sometimes that takes the others some rounds.
        wait_until("commands to be taken", PATIENCE, || {
            s.cluster.pvc(&["vm", "migrate", "--no-wait", "-t", "node3", &vms[0].name]).is_ok()
        })?;
        s.cluster.wait_settled(&vms[0], "node3")?;
        s.recovered("a desired state", full.elapsed(), Duration::from_mins(2))?;
        // Longer than the silence that is death.
        pass(Duration::from_secs(40))?;
        ensure!(boots(s)? == before, "a node was fenced");
        s.untouched(&vms[1..])?;

        let room = make_room_for_zookeepers(s, std::slice::from_ref(&node))?;
        s.cluster.lab.wait_zookeeper(node.number())?;
        s.note(format!("the server is back after {:?}", room.elapsed()));
        ensure!(room.elapsed() < SOON, "it took the server {:?} to be back", room.elapsed());
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn while_the_disks_of_all_zookeepers_are_full_no_guest_stops_and_nobody_is_fenced() {
    play(fast("f-zk-disks", 3), |s| {
        let nodes = s.cluster.lab.nodes();
        nodes.iter().try_for_each(|node| move_zookeeper_to_a_small_disk(s, node))?;
        let vms = [s.start_vms([1], "node1")?, s.start_vms([2], "node2")?].concat();
        let before = boots(s)?;
        fill_zookeepers(s, &nodes)?;
        // Ten times the silence that is death.
        pass(Duration::from_secs(30))?;
        let desired = s.cluster.pvc(&["vm", "stop", "--no-wait", &vms[0].name]);
        ensure!(desired.is_err(), "a command was taken: {desired:?}");
        s.untouched(&vms)?;
        ensure!(boots(s)? == before, "a node was fenced");

        let room = make_room_for_zookeepers(s, &nodes)?;
        wait_until("commands to be taken", PATIENCE, || {
            s.cluster.pvc(&["vm", "migrate", "--no-wait", "-t", "node3", &vms[0].name]).is_ok()
        })?;
        s.cluster.wait_settled(&vms[0], "node3")?;
        s.recovered("a desired state", room.elapsed(), Duration::from_mins(1))?;
        // Time enough for somebody who took the silence for death.
        pass(Duration::from_secs(10))?;
        ensure!(boots(s)? == before, "a node was fenced");
        s.untouched(&vms[1..])
    });
}
