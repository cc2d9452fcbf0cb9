//! What nodes cannot do of client networks: how much of it, and the command that says what.

use std::collections::{BTreeMap, BTreeSet};

use super::Survey;
use crate::{
    model::{NodeName, Trouble, Vni},
    text::some,
};

impl Survey<'_> {
    pub(super) fn networks(&mut self) {
        let facts = self.facts;
        let mut of_all = BTreeMap::<&Trouble, Vec<&str>>::new();
        let mut networks = BTreeMap::<Vni, (BTreeSet<&Trouble>, BTreeSet<&NodeName>)>::new();
        for (node, troubles) in facts.networks {
            for trouble in troubles {
                let Some(vni) = trouble.network else {
                    of_all.entry(trouble).or_default().push(node.as_str());
                    continue;
                };
                let (its, nodes) = networks.entry(vni).or_default();
                its.insert(trouble);
                nodes.insert(node);
            }
        }
        for (trouble, nodes) in of_all {
            self.wrong(
                format!("client networks on {}: {}", some(&nodes), trouble.what),
                trouble.todo.clone(),
            );
        }
        for (vni, (troubles, nodes)) in networks {
            // One that has gone since concerns nobody.
            let Some(network) = facts.view.networks.get(&vni) else { continue };
            let nodes: Vec<&str> = nodes.into_iter().map(NodeName::as_str).collect();
            let count = match troubles.len() {
                1 => "1 trouble".to_owned(),
                n => format!("{n} troubles"),
            };
            let what = format!("network {vni} ({}) has {count} on {}", network.description, some(&nodes));
            self.wrong(what, Some(format!("pvc network explain {vni}")));
        }
    }
}
