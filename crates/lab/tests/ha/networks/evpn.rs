//! The nodes' FRR tells where guests are; without it frames are flooded, and nobody is cut off.

use anyhow::{Result, ensure};
use pvc_lab::{Cluster, Node, Vm, wait_until};

use super::{MAC, Port, SOON, sent_to, wait_sent_to};

/// Where the node's FRR has it send frames for that card.
fn routed_to(node: &Node, mac: &str) -> Option<String> {
    let entries = node.run(&["/usr/sbin/bridge", "fdb", "show", "dev", "vxlan100"], SOON).ok()?;
    let entry = entries
        .lines()
        .find(|line| line.starts_with(mac) && line.contains(" dst ") && line.contains("extern_learn"))?;
    entry.split(" dst ").nth(1)?.split(' ').next().map(str::to_owned)
}

fn wait_routed_to(node: &Node, mac: &str, to: Option<&Node>) -> Result<()> {
    let to = to.map(|node| node.address().to_string());
    let what = format!("FRR of {} to have frames for {mac} sent to {to:?}", node.name());
    wait_until(&what, SOON, || routed_to(node, mac) == to)
}

fn wait_explained(cluster: &Cluster, what: &str, is_said: bool) -> Result<()> {
    wait_until(&format!("`pvc network explain` to say {what:?}: {is_said}"), SOON, || {
        cluster.pvc(&["network", "explain", "100"]).is_ok_and(|said| said.contains(what) == is_said)
    })
}

/// It begins and ends with what is declared, with the VM on node2.
pub(super) fn holds(cluster: &Cluster, here: &Port, there: &Port, vm: &Vm) -> Result<()> {
    let (node1, node2) = (&here.node, &there.node);
    cluster.pvc(&["network", "overlay", "evpn"])?;
    wait_sent_to(node1, None)?;
    here.wait_reaches(there, "cards are no longer declared")?;
    let card = there.mac()?;
    wait_routed_to(node1, &card, Some(node2))?;
    ensure!(here.reaches(there), "FRR sends it elsewhere");
    wait_explained(cluster, "FRR", false)?;
    let address = there.lease("web2")?;
    here.wait_resolves("web2", &address)?;

    for (target, other) in [(node1, node2), (node2, node1)] {
        cluster.pvc(&["vm", "migrate", "--force", "-t", &target.name(), &vm.name])?;
        cluster.wait_settled(vm, &target.name())?;
        wait_routed_to(other, MAC, Some(target))?;
        wait_routed_to(target, MAC, None)?;
    }

    // Nothing but bandwidth depends on it.
    node2.run(&["/bin/systemctl", "stop", "frr"], SOON)?;
    ensure!(here.reaches(there), "a guest needs no FRR");
    wait_routed_to(node1, &card, None)?;
    ensure!(here.reaches(there), "frames are not flooded");
    wait_explained(cluster, "FRR's bgpd does not run", true)?;
    node2.run(&["/bin/systemctl", "start", "frr"], SOON)?;
    wait_routed_to(node1, &card, Some(node2))?;
    wait_explained(cluster, "FRR", false)?;

    cluster.pvc(&["network", "overlay", "declared"])?;
    wait_sent_to(node1, Some(node2))?;
    for node in [node1, node2] {
        wait_until("nothing that FRR has written to stay", SOON, || {
            let entries = node.run(&["/usr/sbin/bridge", "fdb", "show", "dev", "vxlan100"], SOON);
            entries.is_ok_and(|entries| {
                !entries.lines().any(|l| l.contains(" dst ") && l.contains("extern_learn"))
            })
        })?;
        wait_until("FRR to speak with nobody", SOON, || {
            let told = node.run(&["/usr/bin/vtysh", "-c", "show running-config"], SOON);
            told.is_ok_and(|told| !told.contains("router bgp"))
        })?;
    }
    ensure!(sent_to(node1) == Some(node2.address().to_string()), "FRR took away what is declared");
    here.wait_reaches(there, "FRR fell silent")
}
