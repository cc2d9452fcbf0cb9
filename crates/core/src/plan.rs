//! Decisions: facts in, one step out. Pure, level-triggered: an event only says *look again*, and every crash point is an
//! ordinary starting point. One public `plan` function a subject.

pub mod client_network;
pub mod database_leader;
pub mod dhcp;
pub mod dhcp6;
mod diff;
pub mod dns;
pub mod fence;
pub mod firewall;
pub mod flush;
pub mod gateway_services;
pub mod guest_names;
pub mod liveness;
pub mod machine;
pub mod network;
pub mod own_addresses;
pub mod pace;
pub mod placement;
pub mod primary;
pub mod recover;
pub mod routing;
pub mod selffence;
pub mod storage;
pub mod storage_fence;
pub mod vm;

pub use diff::Diff;

use crate::model::Moment;

/// What to do next about a subject whose steps are `S`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<S> {
    /// Desired state and facts agree, as far as this node is concerned.
    Settled,
    /// Do this, then look again.
    Do(S),
    /// Look again at this moment at the latest; `None`: when something changes.
    Wait(Option<Moment>),
}

/// The next step and its reason, in words for an operator; empty: nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<S> {
    /// What to do.
    pub next: Next<S>,
    /// Why.
    pub why: String,
}

fn settled<S>() -> Plan<S> {
    Plan { next: Next::Settled, why: String::new() }
}

fn act<S>(step: S, why: impl Into<String>) -> Plan<S> {
    Plan { next: Next::Do(step), why: why.into() }
}

fn wait<S>(until: Option<Moment>, why: impl Into<String>) -> Plan<S> {
    Plan { next: Next::Wait(until), why: why.into() }
}
