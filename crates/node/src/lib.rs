//! The node daemon: makes one machine agree with what its cluster desires.
//!
//! [`run`] is the whole of it, over whatever store, hypervisor and machine it is given. What it consists of: [`keepalive`] says that the
//! node lives, [`reconcile`] brings the desired state about, [`console`] shows what guests print, [`ownership`] sees to it that there is
//! one daemon a node. None of them waits for another.
//!
//! Never holds state of its own: what it must remember is in the state tree or in libvirt, so that it can be killed at any time.

pub mod ability;
pub mod args;
mod bmcs;
pub mod checkup;
pub mod console;
pub mod controller;
pub mod daemon;
pub mod keepalive;
pub mod log;
pub mod metrics;
pub mod network_troubles;
pub mod notify;
mod old_commands;
pub mod ownership;
mod pool_turns;
pub mod reconcile;
mod reserve;
pub mod screens;
pub mod selffence;
pub mod service_units;
pub mod signals;
pub mod sizes;
pub mod stop;
mod storage_figures;
mod strangers;
mod until;
mod vm_clients;
pub mod write_streak;

pub use daemon::{DaemonError, Dependencies, run};
pub use stop::{Stop, Stopper};
