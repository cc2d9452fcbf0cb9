//! Live migration: the guest goes on where it was.

use pvc_lab::{PATIENCE, Vm, wait_until};

use crate::{fast_timings, on};

#[test]
fn a_live_migration_and_the_way_back_are_one_life_of_the_guest() {
    on("ha-migrate", 2, fast_timings(), |cluster| {
        let vm = Vm::number(1);
        cluster.start_vms(std::slice::from_ref(&vm), "node1")?;
        let life = cluster.life("node1", &vm)?;

        cluster.pvc(&["vm", "migrate", "-t", "node2", &vm.name])?;
        assert_eq!(cluster.wait_settled(&vm, "node2")?["last_node"], "node1");
        cluster.wait_counting("node2", &vm)?;
        assert_eq!(cluster.life("node2", &vm)?, life, "the guest started over");
        wait_until("the source's process to end", PATIENCE, || {
            cluster.processes.where_is(&vm.uuid) == ["node2"]
        })?;

        cluster.pvc(&["vm", "unmigrate", &vm.name])?;
        assert_eq!(cluster.wait_settled(&vm, "node1")?["last_node"], "");
        cluster.wait_counting("node1", &vm)?;
        assert_eq!(cluster.life("node1", &vm)?, life, "the guest started over");
        cluster.check_counted_once(&vm)
    });
}
