//! `pvc plan …`: what would happen if. What it says is `pvc_core::command::forecast`'s business.

use pvc_core::command::forecast::{Expected, Fate, Place};

use crate::{
    args::Plan,
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, printable, table},
    },
};

pub(super) async fn run(command: Plan, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Plan::Flush(guess) => vms(&door.forecast_of_flush(&guess.node, guess.selector).await?, out),
        Plan::Death(guess) => vms(&door.forecast_of_death(&guess.node, guess.selector).await?, out),
        Plan::Vm { vm, selector } => places(&door.forecast_of_vm(&vm, selector).await?, out),
    }
}

fn vms(expected: &[Expected], out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&expected);
    }
    if expected.is_empty() {
        return out.write("no VM would notice\n");
    }
    let row = |vm: &Expected| -> Vec<Cell> {
        let memory = vm.memory_mib.map_or_else(|| "?".to_owned(), |mib| mib.to_string());
        let node = vm.node.as_ref().map_or_else(|| "-".into(), |node| node.as_str().into());
        vec![Cell::from(printable(&vm.name)), memory.into(), fate(vm.fate), node, printable(&vm.why).into()]
    };
    let rows: Vec<Vec<Cell>> = expected.iter().map(row).collect();
    out.write(&table(&["vm", "MiB", "would", "on", ""], &rows, out.colour()))
}

fn fate(fate: Fate) -> Cell {
    let (words, look) = match fate {
        Fate::Migrates => ("migrate", Look::Good),
        Fate::Starts => ("start", Look::Good),
        Fate::ShutDown => ("be shut down", Look::Bad),
        Fate::Stays => ("stay", Look::Busy),
        Fate::Down => ("be down", Look::Bad),
    };
    Cell::new(words, look)
}

fn places(places: &[Place], out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&places);
    }
    let row = |place: &Place| -> Vec<Cell> {
        let says = match &place.unfit {
            Some(why) => Cell::new(printable(why), Look::Busy),
            None if place.chosen => Cell::new("would be chosen", Look::Good),
            None => "could take it".into(),
        };
        vec![place.node.as_str().into(), place.free_mib.to_string().into(), says]
    };
    let rows: Vec<Vec<Cell>> = places.iter().map(row).collect();
    out.write(&table(&["node", "MiB free", ""], &rows, out.colour()))
}
