//! A virtual machine as the state tree describes it: the desired state, the answer, the claim.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    claim::Claim,
    entry::{Field, Problem},
    name::{NameError, NodeName, VmName},
    vm_id::VmId,
};

/// `/domains/<uuid>/state`: desired state and answer in one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Shall run.
    Start,
    /// Shall be off, at once.
    Stop,
    /// Shall be asked to shut down, then be off.
    Shutdown,
    /// Shall be shut down and started again.
    Restart,
    /// Shall move to `node` while it runs.
    Migrate,
    /// Could not do as desired; see `failedreason`.
    Failed,
    /// Is about to be deleted.
    Delete,
}

impl VmState {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Start, Self::Stop, Self::Shutdown, Self::Restart, Self::Migrate, Self::Failed, Self::Delete];

    /// The word in the state tree.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Shutdown => "shutdown",
            Self::Restart => "restart",
            Self::Migrate => "migrate",
            Self::Failed => "failed",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for VmState {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| NameError {
            what: "VM state",
            found: text.to_owned(),
            allowed: "start, stop, shutdown, restart, migrate, failed or delete",
        })
    }
}

/// `/domains/<uuid>/migration_method` **(ours)**: what a migration may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationMethod {
    /// Live, and if that is impossible shut down and start at the target: what old clients expect.
    #[default]
    None,
    /// Live or not at all.
    Live,
    /// Shut down here, start there.
    Shutdown,
}

impl FromStr for MigrationMethod {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "" | "none" => Ok(Self::None),
            "live" => Ok(Self::Live),
            "shutdown" => Ok(Self::Shutdown),
            _ => Err(NameError {
                what: "migration method",
                found: text.to_owned(),
                allowed: "live, shutdown or none",
            }),
        }
    }
}

impl fmt::Display for MigrationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Shutdown => "shutdown",
        })
    }
}

/// The keys of a VM that decisions are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub enum VmKey {
    State,
    Node,
    LastNode,
    FailedReason,
    Claim,
    Xml,
}

/// One VM as read from the state tree, key by key. The XML and the console log are read on demand, not kept here.
///
/// A key that cannot be read takes a VM out of nobody's hands: it is named in `problems` and counts as what is said at its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// The key below `/domains`.
    pub id: VmId,
    /// The value of `/domains/<uuid>`; the UUID if that cannot be a name.
    pub name: VmName,
    /// `state`. If it cannot be read the VM stays as it is: `start` where it may be executing, `stop` if nobody claims it. An unreadable
    /// word asks neither that a guest ends nor that it starts.
    pub state: Field<VmState>,
    /// `node`: who should run it. If it cannot be read, the node that has it; nobody, if that is not known or the desired state is `migrate`: then
    /// a node is chosen.
    pub node: Field<NodeName>,
    /// `lastnode`: where it was migrated away from; nowhere if it cannot be read.
    pub last_node: Field<Option<NodeName>>,
    /// `failedreason`, empty = none.
    pub failed_reason: Field<String>,
    /// `/pvc/claim/<uuid>`: who may be executing it. An absent key means an empty claim.
    pub claim: Field<Claim>,
    /// `migration_method`; an absent key means `none`, an unreadable one `live`: no guest is shut down for it.
    pub migration_method: MigrationMethod,
    /// `rbdlist`: RBD images it uses, `pool/image`.
    pub rbd_images: Vec<String>,
    /// Data version of `xml`; changes when the definition does. `None` if it has none.
    pub xml_version: Option<i32>,
    /// Transaction that wrote `xml` last, which tells two definitions apart where [`Self::xml_version`] does not: of a VM that was undefined and
    /// defined anew that begins anew.
    pub xml_zxid: Option<i64>,
    /// Keys whose values here are not what they hold: they cannot be read, or say the same in other words. Who writes next about what
    /// they say writes them.
    pub unread: BTreeSet<VmKey>,
    /// What is wrong with its keys.
    pub problems: Vec<Problem>,
}

impl Vm {
    /// Whether that key holds something else than the field says.
    pub fn cannot_read(&self, key: VmKey) -> bool {
        self.unread.contains(&key)
    }

    /// Whether its desired state is gone: a client deletes it key by key, or somebody has lost that key. Nothing is created below it.
    pub fn is_half_deleted(&self) -> bool {
        self.state.version.is_none()
    }
}

impl Vm {
    /// Whether nobody has written a desired state since it was defined: the `stop` that every definition begins with is no command.
    pub fn is_as_defined(&self) -> bool {
        self.state.value == VmState::Stop && self.state.version == Some(0)
    }

    /// Whether the flush of its node has shut it down, or is doing so. The flush names that node as `lastnode`, too, and writes it
    /// in one transaction with the desired state, and again with the answer. So whoever writes `state` alone, as every client's `stop`
    /// does, ends this: that VM is off because somebody wants it off. So does whoever moves it: while it was another node's, a client that
    /// wanted it off found it off already, and it may have come back since.
    pub fn is_shut_down_by_flush(&self) -> bool {
        matches!(self.state.value, VmState::Shutdown | VmState::Stop)
            && self.last_node.value.as_ref() == Some(&self.node.value)
            && self.last_node.zxid == self.state.zxid
            && self.node.zxid <= self.state.zxid
    }
}
