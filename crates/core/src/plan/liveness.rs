//! How long each node has been silent, as one observer measured it: the time since it last saw the node's `keepalive` key change,
//! while its own session was healthy.
//!
//! Never compares wall clocks, and never counts time in which nothing could have been seen: after a gap in the observer's session,
//! in its own keepalives (a server without a leader still answers what is read, for seconds), or in its own attention (it was frozen),
//! every measurement starts over. An observer that concludes something from silence says
//! when it looks again ([`Liveness::look_by`]); one that comes too late for that was not attentive. While everybody speaks it need not
//! look of its own accord: whoever speaks wakes it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{ClusterView, DaemonState, Moment, Node, NodeName},
    sabotage::{self, Bug},
};

/// How often somebody who is late is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much later than it said an observer may look; see also [`Liveness::look_by`].
const LATE: Duration = Duration::from_secs(3);

/// One observer's measurements.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    seen: BTreeMap<NodeName, Seen>,
    /// An observer that has not looked by then was away.
    away_after: Option<Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    version: Option<i32>,
    at: Moment,
}

impl Liveness {
    /// Takes note of what is seen now; to be called at every change of the view and of the session. `current`: the session is
    /// healthy, and the view complete ever since it became so.
    pub fn observe(&mut self, view: &ClusterView, current: bool, now: Moment) {
        let was_away = self.away_after.take().is_some_and(|latest| now > latest);
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

    /// Nobody could say anything before that: no silence began earlier.
    pub fn not_before(&mut self, earliest: Moment) {
        for seen in self.seen.values_mut() {
            seen.at = seen.at.max(earliest);
        }
    }

    /// When `me`, who has just observed and concludes something from a silence of `shortest` or longer, observes again at the latest:
    /// when somebody who should speak has been silent for a quarter of that, and every second from then on; `None`: when something
    /// changes. So of what is taken for silence at most half can be a freeze that was not noticed.
    pub fn look_by(
        &mut self,
        me: &NodeName,
        view: &ClusterView,
        shortest: Duration,
        now: Moment,
    ) -> Option<Moment> {
        let awaited = view.good_nodes().filter(|node| node.name != *me && is_awaited(node, view));
        let due = awaited.filter_map(|node| Some(self.seen.get(&node.name)?.at + shortest / 4));
        let at = due.min().map(|due| if due > now { due } else { now + LOOK_EVERY });
        self.away_after = at.map(|at| at + LATE.min(shortest / 4));
        at
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

/// Whose silence means something: who said that it works, and who is being fenced.
fn is_awaited(node: &Node, view: &ClusterView) -> bool {
    node.daemon_state.value == DaemonState::Run || view.fences.contains_key(&node.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        command::testing::{field, name, node},
        model::Entry,
    };

    fn view(versions: &[(&str, i32)]) -> ClusterView {
        let entry = |(n, version): &(&str, i32)| {
            let node = crate::model::Node { keepalive_version: Some(*version), ..node(n) };
            (name(n), Arc::new(Entry::Good(node)))
        };
        ClusterView { nodes: Arc::new(versions.iter().map(entry).collect()), ..ClusterView::default() }
    }

    const SHORTEST: Duration = Duration::from_secs(30);

    /// Observes, as `me` would; answers the second by which it looks again.
    fn look(l: &mut Liveness, at: u64, view: &ClusterView, current: bool) -> Option<u64> {
        l.observe(view, current, Moment::secs(at));
        l.look_by(&name("me"), view, SHORTEST, Moment::secs(at)).map(|at| at.0.as_secs())
    }

    /// Observes every second, both ends included.
    fn watch(l: &mut Liveness, seconds: std::ops::RangeInclusive<u64>, view: &ClusterView, current: bool) {
        for second in seconds {
            look(l, second, view, current);
        }
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
    fn time_in_which_nobody_could_write_is_no_silence() {
        let mut l = Liveness::default();
        watch(&mut l, 100..=120, &view(&[("x", 1)]), true);
        l.not_before(Moment::secs(115));
        assert_eq!(silence(&l, 120), 5);
        l.not_before(Moment::secs(90));
        assert_eq!(silence(&l, 120), 5);
    }

    #[test]
    fn time_in_which_the_observer_was_frozen_is_not_silence_of_others() {
        let mut l = Liveness::default();
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        watch(&mut l, 170..=171, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 171), 1);
    }

    #[test]
    fn while_everybody_speaks_it_looks_when_they_speak_and_then_every_second() {
        let mut l = Liveness::default();
        for keepalive in 0..10_i32 {
            let spoke = 100 + 5 * u64::from(keepalive.unsigned_abs());
            assert_eq!(look(&mut l, spoke, &view(&[("me", 1), ("x", keepalive)]), true), Some(spoke + 7));
        }
        let silent = view(&[("me", 1), ("x", 9)]);
        assert_eq!(look(&mut l, 152, &silent, true), Some(152), "in half a second");
        assert_eq!(look(&mut l, 153, &silent, true), Some(154));
        assert_eq!(silence(&l, 153), 8, "it was not away, though it has not looked for seven seconds");
    }

    #[test]
    fn a_freeze_ends_the_measurement_whether_or_not_somebody_was_late_when_it_began() {
        for began in [101, 120] {
            let mut l = Liveness::default();
            watch(&mut l, 100..=began, &view(&[("x", 1)]), true);
            look(&mut l, began + 12, &view(&[("x", 1)]), true);
            assert_eq!(silence(&l, began + 12), 0);
        }
    }

    #[test]
    fn the_shorter_the_silence_that_counts_the_shorter_the_freeze_that_is_noticed() {
        let (mut l, x) = (Liveness::default(), view(&[("x", 1)]));
        let mut look = |ms: u64| {
            let now = Moment(Duration::from_millis(ms));
            l.observe(&x, true, now);
            let by = l.look_by(&name("me"), &x, Duration::from_secs(3), now);
            (l.silence(&name("x"), now).as_millis(), by.map(|by| by.0.as_millis()))
        };
        assert_eq!(look(1000), (0, Some(1750)));
        assert_eq!(look(1750), (750, Some(2750)));
        assert_eq!(look(3500), (2500, Some(4500)), "three quarters late: the machine was busy");
        assert_eq!(look(5251), (0, Some(6001)), "more: that was a freeze");
    }

    #[test]
    fn nobody_is_looked_after_who_need_not_speak() {
        let (mut l, mut alone) = (Liveness::default(), view(&[("me", 1), ("x", 1)]));
        let Entry::Good(x) = &*alone.nodes[&name("x")] else { unreachable!() };
        let stopped = crate::model::Node { daemon_state: field(DaemonState::Stop), ..x.clone() };
        Arc::make_mut(&mut alone.nodes).insert(name("x"), Arc::new(Entry::Good(stopped)));
        assert_eq!(look(&mut l, 100, &alone, true), None);
        assert_eq!(look(&mut l, 500, &alone, true), None);
        assert_eq!(silence(&l, 500), 400, "nothing was promised, so nothing was missed");
        assert_eq!(look(&mut l, 501, &alone, false), None, "without the store nothing is measured");
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
