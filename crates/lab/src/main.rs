//! The lab's command line; `./lab` builds and runs it. Reads arguments and prints; what is done is in the library.

mod command_line;

use std::{fs, os::unix::process::CommandExt, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use pvc_lab::{
    Behaviour, Dropped, Lab, Peer, capsule, devices::bmc, devices::switch, door, layout::Layout,
    machine::boot, machine::marker, program::command,
};

use crate::command_line::arguments::{Arguments, Bmc, Command, Internal, Zookeeper};

/// For programs run on nodes that ought to answer at once.
const DEADLINE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.name, arguments.command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, command: Command) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("namespaces, mounts and cgroups need root: use sudo");
    }
    let attach = || Lab::attach(name);
    let node = |name: &str| attach()?.find_node(name);
    match command {
        Command::Internal(internal) => return run_internal(internal),
        Command::Up(options) => command_line::up::up(name, &options)?,
        Command::Update => command_line::up::update(&attach()?)?,
        Command::Down => {
            let existed = marker::release(&Layout::new(name.parse()?))?;
            println!("{}", if existed { "everything is gone" } else { "there was nothing to take down" });
        }
        Command::Status => print!("{}", command_line::status::status(&attach()?)?),
        Command::Logs => println!("{}", attach()?.collect_logs().display()),
        Command::Exec { node: place, program } => return exec(&attach()?, &place, &program),
        Command::Console { vm } => return console(&attach()?, &vm),
        Command::Log { node, follow, lines, unit } => log(&attach()?, &node, follow, lines, unit.as_deref())?,
        Command::Kill { node: name } => node(&name)?.kill()?,
        Command::Start { node: name } => node(&name)?.start()?,
        Command::Reset { node: name } => node(&name)?.reset()?,
        Command::Shutdown { node: name } => node(&name)?.shut_down()?,
        Command::Pause { node: name } => node(&name)?.pause()?,
        Command::Resume { node: name } => node(&name)?.resume()?,
        Command::Cut { node: name } => node(&name)?.cut()?,
        Command::Heal { node: name } => node(&name)?.heal()?,
        Command::Drop { a, b, only, way, percent } => {
            let lab = attach()?;
            let peer = match b.as_deref() {
                None => Peer::Everybody,
                Some("bmcs") => Peer::Bmcs,
                Some(b) => Peer::Node(lab.find_node(b)?.number().get()),
            };
            let all = Dropped::all_of(lab.find_node(&a)?.number());
            lab.lose(Dropped { peer, traffic: only.into(), way: way.into(), percent, ..all })?;
        }
        Command::Undrop => attach()?.undrop()?,
        Command::Ipmi { node: name, arguments } => {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let seen = node(&name)?.ipmi(&arguments, DEADLINE)?;
            print!("{}", seen.stdout);
            eprint!("{}", seen.stderr);
            if !seen.success() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Bmc(what) => match what {
            Bmc::Cut { node: name } => node(&name)?.cut_bmc()?,
            Bmc::Heal { node: name } => node(&name)?.heal_bmc()?,
            Bmc::Honest { node: name } => node(&name)?.set_bmc(Behaviour::Honest)?,
            Bmc::Slow { node: name, ms } => node(&name)?.set_bmc(Behaviour::Slow { ms })?,
            Bmc::Liar { node: name } => node(&name)?.set_bmc(Behaviour::Liar)?,
            Bmc::Idle { node: name } => node(&name)?.set_bmc(Behaviour::Idle)?,
            Bmc::OnlyResets { node: name } => node(&name)?.set_bmc(Behaviour::OnlyResets)?,
        },
        Command::Zk(change) => {
            let (verb, name) = match change {
                Zookeeper::Stop { node } => ("stop", node),
                Zookeeper::Start { node } => ("start", node),
            };
            node(&name)?.run(&["/bin/systemctl", verb, "zookeeper.service"], DEADLINE)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a program on a node or on the switch, with this terminal.
fn exec(lab: &Lab, place: &str, program: &[String]) -> Result<ExitCode> {
    if place == "switch" {
        return boot::enter_switch(lab.layout(), program);
    }
    boot::enter_node(lab.layout(), lab.find_node(place)?.number(), program)
}

fn console(lab: &Lab, vm: &str) -> Result<ExitCode> {
    for node in lab.nodes() {
        let Ok(state) = node.exec(&["/usr/bin/virsh", "-q", "domstate", vm], Duration::from_secs(10)) else {
            continue;
        };
        if state.success() && state.stdout.trim() != "shut off" {
            println!("{vm} runs on {}", node.name());
            let program = ["/usr/bin/virsh", "console", "--force", vm].map(str::to_owned);
            return boot::enter_node(lab.layout(), node.number(), &program);
        }
    }
    bail!("the VM {vm} runs on no node that answers: see pvc vm list")
}

/// Reads the journal from the node's disk: it can be read while the node is off, and goes on when it is back.
fn log(lab: &Lab, node: &str, follow: bool, lines: u32, unit: Option<&str>) -> Result<()> {
    let number = lab.find_node(node)?.number();
    let folder = lab.layout().node_disk(number).join("var/log/journal");
    fs::metadata(&folder).with_context(|| format!("{number} has written no journal yet"))?;
    let mut journalctl = command("/usr/bin/journalctl");
    journalctl.arg("-D").arg(folder).args(["--no-pager", "--quiet", "-n", &lines.to_string()]);
    if follow {
        journalctl.arg("--follow");
    }
    if let Some(unit) = unit {
        journalctl.args(["--unit", unit]);
    }
    Err(anyhow::anyhow!(journalctl.exec()).context("could not start journalctl"))
}

fn run_internal(internal: Internal) -> Result<ExitCode> {
    let layout = |lab: String| -> Result<Layout> { Ok(Layout::new(lab.parse()?)) };
    match internal {
        Internal::Capsule { lab, bound } => capsule::enter(&layout(lab)?, bound)?,
        Internal::Init { lab, bound } => capsule::init(&layout(lab)?, bound)?,
        Internal::Switch { lab, bound } => switch::run_switch(&layout(lab)?, bound)?,
        Internal::Door { lab } => door::keep(&layout(lab)?)?,
        Internal::PowerUp { lab, node } => boot::power_up(&layout(lab)?, node)?,
        Internal::Boot { lab, node } => boot::boot(&layout(lab)?, node)?,
        Internal::Chassis { lab, node, arguments } => bmc::chassis(&layout(lab)?, node, &arguments)?,
        Internal::Enter { lab, place, program } if place == "switch" => {
            return boot::enter_switch(&layout(lab)?, &program);
        }
        Internal::Enter { lab, place, program } => {
            return boot::enter_node(&layout(lab)?, place.parse()?, &program);
        }
    }
    Ok(ExitCode::SUCCESS)
}
