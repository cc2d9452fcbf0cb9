//! The commands, one module a subject.

mod confirm;
mod explain;
#[cfg(test)]
mod fuzz;
mod init;
mod maintenance;
mod node;
mod status;
#[cfg(test)]
mod testing;
mod vm;

use std::io::Write as _;

use clap::CommandFactory;

use crate::{
    args::{Args, Command},
    connect::{self, Connection},
    failure::Failure,
    print::Out,
};

/// Runs a command.
pub(crate) async fn run(args: Args, out: &Out) -> Result<(), Failure> {
    if let Command::Completions { shell } = args.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "pvc", &mut script);
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&script).and_then(|()| stdout.flush());
        return written.map_err(|cause| Failure::Machine { doing: "write the script".into(), cause });
    }
    let addresses = connect::addresses(args.zookeeper.as_deref())?;
    let cluster = connect::connect(addresses).await?;
    let done = dispatch(args.command, &cluster, out).await;
    cluster.close().await;
    done
}

async fn dispatch(command: Command, cluster: &Connection, out: &Out) -> Result<(), Failure> {
    match command {
        Command::Init { yes: _ } => init::init(cluster, out).await,
        Command::Status => status::status(cluster, out).await,
        Command::Maintenance { switch } => maintenance::maintenance(cluster, out, switch).await,
        Command::Node(command) => node::run(command, cluster, out).await,
        Command::Vm(command) => vm::run(command, cluster, out).await,
        Command::Completions { .. } => Ok(()),
    }
}
