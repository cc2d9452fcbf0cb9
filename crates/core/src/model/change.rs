//! Writes to a VM's keys in typed form. Commands and plans produce these; only `store::schema` knows the keys' text.
//! Each change names the fields it was decided from: it is applied if none of them has moved, or not at all.

use super::{
    claim::Claim,
    name::{NodeName, VmName},
    vm::{Field, Vm, VmState},
    vm_id::VmId,
};

/// The keys of a VM that decisions are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub enum VmKey {
    State,
    Node,
    LastNode,
    FailedReason,
    Claim,
    Xml,
}

/// One new value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub enum VmSet {
    /// Renames: the value of `/domains/<uuid>` itself.
    Name(VmName),
    State(VmState),
    Node(NodeName),
    LastNode(Option<NodeName>),
    /// Empty = none.
    FailedReason(String),
    Claim(Claim),
    Xml(String),
    /// `pool/image` each.
    RbdImages(Vec<String>),
}

/// A transaction on one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmChange {
    /// Creates all keys of a new VM, with `state` = `stop`. Its claim is not among them: one that exists already stays in force.
    Define {
        /// The UUID of the definition.
        id: VmId,
        /// The name of the definition.
        name: VmName,
        /// Where it shall run.
        node: NodeName,
        /// The whole definition.
        xml: String,
        /// `pool/image` each.
        rbd_images: Vec<String>,
    },
    /// Changes keys of an existing VM.
    Update {
        /// Which VM.
        id: VmId,
        /// Key versions that must still hold; `None`: the key must still be absent.
        expect: Vec<(VmKey, Option<i32>)>,
        /// The new values, all or none.
        set: Vec<VmSet>,
    },
    /// Changes the claim of a VM that is not in the tree, unless it is defined again; deletes it if it names nobody then.
    Orphan {
        /// Which VM.
        id: VmId,
        /// The claim's version, as it was seen.
        version: Option<i32>,
        /// Who may still be executing it.
        left: Claim,
    },
    /// Deletes the VM's keys, all of them, and its claim unless that still names somebody.
    Remove {
        /// Which VM.
        id: VmId,
        /// As in `Update`.
        expect: Vec<(VmKey, Option<i32>)>,
    },
}

impl VmChange {
    /// The VM that it is about.
    pub fn id(&self) -> VmId {
        match self {
            Self::Define { id, .. }
            | Self::Update { id, .. }
            | Self::Orphan { id, .. }
            | Self::Remove { id, .. } => *id,
        }
    }

    /// An update decided from `keys` of `vm` as it was seen. A wish that is there already is not written again, only checked: old clients
    /// read a key, write it in its next version, and say nothing when that fails, so a write in between loses an operator's command.
    ///
    /// Three are written all the same (decision 92). A wish for `restart` with its claim: one younger than the wish would say that it is done.
    /// `lastnode` with another `state`: that they were written together says that a flush has shut the VM down. And `state` of a VM that a
    /// flush has shut down: that it is younger than `lastnode` says that an operator wants it off.
    pub fn update(vm: &Vm, keys: &[VmKey], mut set: Vec<VmSet>) -> Self {
        let claims = set.iter().any(|value| matches!(value, VmSet::Claim(_)));
        let marked = vm.is_shut_down_by_flush();
        let answers =
            set.iter().any(|value| matches!(value, VmSet::State(_)) && (marked || !is_there(vm, value)));
        set.retain(|value| match value {
            VmSet::State(VmState::Restart) if claims => true,
            VmSet::State(_) if marked => true,
            VmSet::LastNode(_) if answers => true,
            _ => !is_there(vm, value),
        });
        Self::Update { id: vm.id, expect: versions(vm, keys), set }
    }

    /// The claim of a VM that is not in the tree, as it was seen, without a node.
    pub fn orphan(id: VmId, seen: &Field<Claim>, node: &NodeName) -> Self {
        Self::Orphan { id, version: seen.version, left: seen.value.without(node) }
    }

    /// A removal decided from `keys` of `vm` as it was seen.
    pub fn remove(vm: &Vm, keys: &[VmKey]) -> Self {
        Self::Remove { id: vm.id, expect: versions(vm, keys) }
    }
}

/// Whether a wish, or the reason beside it, says this already.
fn is_there(vm: &Vm, value: &VmSet) -> bool {
    match value {
        VmSet::State(state) => vm.state.value == *state && !vm.cannot_read(VmKey::State),
        VmSet::Node(node) => vm.node.value == *node && !vm.cannot_read(VmKey::Node),
        VmSet::LastNode(node) => vm.last_node.value == *node && !vm.cannot_read(VmKey::LastNode),
        VmSet::FailedReason(reason) => vm.failed_reason.value == *reason,
        // A claim that is written again permits one start.
        VmSet::Claim(_) | VmSet::Name(_) | VmSet::Xml(_) | VmSet::RbdImages(_) => false,
    }
}

fn versions(vm: &Vm, keys: &[VmKey]) -> Vec<(VmKey, Option<i32>)> {
    let version = |key| match key {
        VmKey::State => vm.state.version,
        VmKey::Node => vm.node.version,
        VmKey::LastNode => vm.last_node.version,
        VmKey::FailedReason => vm.failed_reason.version,
        VmKey::Claim => vm.claim.version,
        VmKey::Xml => vm.xml_version,
    };
    keys.iter().map(|&key| (key, version(key))).collect()
}
