//! Starts the programs of a chore in the workspace's root, with their output passed through.
//! Has no deadline: a person or the CI machine watches.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| ".".into(), Path::to_owned)
}

/// A program to be run in the workspace's root.
#[allow(
    clippy::disallowed_methods,
    reason = "chores are not the daemon: no deadline, output to the terminal"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs `program`; an error unless it exits with 0.
pub(crate) fn program<I>(program: impl AsRef<OsStr>, arguments: I) -> Result<()>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = command(program);
    command.args(arguments);
    let shown = format!("{} {}", command.get_program().display(), args(&command));
    let status = command.status().with_context(|| format!("could not start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs cargo.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Result<()> {
    program(cargo_path(), arguments)
}

/// What git says of this work, though it may be another user's; `None` where there is no git, or no history.
pub(crate) fn git(arguments: &[&str]) -> Option<String> {
    let output = command("git").args(["-c", "safe.directory=*"]).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

/// The cargo that runs us, else the one in `PATH`.
pub(crate) fn cargo_path() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn args(command: &Command) -> String {
    command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
