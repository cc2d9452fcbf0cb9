//! What works, and will not when it is needed: BMCs that cannot be used, memory that a node's death would take.

use std::collections::BTreeMap;

use super::{Survey, explain, listed};
use crate::model::{BmcWord, NodeName, VmId};

impl Survey<'_> {
    pub(super) fn bmcs(&mut self) {
        let mut by_host: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
        for (name, report) in self.facts.bmcs {
            if let Some(trouble) = report.trouble() {
                let what = format!("{name} cannot be fenced if it dies: {trouble}");
                match report.word {
                    // Perhaps by intention.
                    BmcWord::NotConfigured => self.notice(what, None),
                    _ => self.wrong(what, Some(format!("pvc node info {name}"))),
                }
            }
            if !report.host.is_empty() {
                by_host.entry(report.host.to_ascii_lowercase()).or_default().push(name);
            }
        }
        for (host, nodes) in by_host.into_iter().filter(|(_, nodes)| nodes.len() > 1) {
            let nodes: Vec<&str> = nodes.into_iter().map(NodeName::as_str).collect();
            let what = format!(
                "{} name the same BMC, {host}: fencing one may switch off another",
                nodes.join(" and ")
            );
            self.wrong(what, Some("put system.fencing.ipmi right in their pvcd.yaml".to_owned()));
        }
    }

    pub(super) fn memory(&mut self) {
        for over in &self.facts.reserve.overcommitted {
            let what = format!(
                "the VMs of {} may take {} MiB of memory, it has {}",
                over.node, over.reserved_mib, over.total_mib
            );
            self.wrong(what, explain(&over.node));
        }
        for (node, vms) in &self.facts.reserve.not_absorbed {
            let names: Vec<String> = vms.iter().map(|id| self.name(*id)).collect();
            let what = format!("if {node} dies, no node has room for {}", listed(&names));
            self.notice(what, explain(node));
        }
    }

    pub(super) fn bare(&mut self) {
        let names: Vec<String> = self.facts.bare.iter().map(|id| self.name(*id)).collect();
        if !names.is_empty() {
            let what = format!(
                "clients of the 0.5 generation cannot list VMs: the definition of {} lacks what they read of each",
                listed(&names)
            );
            self.notice(what, Some("pvc vm define fills it in".to_owned()));
        }
    }

    fn name(&self, id: VmId) -> String {
        self.facts.view.vm(id).map_or_else(|| id.to_string(), |vm| vm.name.to_string())
    }
}
