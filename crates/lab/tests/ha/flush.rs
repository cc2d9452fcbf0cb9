//! Flush and unflush: a node's VMs leave it alive and come back alive.

use anyhow::Result;
use pvc_lab::Vm;

use crate::{fast_timings, on};

#[test]
fn a_flushed_nodes_vms_spread_over_the_others_and_return_all_in_one_life() {
    on("ha-flush", 3, fast_timings(), |cluster| {
        let vms = [1, 2, 3, 4].map(Vm::number);
        cluster.start_vms(&vms, "node1")?;
        let lives = vms.iter().map(|vm| cluster.life("node1", vm)).collect::<Result<Vec<_>>>()?;

        cluster.pvc(&["node", "flush", "-w", "node1"])?;
        assert_eq!(cluster.node_info("node1")["domain_state"], "flushed");
        let mut homes = Vec::new();
        for (vm, life) in vms.iter().zip(&lives) {
            let home = cluster.home(vm)?;
            assert_ne!(home, "node1", "{} stayed", vm.name);
            assert_eq!(cluster.wait_settled(vm, &home)?["last_node"], "node1");
            assert_eq!(&cluster.life(&home, vm)?, life, "{} started over", vm.name);
            homes.push(home);
        }
        homes.sort();
        homes.dedup();
        assert_eq!(homes, ["node2", "node3"], "all went to one node");

        cluster.pvc(&["node", "unflush", "-w", "node1"])?;
        assert_eq!(cluster.node_info("node1")["domain_state"], "ready");
        for (vm, life) in vms.iter().zip(&lives) {
            assert_eq!(cluster.wait_settled(vm, "node1")?["last_node"], "");
            cluster.wait_counting("node1", vm)?;
            assert_eq!(&cluster.life("node1", vm)?, life, "{} started over", vm.name);
            cluster.check_counted_once(vm)?;
        }
        Ok(())
    });
}
