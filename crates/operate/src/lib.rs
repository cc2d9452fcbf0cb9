//! Carries out operators' commands: reads what is needed, has [`pvc_core::command`] decide, writes, again if somebody else was faster,
//! waits for what comes of it, and answers in types that serialise.
//!
//! The command line prints the answers, the API will send them, the simulator's operators draw at random: none of them decides or writes by
//! itself. Nothing here prints, asks a person, or looks at a wall clock: whoever calls says who asks, when, and how long to wait.

mod answer;
pub mod audit;
mod cluster;
mod definitions;
pub mod events;
mod explain;
mod failure;
pub mod forecast;
mod goal;
pub mod network;
pub mod node;
mod outcome;
mod read;
pub mod screen;
pub mod status;
pub mod storage;
#[cfg(feature = "fake")]
pub mod testing;
pub mod token;
pub mod top;
pub mod vm;
mod wait;
mod watched;
mod write;

pub use answer::Answer;
pub use cluster::{Cluster, Maintenance};
pub use failure::{Failure, Kind};
pub use goal::{Goal, NodeGoal, TaskGoal};
pub use outcome::look;
pub use read::{Nodes, Runners, silence_words};
pub use wait::{Asked, Look, Progress};
