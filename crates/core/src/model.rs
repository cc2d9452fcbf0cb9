//! What a cluster consists of, in typed words. Values are validated once, when they become these types.

pub mod audit;
pub mod bmc;
pub mod bridging;
pub mod ceph;
pub mod change;
pub mod claim;
pub mod dhcp;
pub mod dhcp6;
pub mod dns;
pub mod domain;
pub mod entry;
pub mod explanation;
pub mod fence;
pub mod flush;
pub mod found;
pub mod halt;
pub mod host_name;
pub mod lease;
pub mod link;
pub mod machine;
pub mod migration;
pub mod moment;
pub mod name;
pub mod network;
pub mod node;
pub mod osd;
pub mod rule;
pub mod screen;
pub mod storage;
pub mod storage_command;
pub mod subject;
pub mod task;
pub mod token;
pub mod trouble;
pub mod view;
pub mod vm;
pub mod vm_id;

pub use bmc::{BmcReport, BmcWord};
pub use change::{VmChange, VmSet};
pub use claim::Claim;
pub use domain::{
    ARRIVING, Completed, DomainDetails, DomainError, DomainSpec, HostDevice, Suspension, UNSTARTED,
    host_devices, marked_arriving, no_console, screen, without_passwords,
};
pub use entry::{Entry, Field, Problem};
pub use explanation::Explanation;
pub use fence::{Fence, FenceJob, FenceStep, Proof, Word};
pub use flush::{FlushProgress, Stuck};
pub use halt::Halt;
pub use host_name::{HostName, HostNameError};
pub use lease::{Lease, Reservation};
pub use machine::{MachineId, MachineRecord, Replaced};
pub use migration::{Migration, Progress};
pub use moment::Moment;
pub use name::{NameError, NodeName, VmName};
pub use network::{LINK_GATEWAY, LINK_LOCAL, Mac, Network, NetworkKind, Overlay, Vni};
pub use node::{
    DaemonMode, DaemonState, DomainState, KEEPALIVE_INTERVAL_S, NO_HYPERVISOR, Node, NodeReport, RouterState,
    StaticData,
};
pub use storage_command::{StorageCommand, StorageCommandError};
pub use subject::Subject;
pub use trouble::Trouble;
pub use view::ClusterView;
pub use vm::{MigrationMethod, Vm, VmKey, VmState};
pub use vm_id::VmId;
