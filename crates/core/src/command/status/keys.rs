//! What is the case with the tree itself: keys that cannot be read, names that several VMs have.

use std::collections::BTreeMap;

use super::{NAMED, Survey};
use crate::model::{Entry, Problem, VmId, VmName};

impl Survey<'_> {
    /// Old clients define a second VM of a name; both run.
    pub(super) fn shared_names(&mut self) {
        let mut ids: BTreeMap<&VmName, Vec<VmId>> = BTreeMap::new();
        for vm in self.facts.view.good_vms() {
            ids.entry(&vm.name).or_default().push(vm.id);
        }
        let shared: Vec<_> = ids.into_iter().filter(|(_, ids)| ids.len() > 1).collect();
        for (name, ids) in shared.iter().take(NAMED) {
            let ids: Vec<String> = ids.iter().map(VmId::to_string).collect();
            let what = format!(
                "{} VMs are called {name} and can only be told apart by UUID: {}",
                ids.len(),
                ids.join(", ")
            );
            self.notice(what, Some("pvc vm list".to_owned()));
        }
    }

    pub(super) fn broken_keys(&mut self) {
        let view = self.facts.view;
        let broken = view.all_nodes().map(|node| &node.problems);
        let vms = view.vms.values().flat_map(|entry| entry.problems());
        let claims = view.orphan_claims.values().filter_map(|entry| match entry.as_ref() {
            Entry::Bad(problems) => Some(problems),
            Entry::Good(_) => None,
        });
        let all: Vec<&Problem> =
            broken.chain(claims).flatten().chain(vms).chain(view.strays.iter()).collect();
        for problem in all.iter().take(NAMED) {
            self.wrong(format!("broken key {problem}"), None);
        }
        if all.len() > NAMED {
            self.wrong(
                format!("and {} more broken keys", all.len() - NAMED),
                Some("pvc vm list; pvc node list".to_owned()),
            );
        }
    }
}
