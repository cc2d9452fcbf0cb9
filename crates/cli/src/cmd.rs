//! The commands, one module a subject.

mod audit;
mod confirm;
mod explain;
mod follow;
#[cfg(test)]
mod fuzz;
mod network;
mod node;
mod status;
mod storage;
mod task;
mod vm;

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::CommandFactory;
use pvc_core::{command::cluster::MAINTENANCE, model::NodeName, text::one_line};
use pvc_operate::{Cluster, silence_words};

use crate::{
    args::{Args, Audit, Command, Switch},
    connect,
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
    connect::close(cluster).await;
    done
}

async fn dispatch(command: Command, cluster: &Cluster, out: &Out) -> Result<(), Failure> {
    match command {
        Command::Init { yes: _ } => out.answer(&cluster.init().await?),
        Command::Status => status::status(cluster, out).await,
        Command::Maintenance { switch: Some(switch) } => {
            out.answer(&cluster.set_maintenance(switch == Switch::On).await?)
        }
        Command::Maintenance { switch: None } => {
            let shown = cluster.maintenance().await?;
            let off = "maintenance is off: silent nodes are fenced as configured";
            let words = if shown.maintenance { MAINTENANCE } else { off };
            if out.is_json() { out.json(&shown) } else { out.write(&format!("{words}\n")) }
        }
        Command::Node(command) => node::run(command, cluster, out).await,
        Command::Vm(command) => vm::run(command, cluster, out).await,
        Command::Network(command) => network::run(command, cluster, out).await,
        Command::Storage(command) => storage::run(command, cluster, out).await,
        Command::Task(command) => task::run(command, cluster, out).await,
        Command::Audit(Audit::List { lines }) => audit::list(cluster, out, lines).await,
        Command::Completions { .. } => Ok(()),
    }
}

/// Who asks, for whoever reads it later: not checked by anybody.
fn operator() -> String {
    let user =
        std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    one_line(format!("{user} on {}", host.trim()).as_str())
}

/// This machine's clock.
fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A line above a list, if something about the whole cluster is out of the ordinary.
fn banner(maintenance: bool) -> String {
    if maintenance { format!("! {MAINTENANCE}\n") } else { String::new() }
}

/// A line below it about each node that is silent.
fn silences(silent_s: &BTreeMap<NodeName, u64>) -> String {
    let line = |(node, silence): (&NodeName, &u64)| format!("! {node}: {}\n", silence_words(*silence));
    silent_s.iter().map(line).collect::<Vec<_>>().concat()
}
