//! The commands, one module a subject.

mod audit;
#[cfg(test)]
mod both;
mod confirm;
mod doctor;
mod events;
mod explain;
mod follow;
#[cfg(test)]
mod fuzz;
mod login;
mod network;
mod node;
mod plan;
mod status;
mod storage;
mod task;
mod token;
mod top;
mod vm;

use std::{collections::BTreeMap, io::Write as _};

use clap::CommandFactory;
use pvc_core::{command::cluster::MAINTENANCE, model::NodeName};
use pvc_operate::silence_words;

pub(crate) use crate::door::now_unix_s;
use crate::{
    args::{Args, Audit, Command, Switch},
    connect,
    door::Door,
    failure::Failure,
    places::{self, Said},
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
    if let Command::ManPages { folder } = args.command {
        let written = clap_mangen::generate_to(Args::command(), &folder);
        let doing = || format!("write manual pages into {}", folder.display());
        return written.map_err(|cause| Failure::Machine { doing: doing(), cause });
    }
    if let Command::Doctor = args.command {
        return doctor::doctor(args.zookeeper.as_deref(), out).await;
    }
    let Args { zookeeper, api, cluster, ca_file, plain_http, format: _, command } = args;
    let said = Said { zookeeper, api, cluster, ca_file, plain_http };
    let command = match command {
        Command::Login { url } => {
            return login::login(Said { api: url.or(said.api.clone()), ..said }, out).await;
        }
        Command::Logout => return login::logout(said, out),
        command => command,
    };
    let of = |name: &str| std::env::var(name).ok();
    let door = places::enter(places::find(said, of, places::folder(of).as_deref())?).await?;
    let done = dispatch(command, &door, out).await;
    if let Door::Direct(cluster) = door {
        connect::close(cluster).await;
    }
    done
}

async fn dispatch(command: Command, door: &Door, out: &Out) -> Result<(), Failure> {
    match command {
        Command::Init { yes: _ } => out.answer(&places::only_direct(door, "`pvc init`")?.init().await?),
        Command::Status => status::status(door, out).await,
        Command::Top => top::top(door, out).await,
        Command::Events { follow: _ } => events::events(door, out).await,
        Command::Plan(command) => plan::run(command, door, out).await,
        Command::Maintenance { switch: Some(switch) } => {
            out.answer(&door.set_maintenance(switch == Switch::On).await?)
        }
        Command::Maintenance { switch: None } => {
            let shown = door.maintenance().await?;
            let off = "maintenance is off: silent nodes are fenced as configured";
            let words = if shown.maintenance { MAINTENANCE } else { off };
            if out.is_json() { out.json(&shown) } else { out.write(&format!("{words}\n")) }
        }
        Command::Node(command) => node::run(command, door, out).await,
        Command::Vm(command) => vm::run(command, door, out).await,
        Command::Network(command) => network::run(command, door, out).await,
        Command::Storage(command) => storage::run(command, door, out).await,
        Command::Task(command) => task::run(command, door, out).await,
        Command::Audit(Audit::List { lines }) => audit::list(door, out, lines).await,
        Command::Token(command) => token::run(command, door, out).await,
        Command::Completions { .. }
        | Command::Doctor
        | Command::Login { .. }
        | Command::Logout
        | Command::ManPages { .. } => Ok(()),
    }
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
