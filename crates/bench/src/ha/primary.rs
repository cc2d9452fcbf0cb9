//! How long the floating addresses do not answer when the primary coordinator hands over.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use pvc_lab::{Cluster, Probe, layout::Net};

use super::{in_lab, intervals, milliseconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

const PROBE_EVERY: Duration = Duration::from_millis(1);
const NETS: [Net; 2] = [Net::Cluster, Net::Upstream];

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab(arguments, "bench-primary", 3, intervals(5, 6), |cluster| hand_over(arguments, cluster))
}

fn hand_over(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let addresses = NETS.map(Net::floating);
    let mut gaps = vec![Vec::new(); addresses.as_flattened().len()];
    for _ in 0..arguments.repeat {
        let now = cluster.primary()?;
        let next = if now == "node1" { "node2" } else { "node1" };
        let start = |address: &IpAddr| Probe::start(&cluster.lab, *address, PROBE_EVERY);
        let probes: Vec<_> = addresses.as_flattened().iter().map(start).collect();
        cluster.pvc(&["node", "primary", next])?;
        cluster.primary()?;
        for (gaps, probe) in gaps.iter_mut().zip(probes) {
            gaps.push(probe?.finish()?.silence);
        }
    }
    let rows = ["cluster IPv4", "cluster IPv6", "upstream IPv4", "upstream IPv6"].into_iter().zip(gaps);
    let row = |(address, gaps): (&str, Vec<_>)| {
        let name = format!("hand-over of the primary: {address} address away");
        Row::new(name, "ms", milliseconds(&gaps)).target(Some(Target::AtMost(100.0)))
    };
    Ok(rows.map(row).collect())
}
