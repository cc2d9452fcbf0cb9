//! What becomes of a VM that is not in the state tree: of its claim, and of what is left of it here.

use super::{Facts, LocalState, Plan, Standing, Step};
use crate::{
    model::{Claim, Entry, Suspension},
    plan::{act, settled, wait},
};

/// It is not in the state tree: somebody has undefined it, whether it was off or not.
pub(super) fn without_keys(facts: &Facts<'_>) -> Plan {
    match facts.local_state {
        // Not ours to end: it may be the operator's own, or the state tree may have been lost. The claim stays.
        LocalState::Active | LocalState::Held | LocalState::Arrived => {
            return wait(None, "it runs here but is not in the state tree: left alone");
        }
        LocalState::Unstarted if facts.standing == Standing::OutOfReach => {
            return wait(None, "the state store is out of reach: nothing is changed until it answers");
        }
        // Nothing is lost with it, whatever became of the tree.
        LocalState::Unstarted => {
            return act(
                Step::PowerOff,
                "a start left its process here, which executes nothing, and it is not in the state tree",
            );
        }
        LocalState::Suspended(Suspension::Elsewhere) => {
            return wait(
                None,
                "it was suspended here when it belonged to another node, and is not in the state tree now: left alone",
            );
        }
        LocalState::Suspended(Suspension::Unread) => return unread_without_keys(facts),
        LocalState::Off | LocalState::Unknown => {}
    }
    let Some(claim) = facts.orphan.and_then(Entry::good).map(|claim| &claim.value) else { return settled() };
    let ours = claim.names(facts.me) || (claim.is_empty() && facts.tidies_up);
    if !ours {
        return settled();
    }
    if facts.standing == Standing::OutOfReach {
        return wait(None, "the state store is out of reach: nothing is changed until it answers");
    }
    match claim.between() {
        _ if facts.local_state == LocalState::Unknown => {
            wait(None, "libvirt does not answer: nothing is known about this node")
        }
        Some((from, _)) if from != facts.me => {
            wait(None, format!("it was migrating from {from}, which decides"))
        }
        _ => act(Step::Forget, "its keys are gone, and it is off here"),
    }
}

/// It was suspended, with all else that ran here, before anybody had read the state tree since the machine's boot; and that does not have it.
fn unread_without_keys(facts: &Facts<'_>) -> Plan {
    let of_others = |claim: &Claim| !claim.is_empty() && !claim.is_only(facts.me);
    match facts.orphan {
        _ if facts.standing == Standing::OutOfReach => wait(
            None,
            "it was suspended here, and the state store is out of reach: it stays so until it answers",
        ),
        Some(Entry::Bad(_)) => wait(
            None,
            "it was suspended here, is not in the state tree, and its claim cannot be read: it goes on when that names this node or \
             nobody, or is deleted",
        ),
        Some(Entry::Good(claim)) if of_others(&claim.value) => wait(
            None,
            format!(
                "it was suspended here, is not in the state tree, and its claim names {}: it goes on when that names this node alone or \
                 nobody, or is deleted. Make sure first that nobody else executes it",
                claim.value
            ),
        ),
        Some(Entry::Good(_)) | None => act(
            Step::Resume,
            "it was suspended until the state tree could be read, and that does not have it",
        ),
    }
}
