//! `./lab …`: its arguments, and what it prints.

pub(crate) mod arguments;
pub(crate) mod status;
pub(crate) mod up;
