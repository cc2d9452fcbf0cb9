//! Commands on virtual machines, and what is known of them.

mod catalogue;
mod define;
mod desired;
mod explain;
mod info;
mod list;
mod log;
mod modify;
mod relocate;
mod undefine;
mod whereabouts;

pub use catalogue::{Catalogue, Row, Vms};
pub use define::define;
pub(crate) use desired::DesiredPursuit;
pub use desired::{Desired, Written, set_state, strained};
pub use explain::{Daemon, Explained, Undefined, VmExplanation, explain};
pub use info::{Console, Dump, VmInfo, dump, info};
pub use list::{Beside, Filter, VmList, VmRow, beside, list, names};
pub use log::{Follower, New, last_lines, what_is_new};
pub use modify::modify;
pub(crate) use relocate::Arrival;
pub use relocate::{Relocated, Relocation, To, relocate};
pub use undefine::{Power, undefine};
pub use whereabouts::{Home, Whereabouts, is_off};

use pvc_core::model::Explanation;

pub use crate::definitions::{AT_ONCE, Said};

/// What a daemon says that it does, while that is waited for.
pub(crate) fn said(explanation: &Explanation) -> String {
    format!("{} is {}: {}", explanation.by, explanation.doing, explanation.because)
}
