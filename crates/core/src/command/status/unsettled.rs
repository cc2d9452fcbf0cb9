//! The VMs that are not as asked, each by itself, for who watches.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Facts, Survey};
use crate::model::{Entry, Vm, VmId, VmState};

/// A VM that is not as asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// Its UUID.
    pub id: VmId,
    /// Its name; its UUID, if its keys cannot be read.
    pub name: String,
    /// What is asked of it; `None` here and below: its keys cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// The node that is to do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `is to run and is not seen running`.
    pub what: Cow<'static, str>,
}

/// The VMs that are not as asked, the worst first and then by name: `most` of them, and how many more there are.
pub fn unsettled(facts: Facts<'_>, most: usize) -> (Vec<Unsettled>, usize) {
    let survey = Survey { facts, findings: Vec::new() };
    let mut all: Vec<_> = facts
        .view
        .vms
        .iter()
        .filter_map(|(id, entry)| {
            let (group, vm) = survey.group_of(entry)?;
            let name = vm.map_or_else(|| id.to_string(), |vm| vm.name.to_string());
            Some((group, name, *id, vm))
        })
        .collect();
    let more = all.len().saturating_sub(most);
    all.sort_unstable_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
    all.truncate(most);
    let shown = |(group, name, id, vm): (super::vms::Group, String, VmId, Option<&Vm>)| Unsettled {
        id,
        name,
        state: vm.map(|vm| vm.state.value),
        node: vm.map(|vm| vm.node.value.to_string()),
        what: group.words(false).into(),
    };
    (all.into_iter().map(shown).collect(), more)
}

impl Survey<'_> {
    fn group_of<'a>(&self, entry: &'a Entry<Vm>) -> Option<(super::vms::Group, Option<&'a Vm>)> {
        let vm = entry.good();
        Some((self.group_with_problems(vm)?, vm))
    }
}
