//! What a reconciler looks at: one subject at a time. An event only says "look at this subject again".

use std::fmt;

use super::{name::NodeName, network::Vni, task::TaskId, vm_id::VmId};

/// One thing that is brought to agree with the cluster's desired states.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A node's own keys, but for what its keepalive says.
    Node(NodeName),
    /// What a node says of itself every few seconds: that it lives, and its figures.
    Keepalive(NodeName),
    /// A virtual machine.
    Vm(VmId),
    /// A client network, but for what is leased or filtered there.
    Network(Vni),
    /// The primary coordinator.
    Primary,
    /// The fence of a node.
    Fence(NodeName),
    /// A task of storage.
    Task(TaskId),
    /// Cluster-wide switches: maintenance mode.
    Cluster,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Keepalive(name) => write!(f, "keepalive of {name}"),
            Self::Vm(id) => write!(f, "VM {id}"),
            Self::Network(vni) => write!(f, "network {vni}"),
            Self::Fence(name) => write!(f, "fence of {name}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Cluster => f.write_str("cluster"),
            Self::Primary => f.write_str("primary coordinator"),
        }
    }
}
