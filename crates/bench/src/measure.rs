//! One file a measurement. Each starts its own daemon and stops it.

pub(crate) mod console;
pub(crate) mod idle;
pub(crate) mod list;
pub(crate) mod running;
pub(crate) mod start;
