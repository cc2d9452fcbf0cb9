//! The command line's grammar. Same words as the state tree, the API and the manual.

mod network;
mod node;
mod plan;
mod storage;
mod token;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pvc_core::{model::VmState, plan::placement::Selector};
use regex_lite::Regex;

#[cfg(test)]
pub(crate) use self::node::Handover;
pub(crate) use self::{
    network::{Acl, AclDirection, Dhcp, Network, NetworkSettings, Static},
    node::{Death, Follow, Node},
    plan::Plan,
    storage::{Change, Osd, Pool, Removal, Snapshot, Storage, StorageFence, Task, Volume},
    token::Token,
};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 not found, 5 state store out of reach, \
    130 interrupted.";

/// Operate a Parallel Virtual Cluster.
#[derive(Debug, Parser)]
#[command(name = "pvc", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// ZooKeeper servers (or PVC_ZOOKEEPER); on a node, those of /etc/pvc/pvcd.yaml (or of the file in PVCD_CONFIG_FILE).
    #[arg(short = 'z', long, global = true, value_name = "HOST:PORT,…")]
    pub(crate) zookeeper: Option<String>,
    /// The cluster's API, by its address (or PVC_API), in place of ZooKeeper.
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["zookeeper", "cluster"])]
    pub(crate) api: Option<String>,
    /// A cluster of ~/.config/pvc/config.toml (or PVC_CLUSTER), which `pvc login` writes.
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "zookeeper")]
    pub(crate) cluster: Option<String>,
    /// Who vouches for the API's certificate, PEM (or PVC_CA_FILE); else those that this system trusts.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "zookeeper")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Send the token without TLS, also to another machine: whoever is on the way can read it.
    #[arg(long, global = true, conflicts_with = "zookeeper")]
    pub(crate) plain_http: bool,
    /// Output for people or for programs.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep a token for a cluster's API: it is asked for, or read from standard input, and tried.
    Login {
        /// The API, of a cluster that config.toml does not have yet.
        url: Option<String>,
    },
    /// Forget the token for a cluster's API.
    Logout,
    /// Prepare the state store for a new cluster. What exists stays as it is.
    Init {
        /// Accepted for older scripts: there is nothing to confirm.
        #[arg(short, long)]
        yes: bool,
    },
    /// The cluster on one screen: what is wrong first.
    Status,
    /// The cluster as it is, live: nodes and their load, VMs by state, what is not as asked and why. `q` ends it. Once, where no terminal is.
    Top,
    /// What is wrong with this node, its services and its way to the other nodes, and what mends it. Needs root, on a node.
    Doctor,
    /// What would happen if: nothing is changed.
    #[command(subcommand)]
    Plan(Plan),
    /// What becomes of the cluster, line by line, until Ctrl-C.
    Events {
        /// Accepted for what older scripts and other programs are used to: it always goes on.
        #[arg(short, long, hide = true)]
        follow: bool,
    },
    /// Maintenance mode: while it is on, nobody is fenced and no watchdog is armed. Without a word, show it.
    Maintenance {
        /// Turn it on or off.
        #[arg(value_enum)]
        switch: Option<Switch>,
    },
    /// Work with nodes.
    #[command(subcommand)]
    Node(Node),
    /// Work with virtual machines.
    #[command(subcommand)]
    Vm(Vm),
    /// Work with client networks.
    #[command(subcommand)]
    Network(Network),
    /// Work with storage: pools, volumes, snapshots, OSDs.
    #[command(subcommand)]
    Storage(Storage),
    /// See what the primary coordinator was asked to do, and what became of it.
    #[command(subcommand)]
    Task(Task),
    /// See who has changed what over the API.
    #[command(subcommand)]
    Audit(Audit),
    /// Work with tokens of the API that are in the state tree.
    #[command(subcommand)]
    Token(Token),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write a manual page for each command into a folder.
    #[command(hide = true)]
    ManPages {
        /// The folder.
        folder: std::path::PathBuf,
    },
}

/// What was changed over the API.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// The last changes and attempts, the newest first.
    List {
        /// So many at most; 512 are kept.
        #[arg(short, long, default_value_t = 50)]
        lines: u64,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Define a VM from a libvirt XML file. It is off afterwards.
    Define {
        /// The node that shall run it; without it, the selector chooses.
        #[arg(short, long, value_name = "NODE")]
        target: Option<String>,
        /// How a node is chosen: least memory or vCPUs allocated, least load, fewest VMs [default: as pvcd.yaml says, else
        /// mem].
        #[arg(short, long, value_parser = selector)]
        selector: Option<Selector>,
        /// The definition; `-` reads standard input.
        file: PathBuf,
    },
    /// Give a VM another definition, which counts from its next start.
    Modify(Modify),
    /// Stop a VM if need be and remove it from the cluster. Its disks stay.
    #[command(visible_alias = "remove")]
    Undefine {
        /// Do not ask, even if it runs.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        vm: VmRef,
        /// How long to wait for it to be off.
        #[arg(long, default_value = "30", value_parser = seconds, value_name = "SECONDS")]
        wait: Duration,
    },
    /// Start a VM.
    Start(Desired),
    /// Power a VM off at once.
    Stop(Desired),
    /// Ask a VM's guest to shut down; it is powered off if it does not go in 90 s.
    Shutdown(Desired),
    /// Shut a VM down and start it again.
    Restart(Desired),
    /// Move a running VM to another node and remember where it came from.
    Migrate(Migrate),
    /// Return a migrated VM to the node it came from.
    Unmigrate {
        /// Also to a node that is still taking its own VMs back.
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        desired: Desired,
    },
    /// Move a VM to another node for good, running or not.
    Move(Migrate),
    /// List VMs.
    List(List),
    /// Show one VM.
    Info {
        /// More of it: the devices of its definition.
        #[arg(short, long)]
        long: bool,
        #[command(flatten)]
        vm: VmRef,
    },
    /// Print a VM's definition.
    Dump(VmRef),
    /// Print the end of a VM's serial console.
    Log {
        /// How many lines.
        #[arg(short, long, default_value_t = 1000)]
        lines: usize,
        /// Go on with what is printed from now on.
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        vm: VmRef,
    },
    /// Type on a VM's serial console and see what it prints, on whatever node it is, also after it has moved. `^]` ends it.
    Console {
        /// Take the console from whoever has it open: one at a time can.
        #[arg(short, long)]
        force: bool,
        /// While the VM is off, wait until it starts, rather than end.
        #[arg(short, long)]
        wait: bool,
        #[command(flatten)]
        vm: VmRef,
    },
    /// Show a VM's screen to a viewer on this machine, on whatever node the VM is. Ctrl-C ends it.
    Vnc(Vnc),
    /// Shut out whoever wrote for a VM that is off, and take the locks of its disks.
    FlushLocks {
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        vm: VmRef,
    },
    /// Say why a VM is in the state it is in.
    Explain(VmRef),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Vnc {
    /// Where the viewer connects, on loopback; port 0: one that is free.
    #[arg(short, long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
    /// Start `remote-viewer`, and end with it.
    #[arg(short, long)]
    pub(crate) viewer: bool,
    #[command(flatten)]
    pub(crate) vm: VmRef,
}

/// Spells options as they are spelled here that older scripts spell with two characters after one hyphen.
pub(crate) fn respelled(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| match argument.to_str() {
        Some("-i6") => "--ipnet6".into(),
        Some("-g6") => "--gateway6".into(),
        _ => argument,
    })
}

/// Which VM.
#[derive(Debug, ClapArgs)]
pub(crate) struct VmRef {
    /// Its name or UUID.
    pub(crate) vm: String,
}

/// Another definition.
#[derive(Debug, ClapArgs)]
pub(crate) struct Modify {
    /// Restart the VM then, if it runs: shut it down and start it by the new definition.
    #[arg(short, long)]
    pub(crate) restart: bool,
    /// Edit it with VISUAL or EDITOR. On a terminal that is so where no file is given.
    #[arg(short, long, conflicts_with = "file")]
    pub(crate) editor: bool,
    #[command(flatten)]
    pub(crate) vm: VmRef,
    /// The new definition; `-` reads standard input.
    pub(crate) file: Option<PathBuf>,
}

/// A desired state, and whether to wait for it.
#[derive(Debug, ClapArgs)]
pub(crate) struct Desired {
    /// How long to wait until it is so [default: long enough for a healthy VM].
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) wait: Option<Duration>,
    /// Return when the desired state is written.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) vm: VmRef,
}

/// Where a VM shall go.
#[derive(Debug, ClapArgs)]
pub(crate) struct Migrate {
    /// The node that shall run it; without it, the selector chooses.
    #[arg(short, long, value_name = "NODE")]
    pub(crate) target: Option<String>,
    /// How a node is chosen: least memory or vCPUs allocated, least load, fewest VMs [default: as pvcd.yaml says, else mem].
    #[arg(short, long, value_parser = selector, conflicts_with = "target")]
    pub(crate) selector: Option<Selector>,
    /// Also if it was migrated before, and to a node that is still taking its own VMs back.
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) desired: Desired,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct List {
    /// Only VMs of this node.
    #[arg(short = 't', long, value_name = "NODE")]
    pub(crate) target: Option<String>,
    /// Only VMs in this state.
    #[arg(short, long, value_parser = vm_state)]
    pub(crate) state: Option<VmState>,
    /// Names only.
    #[arg(short, long, conflicts_with = "long")]
    pub(crate) raw: bool,
    /// Also what the definitions say: memory, vCPUs, networks.
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Only VMs whose name or UUID matches this regular expression.
    #[arg(value_parser = regex)]
    pub(crate) limit: Option<Regex>,
}

fn selector(text: &str) -> Result<Selector, String> {
    text.parse().map_err(|e: pvc_core::model::NameError| e.allowed.to_owned())
}

fn vm_state(text: &str) -> Result<VmState, String> {
    text.parse().map_err(|e: pvc_core::model::NameError| e.allowed.to_owned())
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|e| e.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    /// A day: nobody watches longer, and sums with a clock stay far from overflow.
    const MOST: u32 = 86_400;
    match text.parse::<u32>() {
        Ok(seconds) if (1..=MOST).contains(&seconds) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(format!("whole seconds from 1 to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn older_scripts_options_are_understood() {
        let line = "pvc network add -d web -p managed -i 10.1.0.0/24 -i6 fd00::/64 -g 10.1.0.1 -g6 fd00::1 --no-dhcp --dhcp 100";
        let args = Args::try_parse_from(respelled(line.split(' ').map(OsString::from))).unwrap();
        let Command::Network(Network::Add { settings, .. }) = args.command else { panic!() };
        assert_eq!(
            (settings.ipnet6.as_deref(), settings.gateway6.as_deref()),
            (Some("fd00::/64"), Some("fd00::1"))
        );
        assert_eq!((settings.dhcp, settings.no_dhcp), (true, false), "the last counts");
    }

    #[test]
    fn options_that_make_no_sense_are_usage_errors() {
        for line in [
            "pvc vm start --wait 0 web1",
            "pvc vm start --wait 99999999 web1",
            "pvc vm start --wait 5 --no-wait web1",
            "pvc vm list -r -l",
            "pvc vm list -s running",
            "pvc vm define -s memory x.xml",
            "pvc --format xml vm list",
            "pvc vm list web[",
            "pvc vm migrate -t hv2 -s mem web1",
            "pvc vm migrate --wait 5 --no-wait web1",
            "pvc node flush --within 5 hv1",
            "pvc node primary --wait 5 --no-wait hv1",
            "pvc maintenance maybe",
            "pvc network add 100",
            "pvc network add -p routed 100",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
