//! `/pvc/maintenance` **(ours)**: `on` suspends fencing and disarms watchdogs, `off` or absent is the normal state.

use pvc_core::model::Problem;

use super::text::{Decoder, present};
use crate::{CommitError, Store, Value};

/// The switch.
pub const MAINTENANCE: &str = "/pvc/maintenance";

/// Whether maintenance is on. What is not understood counts as on, with the problem: nobody is fenced by mistake.
pub fn decode(value: Option<&Value>) -> (bool, Option<Problem>) {
    let mut d = Decoder::default();
    let on = match d.text(MAINTENANCE, value).and_then(present) {
        Some("on") => true,
        Some("off") | None => !d.problems.is_empty(),
        Some(other) => {
            d.problem(MAINTENANCE, format_args!("{other:?} is neither on nor off: taken as on"));
            true
        }
    };
    (on, d.problems.into_iter().next())
}

/// Turns maintenance on or off.
pub async fn set(store: &dyn Store, on: bool) -> Result<(), CommitError> {
    crate::put::put(store, MAINTENANCE, if on { "on" } else { "off" }.into()).await
}
