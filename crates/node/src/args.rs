//! The daemon's command line. Everything else is in its configuration file.

use std::path::PathBuf;

use clap::Parser;

/// The node daemon of a PVC cluster: keeps this machine's part of the cluster as its clients want it.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
pub struct Args {
    /// Check a configuration file, print what is wrong with it, and exit with 0 if it could be used, else with 1.
    /// Without FILE the one that the daemon would read. Needs no cluster, no device and no privileges
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub check_config: Option<Option<PathBuf>>,

    /// Look once at what this node depends on (ZooKeeper, libvirt, Ceph, the other nodes and their BMCs), print in JSON what was found, and exit.
    /// `pvc doctor` shows it. Needs root
    #[arg(long, conflicts_with = "check_config")]
    pub examine: bool,

    /// Do one thing to a device or an OSD of this machine, as standard input asks in JSON, and answer in JSON. The daemon starts it, outside its own unit
    #[arg(long, hide = true, conflicts_with_all = ["check_config", "examine"])]
    pub osd_request: bool,

    /// The configuration file
    #[arg(long, env = "PVCD_CONFIG_FILE", value_name = "FILE", default_value = "/etc/pvc/pvcd.yaml")]
    pub config: PathBuf,
}
