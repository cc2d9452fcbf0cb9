//! How long the floating addresses, and the HTTP API there, do not answer when the primary coordinator hands over.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use pvc_lab::{Cluster, PATIENCE, Probe, layout::Net, wait_until};

use super::{door, in_lab_with, intervals, milliseconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

const PROBE_EVERY: Duration = Duration::from_millis(1);
const NETS: [Net; 2] = [Net::Cluster, Net::Upstream];

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let with_api = |options: pvc_lab::LabOptions| pvc_lab::LabOptions { enable_api: true, ..options };
    in_lab_with(arguments, "bench-primary", intervals(5, 6), with_api, |cluster| {
        hand_over(arguments, cluster)
    })
}

fn hand_over(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let addresses = NETS.map(Net::floating);
    let mut gaps = vec![Vec::new(); addresses.as_flattened().len()];
    let [address, _] = Net::Upstream.floating();
    let mut api = Vec::new();
    for _ in 0..arguments.repeat {
        wait_for_api(cluster, address)?;
        let now = cluster.primary()?;
        let next = if now == "node1" { "node2" } else { "node1" };
        let start = |address: &IpAddr| Probe::start(&cluster.lab, *address, PROBE_EVERY);
        let probes: Vec<_> = addresses.as_flattened().iter().map(start).collect();
        let stop = AtomicBool::new(false);
        api.push(thread::scope(|scope| {
            let asks = door::ask(scope, cluster, address, &stop);
            let handed_over = cluster.pvc(&["node", "primary", next]).and_then(|_| cluster.primary());
            let back = handed_over.and_then(|_| wait_for_api(cluster, address));
            stop.store(true, Ordering::Relaxed);
            let silence = asks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            back.and(silence)
        })?);
        for (gaps, probe) in gaps.iter_mut().zip(probes) {
            gaps.push(probe?.finish()?.silence);
        }
    }
    let rows = ["cluster IPv4", "cluster IPv6", "upstream IPv4", "upstream IPv6"].into_iter().zip(gaps);
    let row = |(address, gaps): (&str, Vec<_>)| {
        let name = format!("hand-over of the primary: {address} address away");
        Row::new(name, "ms", milliseconds(&gaps)).target(Some(Target::AtMost(100.0)))
    };
    let api = Row::new("hand-over of the primary: the HTTP API away", "ms", milliseconds(&api));
    Ok(rows.map(row).chain([api]).collect())
}

fn wait_for_api(cluster: &Cluster, address: IpAddr) -> Result<()> {
    wait_until("the HTTP API to answer", PATIENCE, || {
        cluster
            .lab
            .in_switch_network(|| door::answers(address))
            .is_ok_and(|answer| matches!(answer, Ok(true)))
    })
}
