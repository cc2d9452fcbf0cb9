//! `pvc node`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use regex_lite::Regex;

use super::{regex, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List nodes.
    List {
        /// Only nodes whose name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
    /// Show one node.
    Info {
        /// More of it.
        #[arg(short, long)]
        long: bool,
        /// The node.
        node: String,
    },
    /// Send a node's VMs away; it takes none afterwards.
    Flush(Follow),
    /// Let a node take VMs, first those that were sent away from it.
    #[command(visible_alias = "unflush")]
    Ready(Follow),
    /// Make a coordinator primary.
    Primary(Handover),
    /// Have a coordinator stop being primary; another one is elected.
    Secondary(Handover),
    /// Have a node fenced now, heard of or not: its power is cut, its VMs are started elsewhere.
    Fence {
        #[command(flatten)]
        death: Death,
        /// End a fence that has not proven the node's death yet, also one whose record cannot be read.
        #[arg(long, conflicts_with_all = ["yes", "wait"])]
        cancel: bool,
    },
    /// Say that a node is dead, where its power cannot be cut: its VMs are started elsewhere.
    ConfirmDead {
        #[command(flatten)]
        death: Death,
        /// How long to listen whether it lives.
        #[arg(long, default_value = "6", value_parser = seconds, value_name = "SECONDS", hide = true)]
        listen: Duration,
    },
    /// Say that the machine that had a node's name is gone for good: another machine may take the name and what it claims.
    Replace {
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// How long to listen whether it lives.
        #[arg(long, default_value = "6", value_parser = seconds, value_name = "SECONDS", hide = true)]
        listen: Duration,
        /// The node.
        node: String,
    },
    /// Remove a node from the cluster for good. Refused while it may execute anything, or a VM belongs to it.
    Remove {
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// How long to listen whether it lives.
        #[arg(long, default_value = "6", value_parser = seconds, value_name = "SECONDS", hide = true)]
        listen: Duration,
        /// The node.
        node: String,
    },
    /// Say why a node is in the state it is in.
    Explain {
        /// The node.
        node: String,
    },
}

/// A command to a node that takes its time.
#[derive(Debug, ClapArgs)]
pub(crate) struct Follow {
    /// Wait until it is done, and show how it goes.
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// How long to wait at most.
    #[arg(long, default_value = "3600", requires = "wait", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) within: Duration,
    /// The node.
    pub(crate) node: String,
}

/// Who shall be primary.
#[derive(Debug, ClapArgs)]
pub(crate) struct Handover {
    /// How long to wait until it is so.
    #[arg(long, default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) wait: Duration,
    /// Return when the desired state is written.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// The coordinator.
    pub(crate) node: String,
}

/// A node that is or is to be dead.
#[derive(Debug, ClapArgs)]
pub(crate) struct Death {
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) follow: Follow,
}
