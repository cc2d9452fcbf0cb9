//! Whether a proof of death is still one.
//!
//! A proof says that a node executes nothing at one moment. Its machine may boot afterwards, its daemon may not start, and somebody may
//! start a VM there. So VMs that had to wait, for room or for the storage, are moved, and it is shut out of their images, only after the death
//! was proven anew: its BMC says that it is off still, or its power is cut again, or an operator says so again.

use std::time::Duration;

use super::{Facts, Plan, Step, act, wait};
use crate::{
    model::{FenceStep, Proof},
    sabotage::{self, Bug},
};

/// No machine boots, and starts a VM, in less.
const HOLDS: Duration = Duration::from_secs(20);

/// The same of a proof that cannot be renewed without an operator: who says that a machine is off does not switch it on at once.
const WORD_HOLDS: Duration = Duration::from_mins(1);

/// A machine that is on again may bring its memory back, and its VMs: so long it is given to be heard before its power is cut again.
const BOOTS_WITHIN: Duration = Duration::from_mins(5);

/// Whether something may follow from a proof now.
pub(super) fn holds(proof: Proof, f: &Facts<'_>) -> bool {
    let holds = match proof {
        Proof::PowerOff | Proof::FoundOff | Proof::ResetAccepted => HOLDS,
        Proof::SelfFence | Proof::Operator => WORD_HOLDS,
    };
    f.attempts.proven_since().is_some_and(|since| f.now < since + holds) || sabotage::commits(Bug::OldProof)
}

/// What is to be done about a proof that does not hold any more.
pub(super) fn renewal(proof: Proof, f: &Facts<'_>) -> Plan {
    let Some((why, again)) = f.attempts.not_off(f.now) else {
        return act(Step::AskStillOff, format!("{proof}, or did when that was looked at last"));
    };
    if let Some(since) = f.attempts.on_since().filter(|since| f.now < *since + BOOTS_WITHIN) {
        let until = since + BOOTS_WITHIN;
        let why = format!(
            "there is room for VMs of it, which may run there again: {why}; if it is not heard in {} s its power is cut again",
            until.since(f.now).as_secs()
        );
        return wait(Some(until.min(again)), why);
    }
    act(Step::Record(FenceStep::Shooting), format!("it may have been switched on since ({why})"))
}
