//! Whether this node guards itself by a reset, and when that reset comes.
//!
//! Two decisions: [`plan`] is the daemon's, at each acknowledged keepalive and each change of the desired state; [`Guarded::act`] is that
//! of the thread that watches the daemon. The state tree never says that a node resets itself when it does not: what it says is written
//! after arming, and withdrawn before disarming; a write whose answer was lost may have been done. Others take silence for death by it.
//! Never reads a clock and never touches the machine.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::model::Moment;

/// How often a device is fed that does not tell its time-out.
const UNKNOWN_TIMEOUT_FEED: Duration = Duration::from_secs(1);

/// Everything that [`plan`] is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// `suicide_intervals` × `keepalive_interval`; `None`: this node never resets itself.
    pub within: Option<Duration>,
    /// Maintenance is on.
    pub maintenance: bool,
    /// The daemon was asked to stop.
    pub stopping: bool,
    /// A keepalive was acknowledged since the last look.
    pub acknowledged: bool,
    /// What guards this node now.
    pub armed: Option<Promise>,
    /// What the state tree says of it.
    pub told: Told,
}

/// What is known of what the state tree says about a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is known to promise nothing.
    Nothing,
    /// It is known to say this.
    Known(Promise),
    /// A write of it was not answered, or somebody else wrote it: it may promise anything, so nothing is disarmed.
    Unknown,
}

impl Told {
    /// What the tree says once that was written.
    pub fn written(promise: Option<Promise>) -> Self {
        promise.map_or(Self::Nothing, Self::Known)
    }
}

/// After how many seconds without an acknowledged keepalive a node has certainly been reset. `None` inside: it is watched, but by
/// nothing that outlives its daemon, so that nobody may count on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise(pub Option<u32>);

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A reset comes unless it is fed within that time.
    Arm(Duration),
    /// A keepalive was acknowledged.
    Feed,
    /// Write what the others may count on.
    Tell(Option<Promise>),
    /// No reset comes.
    Disarm,
}

/// The next step; `None`: nothing to do until something changes.
pub fn plan(f: &Facts) -> Option<Step> {
    // Whatever is desired: as long as it is armed it is fed, or the way to disarming would be the reset.
    if f.armed.is_some() && f.acknowledged {
        return Some(Step::Feed);
    }
    match f.within.filter(|_| !f.maintenance && !f.stopping) {
        // A reset that nothing brings about is promised to nobody, however that came into the tree.
        Some(_) if f.armed.is_none() && f.told != Told::Nothing => Some(Step::Tell(None)),
        Some(within) if f.armed.is_none() => f.acknowledged.then_some(Step::Arm(within)),
        Some(_) if f.told != Told::written(f.armed) => Some(Step::Tell(f.armed)),
        Some(_) => None,
        None if f.told != Told::Nothing => Some(Step::Tell(None)),
        None => f.armed.is_some().then_some(Step::Disarm),
    }
}

/// What a watchdog device does by itself when it is not fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// There is none.
    None,
    /// It resets the machine after that time.
    After(Duration),
    /// As `After`, but it is a timer of the kernel that it shall reset: one that hangs never fires.
    Software(Duration),
    /// It resets the machine, but does not tell when.
    Unknown,
}

impl Device {
    /// What the others may count on while it is armed for that time: the daemon may be frozen or killed at any moment, so what
    /// does not tell when it fires proves nothing, nor does what hangs with the kernel.
    pub fn promise(self, within: Duration) -> Promise {
        let seconds = |time: Duration| {
            u32::try_from(time.as_secs() + u64::from(time.subsec_nanos() > 0)).unwrap_or(u32::MAX)
        };
        Promise(match self {
            Self::After(timeout) => Some(seconds(within.max(timeout))),
            Self::None | Self::Software(_) | Self::Unknown => None,
        })
    }
}

/// An armed guard, as its thread sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarded {
    /// When the last acknowledged keepalive was sent, plus the time allowed.
    pub deadline: Moment,
    /// When the device was last fed.
    pub fed: Moment,
    /// The device.
    pub device: Device,
}

/// What the thread does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Look again then at the latest.
    Wait(Moment),
    /// Feed the device.
    Feed,
    /// The time is over: reset the machine.
    End,
}

impl Guarded {
    /// Decides it. A device whose time-out is shorter than the time allowed is fed in between, but never so late that it would
    /// fire after the deadline.
    pub fn act(&self, now: Moment) -> Act {
        if now >= self.deadline {
            return Act::End;
        }
        let (every, last) = match self.device {
            Device::None => return Act::Wait(self.deadline),
            Device::After(timeout) | Device::Software(timeout) => (timeout / 3, self.deadline - timeout),
            Device::Unknown => (UNKNOWN_TIMEOUT_FEED, self.deadline),
        };
        let due = self.fed + every;
        if due > last {
            Act::Wait(self.deadline)
        } else if now >= due {
            Act::Feed
        } else {
            Act::Wait(due)
        }
    }
}
