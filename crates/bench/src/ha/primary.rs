//! How long the floating addresses do not answer when the primary coordinator hands over.

use std::time::Duration;

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
    let mut gaps = [Vec::new(), Vec::new()];
    for _ in 0..arguments.repeat {
        let now = cluster.primary()?;
        let next = if now == "node1" { "node2" } else { "node1" };
        let probes = NETS.map(|net| Probe::start(&cluster.lab, net.floating().into(), PROBE_EVERY));
        cluster.pvc(&["node", "primary", next])?;
        cluster.primary()?;
        for (gaps, probe) in gaps.iter_mut().zip(probes) {
            gaps.push(probe?.finish()?.silence);
        }
    }
    let limit = Some(Target::AtMost(100.0));
    Ok(vec![
        Row::new("hand-over of the primary: cluster address away", "ms", milliseconds(&gaps[0]))
            .target(limit),
        Row::new("hand-over of the primary: upstream address away", "ms", milliseconds(&gaps[1]))
            .target(limit),
    ])
}
