//! What can be typed after `./lab`. The help texts are the operator's first manual.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pvc_lab::{Traffic, Way, layout::NodeNumber};

/// A cluster of real daemons on this machine.
#[derive(Parser)]
#[command(name = "lab")]
pub(crate) struct Arguments {
    /// Which lab: several run side by side.
    #[arg(long, global = true, default_value = "main", env = "PVC_LAB")]
    pub(crate) name: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Brings a lab up, with a VM running on it.
    Up(Up),
    /// Takes it down and removes everything, also what a crashed lab left.
    Down,
    /// Shows the nodes, their services and VMs.
    Status,
    /// Gives the nodes the pvcd and pvc built last, and restarts pvcd. Guests go on running.
    Update,
    /// Runs a program on a node; `switch` is the place beside the nodes that reaches all their addresses.
    Exec {
        node: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Connects this terminal with a VM's serial console; Ctrl-] leaves.
    Console { vm: String },
    /// Prints a node's journal, also when it is off.
    Log {
        node: String,
        /// Go on with what is written from now on.
        #[arg(short, long)]
        follow: bool,
        /// How many lines.
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: u32,
        /// Only this unit, for example pvcd.
        #[arg(short, long)]
        unit: Option<String>,
    },
    /// Copies all logs and the ZooKeeper tree to target/lab-logs and prints where.
    Logs,
    /// Cuts a node's power.
    Kill { node: String },
    /// Switches a node on.
    Start { node: String },
    /// Cuts a node's power and switches it on again.
    Reset { node: String },
    /// Presses a node's power button: its system shuts down.
    Shutdown { node: String },
    /// Freezes every process of a node. Its kernel still answers pings; `drop` it too for a silent machine.
    Pause { node: String },
    /// Thaws it.
    Resume { node: String },
    /// Pulls a node's network cables.
    Cut { node: String },
    /// Plugs them in again.
    Heal { node: String },
    /// Drops all frames of a node, or those between two, without the nodes noticing.
    Drop {
        a: String,
        /// Another node, or `bmcs` for all of them.
        b: Option<String>,
        /// Which frames.
        #[arg(long, value_enum, default_value_t = Only::All)]
        only: Only,
        /// Which way they go.
        #[arg(long, value_enum, default_value_t = Direction::Both)]
        way: Direction,
        /// How many of a hundred, chosen at random.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
        percent: u8,
    },
    /// Stops dropping frames.
    Undrop,
    /// Asks a node's BMC, for example: ipmi node1 chassis power status.
    Ipmi {
        node: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A node's BMC: its cable, and how it behaves.
    #[command(subcommand)]
    Bmc(Bmc),
    /// A node's ZooKeeper.
    #[command(subcommand)]
    Zk(Zookeeper),
    /// Used by the lab itself.
    #[command(hide = true, subcommand)]
    Internal(Internal),
}

/// What the lab is to be like.
#[derive(Args)]
pub(crate) struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: u8,
    /// Define and start no VM.
    #[arg(long)]
    pub(crate) no_demo: bool,
    /// Bring a Ceph cluster up beside the nodes, and manage storage.
    #[arg(long)]
    pub(crate) storage: bool,
    /// Run no PostgreSQL on node1: the names of client networks are lacking then, and `pvc status` says so.
    #[arg(long)]
    pub(crate) no_database: bool,
    /// Seconds between keepalives.
    #[arg(long, default_value_t = 2)]
    pub(crate) keepalive_interval: u32,
    /// Missed keepalives until a node is fenced; 0 never fences.
    #[arg(long, default_value_t = 5)]
    pub(crate) fence_intervals: u32,
    /// Missed keepalives until a node resets itself; 0 never does.
    #[arg(long, default_value_t = 0)]
    pub(crate) suicide_intervals: u32,
    /// The folder whose pvcd and pvc the nodes run [default: the one of this program].
    #[arg(long)]
    pub(crate) binaries: Option<PathBuf>,
    /// How many seconds each stage may take before this gives up.
    #[arg(long, default_value_t = 120)]
    pub(crate) deadline: u64,
}

#[derive(Subcommand)]
pub(crate) enum Bmc {
    /// Pulls it.
    Cut { node: String },
    /// Plugs it in again.
    Heal { node: String },
    /// It does what it is told to, and tells the truth.
    Honest { node: String },
    /// It takes its time for each thing, and answers nobody meanwhile.
    Slow {
        node: String,
        #[arg(long, default_value_t = 3000)]
        ms: u32,
    },
    /// It says that the power is off, and does nothing.
    Liar { node: String },
    /// It accepts everything and does nothing.
    Idle { node: String },
    /// It refuses to power off; a reset it accepts, and does nothing.
    OnlyResets { node: String },
}

/// Which frames are dropped.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Only {
    All,
    Zookeeper,
    AllButZookeeper,
}

impl From<Only> for Traffic {
    fn from(only: Only) -> Self {
        match only {
            Only::All => Self::All,
            Only::Zookeeper => Self::ZooKeeper,
            Only::AllButZookeeper => Self::AllButZooKeeper,
        }
    }
}

/// Which way dropped frames go.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Direction {
    Both,
    /// What the node sends.
    From,
    /// What is sent to it.
    To,
}

impl From<Direction> for Way {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Both => Self::Both,
            Direction::From => Self::From,
            Direction::To => Self::To,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Zookeeper {
    /// Stops it.
    Stop { node: String },
    /// Starts it.
    Start { node: String },
}

/// The stages of the capsule and of a node; see capsule.rs and boot.rs.
#[derive(Subcommand)]
pub(crate) enum Internal {
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
    Door {
        lab: String,
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
