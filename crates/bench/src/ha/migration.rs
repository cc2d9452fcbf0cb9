//! A live migration by `pvc`, beside `virsh migrate` of a twin that pvcd does not know, in turns; and how long each guest paused.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pvc_lab::{Cluster, Node, PATIENCE, Probe, Vm, beating_guest_xml, wait_until};

use super::{in_lab, intervals, milliseconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

const PROBE_EVERY: Duration = Duration::from_millis(2);
/// What follows a migration, such as the end of the source's process, belongs to none.
const REST: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Times {
    took: Vec<Duration>,
    pause: Vec<Duration>,
}

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab(arguments, "bench-migration", 2, intervals(5, 6), |cluster| in_turns(arguments, cluster))
}

fn in_turns(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let (vm, twin) = (Vm::number(1), Vm::number(2));
    let one = cluster.node("node1");
    cluster.start_vms(std::slice::from_ref(&vm), "node1")?;
    one.write_file("/root/twin.xml", beating_guest_xml(&twin.name, &twin.uuid, 96).as_bytes())?;
    one.run(&["/usr/bin/virsh", "-q", "create", "/root/twin.xml"], PATIENCE)?;
    cluster.wait_counting("node1", &twin)?;
    let addresses = [address(&one, &vm)?, address(&one, &twin)?];

    let (mut ours, mut plain) = (Times::default(), Times::default());
    let mut at = ("node1", "node2");
    // The first of each fills caches.
    for round in 0..=arguments.repeat {
        for turn in 0..2 {
            std::thread::sleep(REST);
            let by_pvc = (round + turn) % 2 == 0;
            let (guest, address, times) =
                if by_pvc { (&vm, addresses[0], &mut ours) } else { (&twin, addresses[1], &mut plain) };
            let probe = Probe::start(&cluster.lab, address, PROBE_EVERY)?;
            let began = Instant::now();
            if by_pvc {
                cluster
                    .node(at.0)
                    .run(&["/usr/bin/pvc", "vm", "migrate", "--force", "-t", at.1, &guest.name], PATIENCE)?;
            } else {
                let to = format!("qemu+tcp://{}.cluster.lab/system", at.1);
                let program = [
                    "/usr/bin/virsh",
                    "-q",
                    "migrate",
                    "--live",
                    "--p2p",
                    "--auto-converge",
                    &guest.name,
                    &to,
                ];
                cluster.node(at.0).run(&program, PATIENCE)?;
            }
            let took = began.elapsed();
            cluster.wait_counting(at.1, guest)?;
            let pause = probe.finish()?.silence;
            if round > 0 {
                times.took.push(took);
                times.pause.push(pause);
            }
        }
        cluster.wait_settled(&vm, at.1)?;
        cluster.check_counted_once(&vm)?;
        at = (at.1, at.0);
    }
    let (took, virsh) = (milliseconds(&ours.took), milliseconds(&plain.took));
    let overhead = took.iter().zip(&virsh).map(|(ours, plain)| ours - plain).collect();
    Ok(vec![
        Row::new("`pvc vm migrate` → answered", "ms", took),
        Row::new("… `virsh migrate` of a twin", "ms", virsh),
        Row::new("… difference, pair by pair", "ms", overhead)
            .old(Some(520.0))
            .target(Some(Target::AtMost(100.0))),
        Row::new("… the guest does not answer", "ms", milliseconds(&ours.pause)),
        Row::new("… the twin does not answer", "ms", milliseconds(&plain.pause)),
    ])
}

/// The address that the guest says it has.
pub(super) fn address(node: &Node, vm: &Vm) -> Result<IpAddr> {
    let read = || {
        let console = node.guest_console(&vm.name);
        let (_, rest) = console.split_once("LABGUEST address ")?;
        rest.split(['/', ' ']).next()?.parse().ok()
    };
    let mut address = None;
    wait_until("the guest's address", PATIENCE, || {
        address = read();
        address.is_some()
    })?;
    address.with_context(|| format!("{} has no address", vm.name))
}
