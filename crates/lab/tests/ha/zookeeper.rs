//! ZooKeeper away: nothing changes, and nobody is blamed when it is back.

use std::time::{Duration, Instant};

use anyhow::Result;
use pvc_lab::{PATIENCE, Vm, wait_until};

use crate::{fast_timings, on};

/// Twenty times the silence that is death.
const AWAY: Duration = Duration::from_mins(1);

#[test]
fn while_zookeeper_is_away_no_guest_stops_and_nobody_is_fenced_when_it_returns() {
    on("ha-zookeeper", 3, fast_timings(), |cluster| {
        let vms = [1, 2].map(Vm::number);
        cluster.start_vms(&vms[..1], "node1")?;
        cluster.start_vms(&vms[1..], "node2")?;
        let boots = || cluster.lab.nodes().iter().map(pvc_lab::Node::boot_id).collect::<Result<Vec<_>>>();
        let before = boots()?;

        let all = |verb: &str| {
            let run =
                |node: pvc_lab::Node| node.run(&["/bin/systemctl", verb, "zookeeper"], PATIENCE).map(drop);
            cluster.lab.nodes().into_iter().try_for_each(run)
        };
        all("stop")?;
        let gone = Instant::now();
        wait_until("the time without ZooKeeper", PATIENCE, || gone.elapsed() > AWAY)?;
        all("start")?;
        for node in cluster.lab.nodes() {
            cluster.wait_node(&node.name(), "daemon_state", "run")?;
        }
        cluster.wait_settled(&vms[0], "node1")?;
        cluster.wait_settled(&vms[1], "node2")?;
        // Time enough for somebody who took the silence for death.
        let back = Instant::now();
        wait_until("the time of a fence", PATIENCE, || back.elapsed() > Duration::from_secs(10))?;

        assert_eq!(boots()?, before, "a node was fenced");
        for vm in &vms {
            assert_eq!(cluster.processes.of(&vm.uuid).len(), 1, "{} was stopped", vm.name);
        }
        Ok(())
    });
}
