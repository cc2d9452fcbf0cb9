//! Commands on virtual machines, and what is known of them.

mod define;
mod desired;
mod explain;
mod info;
mod list;
mod log;
mod modify;
mod relocate;
mod undefine;

pub use define::define;
pub use desired::{Desired, Written, set_state, strained};
pub use explain::{Daemon, Explained, Undefined, VmExplanation, explain};
pub use info::{Console, Dump, VmInfo, dump, info};
pub use list::{Filter, VmList, VmRow, list, names};
pub use log::{Follower, New, last_lines};
pub use modify::modify;
pub use relocate::{Relocated, Relocation, To, relocate};
pub use undefine::undefine;

use pvc_core::model::Explanation;

/// What a daemon says that it does, while that is waited for.
fn said(explanation: &Explanation) -> String {
    format!("{} is {}: {}", explanation.by, explanation.doing, explanation.because)
}
