//! Nobody starts a VM that another node said last that it executes.
//!
//! Part of number 2: what a node's `runningdomains` says, and no claim has answered since, stands until the node says otherwise or is proven
//! dead (decision 73). Judged when a claim is made, by a node that does not have the VM.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{FenceJob, NodeName, VmId};

use crate::keys;
use crate::{
    event::{Change, Commit},
    tree::Tree,
    truth::Truth,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    /// What each node said last, and in which transaction.
    said: BTreeMap<NodeName, (i64, BTreeSet<VmId>)>,
    /// In which transaction each claim was written last; without an entry there is none.
    claimed: BTreeMap<VmId, i64>,
}

impl LastWords {
    pub(super) fn step(&mut self, truth: &Truth, tree: &Tree, commit: &Commit) -> Result<(), String> {
        for change in &commit.changes {
            if let Some((node, "runningdomains")) = keys::of_node(&change.path) {
                let running = change.is().split_whitespace().filter_map(|id| id.parse().ok()).collect();
                self.said.insert(node, (commit.zxid, running));
            }
            let Some((vm, "claim")) = keys::of_vm(&change.path) else { continue };
            self.claimable(truth, tree, commit, change, vm)?;
            match change.after {
                Some(_) => self.claimed.insert(vm, commit.zxid),
                None => self.claimed.remove(&vm),
            };
        }
        Ok(())
    }

    fn claimable(
        &self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        change: &Change,
        vm: VmId,
    ) -> Result<(), String> {
        let Some(by) = commit.daemon() else { return Ok(()) };
        let has_it = truth.guests.get(&vm).is_some_and(|runs| runs.contains_key(by));
        if !change.was().is_empty() || change.is() != by.as_str() || has_it {
            return Ok(());
        }
        let claimed = self.claimed.get(&vm).copied().unwrap_or_default();
        let says = |node: &NodeName, (zxid, running): &(i64, BTreeSet<VmId>)| {
            node != by && *zxid > claimed && running.contains(&vm) && !is_dead(tree, node)
        };
        match self.said.iter().find(|(node, word)| says(node, word)) {
            Some((node, _)) => {
                Err(format!("{by} claims {vm}, and the last word of {node} is that it executes there"))
            }
            None => Ok(()),
        }
    }
}

fn is_dead(tree: &Tree, node: &NodeName) -> bool {
    let proven =
        |text: &str| serde_json::from_str::<FenceJob>(text).is_ok_and(|job| job.step.proof().is_some());
    tree.node(node, "daemonstate") == "dead" && tree.text(&format!("/pvc/fence/{node}")).is_none_or(proven)
}
