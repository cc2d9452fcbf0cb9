//! What the walls count, for Prometheus: as much more as there is since it was looked last. A chain that was made anew begins at zero.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use pvc_host::firewall::{Count, Listing};

use crate::metrics;

/// The walls, by the chains in which they drop. Of `node` only the last rule does.
const WALLS: [(&str, &str); 7] = [
    ("tunnels", "tunnels"),
    ("node", "node"),
    ("from_clients", "routed"),
    ("to_clients", "routed"),
    ("guard", "guard"),
    ("filter", "filter"),
    ("prerouting", "filter"),
];

/// What each chain had counted when it was looked last.
#[derive(Default)]
pub(super) struct Figures(Mutex<BTreeMap<String, Count>>);

impl Figures {
    pub(super) fn tell(&self, listing: &Listing) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|chain, _| listing.counts.contains_key(chain));
        for (chain, counts) in &listing.counts {
            let counts = if chain == "node" { &counts[counts.len().saturating_sub(1)..] } else { counts };
            let sum = |of: fn(&Count) -> u64| counts.iter().map(of).sum::<u64>();
            let now = Count { packets: sum(|count| count.packets), bytes: sum(|count| count.bytes) };
            let before = last.insert(chain.clone(), now).unwrap_or_default();
            let began_anew = now.packets < before.packets || now.bytes < before.bytes;
            let before = if began_anew { Count::default() } else { before };
            let (packets, bytes) = (now.packets - before.packets, now.bytes - before.bytes);
            match WALLS.iter().find(|(name, _)| name == chain) {
                Some((_, wall)) => metrics::dropped(wall, packets),
                None if chain.ends_with("_in") => metrics::rules_matched("in", packets, bytes),
                None if chain.ends_with("_out") => metrics::rules_matched("out", packets, bytes),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(chain: &str, packets: &[u64]) -> Listing {
        let counts =
            packets.iter().map(|packets| Count { packets: *packets, bytes: packets * 100 }).collect();
        Listing { standing: BTreeMap::new(), counts: [(chain.to_owned(), counts)].into() }
    }

    #[test]
    fn what_is_counted_is_told_once_also_by_a_chain_that_begins_anew() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let figures = Figures::default();
        let told = ::metrics::with_local_recorder(&recorder, || {
            for packets in [[3, 4], [5, 4], [1, 0]] {
                figures.tell(&listing("n100_in", &packets));
            }
            // What the others let through is no drop.
            figures.tell(&listing("node", &[7, 2]));
            figures.tell(&listing("guard", &[1, 1]));
            recorder.handle().render()
        });
        for series in [
            "pvcd_network_rule_packets_total{direction=\"in\"} 10",
            "pvcd_network_rule_bytes_total{direction=\"in\"} 1000",
            "pvcd_network_dropped_packets_total{wall=\"node\"} 2",
            "pvcd_network_dropped_packets_total{wall=\"guard\"} 2",
        ] {
            assert!(told.contains(series), "{series} in {told}");
        }
    }
}
