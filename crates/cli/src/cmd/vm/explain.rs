//! `pvc vm explain`: why a VM is as it is, on one screen: what is asked, what is seen, what the daemon says, a conclusion.
//! Works also, and above all, when something is broken: whatever can be read is shown.

use pvc_core::model::{DaemonState, MigrationMethod, NodeName, VmState};
use pvc_operate::{
    silence_words,
    vm::{Daemon, Explained, Undefined, VmExplanation},
};

use super::list::{asked, desired_node};
use crate::{
    cmd::explain,
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
};

pub(super) async fn explain(door: &Door, out: &Out, reference: &str) -> Result<(), Failure> {
    let explained = door.explain_vm(reference).await?;
    match &explained {
        _ if out.is_json() => out.json(&explained),
        Explained::Vm(facts) => out.write(&people(facts, out.colour())),
        Explained::Undefined(facts) => out.write(&of_none(facts, out.colour())),
    }
}

fn people(facts: &VmExplanation, colour: bool) -> String {
    let mut lines = vec![("VM", Cell::from(&facts.name)), ("uuid", facts.uuid.to_string().into())];
    if let (Some(state), Some(node)) = (facts.state, &facts.node) {
        lines.push(("asked", asked(state, &facts.unreadable)));
        lines.push(("on node", desired_node(node, &facts.unreadable)));
        lines.push(("claimed by", or_nobody(facts.claim.iter()).into()));
        lines.push(("seen running on", facts.running.words().into()));
        if !facts.may_run_on.is_empty() {
            let who = format!("{}, by the last word of its daemon", or_nobody(facts.may_run_on.iter()));
            lines.push(("may run on", Cell::new(who, Look::Bad)));
        }
        if let Some(last) = &facts.last_node {
            lines.push(("migrated from", last.as_str().into()));
        }
        if let Some(method) = facts.migration_method.filter(|method| *method != MigrationMethod::None) {
            lines.push(("migration", method.to_string().into()));
        }
        if !facts.failed_reason.is_empty() {
            let word = if state == VmState::Failed { "failed because" } else { "last trouble" };
            lines.push((word, Cell::new(&facts.failed_reason, Look::Bad)));
        }
    }
    lines.extend(explain::broken(&facts.problems));
    for daemon in &facts.daemons {
        lines.push(("daemon of", daemon_cell(daemon)));
        let of = |words: &String| Cell::new(format!("{}: {words}", daemon.node), Look::Busy);
        lines.extend(daemon.fence.iter().map(|words| ("fence of", of(words))));
        lines.extend(daemon.flush.iter().map(|words| ("flush of", of(words))));
    }
    lines.extend(explain::maintenance(facts.maintenance));
    match (&facts.could_go_to, &facts.cannot_go_because) {
        (Some(node), _) => lines.push(("could go to", node.as_str().into())),
        (None, Some(why)) => lines.push(("could go to", Cell::new(why, Look::Busy))),
        (None, None) => {}
    }
    lines.extend(explain::said(facts.explanation.as_ref()));
    lines.push(("console log", facts.console_log.as_deref().unwrap_or("none in its definition").into()));
    explain::screen(&lines, &facts.conclusion, colour)
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
    lines.extend(explain::broken(&facts.problems));
    if facts.explanation.is_some() {
        lines.extend(explain::said(facts.explanation.as_ref()));
    }
    explain::screen(&lines, &facts.conclusion, colour)
}
