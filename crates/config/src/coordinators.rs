//! The coordinator hosts: where ZooKeeper runs.

use std::{fmt, net::Ipv4Addr};

use pvc_core::model::name::NodeName;

/// ZooKeeper's client port, where a coordinator entry names none.
pub const DEFAULT_PORT: u16 = 2181;

/// One entry of `cluster.coordinators`: `pvc-hv1`, `pvc-hv1.example.net` or `10.0.0.1`, each with an optional `:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// Host name or IPv4 address.
    pub host: String,
    /// ZooKeeper's client port.
    pub port: u16,
}

impl Coordinator {
    /// The address, if the entry is one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.host.parse().ok()
    }

    /// The host name without its domain; `None` for an address.
    pub fn short_name(&self) -> Option<&str> {
        if self.address().is_some() { None } else { self.host.split('.').next() }
    }

    /// Whether both entries name one ZooKeeper server. Names count without their domain, as nodes do; addresses with
    /// their port, since several servers can share one.
    pub(crate) fn is_same_host(&self, other: &Self) -> bool {
        match (self.short_name(), other.short_name()) {
            (Some(own), Some(others)) => own.eq_ignore_ascii_case(others),
            _ => self == other,
        }
    }

    /// Whether the entry names `node`. Host names have no case.
    pub fn is_node(&self, node: &NodeName) -> bool {
        self.short_name().is_some_and(|name| name.eq_ignore_ascii_case(node.as_str()))
    }
}

impl fmt::Display for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The coordinators as a ZooKeeper client wants them: `pvc-hv1:2181,pvc-hv2:2181`.
pub fn connect_string(coordinators: &[Coordinator]) -> String {
    coordinators.iter().map(Coordinator::to_string).collect::<Vec<_>>().join(",")
}
