//! `pvc vm list`. One broken VM is a row with question marks and a footnote; it never breaks the list.
//!
//! What is asked (`asked`, `node`) and what is seen (`runs on`) stand in columns of their own.

use std::collections::BTreeSet;

use pvc_core::model::{DomainDetails, VmKey, VmState};
use pvc_operate::{
    Runners,
    vm::{VmList, VmRow},
};

use crate::{
    args,
    cmd::{banner, silences},
    door::{Door, Filter},
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, printable, table},
    },
};

pub(super) async fn list(door: &Door, out: &Out, args: &args::List) -> Result<(), Failure> {
    let (node, limit) = (args.target.as_deref(), args.limit.as_ref());
    let filter = Filter { node, state: args.state, limit, long: args.long };
    if args.raw {
        let names = door.vm_names(filter).await?;
        if out.is_json() {
            return out.json(&names);
        }
        return out.write(&names.iter().map(|name| printable(name) + "\n").collect::<String>());
    }
    let list = door.vms(filter).await?;
    if out.is_json() { out.json(&list.vms) } else { out.write(&people(&list, args.long, out.colour())) }
}

fn people(list: &VmList, long: bool, colour: bool) -> String {
    let mut header = vec!["name", "uuid", "asked", "node", "runs on", "migrated"];
    if long {
        header.extend(["memory", "vcpus", "networks"]);
    }
    let row = |row: &VmRow| {
        let mut cells = vec![Cell::from(shown_name(row)), row.uuid.to_string().into()];
        let unknown = || Cell::state("?");
        let migrated = row.migrated.as_ref().map_or_else(unknown, Cell::from);
        match (row.state, &row.node) {
            (Some(state), Some(node)) => cells.extend([
                asked(state, &row.unreadable),
                desired_node(node, &row.unreadable),
                runs_on(state, node, &row.runners),
                migrated,
            ]),
            _ => {
                let nobody = row.runners == Runners::default();
                let runners = if nobody { String::new() } else { row.runners.words() };
                cells.extend([unknown(), unknown(), Cell::new(runners, Look::Bad), migrated]);
            }
        }
        match &row.details {
            _ if !long => {}
            Some(details) => cells.extend(in_definition(details)),
            None => cells.extend(std::iter::repeat_n(unknown(), 3)),
        }
        cells
    };
    let rows: Vec<Vec<Cell>> = list.vms.iter().map(row).collect();
    let mut text =
        banner(list.beside.maintenance) + &table(&header, &rows, colour) + &silences(&list.beside.silent_s);
    for row in &list.vms {
        for problem in &row.problems {
            text += &(printable(&format!("? {}: {problem}", shown_name(row))) + "\n");
        }
    }
    for stray in &list.beside.strays {
        text += &(printable(&format!("? {stray}")) + "\n");
    }
    text
}

/// A VM whose name is lost is still to be seen.
fn shown_name(row: &VmRow) -> &str {
    if row.name.is_empty() { "?" } else { &row.name }
}

fn in_definition(details: &DomainDetails) -> [Cell; 3] {
    let number = |n: Option<u64>| n.map_or_else(|| Cell::state("?"), |n| n.to_string().into());
    let sources: Vec<&str> = details.networks.iter().map(|card| card.source.as_str()).collect();
    let sources = if sources.is_empty() { "-".to_owned() } else { sources.join(",") };
    [number(details.memory_mib), number(details.vcpus.map(u64::from)), sources.into()]
}

/// The nodes that report to run it. Red: elsewhere than asked; yellow: nobody says so now, though it is asked to run.
fn runs_on(state: VmState, wanted: &str, runners: &Runners) -> Cell {
    let asked_to_run = matches!(state, VmState::Start | VmState::Restart | VmState::Migrate);
    let look = match &runners.now[..] {
        [] if asked_to_run || !runners.before.is_empty() => Look::Busy,
        [] => Look::Plain,
        _ if runners.halted.is_some() => Look::Bad,
        [node] if node.as_str() == wanted => Look::Good,
        _ => Look::Bad,
    };
    Cell::new(runners.words(), look)
}

/// The word of its key `state`, `?` if that cannot be read.
pub(super) fn asked(state: VmState, unreadable: &BTreeSet<VmKey>) -> Cell {
    Cell::state(if unreadable.contains(&VmKey::State) { "?" } else { state.as_str() })
}

/// The node of its key `node`, `?` if that cannot be read.
pub(super) fn desired_node(node: &str, unreadable: &BTreeSet<VmKey>) -> Cell {
    if unreadable.contains(&VmKey::Node) { Cell::state("?") } else { node.into() }
}
