//! 17. No write of an earlier process of a VM lands in its image after a later one's first.
//!
//! Judged object by object, since that is what Ceph promises: an OSD to which no later process has spoken may take what an earlier one sends, and whoever
//! reads there afterwards finds it. Nobody is excused, not even for a BMC that lies: the storage fence is there for just that.

use std::collections::BTreeMap;

use pvc_core::model::NodeName;

use crate::{
    checkers::Checker,
    event::{Event, Stamped},
    tree::Tree,
    truth::Truth,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// The latest process that has written to each object of an image, and where it is.
    latest: BTreeMap<(String, usize), (u64, NodeName)>,
}

impl Checker for Writes {
    fn invariant(&self) -> u8 {
        17
    }

    fn step(&mut self, _: &Truth, _: &Tree, event: &Stamped) -> Result<(), String> {
        let Event::Wrote { vm, node, image, object, process } = &event.event else { return Ok(()) };
        let latest = self.latest.entry((image.clone(), *object)).or_insert_with(|| (*process, node.clone()));
        if latest.0 > *process {
            return Err(format!(
                "an earlier process of {vm}, on {node}, has written to {image} after a later one on {}",
                latest.1
            ));
        }
        *latest = (*process, node.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, node, vm};

    fn wrote(on: &str, object: usize, process: u64) -> Event {
        Event::Wrote { vm: vm(1), node: node(on), image: "vms/vm1".into(), object, process }
    }

    #[test]
    fn an_earlier_process_writes_nothing_where_a_later_one_has_written() {
        let mut history = History::new(Writes::default());
        history.happens(wrote("a", 1, 1)).happens(wrote("b", 1, 2));
        // There it may be first.
        history.happens(wrote("a", 2, 1)).happens(wrote("b", 2, 2)).happens(wrote("a", 1, 3));
        history.violated_by(wrote("b", 1, 2), "after a later one on a");
    }
}
