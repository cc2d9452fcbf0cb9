//! Samples of some hours, the oldest of which are forgotten.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use pvc_operate::node::Listed;
use serde::Serialize;

/// Six hours.
const MOST: usize = 1440;
/// So many of each are answered at most: a plot shows no more.
const MOST_SHOWN: usize = 240;
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
        // The clock may have been set back.
        self.zookeeper.retain(|(at, _)| *at <= now);
        self.nodes.values_mut().for_each(|samples| samples.retain(|Sample(at, ..)| *at <= now));
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
        let nodes = self.nodes.iter().map(|(name, samples)| (name.clone(), thinned(samples)));
        History { zookeeper: thinned(&self.zookeeper), nodes: nodes.collect() }
    }
}

/// At equal distances, and the last one.
fn thinned<T: Copy>(samples: &VecDeque<T>) -> Vec<T> {
    let distance = samples.len().div_ceil(MOST_SHOWN).max(1);
    let mut some: Vec<T> = samples.iter().rev().step_by(distance).copied().collect();
    some.reverse();
    some
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
        assert_eq!(figures.zookeeper.len(), MOST);
        assert_eq!(figures.zookeeper[0], (1, Some(1234.567)));
        let history = figures.history();
        assert!(history.nodes.is_empty(), "its samples are older than all others");
        assert!(rounded(f64::NAN).abs() < f32::EPSILON);
    }

    #[test]
    fn no_more_is_answered_than_a_plot_shows_and_the_last_one_is_there() {
        for (count, answered) in [(0, 0), (1, 1), (240, 240), (241, 121), (MOST, MOST_SHOWN)] {
            let some = thinned(&(0..count).collect());
            assert_eq!(some.len(), answered, "of {count}");
            assert_eq!(some.last().copied(), count.checked_sub(1));
            assert!(some.is_sorted());
        }
    }

    #[test]
    fn what_is_of_a_time_that_is_yet_to_come_is_forgotten_when_the_clock_is_set_back() {
        let mut figures = Figures::default();
        figures.nodes.insert("a".into(), VecDeque::from([Sample(90, 1.0, 0.5), Sample(5_000, 1.0, 0.5)]));
        figures.zookeeper = VecDeque::from([(90, None), (5_000, None)]);
        figures.add(100, None, &[]);
        assert_eq!(figures.zookeeper, [(90, None), (100, None)]);
        assert_eq!(figures.nodes["a"].len(), 1);
    }
}
