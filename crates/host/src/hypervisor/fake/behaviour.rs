//! How a VM, a guest or a peer behaves, and how often each call was made.

use std::time::Duration;

/// How a VM's starts, power button and power-offs go from now on. The default does everything at once.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Starting.
    pub start: Answer,
    /// Letting it go.
    pub resume: Answer,
    /// Suspending.
    pub suspend: Answer,
    /// Powering off.
    pub power_off: Answer,
    /// Its power button.
    pub power_button: PowerButton,
    /// Its migrations from here.
    pub journey: Journey,
}

/// How one kind of change goes.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// How long it takes. Longer than the caller's deadline means done, but after the caller was told `Deadline`.
    pub after: Duration,
    /// What comes of it then.
    pub outcome: Outcome,
}

/// What comes of a change.
#[derive(Debug, Clone, Default)]
pub enum Outcome {
    /// Done and said so.
    #[default]
    Done,
    /// Done, but the answer never arrives.
    Lost,
    /// Not done, and no answer arrives.
    Hangs,
    /// Not done, for this reason.
    Refused(String),
}

/// What a guest does when its power button is pressed.
#[derive(Debug, Clone, Copy, Default)]
pub enum PowerButton {
    /// Nothing.
    #[default]
    Ignored,
    /// It is off after this time.
    Obeyed(Duration),
}

/// Whether calls arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// They do.
    Up,
    /// They fail at once.
    Down,
    /// They wait for their deadline, or for better times.
    Frozen,
}

/// How often each method was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the methods of the trait")]
pub struct Counts {
    pub active: u64,
    pub seen: u64,
    pub start: u64,
    pub ask_to_shut_down: u64,
    pub power_off: u64,
    pub migrate: u64,
    pub migration: u64,
    pub abort_migration: u64,
    pub suspend: u64,
    pub resume: u64,
    pub seen_at: u64,
    pub has_left: u64,
}

/// How a VM's migrations from a node go.
#[derive(Debug, Clone)]
pub struct Journey {
    /// How long copying takes; `None`: the guest changes its memory faster than it can be copied.
    pub copying: Option<Duration>,
    /// For how long the guest is held.
    pub pause: Duration,
    /// What comes of it. `Hangs` copies nothing, without end.
    pub outcome: Outcome,
    /// A failure after copying, instead of the guest's arrival.
    pub fails_at_switch: bool,
    /// The target's answer that all has arrived is lost: the source waits for it so long, then it lets its guest go on.
    pub reply_lost: Option<Duration>,
    /// How long the source's process takes to end.
    pub teardown: Duration,
    /// What is left if the source's libvirt ends while the guest is held on both sides.
    pub cut_at_switch: Switch,
}

/// What is left of a migration whose source lost its libvirt at the worst moment: on the source a guest that is held, and
/// on the target …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// … all of the guest.
    #[default]
    Arrived,
    /// … nothing.
    Lost,
}

impl Default for Journey {
    fn default() -> Self {
        Self {
            copying: Some(Duration::ZERO),
            pause: Duration::ZERO,
            outcome: Outcome::Done,
            fails_at_switch: false,
            reply_lost: None,
            teardown: Duration::ZERO,
            cut_at_switch: Switch::default(),
        }
    }
}
