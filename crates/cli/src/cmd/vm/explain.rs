//! `pvc vm explain`: why a VM is as it is, on one screen: what is asked, what is seen, what the daemon says, a conclusion.
//! Works also, and above all, when something is broken: whatever can be read is shown.

use pvc_core::model::{DaemonState, Entry, MigrationMethod, NodeName, VmState};
use pvc_operate::{
    Cluster, silence_words,
    vm::{self, Daemon, Explained, Undefined, VmExplanation},
};

use super::list::{asked, desired_node};
use crate::{
    cmd::{explain, now_unix_s},
    connect,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
};

pub(super) async fn explain(cluster: &Cluster, out: &Out, reference: &str) -> Result<(), Failure> {
    let explained = vm::explain(cluster, reference, connect::selector(None), now_unix_s()).await?;
    match &explained {
        _ if out.is_json() => out.json(&explained),
        Explained::Vm(facts) => out.write(&people(facts, out.colour())),
        Explained::Undefined(facts) => out.write(&of_none(facts, out.colour())),
    }
}

fn people(facts: &VmExplanation, colour: bool) -> String {
    let mut lines = vec![("VM", Cell::from(&facts.name)), ("uuid", facts.id.to_string().into())];
    match &facts.entry {
        Entry::Good(vm) => {
            lines.push(("asked", asked(vm)));
            lines.push(("on node", desired_node(vm)));
            lines.push(("claimed by", or_nobody(vm.claim.value.iter()).into()));
            lines.push(("seen running on", facts.running.words().into()));
            if !facts.last_words.is_empty() {
                let who = format!("{}, by the last word of its daemon", or_nobody(facts.last_words.iter()));
                lines.push(("may run on", Cell::new(who, Look::Bad)));
            }
            if let Some(last) = &vm.last_node.value {
                lines.push(("migrated from", last.as_str().into()));
            }
            if vm.migration_method != MigrationMethod::None {
                lines.push(("migration", vm.migration_method.to_string().into()));
            }
            if !vm.failed_reason.value.is_empty() {
                let word = if vm.state.value == VmState::Failed { "failed because" } else { "last trouble" };
                lines.push((word, Cell::new(&vm.failed_reason.value, Look::Bad)));
            }
        }
        Entry::Bad(_) => {}
    }
    let broken = facts.entry.problems().iter();
    lines.extend(broken.map(|problem| ("broken key", Cell::new(problem.to_string(), Look::Bad))));
    for daemon in &facts.nodes {
        lines.push(("daemon of", daemon_cell(daemon)));
        let of = |words: &String| Cell::new(format!("{}: {words}", daemon.node), Look::Busy);
        lines.extend(daemon.fence.iter().map(|words| ("fence of", of(words))));
        lines.extend(daemon.flush.iter().map(|words| ("flush of", of(words))));
    }
    lines.extend(explain::maintenance(facts.maintenance));
    match &facts.could_go_to {
        Some(Ok(node)) => lines.push(("could go to", node.as_str().into())),
        Some(Err(why)) => lines.push(("could go to", Cell::new(why, Look::Busy))),
        None => {}
    }
    lines.extend(explain::said(&facts.said));
    if let Err(problem) = &facts.definition {
        lines.push(("definition", Cell::new(problem, Look::Bad)));
    }
    lines.push(("console log", facts.console_log.as_deref().unwrap_or("none in its definition").into()));
    explain::screen(&lines, &facts.conclusion(), colour)
}

fn daemon_cell(Daemon { node, state, silent_s, .. }: &Daemon) -> Cell {
    match (state, silent_s) {
        (_, Some(silence)) => Cell::new(format!("{node}: {}", silence_words(*silence)), Look::Bad),
        (Some(DaemonState::Run), None) => Cell::new(format!("{node}: run"), Look::Good),
        (Some(state), None) => Cell::new(format!("{node}: {state}"), Look::Bad),
        (None, None) => Cell::new(format!("{node}: no such node"), Look::Bad),
    }
}

fn or_nobody<'a>(nodes: impl Iterator<Item = &'a NodeName>) -> String {
    let names: Vec<&str> = nodes.map(NodeName::as_str).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// A UUID that is no VM's.
fn of_none(facts: &Undefined, colour: bool) -> String {
    let mut lines = vec![
        ("uuid", Cell::from(facts.uuid.to_string())),
        ("asked", Cell::new("nothing: it is not defined", Look::Bad)),
        ("claimed by", or_nobody(facts.claim.iter()).into()),
        ("seen running on", facts.runners.words().into()),
    ];
    lines.extend(facts.daemons.iter().map(|daemon| ("daemon of", daemon_cell(daemon))));
    if facts.said.is_some() {
        lines.extend(explain::said(&facts.said));
    }
    explain::screen(&lines, &facts.conclusion, colour)
}
