//! A Ceph in memory: images, who has them open, and who is shut out.

mod admin;
mod changers;
mod osds;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{ClientAddress, Figures, ImageName, Lock, OsdId, OsdStats, PoolName, Users},
    osd::Osds,
    storage::{Hidden, ObservedImage, ObservedPool, OsdMap},
};
use tokio::time::sleep;

use super::{BLOCKLIST_FOR, Ceph, CephError};

/// After so long an operation ends that nobody answers.
const HANGS_FOR: Duration = Duration::from_secs(20);

/// A cluster, and this node's connection to it.
#[derive(Default)]
pub struct FakeCeph(Mutex<State>);

#[derive(Default)]
struct State {
    pools: BTreeMap<PoolName, ObservedPool>,
    images: BTreeMap<ImageName, Image>,
    /// What pools have and do not list.
    hidden: BTreeMap<PoolName, Hidden>,
    osds: OsdMap,
    /// What is known of them beside that.
    known: Osds,
    /// Images that were made.
    made: u64,
    blocklist: BTreeMap<ClientAddress, u64>,
    /// Further addresses of this host.
    also_here: BTreeSet<Ipv4Addr>,
    /// Clients that do not execute.
    frozen: Vec<ClientAddress>,
    clients: u32,
    /// At which step of which change its daemon stops executing, and the clients of those that have.
    stops_at: Option<(String, &'static str)>,
    stopped: BTreeSet<ClientAddress>,
    down: Option<CephError>,
    /// Images that cannot be looked at.
    unreadable: BTreeSet<ImageName>,
    /// Pools whose OSDs do not answer.
    hanging: BTreeSet<PoolName>,
    /// Images of which the OSDs do not answer.
    stuck: BTreeSet<ImageName>,
    /// Those pools of them that were asked.
    asked: Vec<PoolName>,
    /// Nobody answers where this client is.
    lost: bool,
    /// How long it takes to answer.
    takes: Duration,
    /// How long a change takes that is long.
    takes_for_all: Duration,
    /// As a key without `profile rbd` sees it.
    refuses_blocklist: bool,
    calls: Vec<String>,
    figures: Figures,
    osd_stats: BTreeMap<OsdId, OsdStats>,
}

#[derive(Default)]
struct Image {
    observed: ObservedImage,
    users: Users,
    contents: u8,
    /// What each snapshot holds, and of which size it is.
    held: BTreeMap<String, (u8, u64)>,
}

impl FakeCeph {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes an image that is all zeros.
    pub fn create(&self, image: &ImageName) {
        self.create_sized(image, 0);
    }

    /// Makes an image of so many bytes.
    pub fn create_sized(&self, image: &ImageName, size: u64) {
        let (mut state, mut new) = (self.state(), Image::default());
        new.observed.id = Some(state.next_id());
        new.observed.stats.size = size;
        state.images.insert(image.clone(), new);
    }

    /// This host has another address, too.
    pub fn has_address(&self, address: Ipv4Addr) {
        self.state().also_here.insert(address);
    }

    /// Answers every call with this, until it is `None`.
    pub fn fail(&self, error: Option<CephError>) {
        self.state().down = error;
    }

    /// Whether an image can be looked at.
    pub fn spoil(&self, image: &ImageName, spoilt: bool) {
        let mut state = self.state();
        if spoilt {
            state.unreadable.insert(image.clone());
        } else {
            state.unreadable.remove(image);
        }
    }

    /// How often it was asked who uses an image of that pool, since it hangs.
    pub fn asked(&self, pool: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.as_str() == pool).count()
    }

    /// From now on nothing in that pool answers.
    pub fn hang(&self, pool: &PoolName) {
        self.state().hanging.insert(pool.clone());
    }

    /// From now on nobody answers where this client is.
    pub fn hang_own_address(&self) {
        self.state().lost = true;
    }

    /// From now on nobody answers who uses that image.
    pub fn hang_image(&self, image: &ImageName) {
        self.state().stuck.insert(image.clone());
    }

    /// How long each of its answers takes from now on.
    pub fn take(&self, each: Duration) {
        self.state().takes = each;
    }

    /// What it says of itself from now on.
    pub fn say(&self, figures: Figures) {
        self.state().figures = figures;
    }

    /// What it says of its OSDs from now on.
    pub fn say_osds(&self, stats: BTreeMap<OsdId, OsdStats>) {
        self.state().osd_stats = stats;
    }

    /// Whether it refuses to shut anybody out.
    pub fn refuse_blocklist(&self, refuses: bool) {
        self.state().refuses_blocklist = refuses;
    }

    /// Opens an image for writing, from the host at `from`.
    pub fn open(self: &Arc<Self>, image: &ImageName, from: Ipv4Addr) -> FakeWriter {
        let mut state = self.state();
        let address = state.new_client(from);
        let mut id = None;
        if let Some(image) = state.images.get_mut(image) {
            image.users.watchers.push(address);
            id.clone_from(&image.observed.id);
        }
        FakeWriter { ceph: Arc::clone(self), image: image.clone(), id, address }
    }

    /// A client is not heard any more; what it holds stays.
    pub fn lose_sight_of(&self, writer: &FakeWriter) {
        self.state().forget_watch(&writer.address);
    }

    /// What an image holds.
    pub fn contents(&self, image: &ImageName) -> Option<u8> {
        self.state().images.get(image).map(|image| image.contents)
    }

    /// What changed anything, in order.
    pub fn changes(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answering(&self) -> Result<MutexGuard<'_, State>, CephError> {
        let takes = self.state().takes;
        if !takes.is_zero() {
            sleep(takes).await;
        }
        let state = self.state();
        match &state.down {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }
}

/// A client that has an image open.
pub struct FakeWriter {
    ceph: Arc<FakeCeph>,
    image: ImageName,
    /// The image's id.
    id: Option<String>,
    /// Where it is.
    pub address: ClientAddress,
}

impl FakeWriter {
    /// Fills the image with `byte`; whether it did. Takes the lock as librbd does: from one that executes it is asked for.
    pub fn write(&self, byte: u8) -> bool {
        let mut state = self.ceph.state();
        if state.blocklist.contains_key(&self.address) || state.frozen.contains(&self.address) {
            return false;
        }
        let frozen = state.frozen.clone();
        // It is that image by whatever name.
        let Some(name) = state.name_of(&self.image, self.id.as_deref()) else { return false };
        if !state.gives_lock(&name) {
            return false;
        }
        let Some(image) = state.images.get_mut(&name) else { return false };
        let held_by = |lock: &Lock| lock.address != self.address && frozen.contains(&lock.address);
        if image.users.locks.iter().any(held_by) {
            return false;
        }
        let client = format!("client.{}", self.address);
        image.users.locks = vec![Lock { client, cookie: "auto 1".to_owned(), address: self.address }];
        image.contents = byte;
        true
    }

    /// Closes the image as it should be done.
    pub fn close(self) {
        let mut state = self.ceph.state();
        state.forget_watch(&self.address);
        state.give_up_lock(&self.address);
    }

    /// It stops executing.
    pub fn freeze(&self) {
        self.ceph.state().frozen.push(self.address);
    }

    /// It goes on where it stopped.
    pub fn thaw(&self) {
        self.ceph.state().frozen.retain(|frozen| *frozen != self.address);
    }
}

#[async_trait]
impl Ceph for FakeCeph {
    async fn own_address(&self) -> Result<ClientAddress, CephError> {
        if self.state().lost {
            sleep(HANGS_FOR).await;
            return Err(CephError::Late { doing: "where this client is".to_owned() });
        }
        drop(self.answering().await?);
        let own = format!("{}:0/{}", Ipv4Addr::LOCALHOST, u32::MAX);
        own.parse().map_err(|error| CephError::Strange(format!("{error}")))
    }

    async fn own_hosts(&self) -> Result<BTreeSet<IpAddr>, CephError> {
        let also = self.answering().await?.also_here.clone();
        Ok(also.into_iter().chain([Ipv4Addr::LOCALHOST]).map(IpAddr::V4).collect())
    }

    async fn users(&self, image: &ImageName) -> Result<Option<Users>, CephError> {
        let hangs = {
            let state = self.state();
            state.hanging.contains(&image.pool) || state.stuck.contains(image)
        };
        if hangs {
            self.state().asked.push(image.pool.clone());
            sleep(HANGS_FOR).await;
            return Err(CephError::Late { doing: format!("opening image {image}") });
        }
        let state = self.answering().await?;
        if state.unreadable.contains(image) {
            let (doing, why) = (format!("opening image {image}"), "its header is gone".to_owned());
            return Err(CephError::Refused { doing, why });
        }
        Ok(state.images.get(image).map(|image| image.users.clone()))
    }

    async fn blocklist(&self, client: &ClientAddress) -> Result<(), CephError> {
        let mut state = self.answering().await?;
        if state.refuses_blocklist {
            return Err(CephError::Refused {
                doing: "osd blocklist".to_owned(),
                why: "access denied".to_owned(),
            });
        }
        state.shut_out(*client);
        state.calls.push(format!("blocklist {client}"));
        Ok(())
    }

    async fn lift(&self, client: &ClientAddress) -> Result<(), CephError> {
        let mut state = self.answering().await?;
        state.blocklist.remove(client);
        state.calls.push(format!("lift {client}"));
        Ok(())
    }

    async fn blocklisted(&self) -> Result<BTreeMap<ClientAddress, u64>, CephError> {
        Ok(self.answering().await?.blocklist.clone())
    }

    async fn await_latest_map(&self) -> Result<(), CephError> {
        let mut state = self.answering().await?;
        state.calls.push("await map".to_owned());
        Ok(())
    }

    async fn figures(&self) -> Result<Figures, CephError> {
        Ok(self.answering().await?.figures.clone())
    }

    async fn osd_stats(&self) -> Result<BTreeMap<OsdId, OsdStats>, CephError> {
        Ok(self.answering().await?.osd_stats.clone())
    }

    async fn break_lock(&self, image: &ImageName, lock: &Lock) -> Result<(), CephError> {
        let mut state = self.answering().await?;
        state.shut_out(lock.address);
        if let Some(image) = state.images.get_mut(image) {
            image.users.locks.retain(|held| held != lock);
        }
        state.calls.push(format!("break lock of {image} by {}", lock.address));
        Ok(())
    }
}

impl State {
    fn new_client(&mut self, from: Ipv4Addr) -> ClientAddress {
        self.clients += 1;
        let address = format!("{}/{}", SocketAddr::from((from, 0)), self.clients).parse();
        #[allow(clippy::expect_used, reason = "an address, and a number that is not 0")]
        address.expect("a client's address")
    }

    /// Of a new image.
    fn next_id(&mut self) -> String {
        self.made += 1;
        self.made.to_string()
    }

    fn shut_out(&mut self, client: ClientAddress) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.blocklist.insert(client, (now + BLOCKLIST_FOR).as_secs());
        // A client that is shut out loses its watches.
        for image in self.images.values_mut() {
            image.users.watchers.retain(|watcher| *watcher != client);
        }
    }
}
