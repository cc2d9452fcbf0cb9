//! `pvc vm …`: desired states of virtual machines, and what is known of them.

mod console;
mod explain;
mod info;
mod list;
mod log;
mod modify;
mod vnc;

use std::{
    io::{self, Read as _},
    path::Path,
};

use pvc_core::model::DomainSpec;
use pvc_operate::vm::{Desired, Relocation};

use super::{
    confirm::{self, Otherwise},
    follow::follow,
};
use crate::{
    args,
    door::{Destination, Door},
    failure::Failure,
    print::Out,
};

pub(super) async fn run(command: args::Vm, door: &Door, out: &Out) -> Result<(), Failure> {
    use args::Vm;
    match command {
        Vm::Define { target, selector, file } => {
            let text = text_of(&file)?;
            let spec = DomainSpec::parse(&text).map_err(|cause| Failure::Definition { file, cause })?;
            out.answer(&door.define((&spec, &text), target.as_deref(), selector).await?)
        }
        Vm::Modify(args) => modify::modify(door, out, &args).await,
        Vm::Undefine { yes, vm, wait } => {
            let (is_off, asked) = door.undefine(&vm.vm).await?;
            let name = &asked.subject;
            let question = format!("VM {name} is not off. Power it off and undefine it?");
            if !yes && !is_off && !confirm::ask(&question, Otherwise::Go)? {
                return Err(Failure::Unconfirmed(format!("VM {name} was not undefined")));
            }
            follow(door, out, asked, Some(wait)).await
        }
        Vm::Start(args) => set_state(door, out, Desired::Start, &args).await,
        Vm::Stop(args) => set_state(door, out, Desired::Stop, &args).await,
        Vm::Shutdown(args) => set_state(door, out, Desired::Shutdown, &args).await,
        Vm::Restart(args) => set_state(door, out, Desired::Restart, &args).await,
        Vm::Migrate(args) => relocate(door, out, Relocation::Migrate, &args).await,
        Vm::Unmigrate { force, desired } => {
            let args = args::Migrate { target: None, selector: None, force, desired };
            relocate(door, out, Relocation::Unmigrate, &args).await
        }
        Vm::Move(args) => relocate(door, out, Relocation::Move, &args).await,
        Vm::List(args) => list::list(door, out, &args).await,
        Vm::Info { long, vm } => info::info(door, out, &vm.vm, long).await,
        Vm::Dump(vm) => info::dump(door, out, &vm.vm).await,
        Vm::Log { lines, follow, vm } => log::log(door, out, &vm.vm, lines, follow).await,
        Vm::Console { force, wait, vm } => console::console(door, out, &vm.vm, force, wait).await,
        Vm::Vnc(args) => vnc::vnc(door, out, &args).await,
        Vm::FlushLocks { change, vm } => {
            let (_, asked) = door.flush_locks(&vm.vm).await?;
            follow(door, out, asked, (!change.no_wait).then_some(change.within)).await
        }
        Vm::Explain(vm) => explain::explain(door, out, &vm.vm).await,
    }
}

async fn set_state(door: &Door, out: &Out, desired: Desired, args: &args::Desired) -> Result<(), Failure> {
    let (asked, strained) = door.set_state(&args.vm.vm, desired, !args.no_wait).await?;
    let within = (!args.no_wait).then(|| args.wait.unwrap_or(asked.patience));
    for warning in strained {
        out.aside(&format!("{}: {warning}", asked.subject));
    }
    follow(door, out, asked, within).await
}

async fn relocate(
    door: &Door,
    out: &Out,
    relocation: Relocation,
    args: &args::Migrate,
) -> Result<(), Failure> {
    let to = Destination { node: args.target.as_deref(), selector: args.selector, force: args.force };
    let asked = door.relocate(&args.desired.vm.vm, relocation, to).await?;
    let within = (!args.desired.no_wait).then(|| args.desired.wait.unwrap_or(asked.patience));
    follow(door, out, asked, within).await
}

/// The text of a definition; `-` is standard input.
fn text_of(file: &Path) -> Result<String, Failure> {
    /// More than any definition may have; a larger file is not read to its end.
    const MOST: u64 = 2 * 1024 * 1024;
    let text = || -> io::Result<String> {
        let mut bytes = Vec::new();
        if file == Path::new("-") {
            io::stdin().lock().take(MOST).read_to_end(&mut bytes)?;
        } else {
            std::fs::File::open(file)?.take(MOST).read_to_end(&mut bytes)?;
        }
        String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()))
    };
    text().map_err(|cause| Failure::Machine { doing: format!("read {}", file.display()), cause })
}
