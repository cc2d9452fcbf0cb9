//! Whether a proof of death is still one.
//!
//! A proof says that a node executes nothing at one moment. Its machine may boot afterwards, its daemon may not start, and somebody may
//! start a VM there. So VMs that had to wait, for room or for the storage, are moved, and it is shut out of their images, only after the death
//! was proven anew: its BMC says that it is off still, or its power is cut again, or an operator says so again.

use std::time::Duration;

use super::{Facts, Plan, Step, act, wait};
use crate::{
    model::{Fence, FenceStep, Moment, Proof},
    sabotage::{self, Bug},
};

/// No machine boots, and starts a VM, in less.
const HOLDS: Duration = Duration::from_secs(20);

/// The same of a proof that cannot be renewed without an operator: who says that a machine is off does not switch it on at once.
const WORD_HOLDS: Duration = Duration::from_mins(1);

/// A machine that is on again, or of which nobody can say, may bring its memory back, and its VMs: so long it is given to be heard before
/// its power is cut again.
pub(super) const BOOTS_WITHIN: Duration = Duration::from_mins(5);

/// How often a job goes back to `shooting`. A node that is never heard, and whose VMs start nowhere, is not switched off and on for ever.
const RENEWALS: usize = 2;

/// Until when something may follow from a proof; `None`: nothing may any more.
pub(super) fn holds_until(proof: Proof, f: &Facts<'_>) -> Option<Moment> {
    let holds = match proof {
        Proof::PowerOff | Proof::FoundOff | Proof::ResetAccepted => HOLDS,
        Proof::SelfFence | Proof::Operator => WORD_HOLDS,
    };
    if sabotage::commits(Bug::OldProof) {
        return Some(f.now + holds);
    }
    f.attempts.proven_since().map(|since| since + holds).filter(|until| f.now < *until)
}

/// What is to be done about a proof that does not hold any more.
pub(super) fn renewal(fence: &Fence, proof: Proof, f: &Facts<'_>) -> Plan {
    let Some((why, again)) = f.attempts.not_off(f.now) else {
        return act(
            Step::AskStillOff,
            format!("its VMs could be started elsewhere, and its proof of death is too old: {proof}"),
        );
    };
    let storage =
        f.attempts.not_shut_out().map(|(_, why)| format!("; shutting it out of the storage failed: {why}"));
    let waits = format!(
        "its VMs could start elsewhere, but its proof of death is too old ({proof}) and they may run on it again: {why}{}; if it is off, say so with pvc node confirm-dead {}",
        storage.unwrap_or_default(),
        fence.node
    );
    if fence.job.earlier.len() >= RENEWALS {
        return wait(
            Some(again),
            format!("{waits}; its power is not cut any more, {RENEWALS} times were in vain"),
        );
    }
    match f.attempts.on_since().map(|since| since + BOOTS_WITHIN) {
        Some(until) if f.now < until => {
            let left = until.since(f.now).as_secs();
            wait(
                Some(until.min(again)),
                format!("{waits}; if it is not heard in {left} s its power is cut again"),
            )
        }
        _ => act(Step::Record(FenceStep::Shooting), format!("it may have been switched on since ({why})")),
    }
}
