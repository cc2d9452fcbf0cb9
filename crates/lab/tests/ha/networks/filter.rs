//! Where a network is filtered, a guest is heard from its own addresses only, on whichever node it is.

use anyhow::{Result, ensure};
use pvc_lab::{Cluster, Vm, wait_until};

use super::SOON;
use crate::{console, fast_timings, on};

/// The address that is reserved for the second guest.
const OTHER: &str = "10.100.0.20";

const AS_SOMEBODY: &str = "ip addr add 10.100.0.77/24 dev eth0; ping -c 2 -W 1 -I 10.100.0.77 10.100.0.20; said=$?; ip addr del 10.100.0.77/24 dev eth0; (exit $said)";
const BY_ANOTHER_CARD: &str = "ip link set eth0 down; ip link set eth0 address 52:54:00:64:00:99; ip link set eth0 up; ping -c 2 -W 1 10.100.0.20; said=$?; ip link set eth0 down; ip link set eth0 address 52:54:00:64:00:01; ip link set eth0 up; (exit $said)";

fn start(cluster: &Cluster, vm: &Vm, node: &str, number: u8) -> Result<()> {
    let card = format!(
        "<interface type='bridge'><mac address='52:54:00:64:00:0{number}'/><source bridge='vmbr100'/><model type='virtio'/></interface>"
    );
    cluster.define_and_start(vm, node, &console::definition(vm, &card)?)
}

/// It is heard as itself, and as nobody else.
fn holds(cluster: &Cluster, vm: &Vm) -> Result<()> {
    let heard = console::type_on(cluster, vm, &format!("ping -c 3 {OTHER}"))?;
    ensure!(heard.success(), "it is not heard as itself:\n{}{}", heard.stdout, heard.stderr);
    for what in [AS_SOMEBODY, BY_ANOTHER_CARD] {
        let heard = console::type_on(cluster, vm, what)?;
        ensure!(heard.stdout.contains("100% packet loss"), "{what}:\n{}{}", heard.stdout, heard.stderr);
    }
    let heard = console::type_on(cluster, vm, &format!("ping -c 3 {OTHER}"))?;
    ensure!(heard.success(), "it is not heard as itself again:\n{}{}", heard.stdout, heard.stderr);
    Ok(())
}

#[test]
fn a_guest_of_a_filtered_network_is_heard_from_its_own_addresses_only_wherever_it_is() {
    on("ha-filter", 3, fast_timings(), |cluster| {
        super::add_network(cluster)?;
        cluster.pvc(&["network", "modify", "--filter", "web"])?;
        cluster.pvc(&["network", "dhcp", "static", "add", "web", OTHER, "52:54:00:64:00:02", "db"])?;
        ensure!(cluster.pvc(&["network", "info", "web"])?.contains("own addresses only"), "it is not shown");
        let refused = cluster.pvc(&["network", "modify", "--no-guard", "web"]);
        ensure!(refused.is_err_and(|e| format!("{e:?}").contains("--no-filter")), "a filter needs guards");
        let (one, two) = (Vm::number(1), Vm::number(2));
        start(cluster, &one, "node1", 1)?;
        start(cluster, &two, "node2", 2)?;
        console::wait_address(cluster, &one, "10.100.0.10")?;
        console::wait_address(cluster, &two, OTHER)?;
        holds(cluster, &one)?;
        cluster.pvc(&["vm", "migrate", "-t", "node3", &one.name])?;
        cluster.wait_settled(&one, "node3")?;
        holds(cluster, &one)?;
        cluster.pvc(&["network", "modify", "--no-filter", "web"])?;
        wait_until("it to be heard as somebody", SOON, || {
            console::type_on(cluster, &one, AS_SOMEBODY).is_ok_and(|heard| heard.success())
        })
    });
}
