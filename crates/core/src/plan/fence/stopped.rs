//! A node whose daemon has stopped in order says nothing, and its guests execute on: its silence means nothing. If its whole machine was
//! shut down its VMs are down with it, though, and its BMC knows. It is asked, and nothing is switched.

use super::{Action, Facts, Plan, Step, act, settled, wait};
use crate::{
    model::Node,
    plan::recover::{self, What},
};

/// About a node without a fence whose daemon has stopped.
pub(super) fn stopped(seen: &Node, f: &Facts<'_>) -> Plan {
    let Some(patience) = f.settings.fence_after(seen) else { return settled() };
    if f.settings.successful == Action::Nothing {
        return settled();
    }
    let orders = recover::orders(&seen.name, f.view, f.sizes, Action::Migrate, |_| false);
    let down = orders.iter().filter(|o| o.locked || o.what == What::Place).count();
    if down == 0 {
        return settled();
    }
    // A restart of the daemon, or of the machine, takes a moment.
    if f.liveness.silence(&seen.name, f.now) < patience {
        return wait(f.liveness.silent_for(&seen.name, patience, f.now), "");
    }
    let stay = format!("its daemon has stopped, and its {down} VM(s) stay with it");
    if f.view.maintenance {
        return wait(None, format!("{stay}: maintenance is on"));
    }
    match f.attempts.not_off(f.now) {
        Some((why, again)) => wait(Some(again), format!("{stay}: {why}")),
        None => act(Step::AskPower, format!("its daemon has stopped; {down} VM(s) are to run there")),
    }
}
