//! What executes, or may, and is not in the tree: what is left of VMs that a client has undefined, and what nobody in the cluster knows of.

use std::collections::{BTreeMap, BTreeSet};

use super::{Survey, listed};
use crate::model::{DaemonState, Node, NodeName, VmId};

/// The VMs that are not in the tree and that some node reports, each with the nodes that do.
type Reported<'a> = BTreeMap<VmId, Vec<&'a NodeName>>;

impl<'a> Survey<'a> {
    pub(super) fn undefined(&mut self) {
        let (now, before) = (self.reported(true), self.reported(false));
        let claimed = self.facts.view.orphan_claims.keys();
        let ids: BTreeSet<VmId> = claimed.chain(now.keys()).chain(before.keys()).copied().collect();
        let (mut run, mut may_run) = (Reported::new(), Reported::new());
        for id in ids {
            let claim = self.facts.view.orphan_claim(id).map(|claim| &claim.value);
            match claim.filter(|claim| !claim.is_empty()) {
                Some(claim) => {
                    let runs = now.get(&id).and_then(|nodes| nodes.first().copied());
                    self.claimed(id, &claim.to_string(), runs, self.is_unheard(claim));
                }
                None => match (now.get(&id), before.get(&id)) {
                    (Some(nodes), _) => drop(run.insert(id, nodes.clone())),
                    (None, Some(nodes)) => drop(may_run.insert(id, nodes.clone())),
                    (None, None) => {}
                },
            }
        }
        if let Some((listed, on, first, many)) = words(&run) {
            let verbs = if many { ("run", "are") } else { ("runs", "is") };
            self.wrong(format!("{listed} {} on {on} and {} not in the state tree", verbs.0, verbs.1), first);
        }
        if let Some((listed, on, first, many)) = words(&may_run) {
            let verbs = if many { ("were", "are") } else { ("was", "is") };
            let what = format!(
                "{listed} {} last seen on {on}, which does not answer, and {} not in the state tree",
                verbs.0, verbs.1
            );
            self.wrong(what, first);
        }
    }

    /// A claim is left.
    fn claimed(&mut self, id: VmId, claim: &str, runs: Option<&NodeName>, is_unheard: bool) {
        let todo = Some(format!("pvc vm explain {id}"));
        if let Some(name) = runs {
            self.wrong(format!("VM {id} is not defined any more, and runs on {name}"), todo);
        } else if is_unheard {
            let what = format!(
                "VM {id} is not defined any more, and may still run on {claim}, which does not answer"
            );
            self.wrong(what, todo);
        } else {
            self.notice(
                format!("VM {id} is not defined any more, and {claim} is about to give up its claim"),
                todo,
            );
        }
    }

    /// What nodes report that is not in the tree: those that can be asked now, or those whose guests go on without their daemons.
    fn reported(&self, works: bool) -> Reported<'a> {
        let view = self.facts.view;
        let speaks =
            |node: &&Node| node.daemon_state.value != DaemonState::Dead && self.facts.works(node) == works;
        let mut reported = Reported::new();
        for node in view.all_nodes().filter(speaks) {
            for id in node.report.running.iter().filter(|id| !view.vms.contains_key(id)) {
                let nodes = reported.entry(*id).or_default();
                if !nodes.contains(&&node.name) {
                    nodes.push(&node.name);
                }
            }
        }
        reported
    }
}

/// Which they are, where, the command about the first, and whether they are several.
fn words(reported: &Reported<'_>) -> Option<(String, String, Option<String>, bool)> {
    let first = reported.keys().next()?;
    let ids: Vec<String> = reported.keys().map(VmId::to_string).collect();
    let on: BTreeSet<&str> = reported.values().flatten().map(|node| node.as_str()).collect();
    let on = on.into_iter().collect::<Vec<_>>().join(", ");
    Some((listed(&ids), on, Some(format!("pvc vm explain {first}")), ids.len() > 1))
}
