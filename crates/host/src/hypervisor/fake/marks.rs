//! What a paused domain is taken for: libvirt says of it only that somebody has paused it, and a mark says who.

use pvc_core::model::VmId;

use super::{
    super::{Activity, Halt},
    State,
};

impl State {
    pub(super) fn turn(&mut self, id: VmId, activity: Activity) {
        if let Some(domain) = self.active.get_mut(&id) {
            domain.mark = of(activity).or(domain.mark);
            let paused = activity == Activity::Halted(Halt::Paused);
            domain.seen.activity = domain.mark.filter(|_| paused).unwrap_or(activity);
            let activity = domain.seen.activity;
            self.news(id, Some(activity));
        }
    }

    pub(super) fn unmark(&mut self, id: VmId) {
        if let Some(domain) = self.active.get_mut(&id) {
            domain.mark = None;
        }
    }
}

/// The mark that a domain bears which does that.
pub(super) fn of(activity: Activity) -> Option<Activity> {
    matches!(activity, Activity::Unstarted | Activity::Suspended(_) | Activity::Arrived).then_some(activity)
}
