//! What the store refuses to show, such as a key behind an access control list: it costs the object that it belongs to, and no other.
//! That a key may be read again is no event, so these are looked at again now and then.

use std::time::Duration;

use pvc_core::model::{NodeName, Problem, VmId};
use tokio::time::Instant;

use super::{
    dirty::{Dirty, VmParts},
    kinds::Kind,
};
use crate::{Store, StoreError};

const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The objects that could not be read.
#[derive(Debug, Default)]
pub(super) struct Refused {
    objects: Dirty,
    again_at: Option<Instant>,
}

impl Refused {
    /// When to look at them again, if there are any.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// They are to be read again.
    pub(super) fn take(&mut self) -> Dirty {
        self.again_at = None;
        std::mem::take(&mut self.objects)
    }

    pub(super) fn node(&mut self, name: &NodeName) {
        self.objects_now().nodes.insert(name.clone());
    }

    pub(super) fn vm(&mut self, id: VmId) {
        self.objects_now().vm(id, VmParts { xml: true });
    }

    pub(super) fn object(&mut self, kind: Kind, name: &str) {
        self.objects_now().object(kind, name);
    }

    fn objects_now(&mut self) -> &mut Dirty {
        self.again_at.get_or_insert_with(|| Instant::now() + LOOK_AGAIN);
        &mut self.objects
    }
}

/// The keys of an object that the store refuses to show, if that is why a reading of it failed.
pub(super) async fn keys(
    store: &dyn Store,
    outcome: Result<(), StoreError>,
    paths: impl IntoIterator<Item = String>,
) -> Result<Option<Vec<Problem>>, StoreError> {
    let Err(StoreError::Refused { .. }) = outcome else { return outcome.map(|()| None) };
    let mut problems = Vec::new();
    for key in paths {
        match store.get(&key).await {
            Err(StoreError::Refused { why, .. }) => {
                problems.push(Problem { key, what: format!("the state store refuses to show it: {why}") });
            }
            other => drop(other?),
        }
    }
    // If all can be read by now, another reading will tell.
    if problems.is_empty() { outcome.map(|()| None) } else { Ok(Some(problems)) }
}
