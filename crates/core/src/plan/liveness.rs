//! How long each node has been silent, as one observer measured it: the time since it last saw the node's `keepalive` key change,
//! while its own session was healthy.
//!
//! Never compares wall clocks, and never counts time in which nothing could have been seen: after a gap in the observer's session,
//! or in its own attention (it was frozen), every measurement starts over.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{ClusterView, Moment, NodeName},
    sabotage::{self, Bug},
};

/// The longest pause between two observations that is no gap. A daemon that lives observes every second.
pub const ATTENTION: Duration = Duration::from_secs(4);

/// One observer's measurements.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    seen: BTreeMap<NodeName, Seen>,
    last: Option<Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    version: Option<i32>,
    at: Moment,
}

impl Liveness {
    /// Takes note of what is seen now; to be called at every change of the view, of the session, and every second. `current`: the
    /// session is healthy, and the view complete ever since it became so.
    pub fn observe(&mut self, view: &ClusterView, current: bool, now: Moment) {
        let was_away = self.last.is_none_or(|last| now.since(last) > ATTENTION);
        self.last = Some(now);
        if (was_away || !current) && !sabotage::commits(Bug::CountGapAsSilence) {
            self.seen.clear();
        }
        if !current {
            return;
        }
        self.seen.retain(|name, _| view.node(name).is_some());
        for node in view.good_nodes() {
            let version = node.keepalive_version;
            let seen = self.seen.entry(node.name.clone()).or_insert(Seen { version, at: now });
            if seen.version != version {
                *seen = Seen { version, at: now };
            }
        }
    }

    /// Takes each node's word, and this node's own clock, for when its last keepalive was: only by [`Bug::TrustWallClock`].
    pub fn trust_wall_clocks(&mut self, view: &ClusterView, unix_s: u64, now: Moment) {
        for (name, seen) in &mut self.seen {
            let said = view.node(name).map_or(unix_s, |node| node.report.keepalive_unix_s);
            seen.at = Moment(now.0.saturating_sub(Duration::from_secs(unix_s.saturating_sub(said))));
        }
    }

    /// For how long a node has been silent at least; zero if nothing is known.
    pub fn silence(&self, node: &NodeName, now: Moment) -> Duration {
        self.seen.get(node).map_or(Duration::ZERO, |seen| now.since(seen.at))
    }

    /// When a node's silence will have lasted so long, if it goes on.
    pub fn silent_for(&self, node: &NodeName, silence: Duration) -> Option<Moment> {
        self.seen.get(node).map(|seen| seen.at + silence)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        command::testing::{name, node},
        model::Entry,
    };

    fn view(versions: &[(&str, i32)]) -> ClusterView {
        let entry = |(n, version): &(&str, i32)| {
            let node = crate::model::Node { keepalive_version: Some(*version), ..node(n) };
            (name(n), Arc::new(Entry::Good(node)))
        };
        ClusterView { nodes: Arc::new(versions.iter().map(entry).collect()), ..ClusterView::default() }
    }

    /// Observes every second, both ends included.
    fn watch(l: &mut Liveness, seconds: std::ops::RangeInclusive<u64>, view: &ClusterView, current: bool) {
        seconds.for_each(|s| l.observe(view, current, Moment::secs(s)));
    }

    fn silence(l: &Liveness, at: u64) -> u64 {
        l.silence(&name("x"), Moment::secs(at)).as_secs()
    }

    #[test]
    fn silence_is_counted_from_the_last_change_of_the_version() {
        let mut l = Liveness::default();
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 110), 10);
        watch(&mut l, 111..=120, &view(&[("x", 2)]), true);
        assert_eq!(silence(&l, 120), 9);
        assert_eq!(l.silent_for(&name("x"), Duration::from_secs(30)), Some(Moment::secs(141)));
    }

    #[test]
    fn a_version_that_goes_back_is_a_change_too() {
        let mut l = Liveness::default();
        watch(&mut l, 100..=110, &view(&[("x", 7)]), true);
        watch(&mut l, 111..=112, &view(&[("x", 0)]), true);
        assert_eq!(silence(&l, 112), 1, "the node was removed and registered anew");
    }

    #[test]
    fn after_a_gap_in_the_session_every_measurement_starts_over() {
        let mut l = Liveness::default();
        watch(&mut l, 100..=120, &view(&[("x", 1)]), true);
        watch(&mut l, 121..=121, &view(&[("x", 1)]), false);
        assert_eq!(silence(&l, 121), 0);
        watch(&mut l, 122..=130, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 130), 8);
    }

    #[test]
    fn time_in_which_the_observer_was_frozen_is_not_silence_of_others() {
        let mut l = Liveness::default();
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        watch(&mut l, 170..=171, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 171), 1);
    }

    #[test]
    fn a_node_that_was_never_seen_or_is_gone_is_not_silent() {
        let mut l = Liveness::default();
        assert_eq!(silence(&l, 500), 0);
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        watch(&mut l, 111..=111, &view(&[]), true);
        assert_eq!(silence(&l, 111), 0);
    }
}
