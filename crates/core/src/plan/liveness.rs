//! How long each node has been silent, as one observer measured it: the time since its mirror last heard that the node's `keepalive`
//! key changed, or it saw the node said to be anything but dead, while its own session was healthy.
//!
//! Never compares wall clocks, and never counts time in which nothing could have been seen: after a gap in the observer's session,
//! in its own keepalives (a server without a leader still answers what is read, for seconds), or in its own attention (it was frozen),
//! every measurement starts over. An observer that concludes something from silence says
//! when it looks again ([`Liveness::look_by`]); one that comes too late for that was not attentive. No keepalive wakes it: when it looks,
//! it finds noted when each node was heard last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    model::{ClusterView, DaemonState, Moment, Node, NodeName},
    sabotage::{self, Bug},
};

/// How often somebody who is late is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much later than it said an observer may look; see also [`Liveness::look_by`].
const LATE: Duration = Duration::from_secs(3);

/// How long a node may leave its next keepalive out before one is missing, with some patience for the store.
pub fn longest_gap(every: Duration) -> Duration {
    every * 7 / 4
}

/// The longest interval that the manual advises: to slow nodes.
const SLOW: Duration = Duration::from_secs(30);

/// After how long a node's next keepalive is due: as it says itself, since slow nodes speak less often; as the observer does, who
/// speaks every `own`, while it has not said; as a slow node's if what it says cannot be read.
pub fn interval(node: &Node, own: Duration) -> Duration {
    match node.keepalive_interval {
        _ if sabotage::commits(Bug::OwnInterval) => own,
        Some(said) => said,
        None if node.cannot_read("keepalive_interval") => own.max(SLOW),
        None => own,
    }
}

/// What has been noted of all nodes' keepalives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// How often keepalives may have gone unnoticed for a while.
    pub gaps: u64,
    /// The last one of each node: a number that no other has, and when it was noted.
    pub last: BTreeMap<NodeName, (u64, Moment)>,
}

/// One observer's measurements.
#[derive(Debug, Clone)]
pub struct Liveness {
    /// How often the observer speaks.
    own: Duration,
    gaps: u64,
    seen: BTreeMap<NodeName, Seen>,
    /// Until when it is known that whoever wanted to say something could.
    taken_until: Option<Moment>,
    /// An observer that has not looked by then was away.
    away_after: Option<Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The number of its last keepalive, if any was noted.
    keepalive: Option<u64>,
    /// The version of its state when that was last another than `dead`: whoever registers has not been silent since its last life,
    /// and of whom somebody says that it lives, silence is measured anew.
    lives: Option<i32>,
    at: Moment,
    /// Whether it has said anything since the observer has listened without a gap.
    spoke: bool,
    /// How often it speaks.
    every: Duration,
}

impl Liveness {
    /// The measurements of an observer that speaks so often.
    pub fn new(own: Duration) -> Self {
        Self { own, gaps: 0, seen: BTreeMap::new(), taken_until: None, away_after: None }
    }

    /// Takes note of what is seen now, and of what was heard; to be called at every change of the session. `current`: the session is
    /// healthy, and the view complete ever since it became so.
    pub fn observe(&mut self, view: &ClusterView, heard: &Heard, current: bool, now: Moment) {
        let was_away = self.away_after.take().is_some_and(|latest| now > latest);
        let missed_some = std::mem::replace(&mut self.gaps, heard.gaps) != heard.gaps;
        if (was_away || missed_some || !current) && !sabotage::commits(Bug::CountGapAsSilence) {
            self.seen.clear();
        }
        self.taken_until = None;
        if !current {
            return;
        }
        self.seen.retain(|name, _| view.node(name).is_some());
        for node in view.all_nodes() {
            let last = heard.last.get(&node.name);
            let (keepalive, every) = (last.map(|(number, _)| *number), interval(node, self.own));
            let says = (node.daemon_state.value != DaemonState::Dead).then_some(node.daemon_state.version);
            let lives = says.flatten();
            let first = Seen { keepalive, lives, at: now, spoke: false, every };
            let seen = self.seen.entry(node.name.clone()).or_insert(first);
            seen.every = every;
            let lives = says.unwrap_or(seen.lives);
            if seen.lives != lives {
                *seen = Seen { keepalive, lives, at: now, spoke: true, every };
            } else if seen.keepalive != keepalive {
                let at = last.map_or(now, |(_, at)| *at).max(seen.at);
                *seen = Seen { keepalive, lives, at, spoke: true, every };
            }
        }
    }

    /// The observer's own keepalives were taken `since` then without a gap, the last of them when it was sent, at `until`. Nobody
    /// could say anything before: no silence began earlier. Nor is it known who could say anything later, but for the gap that is
    /// nobody's: an observer that speaks seldom hears late that the store takes nothing.
    pub fn writes_were_taken(&mut self, since: Moment, until: Moment) {
        for seen in self.seen.values_mut() {
            seen.at = seen.at.max(since);
        }
        self.taken_until = Some(until);
    }

    /// When `me`, who has just observed and concludes something from a silence of `patience` or longer, which may be another for each
    /// node, observes again at the latest: when somebody who should speak has been silent for a quarter of that, and every second from
    /// then on; `None`: when something changes. So of what is taken for silence at most half can be a freeze that was not noticed.
    pub fn look_by(
        &mut self,
        me: &NodeName,
        view: &ClusterView,
        patience: impl Fn(&Node) -> Duration,
        now: Moment,
    ) -> Option<Moment> {
        let awaited = view.all_nodes().filter(|node| node.name != *me && is_awaited(node, view));
        let due = awaited
            .filter_map(|node| Some((self.seen.get(&node.name)?.at + patience(node) / 4, patience(node))));
        let (at, shortest) = due.reduce(|(a, p), (b, q)| (a.min(b), p.min(q)))?;
        let at = if at > now { at } else { now + LOOK_EVERY };
        self.away_after = Some(at + LATE.min(shortest / 4));
        Some(at)
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
        self.seen.get(node).map_or(Duration::ZERO, |seen| {
            let known = self.taken_until.map_or(now, |until| now.min(until + longest_gap(seen.every)));
            known.since(seen.at)
        })
    }

    /// Whether a node has said anything since this observer has listened. One that has not may have been off for long, though its
    /// silence, as far as it is known, is short yet.
    pub fn spoke(&self, node: &NodeName) -> bool {
        self.seen.get(node).is_some_and(|seen| seen.spoke)
    }

    /// When a node's silence will have lasted so long, if it goes on, and if that will be known.
    pub fn silent_for(&self, node: &NodeName, silence: Duration, now: Moment) -> Option<Moment> {
        let at = self.seen.get(node)?.at + silence;
        Some(if at > now { at } else { now + LOOK_EVERY })
    }

    /// The nodes that have missed so many of their keepalives.
    pub fn have_missed(&self, keepalives: u32, now: Moment) -> BTreeSet<NodeName> {
        let missed = |(node, seen): (&NodeName, &Seen)| {
            (self.silence(node, now) > seen.every * keepalives).then(|| node.clone())
        };
        self.seen.iter().filter_map(missed).collect()
    }
}

/// Whose silence means something: who should speak, and who is being fenced.
fn is_awaited(node: &Node, view: &ClusterView) -> bool {
    node.should_speak() || view.fences.contains_key(&node.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        command::testing::{field, heard, name, node},
        model::Field,
    };

    fn view(versions: &[(&str, i32)]) -> ClusterView {
        let entry = |(n, version): &(&str, i32)| {
            let node = crate::model::Node { keepalive_version: Some(*version), ..node(n) };
            (name(n), Arc::new(node))
        };
        ClusterView { nodes: Arc::new(versions.iter().map(entry).collect()), ..ClusterView::default() }
    }

    #[test]
    fn a_node_is_due_as_it_says_and_as_a_slow_one_if_that_cannot_be_read() {
        let s = Duration::from_secs;
        let mut said = node("a");
        for (interval, due) in [(None, 5), (Some(s(1)), 1), (Some(s(20)), 20)] {
            said.keepalive_interval = interval;
            assert_eq!(interval_of(&said), s(due), "{interval:?}");
        }
        said.keepalive_interval = None;
        let key = "/nodes/a/keepalive_interval".to_owned();
        said.problems.push(crate::model::Problem { key, what: "no number".into() });
        assert_eq!(interval_of(&said), SLOW);
        assert_eq!(interval(&said, s(60)), s(60), "the observer is slower still");
    }

    fn interval_of(node: &Node) -> Duration {
        interval(node, Duration::from_secs(5))
    }

    const SHORTEST: Duration = Duration::from_secs(30);

    /// Observes, as `me` would; answers the second by which it looks again.
    fn look(l: &mut Liveness, at: u64, view: &ClusterView, current: bool) -> Option<u64> {
        l.observe(view, &heard(view, Moment::secs(at)), current, Moment::secs(at));
        l.look_by(&name("me"), view, |_| SHORTEST, Moment::secs(at)).map(|at| at.0.as_secs())
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
        let mut l = Liveness::new(Duration::from_secs(5));
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 110), 10);
        watch(&mut l, 111..=120, &view(&[("x", 2)]), true);
        assert_eq!(silence(&l, 120), 9);
        let thirty = |now| l.silent_for(&name("x"), Duration::from_secs(30), Moment::secs(now));
        assert_eq!(thirty(120), Some(Moment::secs(141)));
        assert_eq!(thirty(150), Some(Moment::secs(151)), "it has come, and is looked for again");
    }

    #[test]
    fn a_version_that_goes_back_is_a_change_too() {
        let mut l = Liveness::new(Duration::from_secs(5));
        watch(&mut l, 100..=110, &view(&[("x", 7)]), true);
        watch(&mut l, 111..=112, &view(&[("x", 0)]), true);
        assert_eq!(silence(&l, 112), 1, "the node was removed and registered anew");
    }

    #[test]
    fn after_a_gap_in_the_session_every_measurement_starts_over() {
        let mut l = Liveness::new(Duration::from_secs(5));
        watch(&mut l, 100..=120, &view(&[("x", 1)]), true);
        watch(&mut l, 121..=121, &view(&[("x", 1)]), false);
        assert_eq!(silence(&l, 121), 0);
        watch(&mut l, 122..=130, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 130), 8);
    }

    #[test]
    fn time_in_which_nobody_could_write_is_no_silence() {
        let mut l = Liveness::new(Duration::from_secs(5));
        watch(&mut l, 100..=120, &view(&[("x", 1)]), true);
        l.writes_were_taken(Moment::secs(115), Moment::secs(120));
        assert_eq!(silence(&l, 120), 5);
        l.writes_were_taken(Moment::secs(90), Moment::secs(120));
        assert_eq!(silence(&l, 120), 5);
    }

    #[test]
    fn who_registers_has_not_been_silent_since_its_last_life() {
        let mut l = Liveness::new(Duration::from_secs(5));
        let says = |state, version| {
            let x =
                Node { daemon_state: Field { value: state, version: Some(version), zxid: 1 }, ..node("x") };
            ClusterView { nodes: Arc::new([(name("x"), Arc::new(x))].into()), ..ClusterView::default() }
        };
        watch(&mut l, 100..=140, &says(DaemonState::Run, 7), true);
        watch(&mut l, 141..=150, &says(DaemonState::Dead, 8), true);
        assert_eq!(silence(&l, 150), 50, "others say that it is dead, it says nothing");
        watch(&mut l, 151..=160, &says(DaemonState::Init, 9), true);
        assert_eq!(silence(&l, 160), 9);
        watch(&mut l, 161..=170, &says(DaemonState::Dead, 10), true);
        watch(&mut l, 171..=180, &says(DaemonState::Run, 11), true);
        assert_eq!(silence(&l, 180), 9, "its fence was called off: it is waited for anew");
    }

    #[test]
    fn an_observer_that_speaks_seldom_counts_no_silence_that_it_cannot_know_of() {
        let mut l = Liveness::new(Duration::from_secs(30));
        let every = |seconds| {
            let x = Node { keepalive_interval: Some(Duration::from_secs(seconds)), ..node("x") };
            ClusterView { nodes: Arc::new([(name("x"), Arc::new(x))].into()), ..ClusterView::default() }
        };
        for (seconds, known) in [(1, 1), (4, 7), (30, 20)] {
            watch(&mut l, 100..=120, &every(seconds), true);
            l.writes_were_taken(Moment::secs(90), Moment::secs(100));
            assert_eq!(silence(&l, 120), known, "of a node that speaks every {seconds} s");
        }
        l.writes_were_taken(Moment::secs(90), Moment::secs(120));
        assert_eq!(silence(&l, 120), 20);
    }

    #[test]
    fn keepalives_are_missed_by_the_interval_of_who_owes_them() {
        let mut l = Liveness::new(Duration::from_secs(5));
        let slow = Node { keepalive_interval: Some(Duration::from_secs(20)), ..node("slow") };
        let nodes = [slow, node("x")].map(|n| (n.name.clone(), Arc::new(n)));
        watch(
            &mut l,
            100..=130,
            &ClusterView { nodes: Arc::new(nodes.into()), ..ClusterView::default() },
            true,
        );
        let missed = |now| l.have_missed(3, Moment::secs(now)).into_iter().collect::<Vec<_>>();
        assert_eq!(missed(115), []);
        assert_eq!(missed(116), [name("x")]);
        assert_eq!(missed(161), [name("slow"), name("x")]);
    }

    #[test]
    fn time_in_which_the_observer_was_frozen_is_not_silence_of_others() {
        let mut l = Liveness::new(Duration::from_secs(5));
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        watch(&mut l, 170..=171, &view(&[("x", 1)]), true);
        assert_eq!(silence(&l, 171), 1);
    }

    #[test]
    fn it_looks_while_everybody_speaks_as_seldom_as_they_do_and_then_every_second() {
        let mut l = Liveness::new(Duration::from_secs(5));
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
            let mut l = Liveness::new(Duration::from_secs(5));
            watch(&mut l, 100..=began, &view(&[("x", 1)]), true);
            look(&mut l, began + 12, &view(&[("x", 1)]), true);
            assert_eq!(silence(&l, began + 12), 0);
        }
    }

    #[test]
    fn the_shorter_the_silence_that_counts_the_shorter_the_freeze_that_is_noticed() {
        let (mut l, x) = (Liveness::new(Duration::from_secs(5)), view(&[("x", 1)]));
        let mut look = |ms: u64| {
            let now = Moment(Duration::from_millis(ms));
            l.observe(&x, &heard(&x, now), true, now);
            let by = l.look_by(&name("me"), &x, |_| Duration::from_secs(3), now);
            (l.silence(&name("x"), now).as_millis(), by.map(|by| by.0.as_millis()))
        };
        assert_eq!(look(1000), (0, Some(1750)));
        assert_eq!(look(1750), (750, Some(2750)));
        assert_eq!(look(3500), (2500, Some(4500)), "three quarters late: the machine was busy");
        assert_eq!(look(5251), (0, Some(6001)), "more: that was a freeze");
    }

    #[test]
    fn nobody_is_looked_after_who_need_not_speak() {
        let (mut l, mut alone) = (Liveness::new(Duration::from_secs(5)), view(&[("me", 1), ("x", 1)]));
        let x = &*alone.nodes[&name("x")];
        let stopped = crate::model::Node { daemon_state: field(DaemonState::Stop), ..x.clone() };
        Arc::make_mut(&mut alone.nodes).insert(name("x"), Arc::new(stopped));
        assert_eq!(look(&mut l, 100, &alone, true), None);
        assert_eq!(look(&mut l, 500, &alone, true), None);
        assert_eq!(silence(&l, 500), 400, "nothing was promised, so nothing was missed");
        assert_eq!(look(&mut l, 501, &alone, false), None, "without the store nothing is measured");
    }

    #[test]
    fn silence_begins_when_the_keepalive_was_heard_however_late_somebody_looks() {
        let (mut l, x) = (Liveness::new(Duration::from_secs(5)), view(&[("x", 1)]));
        let mut look = |at, heard_at| {
            let last = [(name("x"), (heard_at, Moment::secs(heard_at)))].into();
            l.observe(&x, &Heard { gaps: 0, last }, true, Moment::secs(at));
            silence(&l, at)
        };
        assert_eq!(look(100, 80), 0, "what was heard before it listened is no measurement");
        assert_eq!((look(120, 113), look(121, 113)), (7, 8));
    }

    #[test]
    fn a_gap_that_was_over_before_anybody_looked_ends_the_measurement() {
        let (mut l, x) = (Liveness::new(Duration::from_secs(5)), view(&[("x", 1)]));
        for (at, gaps, silent) in [(100, 0, 0), (110, 0, 10), (115, 1, 0), (116, 1, 1)] {
            let heard = Heard { gaps, ..heard(&x, Moment::secs(100)) };
            l.observe(&x, &heard, true, Moment::secs(at));
            assert_eq!(silence(&l, at), silent);
        }
    }

    #[test]
    fn a_node_that_was_never_seen_or_is_gone_is_not_silent() {
        let mut l = Liveness::new(Duration::from_secs(5));
        assert_eq!(silence(&l, 500), 0);
        watch(&mut l, 100..=110, &view(&[("x", 1)]), true);
        watch(&mut l, 111..=111, &view(&[]), true);
        assert_eq!(silence(&l, 111), 0);
    }
}
