//! The words of `pvc plan`.

use clap::{Args as ClapArgs, Subcommand};
use pvc_core::plan::placement::Selector;

use super::selector;

/// What would happen if.
#[derive(Debug, Subcommand)]
pub(crate) enum Plan {
    /// A node were flushed: where its VMs would go, and which would be shut down or stay.
    Flush(Guess),
    /// A node died: where its VMs would be started, and which would be down.
    Death(Guess),
    /// A VM had to go elsewhere: what each node says to that, and which would be chosen.
    Vm {
        /// The VM: its name or UUID.
        vm: String,
        /// What the chosen node shall have least of.
        #[arg(short, long, value_parser = selector, default_value = "mem")]
        selector: Selector,
    },
}

/// Which node, and how another is chosen.
#[derive(Debug, ClapArgs)]
pub(crate) struct Guess {
    /// The node.
    pub(crate) node: String,
    /// What the chosen nodes shall have least of.
    #[arg(short, long, value_parser = selector, default_value = "mem")]
    pub(crate) selector: Selector,
}
