//! The files that make this machine's `/` a lab node: a layer that all nodes share, and each node's own disk.
//! Runs in the capsule; never writes outside the lab's folder.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink},
    path::Path,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{XattrFlags, setxattr},
    mount::{MountFlags, mount},
};

use crate::{
    config::{ceph_conf, pvc_api_yaml, pvcd_yaml},
    layout::{
        BINARIES_IN_NODE, DATABASE_PASSWORD, Layout, Net, NodeNumber, ZOOKEEPER_PEER_PORTS, ZOOKEEPER_PORT,
    },
    options::LabOptions,
};

/// Folders whose contents on this machine the nodes must not see: its enabled units, logs, homes and service state.
const HIDDEN: &[&str] = &[
    "etc/systemd/system",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rcS.d",
    "etc/cron.d",
    "etc/libvirt/qemu",
    "etc/pvc",
    "var/log",
    "var/lib/libvirt",
    "var/lib/zookeeper",
    "var/lib/systemd",
    "var/cache/libvirt",
    "var/spool/cron",
    "var/tmp",
    "home",
    "root",
    "run",
];

/// Units that make no sense in a container, or only cost time at every boot.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "blk-availability.service",
    // Ceph is beside the nodes.
    "ceph-mgr@.service",
    "ceph-mon@.service",
    "console-getty.service",
    "dev-hugepages.mount",
    "dm-event.socket",
    "dpkg-db-backup.timer",
    "e2scrub_reap.service",
    "getty.target",
    "ldconfig.service",
    "lvm2-lvmpolld.socket",
    "lvm2-monitor.service",
    "man-db.timer",
    "modprobe@.service",
    "openipmi.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-sysusers.service",
    "systemd-udevd.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
];

/// Builds the shared layer. On a tmpfs of its own: overlayfs refuses two lower layers of which one contains the other.
pub fn build_shared(layout: &Layout, options: &LabOptions) -> Result<()> {
    let layer = layout.layer();
    fs::create_dir_all(&layer)?;
    mount("tmpfs", &layer, "tmpfs", MountFlags::empty(), c"mode=755")
        .with_context(|| format!("could not mount a tmpfs on {}", layer.display()))?;
    for folder in HIDDEN {
        let folder = layer.join(folder);
        fs::create_dir_all(&folder)?;
        setxattr(&folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .with_context(|| format!("could not hide {}", folder.display()))?;
    }
    for (folder, mode) in [("var/tmp", 0o1777), ("root", 0o700), ("etc/pvc", 0o700)] {
        fs::set_permissions(layer.join(folder), fs::Permissions::from_mode(mode))?;
    }
    // With a journal folder the journal outlives a power cut.
    for folder in ["var/log/journal", "var/log/libvirt", "var/log/pvc"] {
        fs::create_dir_all(layer.join(folder))?;
    }
    units(&layer, options)?;
    let files = [
        ("etc/libvirt/libvirtd.conf", include_str!("../../files/libvirtd.conf")),
        ("etc/libvirt/qemu.conf", include_str!("../../files/qemu.conf")),
        // Debian's default makes an idle libvirtd exit after two minutes.
        ("etc/default/libvirtd", "LIBVIRTD_ARGS=\"\"\n"),
        ("etc/hosts", &hosts(options)),
        ("etc/frr/daemons", include_str!("../../files/frr-daemons")),
        ("etc/lab/zoo.cfg", &zoo_cfg(options)),
        ("etc/lab/pg_hba.conf", "host all all 0.0.0.0/0 scram-sha-256\n"),
        ("etc/lab/postgres-password", DATABASE_PASSWORD),
        ("etc/pvc/pvc-api.yaml", &pvc_api_yaml(options)),
        ("etc/environment", &format!("PVC_ZOOKEEPER={}\n", zookeeper(options))),
    ];
    for (path, text) in files {
        write(&layer.join(path), text)?;
    }
    // FRR's files are its user's.
    let owner =
        fs::metadata("/etc/frr").context("FRR is not installed: ./crates/lab/prepare.sh does that")?;
    chown(layer.join("etc/frr"), Some(owner.uid()), Some(owner.gid()))?;
    if options.storage {
        write(&layer.join("etc/ceph/ceph.conf"), &ceph_conf())?;
    }
    for (path, name) in [("usr/sbin/pvcd", "pvcd"), ("usr/sbin/pvc-api", "pvc-api"), ("usr/bin/pvc", "pvc")] {
        fs::create_dir_all(layer.join(path).parent().context("no parent")?)?;
        symlink(Path::new(BINARIES_IN_NODE).join(name), layer.join(path))?;
    }
    Ok(())
}

fn units(layer: &Path, options: &LabOptions) -> Result<()> {
    let units = layer.join("etc/systemd/system");
    symlink("/lib/systemd/system/multi-user.target", units.join("default.target"))?;
    for name in MASKED {
        symlink("/dev/null", units.join(name))?;
    }
    let enable = |target: &str, unit: &str, at: &str| -> Result<()> {
        let wants = units.join(format!("{target}.wants"));
        fs::create_dir_all(&wants)?;
        Ok(symlink(Path::new(at).join(unit), wants.join(unit))?)
    };
    for unit in [
        "libvirtd.socket",
        "libvirtd-ro.socket",
        "libvirtd-admin.socket",
        "libvirtd-tcp.socket",
        "virtlogd.socket",
        "virtlogd-admin.socket",
    ] {
        enable("sockets.target", unit, "/lib/systemd/system")?;
    }
    enable("multi-user.target", "libvirtd.service", "/lib/systemd/system")?;
    write(&units.join("lab-network.service"), include_str!("../../files/lab-network.service"))?;
    enable("sysinit.target", "lab-network.service", "/etc/systemd/system")?;
    write(&units.join("zookeeper.service"), include_str!("../../files/zookeeper.service"))?;
    write(&units.join("lab-postgres-make.service"), include_str!("../../files/lab-postgres-make.service"))?;
    write(&units.join("lab-postgres.service"), include_str!("../../files/lab-postgres.service"))?;
    // The packaged one, with what it may not do.
    write(&units.join("pvcd.service"), include_str!("../../../../packaging/pvcd.service"))?;
    write(&units.join("pvcd.service.d/lab.conf"), include_str!("../../files/pvcd.conf"))?;
    write(&units.join("pvc-flush.service"), include_str!("../../../../packaging/pvc-flush.service"))?;
    if options.enable_api {
        write(&units.join("pvc-api.service"), include_str!("../../../../packaging/pvc-api.service"))?;
    }
    if options.daemon {
        enable("multi-user.target", "pvcd.service", "/etc/systemd/system")?;
    }
    Ok(())
}

/// Builds a node's disk, which outlives its power cycles: its names, addresses and configuration.
pub fn build_disk(layout: &Layout, options: &LabOptions, node: NodeNumber) -> Result<()> {
    let disk = layout.node_disk(node);
    for folder in ["disk", "work", "root"] {
        fs::create_dir_all(layout.node(node).join(folder))?;
    }
    let uuid = node.host_uuid();
    let own = [
        ("etc/machine-id", uuid.replace('-', "") + "\n"),
        ("etc/hostname", format!("{node}\n")),
        // This machine's firmware, if it has any, is the same for all nodes; see pvcd.conf.
        ("etc/lab/dmi/product_uuid", format!("{}\n", node.hardware_uuid())),
        ("etc/lab/dmi/board_serial", format!("LAB-BOARD-{node}\n")),
        ("etc/lab/dmi/chassis_serial", format!("LAB-CHASSIS-{node}\n")),
        ("etc/lab/network", network(node)),
        (
            "etc/libvirt/libvirtd.conf",
            format!("{}host_uuid = \"{uuid}\"\n", include_str!("../../files/libvirtd.conf")),
        ),
        ("var/lib/zookeeper/myid", format!("{}\n", node.get())),
        ("etc/pvc/pvcd.yaml", pvcd_yaml(node, options)),
    ];
    for (path, text) in own {
        write(&disk.join(path), &text)?;
    }
    fs::set_permissions(disk.join("etc/pvc/pvcd.yaml"), fs::Permissions::from_mode(0o600))?;
    let has_zookeeper = options.coordinators().any(|c| c == node);
    let has_database = options.database && node == NodeNumber::FIRST;
    let wants = disk.join("etc/systemd/system/multi-user.target.wants");
    for (is_here, unit) in [(has_zookeeper, "zookeeper.service"), (has_database, "lab-postgres.service")] {
        if is_here {
            fs::create_dir_all(&wants)?;
            symlink(Path::new("/etc/systemd/system").join(unit), wants.join(unit))?;
        }
    }
    Ok(())
}

/// What `ip -batch` does in the node at boot.
fn network(node: NodeNumber) -> String {
    let mut text = String::from("link set lo up\n");
    for net in [Net::Cluster, Net::Storage, Net::Upstream] {
        let (device, address) = (net.device(), node.address(net));
        let _ = writeln!(text, "addr add {address}/24 dev {device}\nlink set {device} up");
    }
    let _ = write!(
        text,
        "route add default via {}\n\
         link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
         link set {} master br0 up\n\
         link set br0 up\n",
        Net::Upstream.switch(),
        Net::Guest.device()
    );
    text
}

fn hosts(options: &LabOptions) -> String {
    let mut text = format!("127.0.0.1 localhost\n{} switch\n", Net::Cluster.switch());
    for node in options.node_numbers() {
        let (address, name) = (node.address(Net::Cluster), Net::Cluster.domain());
        let _ = writeln!(text, "{address} {node} {node}.{name}");
        for net in [Net::Storage, Net::Upstream] {
            let _ = writeln!(text, "{} {node}.{}", node.address(net), net.domain());
        }
        let _ = writeln!(text, "{} bmc{}", node.bmc_address(), node.get());
    }
    text
}

fn zoo_cfg(options: &LabOptions) -> String {
    let mut text = format!(
        "tickTime=500\ninitLimit=20\nsyncLimit=8\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n\
         clientPort={ZOOKEEPER_PORT}\ndataDir=/var/lib/zookeeper\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
    );
    if options.coordinators().count() > 1 {
        for node in options.coordinators() {
            let [peers, elections] = ZOOKEEPER_PEER_PORTS;
            let _ = writeln!(text, "server.{}={node}:{peers}:{elections}", node.get());
        }
    }
    text
}

/// The ZooKeeper servers' addresses, as `PVC_ZOOKEEPER` and clients want them.
pub fn zookeeper(options: &LabOptions) -> String {
    options
        .coordinators()
        .map(|node| format!("{}:{ZOOKEEPER_PORT}", node.address(Net::Cluster)))
        .collect::<Vec<_>>()
        .join(",")
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_zookeeper_stands_alone_and_three_form_an_ensemble() {
        let one = LabOptions::new("x", "/x").nodes(2);
        assert!(!zoo_cfg(&one).contains("server."));
        assert_eq!(zookeeper(&one), "10.255.0.1:2181");
        let three = LabOptions::new("x", "/x").nodes(5);
        assert_eq!(zoo_cfg(&three).matches("server.").count(), 3);
        assert_eq!(zookeeper(&three), "10.255.0.1:2181,10.255.0.2:2181,10.255.0.3:2181");
    }

    #[test]
    fn every_node_and_bmc_has_a_name() {
        let text = hosts(&LabOptions::new("x", "/x").nodes(4));
        for line in
            ["10.255.0.4 node4 node4.cluster.lab", "10.254.0.4 node4.storage.lab", "10.255.0.104 bmc4"]
        {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
    }
}
