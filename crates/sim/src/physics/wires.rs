//! Client networks as frames see them: what each machine's kernel does with one, whatever its daemon believes.
//!
//! A frame comes to its own machine's bridge, and to the machines that the entries of the tunnel there name.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::{
    Mac, NodeName, VmId,
    bridging::Bridging,
    dhcp::{Reply, Request},
};
use pvc_host::{
    dhcp::fake::FakePort,
    links::fake::{FakeBridges, FakeLinks},
};
use tokio::sync::mpsc;

use super::network::{Network, Number};
use crate::{
    event::{Event, Net},
    journal::Journal,
    keys::card,
};

/// The number of the first network.
const FIRST: usize = 100;

/// See the module's documentation.
pub struct Wires {
    /// How many networks there are.
    networks: usize,
    /// Who reaches whom.
    network: Arc<Network>,
    /// Whom it is told.
    journal: Arc<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the machines that have power.
    kernels: BTreeMap<Number, Kernel>,
    guests: BTreeMap<Mac, Guest>,
}

/// A machine's kernel, as far as client networks are concerned.
#[derive(Clone)]
pub struct Kernel {
    /// Its name.
    pub node: NodeName,
    /// Its devices.
    pub bridges: Arc<FakeBridges>,
    /// Its addresses.
    pub links: Arc<FakeLinks>,
    /// Where its daemon is asked for addresses.
    pub port: FakePort,
}

struct Guest {
    vm: VmId,
    network: usize,
    hears: mpsc::UnboundedSender<Reply>,
}

impl Wires {
    /// So many networks, and no machine yet.
    pub fn new(networks: usize, network: Arc<Network>, journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self { networks, network, journal, state: Mutex::default() })
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.networks > 0
    }

    /// Their numbers.
    pub fn all(&self) -> impl Iterator<Item = usize> + use<> {
        FIRST..FIRST + self.networks
    }

    /// The network that the VM with that number is in.
    pub fn of(&self, number: usize) -> Option<usize> {
        self.any().then(|| FIRST + number % self.networks)
    }

    /// A machine has power from now on.
    pub fn plug(self: &Arc<Self>, machine: Number, kernel: Kernel) {
        let wires = Arc::downgrade(self);
        kernel.port.observe(move |card, reply| {
            if let Some(wires) = wires.upgrade() {
                wires.answer(machine, card, reply);
            }
        });
        self.lock().kernels.insert(machine, kernel);
    }

    /// A machine has none any more.
    pub fn unplug(&self, machine: Number) {
        self.lock().kernels.remove(&machine);
    }

    /// What the card of a VM hears from now on.
    pub fn hear(&self, vm: VmId, number: usize) -> mpsc::UnboundedReceiver<Reply> {
        let (hears, heard) = mpsc::unbounded_channel();
        if let Some(network) = self.of(number) {
            self.lock().guests.insert(card(number), Guest { vm, network, hears });
        }
        heard
    }

    /// A guest on a machine asks whoever gives out addresses.
    pub fn ask(&self, machine: &NodeName, network: usize, request: &Request) {
        let Some(from) = self.network.number(machine) else { return };
        let ports: Vec<FakePort> = {
            let reached = self.reached(from, network, None);
            let state = self.lock();
            reached.iter().filter_map(|n| state.kernels.get(n)).map(|kernel| kernel.port.clone()).collect()
        };
        for port in ports {
            port.ask(&format!("vmbr{network}"), request);
        }
    }

    /// A machine answers one.
    fn answer(&self, from: Number, card: Mac, reply: &Reply) {
        let state = self.lock();
        let Some(Guest { vm, network, hears }) = state.guests.get(&card) else { return };
        let (vm, network, hears) = (*vm, *network, hears.clone());
        let Some(node) = state.kernels.get(&from).map(|kernel| kernel.node.clone()) else { return };
        drop(state);
        if let Reply::Acknowledge(address, _) = reply {
            self.journal.tell(Event::Leased { by: node, vm, network, card, address: *address });
        }
        let reached = self.reached(from, network, Some(card));
        let executes: Vec<Number> = self
            .journal
            .truth(|truth| truth.executing(vm).filter_map(|(node, _)| self.network.number(node)).collect());
        if reached.iter().any(|machine| executes.contains(machine)) {
            let _ = hears.send(reply.clone());
        }
    }

    /// The machines that a frame comes to: one for a card, or for everybody.
    fn reached(&self, from: Number, network: usize, card: Option<Mac>) -> Vec<Number> {
        let state = self.lock();
        let Some(kernel) = state.kernels.get(&from) else { return Vec::new() };
        let has = |kernel: &Kernel| kernel.bridges.bridging().device(&tunnel(network)).is_some();
        if !has(kernel) {
            return vec![from];
        }
        let ends = ends(&kernel.bridges.bridging(), network, card);
        let is_end =
            |kernel: &Kernel| ends.iter().any(|end| kernel.links.has(IpAddr::V4(*end))) && has(kernel);
        let passes = |to: Number| to != from && self.network.passes(Net::Cluster, from, to);
        let others = state.kernels.iter().filter(|(to, kernel)| passes(**to) && is_end(kernel));
        others.map(|(to, _)| *to).chain([from]).collect()
    }

    /// The machine that a tunnel ends at.
    pub fn node_at(&self, end: IpAddr) -> Option<NodeName> {
        let state = self.lock();
        state.kernels.values().find(|kernel| kernel.links.has(end)).map(|kernel| kernel.node.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tunnel(network: usize) -> String {
    format!("vxlan{network}")
}

/// Where a tunnel sends a frame.
fn ends(bridging: &Bridging, network: usize, card: Option<Mac>) -> Vec<Ipv4Addr> {
    let device = tunnel(network);
    let to = |card: Option<Mac>| -> Vec<Ipv4Addr> {
        let entries = bridging.forwards.iter().filter(|entry| entry.device == device && entry.mac == card);
        let v4 = |to| match to {
            IpAddr::V4(to) => Some(to),
            IpAddr::V6(_) => None,
        };
        entries.filter_map(|entry| v4(entry.to)).collect()
    };
    let own = if card.is_some() { to(card) } else { Vec::new() };
    if own.is_empty() { to(None) } else { own }
}
