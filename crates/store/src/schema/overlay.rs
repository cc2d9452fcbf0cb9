//! `/pvc/overlay` **(ours)**: what carries frames between nodes in managed networks; absent is the default.

use pvc_core::model::{Overlay, Problem};

use super::text::{Decoder, present};
use crate::{CommitError, Store, Value};

/// The choice.
pub const OVERLAY: &str = "/pvc/overlay";

/// What is chosen. What is not understood counts as the default, with the problem: every node takes it for the same.
pub fn decode(value: Option<&Value>) -> (Overlay, Option<Problem>) {
    let mut d = Decoder::default();
    let text = d.text(OVERLAY, value).and_then(present);
    let overlay = text.and_then(|text| d.parse(OVERLAY, text)).unwrap_or_default();
    (overlay, d.problems.into_iter().next())
}

/// Chooses one for the whole cluster.
pub async fn set(store: &dyn Store, overlay: Overlay) -> Result<(), CommitError> {
    crate::put::put(store, OVERLAY, overlay.to_string().into()).await
}
