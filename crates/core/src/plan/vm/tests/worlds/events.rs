//! What happens to the worlds.

use proptest::prelude::*;

use super::{NODES, VmState};
use VmState::{Migrate, Start};

#[derive(Debug, Clone)]
pub(super) enum Event {
    Desired(VmState, usize),
    Look(usize),
    Step(usize),
    /// All nodes look and step.
    Round,
    /// The daemon.
    Crash(usize),
    /// The guest.
    Vanish(usize),
    Advance,
    Fail,
    /// The target's last answer, that all has arrived, is lost.
    LoseReply,
    /// libvirt; in the middle of a switch, the flag says whether the guest arrives.
    Restart(usize, bool),
    /// The machine; as above.
    Die(usize, bool),
    Fence(usize),
    Cut(bool),
    /// The guest begins to change its memory faster than it can be sent.
    Hurry,
    /// Starts there are given up from now on, or no longer.
    Slow(usize, bool),
    /// libvirt does what it was asked long ago.
    Late(usize),
    Pass(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![
        1 => proptest::sample::select(VmState::ALL.to_vec()),
        2 => Just(Migrate),
        2 => Just(Start),
    ];
    let n = || 0..NODES.len();
    prop_oneof![
        2 => (state, n()).prop_map(|(s, n)| Event::Desired(s, n)),
        2 => n().prop_map(Event::Look),
        4 => n().prop_map(Event::Step),
        6 => Just(Event::Round),
        1 => n().prop_map(Event::Crash),
        1 => n().prop_map(Event::Vanish),
        2 => Just(Event::Advance),
        1 => Just(Event::Fail),
        1 => Just(Event::LoseReply),
        2 => (n(), any::<bool>()).prop_map(|(n, b)| Event::Restart(n, b)),
        1 => (n(), any::<bool>()).prop_map(|(n, b)| Event::Die(n, b)),
        2 => n().prop_map(Event::Fence),
        1 => any::<bool>().prop_map(Event::Cut),
        1 => Just(Event::Hurry),
        2 => (n(), any::<bool>()).prop_map(|(n, slow)| Event::Slow(n, slow)),
        2 => n().prop_map(Event::Late),
        1 => (0u16..40).prop_map(Event::Pass),
    ]
}

/// A migration with its way cleared, and some events in the middle of it: left to chance, few would come so far.
fn journey() -> impl Strategy<Value = Vec<Event>> {
    let before = (0..NODES.len(), 3_usize..8, 0_usize..4);
    let n = 0..NODES.len();
    // What only its end has: the target's answer is lost, and then the source, or the target.
    let end = proptest::option::weighted(0.3, (any::<bool>(), n));
    let events = proptest::collection::vec(event(), 0..6);
    (before, end, events).prop_map(|((to, rounds, advances), end, events)| {
        let mut all: Vec<Event> = (0..NODES.len()).map(Event::Fence).collect();
        all.extend([Event::Cut(false), Event::Round, Event::Desired(Migrate, to)]);
        all.extend(std::iter::repeat_n(Event::Round, rounds));
        all.extend(std::iter::repeat_n(Event::Advance, advances));
        if let Some((dies, n)) = end {
            all.push(Event::LoseReply);
            all.extend(if dies {
                vec![Event::Die(n, true), Event::Fence(n)]
            } else {
                vec![Event::Vanish(n)]
            });
        }
        all.extend(events);
        all
    })
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let part = prop_oneof![3 => journey(), 1 => proptest::collection::vec(event(), 1..20)];
    proptest::collection::vec(part, 1..8).prop_map(|parts| parts.concat())
}
