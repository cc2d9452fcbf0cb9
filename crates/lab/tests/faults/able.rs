//! Nodes that live and cannot start VMs, for good or for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{Node, PATIENCE, play, wait_until};

use crate::{SOON, default, fast};

const LIBVIRT: [&str; 5] = [
    "libvirtd.socket",
    "libvirtd-ro.socket",
    "libvirtd-admin.socket",
    "libvirtd-tcp.socket",
    "libvirtd.service",
];

fn libvirt(node: &Node, verb: &str) -> Result<()> {
    let program: Vec<&str> = ["/bin/systemctl", verb].into_iter().chain(LIBVIRT).collect();
    node.run(&program, PATIENCE).map(drop)
}

#[test]
fn the_vms_of_a_dead_node_run_where_libvirt_is_and_not_on_an_idle_node_without() {
    play(fast("f-no-libvirt", 3), |s| {
        // Node 3 would be chosen: it has most memory left.
        s.start_vms([1], "node1")?;
        let vms = s.start_vms([2, 3], "node2")?;
        let (node, without) = (s.victim("node2"), s.node("node3"));
        s.fault("node3 loses its libvirt", || libvirt(&without, "stop"))?;
        wait_until("node3 to say so", PATIENCE, || s.cluster.node_info("node3")["can_start"] == false)?;
        let told = s.pvc(&["node", "explain", "node3"])?;
        s.note(told.trim());
        let died = s.fault("node2 loses its power", || node.kill())?;
        s.recover_elsewhere(&vms, "node2", died, SOON)?;
        for vm in &vms {
            ensure!(s.cluster.home(vm)? == "node1", "{} was given to a node that cannot start it", vm.name);
        }
        libvirt(&without, "start")?;
        wait_until("node3 to take VMs again", PATIENCE, || s.cluster.node_info("node3")["can_start"] == true)
    });
}

/// Of the next boot: libvirt takes 20 s, and the bridge that guests are in is there after 40 s.
fn comes_up_late(node: &Node) -> Result<()> {
    node.run(&["/bin/mkdir", "-p", "/etc/systemd/system/libvirtd.service.d"], PATIENCE)?;
    node.write_file(
        "/etc/systemd/system/libvirtd.service.d/late.conf",
        b"[Service]\nExecStartPre=/bin/sleep 20\n",
    )?;
    let unit = "[Unit]\nAfter=lab-network.service\n[Service]\nExecStart=/bin/sh -c 'ip link set br0 down && ip link set br0 name late \
                && sleep 40 && ip link set late name br0 && ip link set br0 up'\n[Install]\nWantedBy=multi-user.target\n";
    node.write_file("/etc/systemd/system/late-bridge.service", unit.as_bytes())?;
    node.run(&["/bin/systemctl", "enable", "late-bridge.service"], PATIENCE).map(drop)
}

fn comes_up_as_usual(node: &Node) -> Result<()> {
    node.run(&["/bin/systemctl", "disable", "late-bridge.service"], PATIENCE)?;
    node.run(&["/bin/rm", "/etc/systemd/system/libvirtd.service.d/late.conf"], PATIENCE).map(drop)
}

#[test]
fn after_a_power_cut_of_the_whole_site_every_vm_runs_again_by_itself_though_libvirt_and_bridges_are_late() {
    play(default("f-site", 3), |s| {
        let nodes = ["node1", "node2", "node3"].map(|name| s.victim(name));
        let mut vms = Vec::new();
        for (number, node) in (1..).zip(&nodes) {
            vms.extend(s.start_vms([number], &node.name())?);
            comes_up_late(node)?;
        }
        s.fault("the site loses its power", || nodes.iter().try_for_each(Node::kill))?;
        let back = Instant::now();
        s.note("the power is back");
        nodes.iter().try_for_each(Node::start)?;
        wait_until("every VM to run", PATIENCE, || {
            vms.iter().all(|vm| s.cluster.processes.where_is(&vm.uuid).len() == 1)
        })?;
        s.recovered("every VM", back.elapsed(), Duration::from_mins(3))?;
        nodes.iter().try_for_each(comes_up_as_usual)
    });
}
