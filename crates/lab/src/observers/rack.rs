//! A rack of guests whose power comes back: many ask for addresses, in several networks, at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{
    clients::{Clients, Given},
    tree::History,
};
use crate::{lab::Lab, node::Node, program::wait_until};

/// The network namespace on its node that it is in.
const NAMESPACE: &str = "rack";

/// A network namespace with a card in each of some client networks of a node.
pub struct Rack {
    node: Node,
    networks: Vec<u32>,
}

impl Rack {
    /// Builds it, when the node has the networks' bridges.
    pub fn build(node: &Node, networks: &[u32], deadline: Duration) -> Result<Self> {
        let rack = Self { node: node.clone(), networks: networks.to_vec() };
        let ip = |arguments: &str| rack.ip(arguments, deadline);
        ip(&format!("netns add {NAMESPACE}"))?;
        for vni in networks {
            wait_until(&format!("vmbr{vni}"), deadline, || ip(&format!("link show vmbr{vni}")).is_ok())?;
            ip(&format!("link add vnet{vni} type veth peer name c{vni} netns {NAMESPACE}"))?;
            ip(&format!("link set vnet{vni} mtu 1450 up master vmbr{vni}"))?;
            ip(&format!("-n {NAMESPACE} link set c{vni} mtu 1450 up"))?;
        }
        Ok(rack)
    }

    /// Its name, for who works in it.
    pub fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// Runs `ip` on its node.
    pub fn ip(&self, arguments: &str, deadline: Duration) -> Result<()> {
        let program: Vec<&str> = std::iter::once("/usr/sbin/ip").chain(arguments.split(' ')).collect();
        self.node.run(&program, deadline).map(drop)
    }

    /// So many guests in each network ask at once, other guests in each batch. What they were given, with the network.
    pub fn ask(
        &self,
        batch: u8,
        of_each: u8,
        deadline: Duration,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<(u32, Given)>> {
        let mut racks = Vec::new();
        for (index, vni) in (0u8..).zip(&self.networks) {
            let mut clients = Clients::on(&self.node, NAMESPACE, &format!("c{vni}"))?;
            for guest in 0..of_each {
                clients.add(&format!("s{batch}g{guest}"), u32::from_be_bytes([0, 1 + batch, index, guest]));
            }
            racks.push((*vni, clients));
        }
        thread::scope(|scope| {
            let ask = |(vni, clients): (u32, Clients)| {
                scope.spawn(move || -> Result<Vec<_>> {
                    Ok(clients.ask(deadline)?.into_iter().map(|given| (vni, given)).collect())
                })
            };
            let threads: Vec<_> = racks.into_iter().map(ask).collect();
            meanwhile()?;
            let joined =
                threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
            Ok(joined.collect::<Result<Vec<_>>>()?.concat())
        })
    }
}

/// How many of these guests have an address that another one has, too.
pub fn given_twice(given: &[(u32, Given)]) -> usize {
    let distinct: BTreeSet<_> = given.iter().map(|(vni, given)| (vni, given.address)).collect();
    given.len() - distinct.len()
}

/// Whose lease is not in the state tree, or is another address there.
pub fn not_recorded(lab: &Lab, given: &[(u32, Given)]) -> Result<Vec<String>> {
    let history = History::of(lab)?;
    let mut tree = BTreeMap::new();
    for (_, change) in history.changes() {
        tree.insert(change.path.as_str(), change.after.as_deref());
    }
    ensure!(!tree.is_empty(), "there is nothing in the state tree");
    let missing = given.iter().filter(|(vni, given)| {
        let path = format!("/networks/{vni}/dhcp4_leases/{}/ipaddr", given.mac);
        tree.get(path.as_str()).copied().flatten() != Some(given.address.to_string().as_str())
    });
    Ok(missing.map(|(vni, given)| format!("{} in {vni}", given.name)).collect())
}
