//! Becomes a node: joins the node's cgroup, mounts its root, and turns into the systemd-nspawn that boots it.
//! Runs in a mount namespace of its own, so that the mounts vanish with the node.

use std::{
    ffi::CString,
    fs,
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, PidfdFlags, pidfd_open},
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};

use crate::{
    layout::{BINARIES_IN_NODE, GUEST_IN_NODE, Layout, NodeNumber, SHARED_IN_NODE},
    machine::cgroup::Cgroup,
    machine::marker::Marker,
    program::command,
};

/// nspawn's exit code when the node rebooted itself.
pub const REBOOTED: i32 = 133;

/// First stage: into the node's cgroup, then into a new mount namespace. Returns only on failure.
pub fn power_up(layout: &Layout, node: NodeNumber) -> Result<()> {
    node_cgroup(layout, node)?.join()?;
    let error = command("/usr/bin/unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(layout.program())
        .args(["internal", "boot", &layout.name().to_string(), &node.to_string()])
        .exec();
    Err(anyhow!(error).context("could not start unshare"))
}

/// Second stage: mounts, then nspawn. Returns only on failure.
pub fn boot(layout: &Layout, node: NodeNumber) -> Result<()> {
    let root = layout.node(node).join("root");
    // nspawn keeps notes in /run/systemd; these must not be the machine's, nor another node's.
    fs::create_dir_all("/run/systemd")?;
    mount("tmpfs", "/run/systemd", "tmpfs", MountFlags::empty(), c"mode=755")
        .context("could not mount /run/systemd")?;
    fs::create_dir_all("/run/systemd/nspawn")?;
    let layers = CString::new(format!(
        "lowerdir={}:/,upperdir={},workdir={}",
        layout.layer().display(),
        layout.node_disk(node).display(),
        layout.node(node).join("work").display()
    ))?;
    mount("overlay", &root, "overlay", MountFlags::empty(), layers.as_c_str())
        .with_context(|| format!("could not mount {}", layers.to_string_lossy()))?;

    let bind = |option: &str, from: &Path, to: &str| format!("--{option}={}:{to}", from.display());
    let error = command("/usr/bin/systemd-nspawn")
        .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=read-only"])
        .args(["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--tmpfs=/tmp:mode=1777"])
        .arg("--capability=CAP_NET_ADMIN,CAP_IPC_LOCK,CAP_BPF")
        .arg(format!("--directory={}", root.display()))
        .arg(format!("--machine={node}"))
        .arg(format!("--hostname={node}"))
        .arg(format!("--uuid={}", node.host_uuid()))
        .arg(format!("--network-namespace-path=/run/netns/{node}"))
        .arg(bind("bind-ro", &layout.binaries(), BINARIES_IN_NODE))
        .arg(bind("bind-ro", &layout.guest(), GUEST_IN_NODE))
        .arg(bind("bind", &layout.shared(), SHARED_IN_NODE))
        .arg(bind("bind", &layout.watchdog(node), "/dev/watchdog"))
        .args(["systemd.unit=multi-user.target", "systemd.show_status=yes", "systemd.log_target=console"])
        .arg("systemd.log_level=notice")
        // The nodes see cgroup2 only, like a Debian 12 server; as hybrid, guests fail to start.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
        .exec();
    Err(anyhow!(error).context("could not start systemd-nspawn"))
}

/// Joins the cgroup of a running node, then all its namespaces, and runs `program` there to its end.
pub fn enter_node(layout: &Layout, node: NodeNumber, program: &[String]) -> Result<ExitCode> {
    let (pid, cgroup) = find_init(layout, node)?;
    // What is run in a node must freeze and die with it.
    cgroup.join()?;
    let options = Marker::read(layout)?.context("no such lab")?.options;
    enter(pid, program, &[("PVC_ZOOKEEPER", crate::machine::layer::zookeeper(&options))])
}

/// Joins the capsule's namespaces and runs `program` there to its end.
pub fn enter_switch(layout: &Layout, program: &[String]) -> Result<ExitCode> {
    let cgroup = Cgroup::top(&layout.cgroup())?.child("capsule");
    let pid = cgroup.init().with_context(|| format!("the lab {} is not up", layout.name()))?;
    cgroup.join()?;
    enter(pid, program, &[])
}

/// Not by `nsenter`: that stops itself when its child is stopped. A node that shuts down stops all its processes for a
/// moment, and would then wait for 90 s for the one that a stopped `nsenter` does not reap.
fn enter(pid: i32, program: &[String], environment: &[(&str, String)]) -> Result<ExitCode> {
    let spaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::CONTROL_GROUP;
    let init =
        pidfd_open(Pid::from_raw(pid).context("no process")?, PidfdFlags::empty()).context("pidfd_open")?;
    move_into_thread_name_spaces(init.as_fd(), spaces).context("could not enter the namespaces")?;
    let (name, arguments) = program.split_first().context("no program")?;
    let status = command(name)
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .status()
        .with_context(|| format!("could not start {name}"))?;
    // As a shell tells of a signal.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The node's own process 1 and the cgroup that nspawn made for it.
pub fn find_init(layout: &Layout, node: NodeNumber) -> Result<(i32, Cgroup)> {
    let payload = node_cgroup(layout, node)?.child("payload");
    // systemd moves itself from the payload's cgroup into its own init.scope while it boots.
    let pid = payload
        .child("init.scope")
        .init()
        .or_else(|| payload.init())
        .with_context(|| format!("{node} is off"))?;
    Ok((pid, payload))
}

/// The cgroup of everything that runs on a node.
pub fn node_cgroup(layout: &Layout, node: NodeNumber) -> Result<Cgroup> {
    Ok(Cgroup::top(&layout.cgroup())?.child(&node.to_string()))
}
