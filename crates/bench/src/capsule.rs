//! A machine of its own for the measurement: namespaces in which ZooKeeper, libvirt and the daemon find their usual places
//! empty and disturb nobody. Everything ends with the first process.

use std::{fs, os::unix::process::CommandExt, path::Path};

use anyhow::{Context, Result};

use crate::program::{command, output};

/// Where ZooKeeper listens.
pub(crate) const ZOOKEEPER: &str = "127.0.0.1:2181";
/// The name of the measured node, in its configuration, its host name and `/etc/hosts`.
pub(crate) const NODE: &str = "bench1";
/// Where everything that the measurement writes itself goes.
pub(crate) const ROOM: &str = "/run/pvc-bench";

/// Places that the services think are theirs.
const EMPTIED: &[&str] =
    &["/run", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"];

/// Starts this program again inside; returns only if that fails.
pub(crate) fn enter() -> Result<()> {
    let error = command("unshare")
        .args(["--mount", "--propagation", "private", "--net", "--uts", "--ipc"])
        .args(["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"])
        // The first process must bury orphans: libvirt waits for the QEMUs that it probes to be gone, not only dead.
        .args(["bash", "-c", r#""$0" "$@"; exit $?"#])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--inside")
        .exec();
    Err(error).context("could not enter new namespaces with unshare; this needs root")
}

/// Prepares the inside.
pub(crate) fn furnish() -> Result<()> {
    output(command("hostname").arg(NODE))?;
    output(command("ip").args(["link", "set", "lo", "up"]))?;
    for place in EMPTIED {
        output(command("mount").args(["-t", "tmpfs", "tmpfs", place]))?;
    }
    fs::create_dir_all("/run/lock")?;
    fs::create_dir_all(ROOM)?;
    let hosts = Path::new(ROOM).join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {NODE}\n"))?;
    output(command("mount").arg("--bind").arg(&hosts).arg("/etc/hosts"))?;
    Ok(())
}
