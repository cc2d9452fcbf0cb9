//! Decisions: facts in, one step out. Pure, level-triggered: an event only says *look again*, and every crash point is an
//! ordinary starting point. One public `plan` function a subject.

pub mod fence;
pub mod flush;
pub mod liveness;
pub mod network;
pub mod placement;
pub mod primary;
pub mod recover;
pub mod selffence;
pub mod vm;
