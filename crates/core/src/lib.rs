//! The model of a cluster and the plans that change it.
//!
//! Pure: no runtime, no clock, no files, no wire formats. Time is an argument, facts come in, steps go out. That is
//! what makes every decision testable in a table and the whole cluster simulatable in one process.

pub mod command;
pub mod model;
pub mod plan;
pub mod sabotage;
pub mod text;
