//! Client networks on a machine: the devices that they are made of, and where frames for a guest elsewhere are sent.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use super::network::{Mac, Vni};

/// The port that VXLAN frames are sent to (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

/// What a device is, as far as client networks are concerned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The bridge of a network.
    Bridge,
    /// The tunnel of a managed network.
    Vxlan {
        /// The network.
        vni: Vni,
        /// This node's end of it.
        local: IpAddr,
    },
    /// The VLAN of a bridged network.
    Vlan {
        /// Its number.
        id: u16,
        /// The device whose frames are tagged.
        over: String,
    },
    /// Anything else, also a tunnel or a VLAN with other settings.
    Other,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The kernel's number of it, which no later device of this name has.
    pub index: u32,
    /// What it is.
    pub kind: DeviceKind,
    /// Its hardware address; zeros if it has none.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// Made by this program, as its group says.
    pub ours: bool,
    /// A tunnel that learns from the frames that it gets where to send others.
    pub learns: bool,
}

/// Where a tunnel sends frames.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// The tunnel.
    pub device: String,
    /// Of frames for this card; `None`: of those for everybody, and for cards that no entry names.
    pub mac: Option<Mac>,
    /// To this node.
    pub to: IpAddr,
    /// They leave by the device of this number; `None`: by the one that the kernel's routes say.
    pub by: Option<u32>,
}

/// What there is of it on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bridging {
    /// All devices.
    pub devices: Vec<Device>,
    /// All entries of all tunnels that stay until they are removed, but for those of a routing daemon.
    pub forwards: BTreeSet<Forward>,
    /// Those that a tunnel has learnt, and forgets again.
    pub learnt: BTreeSet<Forward>,
    /// Those that a routing daemon has written, and takes away again.
    pub routed: BTreeSet<Forward>,
}

impl Bridging {
    /// The device of that name.
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// Whether there is a tunnel.
    pub fn has_tunnels(&self) -> bool {
        self.devices.iter().any(|device| matches!(device.kind, DeviceKind::Vxlan { .. }))
    }
}

/// One change of it. What is so already stays so: that is success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgingChange {
    /// Makes a device, marked as ours and up; it learns nothing. No address of this machine is on it, not even a link-local one.
    Add {
        /// Its name.
        name: String,
        /// What it is.
        kind: DeviceKind,
        /// Bytes.
        mtu: u32,
        /// The bridge that it becomes a port of.
        master: Option<String>,
    },
    /// Removes one.
    Remove {
        /// Its name.
        name: String,
    },
    /// Sets its MTU in bytes, its bridge if it shall have one, and lets it be up.
    Set {
        /// Its name.
        name: String,
        /// Bytes.
        mtu: u32,
        /// The bridge.
        master: Option<String>,
    },
    /// Gives it a hardware address, which it keeps whatever ports it has.
    Address {
        /// Its name.
        name: String,
        /// The address.
        mac: Mac,
    },
    /// Lets a tunnel learn, or no longer.
    Learn {
        /// Its name.
        name: String,
        /// Whether it learns.
        learns: bool,
    },
    /// Adds an entry to a tunnel. A card has one: it takes the place of another.
    Forward(Forward),
    /// Removes one.
    Unforward(Forward),
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mac {
            Some(mac) => write!(f, "frames for {mac} on {} to {}", self.device, self.to),
            None => write!(f, "frames for everybody on {} to {}", self.device, self.to),
        }
    }
}

impl BridgingChange {
    /// The device that it changes.
    pub fn device(&self) -> &str {
        match self {
            Self::Add { name, .. }
            | Self::Remove { name }
            | Self::Set { name, .. }
            | Self::Address { name, .. }
            | Self::Learn { name, .. } => name,
            Self::Forward(forward) | Self::Unforward(forward) => &forward.device,
        }
    }
}

impl fmt::Display for BridgingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { name, kind, mtu, .. } => match kind {
                DeviceKind::Vxlan { vni, local } => {
                    write!(f, "create the VXLAN {vni} {name} from {local}, MTU {mtu}")
                }
                DeviceKind::Vlan { id, over } => {
                    write!(f, "create the VLAN {id} {name} on {over}, MTU {mtu}")
                }
                DeviceKind::Bridge | DeviceKind::Other => write!(f, "create the bridge {name}, MTU {mtu}"),
            },
            Self::Remove { name } => write!(f, "remove {name}"),
            Self::Set { name, mtu, master: Some(bridge) } => {
                write!(f, "set {name} up as a port of {bridge}, MTU {mtu}")
            }
            Self::Set { name, mtu, master: None } => write!(f, "set {name} up, MTU {mtu}"),
            Self::Address { name, mac } => write!(f, "give {name} the hardware address {mac}"),
            Self::Learn { name, learns: true } => write!(f, "let {name} learn where to send frames"),
            Self::Learn { name, learns: false } => write!(f, "let {name} learn nothing from frames"),
            Self::Forward(forward) => write!(f, "send {forward}"),
            Self::Unforward(forward) => write!(f, "no longer send {forward}"),
        }
    }
}
