//! What a plan must remember of the past: since when something has been so, by this node's clock.

use crate::model::{ClusterView, Field, Moment, NodeName};

/// Kept by the reconciler; a new daemon starts with an empty one, which at worst waits a little longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    stepped_down_at: Option<Moment>,
    free: Option<(i64, Moment)>,
    desired: Option<(i64, Moment)>,
}

impl Attempts {
    /// Notes what a current view shows.
    pub fn saw(&mut self, view: &ClusterView, now: Moment) {
        let desired = view.primary_node.zxid;
        if self.desired.is_none_or(|(zxid, _)| zxid != desired) {
            self.desired = Some((desired, now));
        }
        match (&view.primary_holder, self.free) {
            (Some(_), _) => self.free = None,
            (None, Some((zxid, _))) if zxid == desired => {}
            (None, _) => self.free = Some((desired, now)),
        }
    }

    /// This node gave the key back.
    pub fn stepped_down(&mut self, now: Moment) {
        self.stepped_down_at = Some(now);
    }

    /// When this node gave the key back last.
    pub fn stepped_down_at(&self) -> Option<Moment> {
        self.stepped_down_at
    }

    /// Since when nobody has been primary under the present desired state.
    pub fn free_since(&self) -> Option<Moment> {
        self.free.map(|(_, since)| since)
    }

    /// Since when this has been the desired state.
    pub fn desired_since(&self, desired: &Field<Option<NodeName>>) -> Option<Moment> {
        self.desired.filter(|(zxid, _)| *zxid == desired.zxid).map(|(_, since)| since)
    }
}
