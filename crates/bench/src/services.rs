//! A real ZooKeeper and a real libvirtd, alone in the capsule, at their usual addresses.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    capsule::{NODE, ROOM},
    probe,
    program::{Running, command},
};

/// How long a service may take to come up.
const PATIENCE: Duration = Duration::from_mins(1);

/// As on a real node, minus what a capsule lacks: dbus, AppArmor, a log daemon, a cgroup of its own.
const QEMU_CONF: &str = r#"user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
"#;

/// Both services; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Services {
    zookeeper: Running,
    _libvirtd: Running,
}

impl Services {
    pub(crate) async fn start() -> Result<Self> {
        let mut zookeeper = zookeeper()?;
        let mut libvirtd = libvirtd()?;
        wait("ZooKeeper", &mut zookeeper, || probe::zookeeper().is_ok()).await?;
        wait("libvirtd", &mut libvirtd, || Path::new("/run/libvirt/libvirt-sock").exists()).await?;
        Ok(Self { zookeeper, _libvirtd: libvirtd })
    }

    /// ZooKeeper's process.
    pub(crate) fn zookeeper_pid(&self) -> i32 {
        self.zookeeper.pid()
    }
}

fn zookeeper() -> Result<Running> {
    let config = Path::new(ROOM).join("zoo.cfg");
    // On tmpfs: what is measured is the daemon's share, not the disk's.
    let text = format!(
        "dataDir={ROOM}/zookeeper\nclientPort=2181\nclientPortAddress=127.0.0.1\ntickTime=2000\n\
         admin.enableServer=false\n4lw.commands.whitelist=mntr,cons\n"
    );
    fs::write(&config, text)?;
    let mut java = command("java");
    java.args(["-Xmx256m", "-cp", "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar:/usr/share/java/*"])
        .args(["org.apache.zookeeper.server.ZooKeeperServerMain"])
        .arg(config);
    logged(java, "zookeeper.log")
}

fn libvirtd() -> Result<Running> {
    fs::write("/etc/libvirt/qemu.conf", QEMU_CONF)?;
    fs::write("/etc/libvirt/libvirtd.conf", "auth_unix_rw = \"none\"\nlog_outputs = \"3:stderr\"\n")?;
    logged(command("/usr/sbin/libvirtd"), "libvirtd.log")
}

fn logged(mut program: std::process::Command, log: &str) -> Result<Running> {
    let log = File::create(Path::new(ROOM).join(log))?;
    Running::start(program.stdout(log.try_clone()?).stderr(log))
}

async fn wait(what: &str, service: &mut Running, ready: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !ready() {
        service.alive()?;
        if began.elapsed() > PATIENCE {
            bail!("{what} on {NODE} was not ready within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
