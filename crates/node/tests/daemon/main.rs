//! The whole daemon: over fakes with a clock that the test winds (`life`, `fence`), and the program itself on a real ZooKeeper (`program`).

#![allow(clippy::disallowed_methods, reason = "the program under test is started as an operator would")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod busy;
mod fence;
mod life;
mod program;
mod selffence;
mod support;
