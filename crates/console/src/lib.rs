//! A VM's serial console, which is found on whatever node the guest is and followed when it moves; and its screen, which is found so, too.
//!
//! For clients: the state tree says where the guest is (`pvc-operate`), that node's libvirt has its console (`pvc-host`). It runs in the client's process,
//! and no daemon knows of it. A screen is carried by the node's daemon ([`screen`]). Decides nothing about the guest, and writes nothing but a screen's ticket.

pub mod screen;
mod seek;
mod session;
#[cfg(test)]
mod tests;
mod watched;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use pvc_core::model::NodeName;
use pvc_host::hypervisor::{Peer, console::Place, libvirt::LibvirtConsoles};
use pvc_operate::Failure;

pub use pvc_host::hypervisor::console::{Consoles, Hold, MOST_TYPED};
pub use session::{Event, Session, Wanted};

/// How nodes are reached from this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nodes {
    /// The node that this machine is.
    pub here: Option<NodeName>,
    /// The cluster network's domain …
    pub domain: Option<String>,
    /// … or, where that is not known, addresses in that network. Without both a node is found by its bare name.
    pub addresses: BTreeMap<NodeName, Ipv4Addr>,
}

impl Nodes {
    fn place(&self, node: &NodeName) -> Place {
        if self.here.as_ref() == Some(node) {
            return Place::Here;
        }
        Place::Peer(Peer::new(self.host(node)))
    }

    fn host(&self, node: &NodeName) -> String {
        match (&self.domain, self.addresses.get(node)) {
            (Some(domain), _) => format!("{node}.{domain}"),
            (None, Some(address)) => address.to_string(),
            (None, None) => node.to_string(),
        }
    }
}

/// Consoles through libvirt's library; so many at once.
pub fn libvirt(most: usize) -> Result<Arc<dyn Consoles>, Failure> {
    let consoles = LibvirtConsoles::start("qemu:///system", most);
    Ok(Arc::new(consoles.map_err(|error| Failure::Failed(format!("no console: {error}")))?))
}
