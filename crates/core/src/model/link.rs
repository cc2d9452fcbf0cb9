//! Network devices of a machine: what is seen of them, and what can be changed. Addresses are host addresses with the prefix
//! length of their network, as `ip address` shows them.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;

/// The bridge that the cluster network's device is a port of.
pub const CLUSTER_BRIDGE: &str = "brcluster";

/// An address that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// The address, with the prefix length of its network.
    pub cidr: IpNet,
    /// After so many seconds the kernel removes it; `None`: never.
    pub lifetime_s: Option<u32>,
}

impl Assigned {
    /// Whether it means something beyond its own wire.
    pub fn is_global(&self) -> bool {
        match self.cidr.addr() {
            IpAddr::V4(a) => !a.is_link_local() && !a.is_loopback(),
            IpAddr::V6(a) => !a.is_unicast_link_local() && !a.is_loopback(),
        }
    }
}

/// An address, and the device that has it or shall have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The device.
    pub device: String,
    /// The address, with the prefix length of its network.
    pub cidr: IpNet,
}

impl Placed {
    /// What gives the device the address, or a new lifetime to it; `None`: for ever.
    pub fn set(&self, lifetime_s: Option<u32>) -> LinkChange {
        LinkChange::SetAddress { device: self.device.clone(), cidr: self.cidr, lifetime_s }
    }

    /// What takes it away.
    pub fn remove(&self) -> LinkChange {
        LinkChange::RemoveAddress { device: self.device.clone(), cidr: self.cidr }
    }
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zeros if it has none.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// A bridge.
    pub is_bridge: bool,
    /// The bridge or bond that it is a port of.
    pub master: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Assigned>,
}

impl Link {
    /// Whether it has exactly this address.
    pub fn has(&self, cidr: IpNet) -> bool {
        self.addresses.iter().any(|a| a.cidr == cidr)
    }
}

/// A route of the main table that the kernel did not make itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Whereto; `None`: everywhere else.
    pub destination: Option<IpNet>,
    /// Through whom.
    pub gateway: Option<IpAddr>,
    /// By which device.
    pub device: String,
    /// Made by this program.
    pub ours: bool,
}

/// The machine's network as last read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNetwork {
    /// All devices, in the kernel's order.
    pub links: Vec<Link>,
    /// Routes with a single next hop.
    pub routes: Vec<Route>,
    /// Those of the settings asked for that this kernel has, by path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
}

impl HostNetwork {
    /// The device of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }
}

/// One change of the machine's network. What is so already stays so: that is success.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "devices are named, the rest is as in `Link` and `Route`")]
pub enum LinkChange {
    /// Makes a bridge without spanning tree that keeps its Ethernet address when ports come and go.
    AddBridge {
        name: String,
        mac: [u8; 6],
    },
    SetMtu {
        device: String,
        mtu: u32,
    },
    SetUp {
        device: String,
    },
    /// Makes the device a port of the bridge.
    Enslave {
        device: String,
        bridge: String,
    },
    /// Adds an address or sets its lifetime anew. No duplicate address detection: its holder is decided elsewhere. While there is
    /// another, no connection comes from one with a lifetime (IPv6; in IPv4 none comes from a secondary address).
    SetAddress {
        device: String,
        cidr: IpNet,
        lifetime_s: Option<u32>,
    },
    RemoveAddress {
        device: String,
        cidr: IpNet,
    },
    /// Lets all routes that the kernel did not make itself go by another device.
    MoveRoutes {
        from: String,
        to: String,
    },
    /// Marked as ours.
    AddDefaultRoute {
        via: IpAddr,
        device: String,
    },
    /// Only one that is marked as ours.
    RemoveDefaultRoute {
        via: IpAddr,
        device: String,
    },
    SetSysctl {
        path: String,
        value: String,
    },
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBridge { name, .. } => write!(f, "create the bridge {name}"),
            Self::SetMtu { device, mtu } => write!(f, "set the MTU of {device} to {mtu}"),
            Self::SetUp { device } => write!(f, "set {device} up"),
            Self::Enslave { device, bridge } => write!(f, "make {device} a port of {bridge}"),
            Self::SetAddress { device, cidr, .. } => write!(f, "give {device} the address {cidr}"),
            Self::RemoveAddress { device, cidr } => write!(f, "remove the address {cidr} from {device}"),
            Self::MoveRoutes { from, to } => write!(f, "move the routes of {from} to {to}"),
            Self::AddDefaultRoute { via, device } => write!(f, "add the default route via {via} on {device}"),
            Self::RemoveDefaultRoute { via, device } => {
                write!(f, "remove our default route via {via} on {device}")
            }
            Self::SetSysctl { path, value } => write!(f, "set /proc/sys/{path} to {value}"),
        }
    }
}
