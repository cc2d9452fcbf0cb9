//! `pvc`: the operator's command line. Works directly on the state store; needs no daemon and no API.
//!
//! Never decides anything itself: what is allowed is `pvc_core::command`'s business, what a key means `pvc_store::schema`'s.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "everything printed passes `print`")]

mod args;
mod cmd;
mod connect;
mod door;
mod failure;
mod places;
mod print;

use std::process::ExitCode;

use clap::Parser;

use self::{args::Args, failure::Failure, print::Out};

fn main() -> ExitCode {
    let args = Args::parse_from(args::respelled(std::env::args_os()));
    let out = Out::to_stdout(args.format);
    // One thread: a command is a few requests, and threads cost more to start than they save.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return end(Failure::Machine { doing: "start".into(), cause: e }),
    };
    match runtime.block_on(cmd::run(args, &out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(failure),
    }
}

/// Prints a failure with its causes, once, and answers with its exit code.
fn end(failure: Failure) -> ExitCode {
    if failure.is_broken_pipe() {
        // The reader of our output has seen enough: `pvc vm list | head`.
        return ExitCode::SUCCESS;
    }
    print::complain(&failure.with_causes());
    ExitCode::from(failure.exit_code())
}
