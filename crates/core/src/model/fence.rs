//! A fence in progress: what is known about a node that is being put out of its misery. Recorded step by step at
//! `/pvc/fence/<node>`, so that another coordinator goes on where a dead fencer stopped.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{name::NodeName, vm_id::VmId};

/// Why a node is certain (or, by the operator's decision, taken) to execute nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Its BMC reported power off after it was told to power off, or before.
    PowerOff,
    /// Its BMC reported power off of itself, after its daemon had stopped in order: somebody shut it down.
    FoundOff,
    /// Its BMC accepted a reset: what the manual calls a success, and weaker than power off.
    ResetAccepted,
    /// It was given the time in which it must have reset itself (`failed_fence: migrate`).
    SelfFence,
    /// An operator confirmed it.
    Operator,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "its BMC reports power off",
            Self::FoundOff => "it was shut down, and its BMC reports power off",
            Self::ResetAccepted => "its BMC accepted a reset",
            Self::SelfFence => "it has had the time to reset itself",
            Self::Operator => "an operator confirmed it",
        })
    }
}

/// How far a fence has come. Only ever goes forward, except back to `Shooting`: from `Failed`, and from a proof that has become too old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum FenceStep {
    /// Declared dead; its power is being cut. A keepalive seen before this step was recorded cancels the fence.
    Shooting,
    /// Its power could not be cut: nothing of it is touched, the attempt is repeated.
    Failed {
        /// Why, without secrets.
        reason: String,
        /// Attempts so far.
        attempts: u32,
    },
    /// It executes nothing.
    Proven {
        /// How that is known.
        proof: Proof,
    },
    /// Its storage clients are shut out, too: its VMs may be started elsewhere.
    StorageFenced {
        /// As in `Proven`.
        proof: Proof,
    },
    /// Its VMs have new homes; the job is over when they were seen running.
    Recovered {
        /// As in `Proven`.
        proof: Proof,
    },
}

impl FenceStep {
    /// The proof of death, once there is one.
    pub fn proof(&self) -> Option<Proof> {
        match self {
            Self::Shooting | Self::Failed { .. } => None,
            Self::Proven { proof } | Self::StorageFenced { proof } | Self::Recovered { proof } => {
                Some(*proof)
            }
        }
    }
}

/// An operator's word about a node. It holds for the life of it that it was said about, and for no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Who said it.
    pub by: String,
    /// When, by that machine's clock, seconds since 1970: for people.
    pub at_unix_s: u64,
}

/// The record of one fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceJob {
    /// How far it has come.
    #[serde(flatten)]
    pub step: FenceStep,
    /// The daemon instance that is fenced (`/pvc/daemon/<node>`'s last `instance`), if it was known: proofs are of one life.
    pub instance: Option<String>,
    /// Who recorded the last step.
    pub by: String,
    /// When, by that node's wall clock, seconds since 1970: for people.
    pub at_unix_s: u64,
    /// An operator has confirmed that the node is dead (`pvc node confirm-dead`), which its next sign of life makes untrue.
    #[serde(default)]
    pub confirmed_dead: Option<Word>,
    /// An operator asked for it (`pvc node fence`): a sign of life does not cancel it, but the end of this boot of the node does.
    #[serde(default)]
    pub asked: Option<Word>,
    /// The version of the node's `keepalive` with which it was last declared or confirmed or proven dead: another one is a sign of life.
    #[serde(default)]
    pub keepalive_version: Option<i32>,
    /// The boot of the node that is fenced, if it was known.
    #[serde(default)]
    pub boot: Option<String>,
    /// The VMs out of whose images it is shut, before it is shut out of all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub freed: BTreeSet<VmId>,
    /// Proofs that it was dead, which became too old before all was done; the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Proof>,
}

impl FenceJob {
    /// Whether the node is shut out of a VM's images.
    pub fn is_shut_out_of(&self, vm: VmId) -> bool {
        matches!(self.step, FenceStep::StorageFenced { .. }) || self.freed.contains(&vm)
    }

    /// The record from which its node's death is proven anew: what was asked, said and done before was about an earlier moment.
    #[must_use]
    pub fn to_be_proven_again(mut self) -> Self {
        self.earlier.extend(self.step.proof());
        Self { step: FenceStep::Shooting, confirmed_dead: None, asked: None, freed: BTreeSet::new(), ..self }
    }

    /// What is proven by finding the machine off. One that somebody else had switched off keeps that proof, with which nobody here powers it on.
    pub fn found_off(&self) -> Proof {
        match self.earlier.last() {
            Some(earlier @ (Proof::FoundOff | Proof::Operator)) => *earlier,
            _ => Proof::PowerOff,
        }
    }

    /// What of an operator waits to be done or proven.
    pub fn word(&self) -> Option<&Word> {
        self.confirmed_dead.as_ref().or(self.asked.as_ref()).filter(|_| self.step.proof().is_none())
    }
}

/// A fence as the state tree has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The node that is fenced.
    pub node: NodeName,
    /// The record.
    pub job: FenceJob,
    /// The record's version, for compare-and-set.
    pub version: i32,
    /// Who works on it now: the holder of the ephemeral `/pvc/fence/<node>/fencer`; `None`: its fencer died.
    pub fencer: Option<NodeName>,
}
