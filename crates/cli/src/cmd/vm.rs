//! `pvc vm …`: desired states of virtual machines, and what is known of them.

mod explain;
mod info;
mod list;
mod log;

use std::{
    io::{self, Read as _},
    path::Path,
};

use pvc_core::model::{DomainSpec, StorageCommand};
use pvc_operate::{
    Cluster,
    vm::{self as command, Desired, Relocation, To},
};

use super::{
    confirm::{self, Otherwise},
    follow::follow,
    storage,
};
use crate::{args, connect, failure::Failure, print::Out};

pub(super) async fn run(command: args::Vm, cluster: &Cluster, out: &Out) -> Result<(), Failure> {
    use args::Vm;
    match command {
        Vm::Define { target, selector, file } => {
            let spec = read(&file)?;
            let selector = connect::selector(selector);
            out.answer(&command::define(cluster, &spec, target.as_deref(), selector).await?.1)
        }
        Vm::Undefine { yes, vm, wait } => {
            let id = cluster.find_vm(&vm.vm).await?;
            let (is_off, asked) = command::undefine(cluster, id).await?;
            let name = &asked.subject;
            let question = format!("VM {name} is not off. Power it off and undefine it?");
            if !yes && !is_off && !confirm::ask(&question, Otherwise::Go)? {
                return Err(Failure::Unconfirmed(format!("VM {name} was not undefined")));
            }
            follow(cluster, out, asked, Some(wait)).await
        }
        Vm::Start(args) => set_state(cluster, out, Desired::Start, &args).await,
        Vm::Stop(args) => set_state(cluster, out, Desired::Stop, &args).await,
        Vm::Shutdown(args) => set_state(cluster, out, Desired::Shutdown, &args).await,
        Vm::Restart(args) => set_state(cluster, out, Desired::Restart, &args).await,
        Vm::Migrate(args) => relocate(cluster, out, Relocation::Migrate, &args).await,
        Vm::Unmigrate { force, desired } => {
            let args = args::Migrate { target: None, selector: None, force, desired };
            relocate(cluster, out, Relocation::Unmigrate, &args).await
        }
        Vm::Move(args) => relocate(cluster, out, Relocation::Move, &args).await,
        Vm::List(args) => list::list(cluster, out, &args).await,
        Vm::Info { long, vm } => info::info(cluster, out, &vm.vm, long).await,
        Vm::Dump(vm) => info::dump(cluster, out, &vm.vm).await,
        Vm::Log { lines, follow, vm } => log::log(cluster, out, &vm.vm, lines, follow).await,
        Vm::FlushLocks { change, vm } => {
            let command = StorageCommand::FlushLocks { vm: cluster.find_vm(&vm.vm).await? };
            storage::change(cluster, out, command, false, &change).await
        }
        Vm::Explain(vm) => explain::explain(cluster, out, &vm.vm).await,
    }
}

async fn set_state(
    cluster: &Cluster,
    out: &Out,
    desired: Desired,
    args: &args::Desired,
) -> Result<(), Failure> {
    let id = cluster.find_vm(&args.vm.vm).await?;
    let command::Written { vm, asked } = command::set_state(cluster, id, desired).await?;
    let within = (!args.no_wait).then(|| args.wait.unwrap_or(asked.patience));
    if desired == Desired::Start && within.is_some() {
        for warning in command::strained(cluster, &vm).await {
            out.aside(&format!("{}: {warning}", vm.name));
        }
    }
    follow(cluster, out, asked, within).await
}

async fn relocate(
    cluster: &Cluster,
    out: &Out,
    relocation: Relocation,
    args: &args::Migrate,
) -> Result<(), Failure> {
    let id = cluster.find_vm(&args.desired.vm.vm).await?;
    let selector = connect::selector(args.selector);
    let to = To { node: args.target.as_deref(), selector, force: args.force };
    let asked = command::relocate(cluster, id, relocation, to).await?.asked;
    let within = (!args.desired.no_wait).then(|| args.desired.wait.unwrap_or(asked.patience));
    follow(cluster, out, asked, within).await
}

/// Reads a definition; `-` is standard input.
fn read(file: &Path) -> Result<DomainSpec, Failure> {
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
    let xml =
        text().map_err(|cause| Failure::Machine { doing: format!("read {}", file.display()), cause })?;
    DomainSpec::parse(&xml).map_err(|cause| Failure::Definition { file: file.to_owned(), cause })
}
