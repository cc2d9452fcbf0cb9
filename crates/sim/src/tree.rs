//! The committed state tree, as the sum of the commits so far, and the few words of it that checkers read.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{NodeName, VmId};

use crate::event::{Commit, Key};

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    keys: BTreeMap<String, Key>,
    /// VMs that are defined.
    vms: BTreeSet<VmId>,
}

impl Tree {
    /// Takes a commit in.
    pub fn apply(&mut self, commit: &Commit) {
        for change in &commit.changes {
            let vm = change.path.strip_prefix("/domains/").and_then(|id| id.parse::<VmId>().ok());
            match &change.after {
                Some(key) => {
                    self.keys.insert(change.path.clone(), key.clone());
                    self.vms.extend(vm);
                }
                None => {
                    self.keys.remove(&change.path);
                    if let Some(vm) = vm {
                        self.vms.remove(&vm);
                    }
                }
            }
        }
    }

    /// A key.
    pub fn key(&self, path: &str) -> Option<&Key> {
        self.keys.get(path)
    }

    /// A key's text; `None` if it is absent or no text.
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(&self.keys.get(path)?.data).ok()
    }

    /// All keys below a path that ends in `/`, with their paths.
    pub fn below<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a Key)> {
        let all = self.keys.range(path.to_owned()..);
        all.take_while(move |(key, _)| key.starts_with(path)).map(|(key, value)| (key.as_str(), value))
    }

    /// The VMs that are defined.
    pub fn vms(&self) -> impl Iterator<Item = VmId> {
        self.vms.iter().copied()
    }

    /// A key of a VM (`state`, `node`, `claim` …), empty if it is absent.
    pub fn vm(&self, vm: VmId, key: &str) -> &str {
        let path = match key {
            "claim" => format!("/pvc/claim/{vm}"),
            _ => format!("/domains/{vm}/{key}"),
        };
        self.text(&path).unwrap_or_default()
    }

    /// Who may be executing a VM.
    pub fn claim(&self, vm: VmId) -> impl Iterator<Item = &str> {
        self.vm(vm, "claim").split_whitespace()
    }

    /// A key of a node (`daemonstate`, `domainstate` …), empty if it is absent.
    pub fn node(&self, node: &NodeName, key: &str) -> &str {
        self.text(&format!("/nodes/{node}/{key}")).unwrap_or_default()
    }
}
