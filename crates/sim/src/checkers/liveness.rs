//! 13. Liveness: when faults stop and capacity exists, every VM whose desired state is `start` runs within a bound.
//!
//! The bound is the length of the run's calm phases, at whose end every machine has had power for longer than anything may take. Before
//! that can be, a machine that has lost its power is noticed (see `noticed`), and what its node cannot start runs elsewhere (see `stranded`).

use pvc_core::model::VmId;

use crate::{
    checkers::{Checker, Timing, halted::Halted, noticed::Noticed, stranded::Stranded},
    event::{Event, Phase, Stamped},
    tree::Tree,
    truth::Truth,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Liveness {
    noticed: Noticed,
    halted: Halted,
    stranded: Stranded,
}

impl Liveness {
    pub(super) fn new(timing: Timing) -> Self {
        Self { noticed: Noticed::new(timing), halted: Halted::default(), stranded: Stranded::default() }
    }
}

impl Checker for Liveness {
    fn invariant(&self) -> u8 {
        13
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        self.noticed.step(truth, tree, event)?;
        self.halted.step(truth, tree, event)?;
        self.stranded.step(truth, tree, event)?;
        if event.event != Event::Phase(Phase::Settled) {
            return Ok(());
        }
        for vm in tree.vms() {
            let state = tree.vm(vm, "state");
            let node = tree.vm(vm, "node");
            let executes: Vec<&str> = truth.executing(vm).map(|(node, _)| node.as_str()).collect();
            let right = match state {
                "start" => {
                    executes == [node] || executes.is_empty() && is_told_to_stand(truth, tree, vm, node)
                }
                "stop" => executes.is_empty(),
                // Asks that are carried out become one of the two; what failed needs an operator.
                "failed" => true,
                _ => false,
            };
            if !right {
                let explained = tree.text(&format!("/pvc/explain/vm/{vm}")).unwrap_or("nothing");
                return Err(format!(
                    "{vm} is not as desired long after the last fault: state {state}, node {node}, claim {:?}, executes on {executes:?}; explained: {explained}",
                    tree.vm(vm, "claim")
                ));
            }
        }
        Ok(())
    }
}

/// What somebody has paused, and its node says so.
fn is_told_to_stand(truth: &Truth, tree: &Tree, vm: VmId, node: &str) -> bool {
    truth.halted(vm).any(|on| {
        let told =
            |word: &str| tree.node(on, "guests").split(' ').any(|guest| guest == format!("{vm}={word}"));
        on.as_str() == node && (told("paused") || told("io-error"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, TIMING, node, vm},
        event::Guest,
    };

    #[test]
    fn what_shall_run_and_does_not_is_a_violation_once_it_is_settled() {
        let mut history = History::new(Liveness::new(TIMING));
        history.on("a", 1).writes(&[("/domains", ""), (&format!("/domains/{}", vm(1)), "web")]);
        history.writes(&[
            (&format!("/domains/{}/state", vm(1)), "start"),
            (&format!("/domains/{}/node", vm(1)), "a"),
        ]);
        history.happens(Event::Phase(Phase::Calm));
        history.violated_by(Event::Phase(Phase::Settled), "is not as desired");
    }

    #[test]
    fn what_runs_where_it_shall_is_none() {
        let mut history = History::new(Liveness::new(TIMING));
        history.on("a", 1).writes(&[("/domains", ""), (&format!("/domains/{}", vm(1)), "web")]);
        history.writes(&[
            (&format!("/domains/{}/state", vm(1)), "start"),
            (&format!("/domains/{}/node", vm(1)), "a"),
        ]);
        history.happens(Event::Guest { vm: vm(1), node: node("a"), what: Guest::Executes });
        history.happens(Event::Phase(Phase::Settled));
    }
}
