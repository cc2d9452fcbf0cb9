//! `pvc vm list`. One broken VM is a row with question marks and a footnote; it never breaks the list.
//!
//! What is asked (`asked`, `node`) and what is seen (`runs on`) stand in columns of their own.

use pvc_core::model::{DomainDetails, Vm, VmKey, VmState};
use pvc_operate::{
    Cluster, Runners,
    vm::{self, Filter, VmList, VmRow},
};

use crate::{
    args,
    cmd::{banner, now_unix_s, silences},
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, printable, table},
    },
};

pub(super) async fn list(cluster: &Cluster, out: &Out, args: &args::List) -> Result<(), Failure> {
    let matches = |text: &str| args.limit.as_ref().is_none_or(|limit| limit.is_match(text));
    let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> =
        if args.limit.is_some() { Some(&matches) } else { None };
    let filter = Filter { node: args.target.as_deref(), state: args.state, wanted, long: args.long };
    if args.raw {
        let names = vm::names(cluster, &filter).await?;
        if out.is_json() {
            return out.json(&names);
        }
        return out.write(&names.iter().map(|name| printable(name) + "\n").collect::<String>());
    }
    let list = vm::list(cluster, &filter, now_unix_s()).await?;
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
        match &row.vm {
            Some(vm) => cells.extend([asked(vm), desired_node(vm), runs_on(vm, &row.runners), migrated]),
            None => {
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
    let mut text = banner(list.maintenance) + &table(&header, &rows, colour) + &silences(&list.silent_s);
    for row in &list.vms {
        for problem in &row.problems {
            text += &(printable(&format!("? {}: {problem}", shown_name(row))) + "\n");
        }
    }
    for stray in &list.strays {
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
fn runs_on(vm: &Vm, runners: &Runners) -> Cell {
    let asked_to_run = matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Migrate);
    let look = match &runners.now[..] {
        [] if asked_to_run || !runners.before.is_empty() => Look::Busy,
        [] => Look::Plain,
        _ if runners.halted.is_some() => Look::Bad,
        [node] if *node == vm.node.value => Look::Good,
        _ => Look::Bad,
    };
    Cell::new(runners.words(), look)
}

/// The word of its key `state`, `?` if that cannot be read.
pub(super) fn asked(vm: &Vm) -> Cell {
    Cell::state(if vm.cannot_read(VmKey::State) { "?" } else { vm.state.value.as_str() })
}

/// The node of its key `node`, `?` if that cannot be read.
pub(super) fn desired_node(vm: &Vm) -> Cell {
    if vm.cannot_read(VmKey::Node) { Cell::state("?") } else { vm.node.value.as_str().into() }
}
