//! Writes to a VM's keys in typed form. Commands and plans produce these; only `store::schema` knows the keys' text.
//! Each change names the fields it was decided from: it is applied if none of them has moved, or not at all.

use super::{
    claim::Claim,
    entry::Field,
    name::{NodeName, VmName},
    vm::{Vm, VmKey, VmState},
    vm_id::VmId,
};

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

    /// An update decided from `keys` of `vm` as it was seen.
    pub fn update(vm: &Vm, keys: &[VmKey], set: Vec<VmSet>) -> Self {
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
