//! The disk under the consoles and logs is full: guests and the daemon go on without them.

use std::time::Duration;

use anyhow::{Result, ensure};
use pvc_lab::{Beat, Node, PATIENCE, play, wait_until};

use crate::{fast, pass};

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

        // Wishes are done as ever.
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
            node.run(&["/bin/rm", "-f", &format!("{folder}/filler"), &format!("{folder}/more")], AT_ONCE)?;
        }
        let room = std::time::Instant::now();
        s.note("there is room again");
        wait_until("the console to go on", PATIENCE, || printed() > full)?;
        s.recovered("the console", room.elapsed(), AT_ONCE)?;
        ensure!(s.cluster.life("node1", stays)? == life, "{} started over", stays.name);
        Ok(())
    });
}
