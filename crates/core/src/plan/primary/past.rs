//! What a plan must remember of the past: since when something has been so, by this node's clock.

use crate::model::{ClusterView, Field, Moment, NodeName};

/// Kept by the reconciler; a new daemon starts with an empty one, which at worst waits a little longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    stepped_down_at: Option<Moment>,
    free: Option<(i64, Moment)>,
    wish: Option<(i64, Moment)>,
}

impl Past {
    /// Notes what a current view shows.
    pub fn saw(&mut self, view: &ClusterView, now: Moment) {
        let wish = view.primary_node.zxid;
        if self.wish.is_none_or(|(zxid, _)| zxid != wish) {
            self.wish = Some((wish, now));
        }
        match (&view.primary_holder, self.free) {
            (Some(_), _) => self.free = None,
            (None, Some((zxid, _))) if zxid == wish => {}
            (None, _) => self.free = Some((wish, now)),
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

    /// Since when nobody has been primary under the present wish.
    pub fn free_since(&self) -> Option<Moment> {
        self.free.map(|(_, since)| since)
    }

    /// Since when this has been the wish.
    pub fn wished_since(&self, wish: &Field<Option<NodeName>>) -> Option<Moment> {
        self.wish.filter(|(zxid, _)| *zxid == wish.zxid).map(|(_, since)| since)
    }
}
