//! The capsule: process, network, mount, host name and IPC namespaces around a whole lab.
//! Kill any of its first processes and everything in it is gone; it leaves no mount, link or namespace behind.
//!
//! ```text
//! pvc-lab up ──► unshare ──► init (process 1: reaps, does nothing else) ──► switch (see switch.rs) ──► nodes, BMCs
//! ```

use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, WaitOptions, setsid, wait};

use crate::{
    devices::control::{Request, ask},
    layout::Layout,
    machine::cgroup::Cgroup,
    program::{command, wait_until},
};

/// How long a lab lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is taken down: the lab of a person.
    UntilDown,
    /// At most as long as this process, however that ends: the lab of a test.
    WithOwner,
}

/// Starts the capsule and waits until it obeys. The child must be kept as long as a lab `WithOwner` shall live.
pub fn start(layout: &Layout, lifetime: Lifetime) -> Result<Child> {
    let log = File::create(layout.capsule_log()).context("could not create the capsule's log")?;
    let mut program = command(layout.program());
    program.args(["internal", "capsule", &layout.name().to_string()]);
    if lifetime == Lifetime::WithOwner {
        program.arg("--bound");
    }
    let mut child = program
        // The pipe's other end closes when this process ends.
        .stdin(if lifetime == Lifetime::WithOwner { Stdio::piped() } else { Stdio::null() })
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("could not start {}", layout.program().display()))?;
    let mut ended = None;
    let ready = wait_until("the capsule", Duration::from_secs(30), || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || ask(&layout.control(), Request::Status, Duration::from_secs(5)).is_ok()
    });
    let log = || std::fs::read_to_string(layout.capsule_log()).unwrap_or_default();
    if let Some(status) = ended {
        bail!("the capsule ended at once: {status}\n{}", log().trim_end());
    }
    ready.with_context(log)?;
    Ok(child)
}

/// First stage: into the capsule's cgroup and a session of its own, then `unshare`. Returns only on failure.
pub fn enter(layout: &Layout, bound: bool) -> Result<()> {
    let cgroup = Cgroup::top(&layout.cgroup())?.child("capsule");
    cgroup.create()?;
    cgroup.join()?;
    // Fails only for the leader of a group, which the child of a program never is.
    let _ = setsid();
    let error = command("/usr/bin/unshare")
        .args(["--mount", "--propagation", "private", "--net", "--uts", "--ipc", "--pid", "--fork"])
        .args(["--kill-child=SIGKILL", "--mount-proc", "--"])
        .arg(layout.program())
        .args(["internal", "init", &layout.name().to_string()])
        .args(bound.then_some("--bound"))
        .exec();
    Err(anyhow!(error).context("could not start unshare"))
}

/// Process 1: starts the switch, buries orphans, and ends, and everything with it, when the switch ends.
pub fn init(layout: &Layout, bound: bool) -> Result<()> {
    let switch = command(layout.program())
        .args(["internal", "switch", &layout.name().to_string()])
        .args(bound.then_some("--bound"))
        .spawn()
        .context("could not start the switch")?;
    let switch = Pid::from_child(&switch);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == switch => bail!("the switch ended: {status:?}"),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("wait"),
        }
    }
}
