//! Defining what runs already, outside the cluster.

use std::time::Duration;

use anyhow::ensure;
use pvc_lab::{Vm, beating_guest_xml};

use crate::{fast_timings, on};

const COMMAND: Duration = Duration::from_secs(30);

#[test]
fn a_guest_that_runs_outside_the_cluster_lives_on_when_it_is_defined() {
    on("ha-define", 3, fast_timings(), |cluster| {
        let vm = Vm::number(1);
        let node = cluster.node("node2");
        let xml = beating_guest_xml(&vm.name, &vm.uuid, 96);
        node.write_file("/root/own.xml", xml.as_bytes())?;
        node.run(&["/usr/bin/virsh", "-q", "define", "/root/own.xml"], COMMAND)?;
        node.run(&["/usr/bin/virsh", "-q", "autostart", &vm.name], COMMAND)?;
        node.run(&["/usr/bin/virsh", "-q", "start", &vm.name], COMMAND)?;
        let life = cluster.life("node2", &vm)?;

        let path = cluster.lab.layout().state().join("own.xml");
        std::fs::write(&path, &xml)?;
        // Its node says that it runs there, so it is defined there though nobody says where.
        let said = cluster.pvc(&["vm", "define", &path.to_string_lossy()])?;
        ensure!(said.contains("is defined on node2") && said.contains("adopts it"), "{said}");
        cluster.wait_settled(&vm, "node2")?;
        for _ in 0..5 {
            cluster.wait_counting("node2", &vm)?;
            std::thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(cluster.life("node2", &vm)?, life, "it was started over");
        assert_eq!(cluster.processes.of(&vm.uuid).len(), 1);

        // What libvirt keeps of it goes within a minute, and the guest with it not.
        pvc_lab::wait_until("libvirt's definition to be removed", Duration::from_secs(90), || {
            let listed =
                node.run(&["/usr/bin/virsh", "-q", "list", "--persistent", "--all", "--name"], COMMAND);
            listed.is_ok_and(|names| !names.lines().any(|name| name == vm.name))
        })?;
        assert_eq!(cluster.life("node2", &vm)?, life);
        cluster.pvc(&["vm", "stop", &vm.name])?;
        ensure!(cluster.processes.where_is(&vm.uuid).is_empty(), "a real stop is one");
        Ok(())
    });
}
