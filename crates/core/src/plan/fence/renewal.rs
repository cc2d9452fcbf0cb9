//! Whether a proof of death is still one.
//!
//! A proof says that a node executes nothing at one moment. Its machine may boot afterwards, its daemon may not start, and somebody may
//! start a VM there. So VMs that had to wait, for room or for the storage, are moved only after the death was proven anew: its BMC says
//! that it is off still, or its power is cut again, or an operator says so again.

use std::time::Duration;

use super::{Facts, Plan, Step, act, wait};
use crate::{
    model::{FenceStep, Proof},
    sabotage::{self, Bug},
};

/// No machine boots, and starts a VM, in less.
const HOLDS: Duration = Duration::from_secs(20);

/// The same of a proof that cannot be renewed without an operator: who says that a machine is off does not switch it on at once.
const WORD_HOLDS: Duration = Duration::from_secs(60);

/// A machine that is on again may bring its memory back, and its VMs: so long it is given to be heard before its power is cut again.
const BOOTS_WITHIN: Duration = Duration::from_mins(5);

fn holds(proof: Proof) -> Duration {
    match proof {
        Proof::PowerOff | Proof::FoundOff | Proof::ResetAccepted => HOLDS,
        Proof::SelfFence | Proof::Operator => WORD_HOLDS,
    }
}

/// What is to be done before anything follows from a proof again; `None`: it holds.
pub(super) fn renewal(proof: Proof, f: &Facts<'_>) -> Option<Plan> {
    let holds = f.attempts.proven_since().is_some_and(|since| f.now < since + holds(proof));
    if holds || sabotage::commits(Bug::OldProof) {
        return None;
    }
    let Some((why, again)) = f.attempts.not_off(f.now) else {
        return Some(act(Step::AskStillOff, format!("{proof}, or did when that was looked at last")));
    };
    if let Some(since) = f.attempts.on_since().filter(|since| f.now < *since + BOOTS_WITHIN) {
        let until = since + BOOTS_WITHIN;
        let why = format!(
            "there is room for VMs of it, which may run there again: {why}; if it is not heard in {} s its power is cut again",
            until.since(f.now).as_secs()
        );
        return Some(wait(Some(until.min(again)), why));
    }
    Some(act(Step::Record(FenceStep::Shooting), format!("it may have been switched on since ({why})")))
}
