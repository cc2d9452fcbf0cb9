//! `pvc-sim`: simulated clusters, seed after seed. `cargo xtask sim` builds and starts it.

use std::process::ExitCode;

use clap::Parser as _;
use pvc_sim::cli::{Arguments, main as simulate};

fn main() -> ExitCode {
    match simulate(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pvc-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
