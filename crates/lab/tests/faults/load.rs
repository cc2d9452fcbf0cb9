//! What keeps a cluster busy while something else is tested: an operator who starts, stops, restarts and migrates VMs without end.
//! Its commands may fail, as they do where daemons die; how often is told.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use pvc_lab::{Scenario, Vm, wait_until};

/// An operator looks before the next command, but does not wait for ever.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(10);

/// What the operator did.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) done: u32,
    pub(crate) refused: u32,
}

/// Works on these VMs while `act` goes on; at the end each of them shall run.
pub(crate) fn under_load(
    s: &Scenario,
    vms: &[Vm],
    seed: u64,
    act: impl FnOnce() -> Result<()>,
) -> Result<Work> {
    let over = AtomicBool::new(false);
    let nodes: Vec<_> = s.cluster.lab.nodes().iter().map(pvc_lab::Node::name).collect();
    std::thread::scope(|scope| {
        let operator = scope.spawn(|| -> Result<Work> {
            let (mut rng, mut work) = (Rng::with_seed(seed), Work::default());
            while !over.load(Ordering::Relaxed) {
                let vm = rng.choice(vms).context("no VM")?;
                let to = rng.choice(&nodes).context("no node")?;
                let command: &[&str] = match rng.u8(..5) {
                    0 => &["vm", "stop", "--no-wait", &vm.name],
                    1 => &["vm", "restart", "--no-wait", &vm.name],
                    2 => &["vm", "migrate", "--no-wait", "-t", to, &vm.name],
                    _ => &["vm", "start", "--no-wait", &vm.name],
                };
                match s.pvc(command) {
                    Ok(_) => work.done += 1,
                    Err(_) => work.refused += 1,
                }
                // Whether it was answered or not: the next command is the operator's right.
                let _ = wait_until("an answer", BEFORE_THE_NEXT, || {
                    over.load(Ordering::Relaxed)
                        || ["start", "stop", "failed"].iter().any(|state| s.cluster.vm(vm)["state"] == *state)
                });
            }
            Ok(work)
        });
        let acted = act();
        over.store(true, Ordering::Relaxed);
        let work = operator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        acted?;
        let work = work?;
        for vm in vms {
            // A command that is under way is done first, or ends in an answer that this one follows.
            wait_until("the last command's answer", pvc_lab::PATIENCE, || {
                ["start", "stop", "failed"].iter().any(|state| s.cluster.vm(vm)["state"] == *state)
            })?;
            s.pvc(&["vm", "start", "--no-wait", &vm.name])?;
        }
        s.note(format!("the operator: {work:?}"));
        Ok(work)
    })
}
