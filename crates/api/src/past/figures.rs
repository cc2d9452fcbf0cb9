//! Samples of some hours, the oldest of which are forgotten.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use pvc_operate::node::Listed;
use serde::Serialize;

/// Six hours.
const MOST: usize = 1440;
/// Of a larger cluster the rest has no plots.
const MOST_NODES: usize = 100;

/// What was sampled.
#[derive(Default)]
pub(super) struct Figures {
    zookeeper: VecDeque<(u64, Option<f32>)>,
    nodes: BTreeMap<String, VecDeque<Sample>>,
}

/// `[unix time in s, load, memory used as a part of 1]`.
#[derive(Clone, Copy, Serialize)]
struct Sample(u64, f32, f32);

/// All of it, as it is answered.
#[derive(Serialize)]
pub(crate) struct History {
    /// `[unix time in s, ms in which ZooKeeper answered a read; null: it did not]`.
    zookeeper: Vec<(u64, Option<f32>)>,
    nodes: BTreeMap<String, Vec<Sample>>,
}

impl Figures {
    pub(super) fn add(&mut self, now: u64, took: Option<Duration>, nodes: &[Listed]) {
        let ms = took.map(|took| rounded(took.as_secs_f64() * 1e3));
        self.zookeeper.push_back((now, ms));
        for node in nodes.iter().take(MOST_NODES) {
            let Listed::Good(node) = node else { continue };
            #[allow(clippy::cast_precision_loss, reason = "a part of 1")]
            let used = node.memory.used as f64 / node.memory.total.max(1) as f64;
            let sample = Sample(now, rounded(node.load), rounded(used));
            self.nodes.entry(node.name.to_string()).or_default().push_back(sample);
        }
        while self.zookeeper.len() > MOST {
            self.zookeeper.pop_front();
        }
        let oldest = self.zookeeper.front().map_or(now, |(at, _)| *at);
        for samples in self.nodes.values_mut() {
            while samples.len() > MOST || samples.front().is_some_and(|Sample(at, ..)| *at < oldest) {
                samples.pop_front();
            }
        }
        self.nodes.retain(|_, samples| !samples.is_empty());
    }

    pub(super) fn history(&self) -> History {
        History {
            zookeeper: self.zookeeper.iter().copied().collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(name, all)| (name.clone(), all.iter().copied().collect()))
                .collect(),
        }
    }
}

/// Three digits behind the point: it is for plots.
#[allow(clippy::cast_possible_truncation, reason = "it is for plots")]
fn rounded(figure: f64) -> f32 {
    if figure.is_finite() { ((figure * 1e3).round() / 1e3) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_with_them_a_node_that_is_gone() {
        let mut figures = Figures::default();
        figures.nodes.insert("gone".into(), VecDeque::from([Sample(0, 1.0, 0.5)]));
        for now in 0..=MOST as u64 {
            figures.add(now, Some(Duration::from_micros(1_234_567)), &[]);
        }
        let history = figures.history();
        assert_eq!(history.zookeeper.len(), MOST);
        assert_eq!(history.zookeeper[0], (1, Some(1234.567)));
        assert!(history.nodes.is_empty(), "its samples are older than all others");
        assert!(rounded(f64::NAN).abs() < f32::EPSILON);
    }
}
