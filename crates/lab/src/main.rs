//! The command line of the lab; `./lab` builds and runs it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pvc_lab::{
    Lab, LabOptions, Lifetime, bmc, boot, capsule,
    layout::{Layout, NodeNumber},
    switch,
};

/// A cluster of real daemons on this machine.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings the lab up.
    Up,
    /// Takes it down.
    Down,
    /// Used by the lab itself.
    #[command(hide = true, subcommand)]
    Internal(Internal),
}

#[derive(Subcommand)]
enum Internal {
    Capsule {
        lab: String,
        #[arg(long)]
        bound: bool,
    },
    Init {
        lab: String,
        #[arg(long)]
        bound: bool,
    },
    Switch {
        lab: String,
        #[arg(long)]
        bound: bool,
    },
    PowerUp {
        lab: String,
        node: NodeNumber,
    },
    Boot {
        lab: String,
        node: NodeNumber,
    },
    Chassis {
        lab: String,
        node: NodeNumber,
        arguments: Vec<String>,
    },
    Enter {
        lab: String,
        place: String,
        #[arg(last = true)]
        program: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up => {
            let began = std::time::Instant::now();
            let options = LabOptions::new("lab", std::env::current_exe()?).without_daemon();
            Lab::start(options, Lifetime::UntilDown, &mut |what| {
                println!("{:6.2} s  {what}", began.elapsed().as_secs_f32())
            })?;
            Ok(())
        }
        Command::Down => {
            pvc_lab::claim::release(&Layout::new("lab".parse()?))?;
            Ok(())
        }
        Command::Internal(internal) => run_internal(internal),
    }
}

fn run_internal(internal: Internal) -> Result<()> {
    let layout = |lab: String| -> Result<Layout> { Ok(Layout::new(lab.parse()?)) };
    match internal {
        Internal::Capsule { lab, bound } => capsule::enter(&layout(lab)?, bound),
        Internal::Init { lab, bound } => capsule::init(&layout(lab)?, bound),
        Internal::Switch { lab, bound } => switch::run_switch(&layout(lab)?, bound),
        Internal::PowerUp { lab, node } => boot::power_up(&layout(lab)?, node),
        Internal::Boot { lab, node } => boot::boot(&layout(lab)?, node),
        Internal::Chassis { lab, node, arguments } => bmc::chassis(&layout(lab)?, node, &arguments),
        Internal::Enter { lab, place, program } if place == "switch" => {
            boot::enter_switch(&layout(lab)?, &program)
        }
        Internal::Enter { lab, place, program } => boot::enter_node(&layout(lab)?, place.parse()?, &program),
    }
}
