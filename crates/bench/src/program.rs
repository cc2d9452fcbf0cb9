//! Programs that a measurement starts: found before, killed when dropped, their output told when they fail.

use std::{
    ffi::OsStr,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a program may take to go after it was asked to.
const FAREWELL: Duration = Duration::from_secs(20);

/// A program about to be started.
#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark is not the daemon: it measures how long programs take"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs a program to its end and returns what it printed; an error with its complaint unless it exits with 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let done = command.output().with_context(|| format!("could not start {shown}"))?;
    if !done.status.success() {
        bail!("{shown}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A program that runs until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap_or(i32::MAX)
    }

    /// An error if the program has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended by itself: {status}"),
        }
    }

    /// Asks the program to end and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        while self.0.try_wait()?.is_none() {
            if began.elapsed() > FAREWELL {
                bail!("process {pid} did not end within {FAREWELL:?} of SIGTERM");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(began.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
