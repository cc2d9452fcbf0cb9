//! `pvc token …`.

use clap::Subcommand;
use pvc_core::model::{
    VmName,
    token::{Role, TokenName},
};

/// Tokens of the API, beside those of its configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, this once: only its hash is kept.
    Add {
        /// What it is good for: read, operate (have VMs run, and where) or admin (all there is).
        #[arg(long)]
        role: Role,
        /// It is good for this VM only, and for others that are named so.
        #[arg(long = "vm", value_name = "VM")]
        vms: Vec<VmName>,
        /// It is good for nothing after so many days.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36500))]
        expires_in: Option<u32>,
        /// What it is called, in the log and in the audit.
        name: TokenName,
    },
    /// List them, without what is sent.
    List,
    /// Remove one: nobody gets in with it any more, what listens with it is cut off.
    Remove {
        /// What it is called.
        name: String,
    },
}
