//! QEMU processes, as far as Ceph is concerned: their clients, what these have open, and how that ends.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use pvc_core::model::{
    VmId,
    ceph::{ClientAddress, ImageName},
};
use pvc_host::hypervisor::Activity;

use super::{CephCluster, CephFault, State, WATCH, writer};
use crate::{physics::network::Number, rng::Rng};

/// How long a kernel sends what a process has left.
const ORPHANED: Duration = Duration::from_secs(100);

/// A process.
#[derive(Debug, Default)]
pub(super) struct Qemu {
    /// One for each image.
    pub(super) clients: Vec<ClientAddress>,
    /// Whether its guest does, as long as its machine does.
    pub(super) executes: bool,
    /// Whether a migration holds it. QEMU has waited for all its writes before: it stops a guest only once its disks are quiet.
    held: bool,
}

/// A client of Ceph, by which a process has one image open.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what has become of it, each by itself")]
pub(super) struct Client {
    pub(super) vm: VmId,
    pub(super) machine: Number,
    pub(super) image: ImageName,
    /// Counts processes in the order in which they were made.
    pub(super) process: u64,
    /// The latest map that it knows.
    pub(super) epoch: u64,
    /// It has been given the lock, and has not given it up: it does not know if that was taken from it.
    pub(super) believes: bool,
    /// Whether it has reached Ceph at all.
    pub(super) connected: bool,
    /// Writes that are on their way.
    pub(super) in_flight: u32,
    /// Since when there is no process.
    pub(super) gone: Option<Duration>,
    /// It has closed the image.
    pub(super) closed: bool,
    /// Its machine has lost power since.
    pub(super) lost_power: bool,
    /// It ended when a migration had stopped its guest: nothing of it is on its way.
    handed_over: bool,
}

impl Client {
    /// Whether nobody sends any more what is on its way.
    pub(super) fn is_given_up(&self, now: Duration) -> bool {
        self.lost_power || self.handed_over || self.gone.is_some_and(|gone| now >= gone + ORPHANED)
    }
}

impl CephCluster {
    /// A process of a VM is about to be made on a machine, with these images.
    pub fn prepare(&self, machine: Number, vm: VmId, images: BTreeSet<ImageName>) {
        self.lock_state().prepared.insert((machine, vm), images);
    }

    /// A guest is about to come that no daemon has started. It has no images: nobody could keep what has from writing.
    pub fn comes_by_hand(&self, machine: Number, vm: VmId) {
        self.lock_state().prepared.remove(&(machine, vm));
    }

    /// A process is about to end in the middle of whatever it does.
    pub fn crashes(&self, machine: Number, vm: VmId) {
        self.lock_state().crashing.insert((machine, vm));
    }

    /// What a VM's process on a machine does now; `None`: it is gone.
    pub fn turns(self: &Arc<Self>, machine: Number, vm: VmId, activity: Option<Activity>) {
        let now = self.journal.now();
        let mut state = self.lock_state();
        let key = (machine, vm);
        let executes = matches!(activity, Some(Activity::Running | Activity::ShuttingDown));
        let mut begun = Vec::new();
        match (activity, state.processes.get_mut(&key)) {
            (None, None) => {}
            (None, Some(_)) => {
                let crashed = state.crashing.remove(&key);
                state.end(machine, vm, crashed, now);
            }
            (Some(activity), Some(process)) => {
                process.executes = executes;
                process.held = activity == Activity::Held;
            }
            (Some(activity), None) => {
                let images = state.images_of(machine, vm, activity);
                begun = state.begin(machine, vm, images);
                state.processes.entry(key).or_default().executes = executes;
            }
        }
        state.crashing.remove(&key);
        drop(state);
        for (client, rng) in begun {
            self.world.spawn(writer::live(Arc::clone(self), client, rng));
        }
        self.turned.send_replace(());
    }

    /// A machine's programs are frozen, or go on.
    pub fn freezes(&self, machine: Number, freeze: bool) {
        let now = self.journal.now();
        let mut state = self.lock_state();
        if freeze {
            state.frozen.entry(machine).or_insert(now);
        } else {
            state.frozen.remove(&machine);
        }
        drop(state);
        self.turned.send_replace(());
    }

    /// A machine has lost its power: nothing of it is sent any more.
    pub fn loses_power(&self, machine: Number) {
        let now = self.journal.now();
        let mut state = self.lock_state();
        let here: Vec<VmId> =
            state.processes.keys().filter(|(on, _)| *on == machine).map(|(_, vm)| *vm).collect();
        for vm in here {
            state.end(machine, vm, true, now);
        }
        state.frozen.remove(&machine);
        state.prepared.retain(|(on, _), _| *on != machine);
        for client in state.clients.values_mut().filter(|client| client.machine == machine) {
            client.lost_power = true;
        }
        drop(state);
        self.turned.send_replace(());
    }
}

impl State {
    /// What a new process opens: what was asked for, or, at a migration's target, what its source has.
    fn images_of(&mut self, machine: Number, vm: VmId, activity: Activity) -> BTreeSet<ImageName> {
        let prepared = self.prepared.remove(&(machine, vm));
        if activity != Activity::Held {
            return prepared.unwrap_or_default();
        }
        let elsewhere = self.processes.iter().filter(|((on, of), _)| *of == vm && *on != machine);
        let clients = elsewhere.flat_map(|(_, process)| &process.clients);
        clients.filter_map(|client| Some(self.clients.get(client)?.image.clone())).collect()
    }

    /// Answers its clients, and the chance of each.
    fn begin(&mut self, machine: Number, vm: VmId, images: BTreeSet<ImageName>) -> Vec<(ClientAddress, Rng)> {
        self.made += 1;
        let (process, epoch) = (self.made, self.monitors.epoch());
        let connected = self.reaches(machine);
        let mut begun = Vec::new();
        for image in images.into_iter().filter(|image| self.images.contains_key(image)).collect::<Vec<_>>() {
            let host = SocketAddr::from((CephCluster::host(machine), 0));
            let nonce = self.clients.len() + 1;
            let Ok(address) = format!("{host}/{nonce}").parse::<ClientAddress>() else { continue };
            let client = Client {
                vm,
                machine,
                image,
                process,
                epoch,
                believes: false,
                connected,
                in_flight: 0,
                gone: None,
                closed: false,
                lost_power: false,
                handed_over: false,
            };
            self.clients.insert(address, client);
            self.processes.entry((machine, vm)).or_default().clients.push(address);
            begun.push((address, self.rng.fork(&address.to_string())));
        }
        begun
    }

    /// It closes its images if it ends in order and nothing is on its way; else what it has stays.
    fn end(&mut self, machine: Number, vm: VmId, crashed: bool, now: Duration) {
        let Some(process) = self.processes.remove(&(machine, vm)) else { return };
        let reaches = self.trouble.cut_since(machine).is_none();
        for address in process.clients {
            let refused = self.refuses(address, 0, now);
            let Some(client) = self.clients.get_mut(&address) else { continue };
            client.gone = Some(now);
            client.handed_over = process.held && !crashed;
            if crashed || client.in_flight > 0 || !reaches {
                continue;
            }
            client.closed = true;
            if let Some(image) = self.images.get_mut(&client.image).filter(|_| !refused) {
                image.lock.take_if(|held| *held == address);
            }
        }
    }

    /// Whoever could not reach Ceph does, if it can now.
    pub(super) fn connect(&mut self) {
        let machines: BTreeSet<Number> = self.clients.values().map(|client| client.machine).collect();
        let reached: BTreeSet<Number> =
            machines.into_iter().filter(|machine| self.reaches(*machine)).collect();
        for client in self.clients.values_mut().filter(|client| client.gone.is_none()) {
            client.connected |= reached.contains(&client.machine);
        }
    }

    fn reaches(&self, machine: Number) -> bool {
        self.trouble.cut_since(machine).is_none() && !self.trouble.is(CephFault::Down)
    }

    /// Whether a client is seen to have its image open.
    pub(super) fn watches(&mut self, address: ClientAddress, now: Duration) -> bool {
        let Some(client) = self.clients.get(&address).filter(|client| client.connected && !client.closed)
        else {
            return false;
        };
        let since =
            [client.gone, self.frozen.get(&client.machine).copied(), self.trouble.cut_since(client.machine)];
        let silent = since.into_iter().flatten().min();
        let image = client.image.clone();
        // Its watch ends where it is refused, as the header's OSD sees it.
        let epoch = self.judged_by(&image, 0, 0, now);
        silent.is_none_or(|since| now < since + WATCH) && !self.monitors.is_shut_out(address, epoch)
    }
}
