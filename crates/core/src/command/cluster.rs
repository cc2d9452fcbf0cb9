//! Commands on the cluster as a whole: maintenance mode.

use super::Accepted;
use crate::model::ClusterView;

/// What maintenance means, in the words of every place that shows it.
pub const MAINTENANCE: &str = "maintenance is on: nobody is fenced, no watchdog is armed";

/// Turns maintenance mode on or off.
pub fn maintenance(view: &ClusterView, on: bool) -> Accepted<bool> {
    if view.maintenance == on {
        return Accepted::already(format!("maintenance is {} already", if on { "on" } else { "off" }));
    }
    let fences = view.fences.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let stops =
        (on && !fences.is_empty()).then(|| format!("fences go on no further while it is on: {fences}"));
    Accepted::write(on, stops)
}
