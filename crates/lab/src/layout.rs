//! Where everything of a lab is: paths, cgroups, addresses, interface and host names.
//! Pure: it names things and creates none of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Result, bail};

/// The user of each BMC that may switch.
pub const BMC_USER: &str = "admin";

/// That user's password. No secret: nothing outside the capsule can reach a BMC.
pub const BMC_PASSWORD: &str = "labpass";

/// The token of the API of every lab, and the port it is served on. No secret: nothing outside the capsule can reach it.
pub const API_TOKEN: &str = "lab-token-for-no-other-cluster";
/// See [`API_TOKEN`].
pub const API_PORT: u16 = 7370;

/// The password of the database of names; its user is the sample's, `pvcdns`. No secret either.
pub const DATABASE_PASSWORD: &str = "labnames";

/// Every lab's state is a folder below this one, which only root may enter.
pub const STATE_ROOT: &str = "/var/tmp/pvc-lab";
/// Things built once for all labs: the guest's kernel and image.
pub const CACHE: &str = "/var/cache/pvc-lab";
/// The folder of the project's binaries inside a node; `/usr/sbin/pvcd` and `/usr/bin/pvc` point into it.
pub const BINARIES_IN_NODE: &str = "/usr/lib/pvc-lab";
/// The folder of the guest's kernel, image and definition inside a node.
pub const GUEST_IN_NODE: &str = "/srv/guest";
/// A folder that all nodes share, for disks.
pub const SHARED_IN_NODE: &str = "/srv/shared";
/// Where a monitor of Ceph listens, on the switch's end of the storage network.
pub const CEPH_PORT: u16 = 3300;
/// The name by which definitions ask libvirt for Ceph's key.
pub const CEPH_SECRET: &str = "5ec4e700-0000-4000-8000-000000000001";
/// The file of that key, in Ceph's folder.
pub const CEPH_KEYRING: &str = "ceph.client.admin.keyring";
/// Where ZooKeeper listens.
pub const ZOOKEEPER_PORT: u16 = 2181;
/// Where its servers speak to each other, and where they elect.
pub const ZOOKEEPER_PEER_PORTS: [u16; 2] = [2888, 3888];
/// More would not fit the addresses of nodes and BMCs into one another's gaps.
pub const MAX_NODES: u8 = 20;

/// A lab's name, safe as a file, cgroup and host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabName(String);

impl FromStr for LabName {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=40).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !fits {
            bail!("lab name {text:?}: use 1 to 40 of a-z, 0-9 and -, starting with a letter");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the machine's networks. Each is a bridge in the capsule and a network card in every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Node to node, ZooKeeper, libvirt, BMCs.
    Cluster,
    /// Node to node, for storage traffic.
    Storage,
    /// To the world: nothing but the switch is there.
    Upstream,
    /// Guests: a bridge `br0` in every node, with DHCP from the switch.
    Guest,
}

impl Net {
    /// All of them, in the order of the nodes' network cards.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Storage, Self::Upstream, Self::Guest];

    /// The name of its bridge.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Storage => "storage",
            Self::Upstream => "upstream",
            Self::Guest => "guest",
        }
    }

    /// The node's network card on it.
    pub fn device(self) -> &'static str {
        match self {
            Self::Cluster => "eth0",
            Self::Storage => "eth1",
            Self::Upstream => "eth2",
            Self::Guest => "eth3",
        }
    }

    fn third_octet(self) -> u8 {
        match self {
            Self::Cluster => 255,
            Self::Storage => 254,
            Self::Upstream => 253,
            Self::Guest => 252,
        }
    }

    /// The `host`-th address of its /24.
    pub fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.third_octet(), 0, host)
    }

    /// The address of the capsule's own end: the switch, gateway and test harness.
    pub fn switch(self) -> Ipv4Addr {
        self.address(254)
    }

    /// The same in IPv6.
    pub fn switch6(self) -> Ipv6Addr {
        self.address6(254)
    }

    /// Its domain; `node1.cluster.lab` is node1's name on it, as migrations use it.
    pub fn domain(self) -> String {
        format!("{}.lab", self.name())
    }

    /// The address of its /64 that reads like the `host`-th of its /24: `fd00:255::254`.
    pub fn address6(self, host: u8) -> Ipv6Addr {
        let as_it_reads = |n: u8| u16::from(n / 100) << 8 | u16::from(n / 10 % 10) << 4 | u16::from(n % 10);
        Ipv6Addr::new(0xfd00, as_it_reads(self.third_octet()), 0, 0, 0, 0, 0, as_it_reads(host))
    }

    /// The addresses for the primary coordinator, one of each family.
    pub fn floating(self) -> [IpAddr; 2] {
        [self.address(250).into(), self.address6(250).into()]
    }

    fn mac(self, host: u8) -> String {
        format!("52:54:00:aa:{:02x}:{host:02x}", self.third_octet())
    }

    /// The fixed MAC of its bridge; without one a bridge's MAC changes whenever a port goes.
    pub fn bridge_mac(self) -> String {
        self.mac(0xfe)
    }
}

/// The number of a node: 1 for `node1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// `node1`.
    pub const FIRST: Self = Self(1);

    /// `node1` to `node<count>`.
    pub fn first(count: u8) -> impl Iterator<Item = Self> {
        (1..=count.min(MAX_NODES)).map(Self)
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Its address on `net`.
    pub fn address(self, net: Net) -> Ipv4Addr {
        net.address(self.0)
    }

    /// Its BMC's address, on the cluster network.
    pub fn bmc_address(self) -> Ipv4Addr {
        Net::Cluster.address(100 + self.0)
    }

    /// Its card's MAC on `net`; fixed, so that a power cycle leaves no stale neighbours.
    pub fn mac(self, net: Net) -> String {
        net.mac(self.0)
    }

    /// Its BMC's MAC.
    pub fn bmc_mac(self) -> String {
        Net::Cluster.mac(100 + self.0)
    }

    /// The switch's port to its card on `net`.
    pub fn port(self, net: Net) -> String {
        format!("n{}-{}", self.0, net.name())
    }

    /// The switch's port to its BMC.
    pub fn bmc_port(self) -> String {
        format!("bmc{}", self.0)
    }

    /// The network namespace of its BMC (the node's own is called as the node).
    pub fn bmc_namespace(self) -> String {
        self.bmc_port()
    }

    /// What its firmware says: unlike its installation it stays the same when that is made anew.
    pub fn hardware_uuid(self) -> String {
        format!("1ab0ab1e-0000-4000-8000-{:012x}", self.0)
    }

    /// What libvirt shows as the machine's identity; without it all nodes would have this machine's.
    pub fn host_uuid(self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.0)
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}

impl FromStr for NodeNumber {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("node").unwrap_or(text).parse() {
            Ok(number) if (1..=MAX_NODES).contains(&number) => Ok(Self(number)),
            _ => bail!("node {text:?}: nodes are called node1, node2, …"),
        }
    }
}

/// The files of one lab.
#[derive(Clone, Debug)]
pub struct Layout {
    name: LabName,
    state: PathBuf,
}

impl Layout {
    /// The lab called `name`.
    pub fn new(name: LabName) -> Self {
        let state = Path::new(STATE_ROOT).join(name.to_string());
        Self { name, state }
    }

    /// The lab's name.
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// The lab's folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Says whose lab this is, with the options it was made from.
    pub fn marker(&self) -> PathBuf {
        self.state.join("lab.json")
    }

    /// The capsule's Unix socket.
    pub fn control(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// What the capsule's own programs print.
    pub fn capsule_log(&self) -> PathBuf {
        self.state.join("capsule.log")
    }

    /// The layer that all nodes share over this machine's `/`; a tmpfs in the capsule.
    pub fn layer(&self) -> PathBuf {
        self.state.join("layer")
    }

    /// The lab's own copy of `pvc-lab`: a build in the midst of things does not pull it away under a running lab.
    pub fn program(&self) -> PathBuf {
        self.state.join("pvc-lab")
    }

    /// The copies of pvcd and pvc that the nodes run.
    pub fn binaries(&self) -> PathBuf {
        self.state.join("bin")
    }

    /// The guest's files.
    pub fn guest(&self) -> PathBuf {
        self.state.join("guest")
    }

    /// The folder of Ceph, which the nodes share, too: its key is there.
    pub fn ceph(&self) -> PathBuf {
        self.shared().join("ceph")
    }

    /// The folder that the nodes share.
    pub fn shared(&self) -> PathBuf {
        self.state.join("shared")
    }

    /// A node's folder: its disk, the mount point of its root, its console.
    pub fn node(&self, node: NodeNumber) -> PathBuf {
        self.state.join(node.to_string())
    }

    /// What the node writes on its console, over all its power cycles.
    pub fn node_console(&self, node: NodeNumber) -> PathBuf {
        self.node(node).join("console.log")
    }

    /// Which addresses came to the node and went, over all its power cycles.
    pub fn addresses(&self, node: NodeNumber) -> PathBuf {
        self.node(node).join("addresses.log")
    }

    /// The folder of the watchdogs, which are files in the capsule only.
    pub fn watchdogs(&self) -> PathBuf {
        self.state.join("watchdogs")
    }

    /// The file that is the node's `/dev/watchdog`.
    pub fn watchdog(&self, node: NodeNumber) -> PathBuf {
        self.watchdogs().join(node.to_string())
    }

    /// The node's disk: the overlay's upper folder.
    pub fn node_disk(&self, node: NodeNumber) -> PathBuf {
        self.node(node).join("disk")
    }

    /// A BMC's folder.
    pub fn bmc(&self, node: NodeNumber) -> PathBuf {
        self.state.join(node.bmc_port())
    }

    /// The name of the lab's top cgroup.
    pub fn cgroup(&self) -> String {
        format!("pvc-lab-{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_name_cannot_leave_its_folder() {
        for bad in ["", "..", "a/b", "A", "1a", "a:b", "a,b", &"a".repeat(41)] {
            assert!(bad.parse::<LabName>().is_err(), "{bad:?} was accepted");
        }
        let lab = Layout::new("demo-1".parse().unwrap());
        assert_eq!(lab.state(), Path::new("/var/tmp/pvc-lab/demo-1"));
    }

    #[test]
    fn nodes_are_called_by_name_or_number() {
        assert_eq!("node3".parse::<NodeNumber>().unwrap().to_string(), "node3");
        assert_eq!("3".parse::<NodeNumber>().unwrap().to_string(), "node3");
        for bad in ["", "node0", "node21", "nodex", "hv1"] {
            assert!(bad.parse::<NodeNumber>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ipv6_addresses_read_like_their_ipv4_siblings() {
        assert_eq!(Net::Cluster.address6(254).to_string(), "fd00:255::254");
        assert_eq!(Net::Upstream.address6(7).to_string(), "fd00:253::7");
        assert_eq!(Net::Storage.address6(0).to_string(), "fd00:254::");
    }

    #[test]
    fn interface_names_fit_the_kernels_fifteen_characters_and_differ() {
        let mut names: Vec<_> = NodeNumber::first(MAX_NODES)
            .flat_map(|n| Net::ALL.map(|net| n.port(net)).into_iter().chain([n.bmc_port()]))
            .collect();
        assert!(names.iter().all(|n| n.len() <= 15), "{names:?}");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
