//! OSDs of a node on a loop device, beside a real Ceph. There is no device-mapper here: `ceph-volume raw` makes them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Cluster, Node, Vm, disk::Disk, guest::guest_xml, wait_until};
use serde_json::Value;

use crate::{
    storage::{run, tree},
    storage_tasks::{contents, refused},
};

const LONG: Duration = Duration::from_mins(5);
const GIB: u64 = 1 << 30;
/// Twice what the lab's own have.
const WEIGHT: &str = "0.0005";

/// In which a daemon is killed.
type Moment<'a> = (&'a str, &'a dyn Fn(&Node) -> bool);

fn is_healthy(cluster: &Cluster) -> Result<()> {
    let mut said = String::new();
    wait_until("Ceph to be healthy", LONG, || {
        said = cluster.lab.ceph(&["health", "detail"]).unwrap_or_default();
        said.starts_with("HEALTH_OK")
    })
    .map_err(|late| late.context(said))
}

fn osds(cluster: &Cluster) -> Result<String> {
    Ok(cluster.lab.ceph(&["osd", "ls"])?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Asks for it, and answers the number of the task.
fn asks(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let said = cluster.pvc(&[&["storage", "osd"], words, &["--yes", "--no-wait"]].concat())?;
    let number = said.split_once("task ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(number.with_context(|| said.clone())?.to_owned())
}

/// Waits until a task is over, and says what it said until then.
fn ends(cluster: &Cluster, number: &str) -> Result<()> {
    let (began, mut said) = (Instant::now(), String::new());
    wait_until("the task's end", LONG, || {
        let task = cluster.pvc(&["--format", "json", "task", "info", number]).unwrap_or_default();
        let task: Value = serde_json::from_str(&task).unwrap_or_default();
        let now = format!("{} {} {}", task["state"], task["progress"], task["trouble"]);
        if now != said {
            println!("  {:5.1} s: {now}", began.elapsed().as_secs_f32());
            said = now;
        }
        task["state"] == "done" || task["state"] == "failed"
    })?;
    cluster.pvc(&["task", "wait", number]).map(drop)
}

/// Asks for it, kills the daemon when that is so, and waits for its end.
fn killed_when(cluster: &Cluster, words: &[&str], what: &str, is_so: impl Fn(&Node) -> bool) -> Result<()> {
    let (node, began) = (cluster.node("node1"), Instant::now());
    let number = asks(cluster, words)?;
    wait_until(what, LONG, || is_so(&node))?;
    println!("{words:?}: killed after {:.1?}, {what}", began.elapsed());
    ensure!(node.kill_service("pvcd.service")?, "there was no pvcd");
    ends(cluster, &number)?;
    println!("  done after {:.1?}", began.elapsed());
    Ok(())
}

fn exists(node: &Node, path: &str) -> bool {
    node.exec(&["/usr/bin/test", "-e", path], LONG).is_ok_and(|ended| ended.code == Some(0))
}

/// `ceph-volume` asks it for the names of a disk's maker; a machine with disks has it.
fn has_udevadm(node: &Node) -> Result<()> {
    if !exists(node, "/usr/bin/udevadm") {
        node.write_file("/usr/bin/udevadm", b"#!/bin/sh\nexit 0\n")?;
        node.run(&["/usr/bin/chmod", "755", "/usr/bin/udevadm"], LONG)?;
    }
    Ok(())
}

/// Data on a pool with three copies, on the three OSDs that the lab has by itself.
fn data(cluster: &Cluster) -> Result<String> {
    let image = cluster.lab.create_image("data")?;
    cluster.lab.rbd(&["bench", "--io-type", "write", "--io-size", "1M", "--io-total", "12M", &image])?;
    is_healthy(cluster)?;
    Ok(image)
}

/// A disk that is blank is refused all the same while somebody has it, or wants it back. Leaves it blank.
fn is_somebodys(cluster: &Cluster, node: &Node, disk: &str, wipe: &[&str]) -> Result<()> {
    // A VM that is off, which has it by a link.
    let link = "/dev/disk/by-id/lab-disk";
    node.run(&["/usr/bin/mkdir", "-p", "/dev/disk/by-id"], LONG)?;
    node.run(&["/usr/bin/ln", "-sf", disk, link], LONG)?;
    let vm = Vm { name: "keeper".into(), uuid: "5f1a0c1e-0000-4000-8000-0000000000d1".into() };
    let device =
        format!("<disk type='block'><source dev='{link}'/><target dev='vdb'/></disk><serial type='pty'>");
    let xml = guest_xml(&vm.name, &vm.uuid, 96).replacen("<serial type='pty'>", &device, 1);
    let path = cluster.lab.layout().state().join("keeper.xml");
    std::fs::write(&path, xml)?;
    cluster.pvc(&["vm", "define", &path.display().to_string()])?;
    refused(cluster, wipe, "is a disk of VM keeper, whose definition names /dev/disk/by-id/lab-disk")?;
    cluster.pvc(&["vm", "undefine", "--yes", "keeper"])?;

    // A volume group of which nothing is in use here.
    node.run(&["/sbin/vgcreate", "-qy", "labgroup", disk], LONG)?;
    refused(cluster, wipe, "is part of LVM's volume group labgroup")?;
    node.run(&["/sbin/vgremove", "-qf", "labgroup"], LONG)?;
    node.run(&["/sbin/pvremove", "-q", disk], LONG)?;

    node.run(&["/sbin/mkswap", disk], LONG)?;
    node.run(&["/sbin/swapon", disk], LONG)?;
    let said = refused(cluster, wipe, "it is swapped to");
    node.run(&["/sbin/swapoff", disk], LONG)?;
    said?;
    node.run(&["/bin/dd", "if=/dev/zero", &format!("of={disk}"), "bs=1M", "count=8"], LONG)?;
    Ok(())
}

#[test]
fn an_osd_is_made_and_removed_with_data_on_the_pool_and_its_device_must_be_blank() {
    run("ha-osds", 1, |cluster| {
        let node = cluster.node("node1");
        has_udevadm(&node)?;
        let disk = Disk::add(&node, 4 * GIB)?;
        let image = data(cluster)?;
        let before = contents(cluster, &image)?;

        // Not what holds something, nor what is in use.
        node.run(&["/sbin/mkfs.ext4", "-q", disk.device()], LONG)?;
        let add = ["storage", "osd", "add", "--yes", "--weight", WEIGHT, "node1", disk.device()];
        refused(cluster, &add, "holds a file system")?;
        node.run(&["/bin/mount", disk.device(), "/mnt"], LONG)?;
        let wipe = [&add[..4], &["--wipe"], &add[4..]].concat();
        refused(cluster, &wipe, "is mounted on /mnt")?;
        node.run(&["/bin/umount", "/mnt"], LONG)?;
        refused(cluster, &["storage", "osd", "add", "--yes", "node1", "/dev/null"], "no block device")?;
        refused(cluster, &["storage", "osd", "add", "--yes", "node9", disk.device()], "no node node9")?;
        is_somebodys(cluster, &node, disk.device(), &wipe)?;
        node.run(&["/sbin/mkfs.ext4", "-q", disk.device()], LONG)?;
        ensure!(osds(cluster)? == "0 1 2", "nothing was made");

        let began = Instant::now();
        ends(cluster, &asks(cluster, &["add", "--wipe", "--weight", WEIGHT, "node1", disk.device()])?)?;
        println!("made in {:.1?}", began.elapsed());
        ensure!(osds(cluster)? == "0 1 2 3");
        is_healthy(cluster)?;
        println!("healthy after {:.1?}", began.elapsed());
        ensure!(tree(cluster, "/ceph/osds/3/device") == disk.device());
        ensure!(cluster.lab.ceph(&["pg", "ls-by-osd", "3"])?.contains("active+clean"), "it has data");
        refused(cluster, &wipe, "is in use")?;
        // As after a boot.
        node.run(&["/usr/bin/chown", "root:root", disk.device()], LONG)?;
        node.run(&["/usr/bin/systemctl", "restart", "ceph-osd@3.service"], LONG)?;
        is_healthy(cluster)?;
        refused(cluster, &["storage", "osd", "remove", "--yes", "0"], "no node of this cluster")?;
        refused(cluster, &["storage", "osd", "remove", "--yes", "9"], "there is no OSD 9")?;

        let began = Instant::now();
        ends(cluster, &asks(cluster, &["remove", "3"])?)?;
        println!("removed in {:.1?}", began.elapsed());
        ensure!(osds(cluster)? == "0 1 2" && !exists(&node, "/var/lib/ceph/osd/ceph-3"));
        is_healthy(cluster)?;
        println!("healthy after {:.1?}", began.elapsed());

        // Its device is blank again, so an old client may ask for it.
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old_client.py");
        let servers = cluster.lab.zk_connect_string();
        let line = format!("osd_add node1,{},{WEIGHT}", disk.device());
        for (line, then, answer) in [
            (&*line, "0 1 2 3", "success"),
            (&*line, "0 1 2 3", "failure"),
            ("osd_remove 3", "0 1 2", "success"),
        ] {
            let program = ["/usr/bin/python3", script, "-z", &servers, "ask", "ceph", line];
            let said = cluster.lab.exec_in_switch(&program, LONG)?.ok()?;
            ensure!(said.contains(&format!("{answer}-{line}")), "{said}");
            ensure!(osds(cluster)? == then);
            is_healthy(cluster)?;
        }
        // A key that anybody could read is not left so.
        let keyring = "/var/lib/ceph/bootstrap-osd/ceph.keyring";
        node.run(&["/usr/bin/chmod", "644", keyring], LONG)?;
        ends(cluster, &asks(cluster, &["add", "--weight", WEIGHT, "node1", disk.device()])?)?;
        let mode = node.exec(&["/usr/bin/stat", "-c", "%a", keyring], LONG)?.ok()?;
        ensure!(mode.trim() == "600", "{mode}");
        is_healthy(cluster)?;
        // Its disk is pulled out: nobody says that it was cleared.
        node.run(&["/usr/bin/rm", disk.device()], LONG)?;
        let number = asks(cluster, &["remove", "3"])?;
        let why = format!("{:#}", ends(cluster, &number).err().context("it says what is left")?);
        ensure!(why.contains("its device is as it was") && why.contains("is not there"), "{why}");
        ensure!(osds(cluster)? == "0 1 2" && !exists(&node, "/var/lib/ceph/osd/ceph-3"));
        is_healthy(cluster)?;
        ensure!(contents(cluster, &image)? == before, "the data is what it was");
        Ok(())
    });
}

#[test]
fn a_daemon_that_is_killed_while_it_makes_or_removes_an_osd_goes_on() {
    run("ha-osdkill", 1, |cluster| {
        let node = cluster.node("node1");
        has_udevadm(&node)?;
        let disk = Disk::add(&node, 4 * GIB)?;
        let image = data(cluster)?;
        let before = contents(cluster, &image)?;
        let add = ["add", "--weight", WEIGHT, "node1", disk.device()];
        let has = |words: &[&str], what: &str| cluster.lab.ceph(words).is_ok_and(|said| said.contains(what));

        let adds: [Moment<'_>; 4] = [
            ("it has a number", &|_| has(&["osd", "dump"], "osd.3 ")),
            ("its device is cleared or written", &|node| node.is_active("pvcd-osd.service")),
            ("the device is being written", &|node| exists(node, "/var/lib/ceph/osd/ceph-3/block")),
            ("its daemon runs", &|node| node.is_active("ceph-osd@3.service")),
        ];
        let removes: [Moment<'_>; 4] = [
            ("its data leaves", &|_| has(&["osd", "dump"], "osd.3 up   out")),
            ("its data leaves", &|_| has(&["osd", "dump"], "osd.3 up   out")),
            ("its daemon is off", &|node| !node.is_active("ceph-osd@3.service")),
            ("Ceph has forgotten it", &|_| !has(&["osd", "dump"], "osd.3 ")),
        ];
        for ((made, is_made), (gone, is_gone)) in adds.into_iter().zip(removes) {
            killed_when(cluster, &add, made, is_made)?;
            ensure!(osds(cluster)? == "0 1 2 3");
            is_healthy(cluster)?;
            killed_when(cluster, &["remove", "3"], gone, is_gone)?;
            ensure!(osds(cluster)? == "0 1 2" && !exists(&node, "/var/lib/ceph/osd/ceph-3"));
            is_healthy(cluster)?;
        }
        ensure!(contents(cluster, &image)? == before, "the data is what it was");
        Ok(())
    });
}
