//! What the keys of the state tree are about: the few that checkers read, by their paths in docs/state-schema.md.
//!
//! Not by `pvc_store::schema`: a checker that used the daemons' own reading would share their mistakes.

use pvc_core::model::{Mac, NodeName, VmId};

use crate::event::{Author, Change, Commit, Key};

/// `/domains/<uuid>/<key>`, and `/pvc/claim/<uuid>` as the key `claim`.
pub(crate) fn of_vm(path: &str) -> Option<(VmId, &str)> {
    if let Some(vm) = path.strip_prefix("/pvc/claim/") {
        return Some((vm.parse().ok()?, "claim"));
    }
    let (vm, key) = path.strip_prefix("/domains/")?.split_once('/')?;
    Some((vm.parse().ok()?, key))
}

/// The card of the VM with that number.
pub(crate) fn card(number: usize) -> Mac {
    let [.., high, low] = number.to_be_bytes();
    Mac([0x52, 0x54, 0, 0, high, low])
}

/// The number of a simulated VM, which its name ends in.
pub(crate) fn number_of(vm: VmId) -> Option<usize> {
    usize::from_str_radix(vm.to_string().rsplit_once('-')?.1, 16).ok()
}

/// `/nodes/<name>/<key>`.
pub(crate) fn of_node(path: &str) -> Option<(NodeName, &str)> {
    let (node, key) = path.strip_prefix("/nodes/")?.split_once('/')?;
    Some((node.parse().ok()?, key))
}

/// `/pvc/fence/<name>`: whose fence it is the record of.
pub(crate) fn of_fence(path: &str) -> Option<NodeName> {
    path.strip_prefix("/pvc/fence/")?.parse().ok()
}

fn text(key: Option<&Key>) -> &str {
    key.and_then(|key| std::str::from_utf8(&key.data).ok()).unwrap_or_default()
}

impl Change {
    /// What the key said; empty if it was absent.
    pub(crate) fn was(&self) -> &str {
        text(self.before.as_ref())
    }

    /// What it says now; empty if it is absent.
    pub(crate) fn is(&self) -> &str {
        text(self.after.as_ref())
    }
}

impl Commit {
    /// The node whose daemon wrote it, if one did.
    pub(crate) fn daemon(&self) -> Option<&NodeName> {
        match &self.by {
            Author::Daemon { node, .. } => Some(node),
            Author::Client(_) | Author::Servers => None,
        }
    }

    /// Whether anything in it, be it only a check, is about what is below a path.
    pub(crate) fn is_about(&self, below: &str) -> bool {
        self.ops.iter().any(|op| op.path().starts_with(below))
    }
}

/// The name of the machine that has a copy of a node's disk: the cluster knows nothing of it.
pub(crate) fn clone_name(node: &NodeName) -> anyhow::Result<NodeName> {
    Ok(format!("{node}-clone").parse()?)
}
