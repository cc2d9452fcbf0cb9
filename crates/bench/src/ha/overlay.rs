//! What a guest in a managed network misses in a migration, with each overlay, beside a twin on a bridge that needs none.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use pvc_lab::{Cluster, PATIENCE, Probe, Vm, beating_guest_xml, wait_until};

use super::{in_lab, intervals, migration, milliseconds};
use crate::{Arguments, report::Row};

const PROBE_EVERY: Duration = Duration::from_millis(1);
/// What follows a migration, such as the end of the source's process, belongs to none.
const REST: Duration = Duration::from_millis(500);
const OVERLAYS: [&str; 3] = ["declared", "flood", "evpn"];
/// Who asks is a guest, too: a node answers, and hears, almost nothing in client networks.
const ASKER: &str = "set -e
ip netns add asker
for card in vmbr100=10.100.0.3 br0=10.252.0.240; do
  bridge=${card%=*}
  ip link add vnet$bridge type veth peer name $bridge netns asker
  ip link set vnet$bridge mtu 1450 up master $bridge
  ip -n asker link set $bridge mtu 1450 up
  ip -n asker address add ${card#*=}/24 dev $bridge
done";

/// What was missed in each migration.
#[derive(Default)]
struct Missed {
    silence: Vec<Duration>,
    lost: Vec<f64>,
}

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab(arguments, "bench-overlay", 3, intervals(5, 6), |cluster| in_turns(arguments, cluster))
}

fn in_turns(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let (guest, twin) = (Vm::number(1), Vm::number(2));
    cluster.pvc(&["network", "add", "-p", "managed", "-d", "bench", "-i", "10.100.0.0/24", "100"])?;
    let asks = cluster.node("node3");
    for node in cluster.lab.nodes() {
        wait_until(&format!("vmbr100 on {}", node.name()), PATIENCE, || {
            node.run(&["/usr/sbin/ip", "link", "show", "vmbr100"], PATIENCE).is_ok()
        })?;
    }
    asks.run(&["/bin/sh", "-c", ASKER], PATIENCE)?;
    let xml = beating_guest_xml(&guest.name, &guest.uuid, 96)
        .replace("<source bridge='br0'/>", "<source bridge='vmbr100'/>")
        .replace(" beat=", " address=10.100.0.1/24 beat=");
    cluster.define_and_start(&guest, "node1", &xml)?;
    cluster.wait_counting("node1", &guest)?;
    cluster.start_vms(std::slice::from_ref(&twin), "node1")?;
    let twins_address = migration::address(&cluster.node("node1"), &twin)?;

    let mut rows = Vec::new();
    let mut at = ("node1", "node2");
    for overlay in OVERLAYS {
        cluster.pvc(&["network", "overlay", overlay])?;
        let (mut guests, mut twins) = (Missed::default(), Missed::default());
        // The first of each fills caches.
        for round in 0..=arguments.repeat {
            let turns =
                [(&guest, IpAddr::from([10, 100, 0, 1]), &mut guests), (&twin, twins_address, &mut twins)];
            for (vm, address, missed) in turns {
                std::thread::sleep(REST);
                let probe = Probe::start_on(&asks, "asker", address, PROBE_EVERY)?;
                cluster.pvc(&["vm", "migrate", "--force", "-t", at.1, &vm.name])?;
                cluster.wait_counting(at.1, vm)?;
                let reach = probe.finish()?;
                ensure!(reach.answered > 0, "{} never answered", vm.name);
                if round > 0 {
                    missed.silence.push(reach.silence);
                    missed.lost.push(f64::from(u32::try_from(reach.sent - reach.answered)?));
                }
            }
            for vm in [&guest, &twin] {
                cluster.wait_settled(vm, at.1).with_context(|| format!("{overlay}, round {round}"))?;
            }
            at = (at.1, at.0);
        }
        let beside = milliseconds(&guests.silence);
        let beside =
            beside.iter().zip(milliseconds(&twins.silence)).map(|(guest, twin)| guest - twin).collect();
        rows.extend([
            Row::new(
                format!("a guest migrates, overlay {overlay}: it does not answer"),
                "ms",
                milliseconds(&guests.silence),
            ),
            Row::new(
                "… a twin on a bridge without overlay does not answer",
                "ms",
                milliseconds(&twins.silence),
            ),
            Row::new("… difference, pair by pair", "ms", beside),
            Row::new("… 1 ms probes without an answer", "probes", guests.lost),
            Row::new("… the same of the twin", "probes", twins.lost),
        ]);
    }
    Ok(rows)
}
