//! A Ceph cluster: monitors that shut clients out, OSDs that learn of that in their own time, images, and the clients by which QEMU processes write.
//!
//! ```text
//!   guest ──► QEMU's client ──► kernel ──► OSD: judges by its own map, or the client's if that is newer ──► lands, or is refused
//!                                           ▲
//!   daemon ──► monitors ───a map, later─────┘
//! ```
//! The lock of an image is what it is in Ceph, an agreement of clients: who holds it hands it over when asked, if it executes; of one that has not
//! been heard for half a minute it is taken, and who has lost it so asks nobody before it writes on. Whatever daemons believe is no matter here.

mod locks;
mod monitors;
mod osd;
mod processes;
mod trouble;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{
        NodeName, VmId,
        ceph::{ClientAddress, ImageName, Lock, Users},
    },
    sabotage::{self, Bug},
};
use pvc_host::ceph::BLOCKLIST_FOR;
use pvc_process::Process;
use tokio::sync::watch;

pub use self::trouble::CephFault;
use self::{
    locks::Locking,
    monitors::Monitors,
    osd::Osd,
    processes::{Client, Qemu},
    trouble::Trouble,
    writer::Now,
};
use super::network::Number;
use crate::{event::Event, journal::Journal, rng::Rng};

/// Objects of an image; the first is its header.
const OBJECTS: usize = 5;
/// Data lies on so many OSDs.
pub const OSDS: usize = 5;
/// A client that was not heard for so long has its images open no more.
const WATCH: Duration = Duration::from_secs(30);
/// For how long a client shuts out whom it takes a lock from; the default is an hour.
const TAKEN_FOR: [Duration; 3] = [Duration::from_mins(1), Duration::from_mins(10), Duration::from_hours(1)];
/// So many writes of a client are on their way at most.
const DEPTH: u32 = 4;

/// See the module's documentation.
pub struct CephCluster {
    world: Process,
    journal: Arc<Journal>,
    names: Arc<Vec<NodeName>>,
    state: Mutex<State>,
    /// Signalled when a guest begins or ends to execute.
    turned: watch::Sender<()>,
}

struct State {
    rng: Rng,
    monitors: Monitors,
    osds: [Osd; OSDS],
    images: BTreeMap<ImageName, Image>,
    clients: BTreeMap<ClientAddress, Client>,
    processes: BTreeMap<(Number, VmId), Qemu>,
    /// What the next process of a VM on a machine opens.
    prepared: BTreeMap<(Number, VmId), BTreeSet<ImageName>>,
    /// Processes that are about to end without closing anything.
    crashing: BTreeSet<(Number, VmId)>,
    /// Since when machines are frozen.
    frozen: BTreeMap<Number, Duration>,
    trouble: Trouble,
    /// Processes that were made.
    made: u64,
    taken_for: Duration,
}

#[derive(Default)]
struct Image {
    lock: Option<ClientAddress>,
    /// Which process wrote to each object last.
    wrote: [Option<u64>; OBJECTS],
}

/// Where a write is.
enum Way {
    /// Its machine has lost power, or has given it up.
    Lost,
    /// Its machine does not reach Ceph.
    Waits,
    /// It is at its OSD, and done then.
    Lands(Duration),
}

/// What is asked of Ceph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Nobody but the library.
    Nobody,
    /// Monitors, about what is so.
    Monitors,
    /// Monitors, to decide something.
    Decision,
    /// Whoever has the header of an image.
    Header(&'a ImageName),
}

impl CephCluster {
    /// One with these images. To be called in a paused runtime.
    pub fn new(
        images: impl IntoIterator<Item = ImageName>,
        names: Arc<Vec<NodeName>>,
        journal: Arc<Journal>,
        world: Process,
        mut rng: Rng,
    ) -> Arc<Self> {
        let taken_for = *rng.pick(&TAKEN_FOR).unwrap_or(&TAKEN_FOR[2]);
        let state = State {
            rng,
            monitors: Monitors::default(),
            osds: Default::default(),
            images: images.into_iter().map(|image| (image, Image::default())).collect(),
            clients: BTreeMap::new(),
            processes: BTreeMap::new(),
            prepared: BTreeMap::new(),
            crashing: BTreeSet::new(),
            frozen: BTreeMap::new(),
            trouble: Trouble::default(),
            made: 0,
            taken_for,
        };
        Arc::new(Self { world, journal, names, state: Mutex::new(state), turned: watch::Sender::new(()) })
    }

    /// Where a machine's clients are.
    pub fn host(machine: Number) -> Ipv4Addr {
        Ipv4Addr::new(10, 30, 0, u8::try_from(machine + 1).unwrap_or(u8::MAX))
    }

    /// Something goes wrong, or not any more.
    pub fn suffers(&self, fault: CephFault, begins: bool) {
        let now = self.journal.now();
        let mut state = self.lock_state();
        if begins {
            state.trouble.begin(fault, now);
        } else {
            state.trouble.end(fault);
            state.connect();
        }
    }

    /// How long an answer takes to what a machine asks; `None`: there is none. And whether it is lost on its way.
    pub fn takes(&self, machine: Number, asked: Asked<'_>) -> (Option<Duration>, bool) {
        let mut state = self.lock_state();
        let loses = state.trouble.is(CephFault::AnswersAreLost) && state.rng.chance(0.3);
        if state.trouble.cut_since(machine).is_some() {
            return (None, loses);
        }
        let takes = match asked {
            Asked::Nobody => Duration::ZERO,
            Asked::Header(image) => {
                let slow = state.trouble.osd_takes(osd_of(image, 0));
                state.between([2, 20]) + state.rng.time(Duration::ZERO, slow)
            }
            Asked::Monitors | Asked::Decision if state.trouble.is(CephFault::Down) => return (None, loses),
            Asked::Monitors | Asked::Decision => {
                let slow = state.trouble.monitors_take();
                let usual = if asked == Asked::Monitors { [2, 50] } else { [100, 1000] };
                state.between(usual) + state.rng.time(Duration::ZERO, slow)
            }
        };
        (Some(takes), loses)
    }

    /// The number of the latest map.
    pub fn epoch(&self) -> u64 {
        self.lock_state().monitors.epoch()
    }

    /// The names of a pool's images.
    pub fn images(&self, pool: &str) -> Vec<String> {
        let state = self.lock_state();
        let of_pool = state.images.keys().filter(|image| image.pool.as_str() == pool);
        of_pool.map(|image| image.volume.to_string()).collect()
    }

    /// Who uses an image, as its header says; asked by a client that knows the map of that number.
    pub fn users(&self, image: &ImageName, knows: &mut u64) -> Option<Users> {
        let now = self.journal.now();
        let mut state = self.lock_state();
        let holder = state.images.get(image)?.lock;
        *knows = state.judged_by(image, 0, *knows, now);
        let of_image = state.clients.iter().filter(|(_, client)| client.image == *image);
        let all: Vec<ClientAddress> = of_image.map(|(address, _)| *address).collect();
        let watchers = all.into_iter().filter(|client| state.watches(*client, now)).collect();
        let lock = |address: ClientAddress| Lock {
            client: format!("client.{}", address.to_string().rsplit('/').next().unwrap_or_default()),
            cookie: "auto 1".to_owned(),
            address,
        };
        Some(Users { watchers, locks: holder.map(lock).into_iter().collect() })
    }

    /// Who is shut out, and until when (in the world's time).
    pub fn blocklisted(&self) -> BTreeMap<ClientAddress, Duration> {
        self.expire();
        self.lock_state().monitors.entries().clone()
    }

    /// Whether the monitors let nobody be shut out.
    pub fn refuses_blocklist(&self) -> bool {
        self.lock_state().trouble.is(CephFault::RefusesBlocklist)
    }

    /// A daemon has a client shut out.
    pub fn blocklist(&self, by: &NodeName, client: ClientAddress) {
        self.shut_out(Some(by), client, BLOCKLIST_FOR);
    }

    /// A daemon lets a client in.
    pub fn lift(&self, client: ClientAddress) {
        let now = self.journal.now();
        let mut state = self.lock_state();
        if !state.monitors.lift(client) {
            return;
        }
        state.map_changes(now);
        drop(state);
        self.tell(client, None);
    }

    /// A daemon takes a lock, by the library's call that has the holder shut out first if it is told to: `host/ceph/librados.rs` tells it to.
    pub fn break_lock(&self, by: &NodeName, image: &ImageName, holder: ClientAddress, knows: &mut u64) {
        if !sabotage::commits(Bug::LocksBeforeBlocklist) {
            self.blocklist(by, holder);
            *knows = self.epoch();
        }
        let now = self.journal.now();
        let mut state = self.lock_state();
        *knows = state.judged_by(image, 0, *knows, now);
        if let Some(image) = state.images.get_mut(image) {
            image.lock.take_if(|held| *held == holder);
        }
    }

    fn shut_out(&self, by: Option<&NodeName>, client: ClientAddress, how_long: Duration) {
        let now = self.journal.now();
        let until = now + how_long;
        let lives = {
            let mut state = self.lock_state();
            let is_new = !state.monitors.entries().contains_key(&client);
            state.monitors.shut_out(client, until);
            state.map_changes(now);
            let known = state.clients.get(&client);
            known
                .filter(|known| is_new && known.gone.is_none())
                .map(|known| (known.machine, known.image.to_string()))
        };
        self.tell(client, Some(until));
        if let (Some(by), Some((machine, image))) = (by, lives) {
            let of = self.names[machine].clone();
            self.journal.tell(Event::ShutOut { by: by.clone(), of, images: vec![image] });
        }
    }

    fn expire(&self) {
        let now = self.journal.now();
        let ended = {
            let mut state = self.lock_state();
            let ended = state.monitors.expire(now);
            if !ended.is_empty() {
                state.map_changes(now);
            }
            ended
        };
        for client in ended {
            self.tell(client, None);
        }
    }

    fn tell(&self, client: ClientAddress, until: Option<Duration>) {
        let whose = self.lock_state().clients.get(&client).map(|client| (client.vm, client.machine));
        let whose = whose.map(|(vm, machine)| (vm, self.names[machine].clone()));
        self.journal.tell(Event::Blocklist { client: client.to_string(), whose, until });
    }

    /// What a guest does now.
    fn now(&self, client: ClientAddress) -> Now {
        let state = self.lock_state();
        match state.clients.get(&client) {
            Some(known) if known.gone.is_none() => {
                let process = state.processes.get(&(known.machine, known.vm));
                let executes = process.is_some_and(|process| process.executes);
                if executes && !state.frozen.contains_key(&known.machine) {
                    Now::Executes
                } else {
                    Now::Stands
                }
            }
            _ => Now::Gone,
        }
    }

    /// A client that executes wants to write.
    fn lock(&self, client: ClientAddress) -> Locking {
        self.expire();
        let now = self.journal.now();
        let (locking, taken_from) = self.lock_state().lock(client, now);
        if let Some((holder, until)) = taken_from {
            self.tell(holder, Some(until));
        }
        locking
    }

    /// A client sends a write, unless enough are on their way.
    fn send(&self, client: ClientAddress) -> bool {
        let mut state = self.lock_state();
        match state.clients.get_mut(&client) {
            Some(known) if known.in_flight < DEPTH => {
                known.in_flight += 1;
                true
            }
            _ => false,
        }
    }

    fn way(&self, client: ClientAddress, object: usize) -> Way {
        let now = self.journal.now();
        self.lock_state().way(client, object, now)
    }

    fn land(&self, client: ClientAddress, object: usize) {
        self.expire();
        let now = self.journal.now();
        let landed = self.lock_state().land(client, object, now);
        if let Some((vm, machine, image, process)) = landed {
            let node = self.names[machine].clone();
            self.journal.tell(Event::Wrote { vm, node, image: image.to_string(), object, process });
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The OSD that has an object.
fn osd_of(image: &ImageName, object: usize) -> usize {
    (image.volume.as_str().bytes().map(usize::from).sum::<usize>() + object) % OSDS
}

impl State {
    /// A time between these, in milliseconds.
    fn between(&mut self, [from, to]: [u64; 2]) -> Duration {
        self.rng.time(Duration::from_millis(from), Duration::from_millis(to))
    }

    /// The monitors have made a map; each OSD has it in its time.
    fn map_changes(&mut self, now: Duration) {
        let (s, epoch) = (Duration::from_secs, self.monitors.epoch());
        for osd in &mut self.osds {
            let after = if self.trouble.is(CephFault::OldMaps) {
                self.rng.time(s(5), s(120))
            } else if self.rng.chance(0.1) {
                self.rng.time(s(1), s(5))
            } else {
                self.rng.time(Duration::ZERO, Duration::from_millis(500))
            };
            osd.will_learn(now + after, epoch);
        }
    }

    /// The map that a client which knows `knows` is judged by, at an object's OSD.
    fn judged_by(&mut self, image: &ImageName, object: usize, knows: u64, now: Duration) -> u64 {
        self.osds[osd_of(image, object)].judges_by(now, knows)
    }

    /// The same of a client of a process, which learns the map by that; whether it is shut out.
    fn refuses(&mut self, address: ClientAddress, object: usize, now: Duration) -> bool {
        let Some((image, knows)) =
            self.clients.get(&address).map(|client| (client.image.clone(), client.epoch))
        else {
            return true;
        };
        let epoch = self.judged_by(&image, object, knows, now);
        if let Some(client) = self.clients.get_mut(&address) {
            client.epoch = epoch;
        }
        self.monitors.is_shut_out(address, epoch)
    }

    fn way(&mut self, address: ClientAddress, object: usize, now: Duration) -> Way {
        let Some(client) = self.clients.get_mut(&address) else { return Way::Lost };
        if client.is_given_up(now) {
            client.in_flight -= 1;
            return Way::Lost;
        }
        let (machine, image) = (client.machine, client.image.clone());
        if self.trouble.cut_since(machine).is_some() {
            return Way::Waits;
        }
        let osd = osd_of(&image, object);
        let slow = self.trouble.osd_takes(osd);
        let takes = self.between([1, 10]) + self.rng.time(Duration::ZERO, slow);
        Way::Lands(self.osds[osd].done_at(now, takes))
    }

    /// An OSD gets to a write. Answers whose it is if it lands, and another process wrote there last.
    fn land(
        &mut self,
        address: ClientAddress,
        object: usize,
        now: Duration,
    ) -> Option<(VmId, Number, ImageName, u64)> {
        let refused = self.refuses(address, object, now);
        let client = self.clients.get_mut(&address)?;
        client.in_flight -= 1;
        if refused {
            return None;
        }
        let image = self.images.get_mut(&client.image)?;
        let before = image.wrote[object].replace(client.process);
        (before != Some(client.process))
            .then(|| (client.vm, client.machine, client.image.clone(), client.process))
    }
}
