//! The primary coordinator: its addresses move at once when wished, by death when it is dead, and never are in two places.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use pvc_lab::{Cluster, Node, PATIENCE, Probe, Timings, layout::Net, wait_until};

use crate::{default_timings, fast_timings, on};

const MILLISECOND: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_mins(1);
const NETS: [Net; 2] = [Net::Cluster, Net::Upstream];

/// Probes of both networks' floating addresses, IPv4 and IPv6, each with its address.
fn probes(cluster: &Cluster) -> Result<Vec<(IpAddr, Probe)>> {
    let start = |address| Ok((address, Probe::start(&cluster.lab, address, MILLISECOND)?));
    NETS.into_iter().flat_map(Net::floating).map(start).collect()
}

#[test]
fn a_hand_over_takes_the_floating_addresses_along_almost_without_a_gap() {
    on("ha-primary", 3, default_timings(), |cluster| {
        let first = cluster.primary()?;
        let mut order: Vec<_> =
            ["node1", "node2", "node3"].into_iter().filter(|node| *node != first).collect();
        order.push(&first);
        for next in order {
            let watching = probes(cluster)?;
            cluster.pvc(&["node", "primary", next])?;
            assert_eq!(cluster.primary()?, next);
            for (address, probe) in watching {
                let reach = probe.finish()?;
                println!("hand-over to {next}: {address} was away for {:?}", reach.silence);
                // The figure is in docs/benchmarks.md; a machine that is busy with other tests is allowed more.
                assert!(reach.silence < Duration::from_secs(1), "{address}: {reach:?}");
            }
            for net in NETS {
                assert_eq!(cluster.holders(net), [next]);
            }
        }
        Ok(())
    });
}

/// Writes down with the kernel's time what happens to the node's addresses.
fn log_addresses(node: &Node) -> Result<()> {
    let program = "exec /sbin/ip -ts monitor address > /root/addresses";
    node.run(&["/usr/bin/systemd-run", "--quiet", "--unit=addresses", "/bin/sh", "-c", program], SOON)?;
    node.wait_active("addresses.service", SOON)
}

/// When the address first came (`true`) or last went (`false`), as the kernel's log has it.
fn logged(node: &Node, address: IpAddr, came: bool) -> Option<String> {
    let (log, address) = (node.read_file("/root/addresses").ok()?, format!(" {address}/"));
    let mut lines = log.lines().filter(|line| line.contains(&address) && line.contains("Deleted") != came);
    let line = if came { lines.next() } else { lines.next_back() };
    Some(line?.trim_start_matches('[').split(']').next()?.to_owned())
}

#[test]
fn a_primary_that_is_cut_off_from_zookeeper_drops_its_addresses_before_the_next_one_takes_them() {
    let never_fence = Timings { fence_intervals: 0, ..fast_timings() };
    on("ha-primary-cut", 3, never_fence, |cluster| {
        let first = cluster.primary()?;
        let nodes = cluster.lab.nodes();
        nodes.iter().try_for_each(log_addresses)?;
        let cut_off = cluster.node(&first);
        for other in nodes.iter().filter(|node| node.name() != first) {
            cluster.lab.drop_frames(&cut_off, Some(other))?;
        }
        let mut next = Vec::new();
        wait_until("the next primary", PATIENCE, || {
            next = cluster.holders(Net::Cluster);
            next.len() == 1 && next[0] != first
        })
        .with_context(|| format!("held by {next:?}"))?;
        cluster.wait_node(&next[0], "coordinator_state", "primary")?;
        for address in NETS.into_iter().flat_map(Net::floating) {
            let went = logged(&cut_off, address, false).context("the log of the old primary")?;
            let came =
                logged(&cluster.node(&next[0]), address, true).context("the log of the new primary")?;
            println!("{address}: gone from {first} {went}, there on {} {came}", next[0]);
            // Both are the one kernel's time, to the microsecond, in a form that sorts as text.
            assert!(went < came, "{address} was in two places: gone {went}, there {came}");
        }

        cluster.lab.undrop()?;
        cluster.wait_node(&first, "coordinator_state", "secondary")?;
        assert_eq!(cluster.primary()?, next[0]);
        Ok(())
    });
}
