//! Units of the real systemd: what a node needs is started with its daemon.

use anyhow::ensure;
use pvc_lab::PATIENCE;

use crate::{fast_timings, on};

#[test]
fn what_a_node_needs_is_started_with_its_daemon_and_what_runs_already_is_left_alone() {
    on("ha-units", 3, fast_timings(), |cluster| {
        let node = cluster.node("node3");
        let systemctl = |arguments: &[&str]| node.run(&[&["/bin/systemctl"], arguments].concat(), PATIENCE);
        let process = |unit: &str| systemctl(&["show", "--property=MainPID", "--value", unit]);
        // Sockets would start libvirtd when it is asked for.
        let sockets =
            ["libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd-tcp.socket"];
        systemctl(&["stop", "pvcd"])?;
        systemctl(&[&["stop", "zookeeper", "libvirtd"], &sockets[..]].concat())?;
        ensure!(!node.is_active("zookeeper") && !node.is_active("libvirtd"));

        systemctl(&["start", "pvcd"])?;
        for unit in ["zookeeper", "libvirtd"] {
            node.wait_active(unit, PATIENCE)?;
        }
        cluster.wait_node("node3", "daemon_state", "run")?;
        let (zookeeper, libvirtd) = (process("zookeeper")?, process("libvirtd")?);

        systemctl(&["restart", "pvcd"])?;
        cluster.wait_node("node3", "daemon_state", "run")?;
        let log = node.read_file("/var/log/pvc/pvcd.log")?;
        for unit in ["zookeeper.service", "libvirtd.service"] {
            let started = log.matches(&format!("service {unit} was started")).count();
            ensure!(started == 1, "{unit} was started {started} times:\n{log}");
        }
        ensure!(log.contains("service frr.service is not installed"), "{log}");
        ensure!((zookeeper, libvirtd) == (process("zookeeper")?, process("libvirtd")?), "they go on");
        Ok(())
    });
}
