//! Gives out addresses: one desk a network, each with the books of its leases, one a family.
//!
//! A lease is written before its guest is told, in a transaction that counts only while this node is primary. So whoever is primary next knows of every address
//! that a guest has; what a node writes that is no longer primary never counts.

mod fill;
mod queue;
mod six;
mod tree;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{
        Lease, Vni,
        dhcp::{Reply, Request, Settings},
    },
    plan::{
        dhcp::{Answer, Book, hosts},
        dhcp6::Book6,
        gateway_services::{Served, Served4},
        own_addresses::OwnAddresses,
        pace::Pace,
    },
    sabotage::{self, Bug},
};
use pvc_host::dhcp::{Dhcp6Exchange, DhcpExchange, DhcpPort, Envelope, Received};
use pvc_process::JoinSet;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use self::{
    fill::{Fill, given},
    queue::{Asked, Known, Queue, Waiting},
    six::Herald,
};
use crate::controller::Cluster;

/// The file with the names of a network's guests.
pub(super) const NAMES: &str = "guests";

/// Who asked so long ago has asked again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(4);

/// The pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// How often a trouble is told that goes on.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Names are told at the latest after so long while requests keep coming.
const NAMES_WITHIN: Duration = Duration::from_millis(50);

/// What is over is dropped at the latest after so long while requests keep coming.
const DROP_WITHIN: Duration = Duration::from_secs(1);

/// For so long it is believed that a time server answers at the gateway, or that none does.
const TIME_BELIEVED: Duration = Duration::from_mins(1);

/// The longest wait for a lease to end: clocks may be set.
const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// The desks that are open, and what brings them requests. All close when this is dropped.
pub(super) struct Desks {
    cluster: Cluster,
    /// A folder a network is in here, with its guests' names.
    names: PathBuf,
    ports: Ports,
    open: Arc<Mutex<BTreeMap<Vni, Open>>>,
    fill: Arc<Fill>,
    hears: JoinSet<()>,
}

/// The machine's ports, as far as they are not another server's.
#[derive(Clone, Default)]
struct Ports {
    four: Arc<OnceLock<Arc<dyn DhcpExchange>>>,
    six: Arc<OnceLock<Arc<dyn Dhcp6Exchange>>>,
}

struct Open {
    queue: Queue,
    serves: watch::Sender<Arc<Served>>,
    _works: JoinSet<()>,
}

impl Desks {
    /// There is no desk yet, and nothing is heard.
    pub(super) fn new(cluster: Cluster, names: PathBuf) -> Self {
        let (ports, open) = (Ports::default(), Arc::default());
        Self { cluster, names, ports, open, fill: Arc::default(), hears: JoinSet::new() }
    }

    /// Opens those of the machine's ports that are not open. Each family is served without the other, too.
    pub(super) fn open(&mut self, port: &dyn DhcpPort) -> Result<(), String> {
        let failed = |family, error: io::Error| format!("no guest is given an {family} address: {error}");
        let four = self.open_four(port).map_err(|error| failed("IPv4", error));
        let six = self.open_six(port).map_err(|error| failed("IPv6", error));
        match (four, six) {
            (Err(four), Err(six)) => Err(format!("{four}; {six}")),
            (four, six) => four.and(six),
        }
    }

    fn open_four(&mut self, port: &dyn DhcpPort) -> io::Result<()> {
        if self.ports.four.get().is_none() {
            let exchange: Arc<dyn DhcpExchange> = Arc::from(port.open()?);
            let _ = self.ports.four.set(Arc::clone(&exchange));
            self.hears.spawn(hear(exchange, Arc::clone(&self.open)));
        }
        Ok(())
    }

    fn open_six(&mut self, port: &dyn DhcpPort) -> io::Result<()> {
        if self.ports.six.get().is_none() {
            let exchange: Arc<dyn Dhcp6Exchange> = Arc::from(port.open6()?);
            let _ = self.ports.six.set(Arc::clone(&exchange));
            self.hears.spawn(six::hear(exchange, Arc::clone(&self.open)));
        }
        Ok(())
    }

    /// What is served from now on.
    pub(super) fn serve(&self, wanted: &BTreeMap<Vni, Served>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for vni in open.keys().copied().filter(|vni| !wanted.contains_key(vni)).collect::<Vec<_>>() {
            open.remove(&vni);
            self.fill.forget(vni);
            // Nobody keeps its names up to date any more.
            let _ = fs::remove_file(folder(&self.names, vni).join(NAMES));
        }
        for (vni, served) in wanted {
            let desk = open.entry(*vni).or_insert_with(|| self.begin(*vni, served.clone()));
            desk.serves.send_if_modified(|now| {
                let differs = **now != *served;
                if differs {
                    *now = Arc::new(served.clone());
                }
                differs
            });
        }
    }

    /// What is served.
    pub(super) fn serving(&self) -> BTreeMap<Vni, Served> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(vni, desk)| (*vni, Served::clone(&desk.serves.borrow()))).collect()
    }

    fn begin(&self, vni: Vni, served: Served) -> Open {
        let (queue, waiting) = queue::open();
        let serves = watch::Sender::new(Arc::new(served));
        let desk = Desk {
            vni,
            cluster: self.cluster.clone(),
            ports: self.ports.clone(),
            folder: folder(&self.names, vni),
            fill: Arc::clone(&self.fill),
            book: Book::default(),
            book6: Book6::default(),
            own: OwnAddresses::default(),
            unsure: None,
            pace: Pace::default(),
            began: Instant::now(),
            known: queue.known.clone(),
            herald: Herald::default(),
            told: None,
            is_stale: true,
            right_until_s: 0,
            time: None,
            warned: None,
        };
        let mut works = JoinSet::new();
        works.spawn(desk.work(serves.subscribe(), waiting));
        Open { queue, serves, _works: works }
    }
}

/// Where the names of a network's guests are.
pub(super) fn folder(names: &Path, vni: Vni) -> PathBuf {
    names.join(vni.to_string())
}

async fn hear(exchange: Arc<dyn DhcpExchange>, open: Arc<Mutex<BTreeMap<Vni, Open>>>) {
    loop {
        match exchange.receive().await {
            Ok(Received { device, request, envelope }) => {
                pass_on(&open, &device, Asked::Four(request, envelope));
            }
            Err(error) => {
                warn!("client networks: no request for an address is heard: {error}");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

/// To the desk of the network whose bridge it came on. What comes when too many wait is lost.
fn pass_on(open: &Mutex<BTreeMap<Vni, Open>>, device: &str, what: Asked) {
    let open = open.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(desk) = Vni::of_bridge(device).and_then(|vni| open.get(&vni)) {
        desk.queue.push(what);
    }
}

struct Desk {
    vni: Vni,
    cluster: Cluster,
    ports: Ports,
    folder: PathBuf,
    fill: Arc<Fill>,
    book: Book,
    book6: Book6,
    own: OwnAddresses,
    /// The books may lack what a write has done of which nothing was heard; they are read at the earliest then.
    unsure: Option<Instant>,
    pace: Pace,
    /// Where the pace's times begin.
    began: Instant,
    known: Known,
    herald: Herald,
    /// What the file of names says.
    told: Option<String>,
    /// Whether what it is made of has changed since.
    is_stale: bool,
    /// When a lease ends that it is made of, in seconds of UNIX time.
    right_until_s: u64,
    /// Whether the gateway is a time server, and since when that is known.
    time: Option<(bool, Instant)>,
    warned: Option<Instant>,
}

impl Desk {
    async fn work(mut self, mut serves: watch::Receiver<Arc<Served>>, mut waiting: Waiting) {
        self.read().await;
        let mut served = Arc::clone(&serves.borrow());
        let (mut told, mut dropped) = (Instant::now(), Instant::now());
        loop {
            let before = std::mem::replace(&mut served, Arc::clone(&serves.borrow_and_update()));
            if !Arc::ptr_eq(&before, &served) {
                self.is_stale = true;
                self.known.clear();
                if before.six != served.six {
                    self.herald = Herald::default();
                }
            }
            let is_wrong = self.is_stale || self.now_s() >= self.right_until_s || told.elapsed() > LOOK_AGAIN;
            if is_wrong && (waiting.is_empty() || told.elapsed() > NAMES_WITHIN) {
                self.tell_names(&served);
                self.fill.tell(self.vni, given(served.four.as_ref(), &self.book, self.now_s()));
                told = Instant::now();
            }
            let herald = self.herald.next(served.six.is_some());
            tokio::select! {
                biased;
                changed = serves.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(herald) => self.advertise(&served),
                request = waiting.next() => {
                    let Some((what, since)) = request else { return };
                    if since.elapsed() < FORGOTTEN_AFTER {
                        self.attend(&served, what).await;
                    }
                }
                () = sleep(self.next_end()) => {}
            }
            // One at a time: nobody waits for what is over.
            if waiting.is_empty() || dropped.elapsed() > DROP_WITHIN {
                self.drop_ended(&served).await;
                dropped = Instant::now();
            }
        }
    }

    fn now_s(&self) -> u64 {
        self.cluster.machine.unix_s()
    }

    async fn attend(&mut self, served: &Served, what: Asked) {
        if matches!(&what, Asked::Four(..) | Asked::Six(..)) && !self.is_sure().await {
            return;
        }
        match what {
            Asked::Four(request, envelope) => {
                let mac = request.mac;
                if let Some(four) = &served.four {
                    self.answer(four, request, &envelope).await;
                }
                self.keep_own(served, mac).await;
            }
            Asked::Six(request, number, asker) => {
                let mac = request.mac;
                self.answer6(served, request, number, &asker).await;
                self.keep_own(served, mac).await;
            }
            Asked::Router(asker) => self.tell_router(served, &asker),
            Asked::Has(mac, address) => {
                if let Some(six) = &served.six {
                    self.own.hear(&six.pool, mac, address);
                }
                self.keep_own(served, mac).await;
            }
        }
    }

    fn next_end(&self) -> Duration {
        let ends = [self.book.next_end(), self.book6.next_end()].into_iter().flatten();
        let end = ends.fold(self.right_until_s, u64::min);
        let end = Duration::from_secs(end.saturating_sub(self.now_s()));
        end.clamp(Duration::from_secs(1), LOOK_AGAIN)
    }

    async fn answer(&mut self, served: &Served4, mut request: Request, envelope: &Envelope) {
        self.leave_anothers_name(served, &mut request);
        let keeps_time = self.keeps_time(served).await;
        let (now_s, settings) = (self.now_s(), &Settings { keeps_time, ..served.settings.clone() });
        let reply = match self.book.answer(&served.pool, &request, now_s) {
            Answer::Nothing => return,
            Answer::Full => return self.warn("all its addresses are given out"),
            Answer::Offer(address) => Reply::Offer(address, settings.clone()),
            Answer::Give(lease) => {
                let is_new = !self.book.leases().any(|had| *had == lease);
                if is_new && !self.may_change(lease.mac) {
                    return;
                }
                if !self.write(&lease).await && !sabotage::commits(Bug::TellUnwritten) {
                    return;
                }
                acknowledge(&lease, settings, now_s)
            }
            Answer::Refuse => Reply::Refuse(settings.gateway.addr()),
            Answer::Forget(_) => {
                let lease = self.book.leases().find(|lease| lease.mac == request.mac).cloned();
                if let Some(lease) = lease.filter(|lease| self.may_change(lease.mac)) {
                    self.spend(lease.mac);
                    self.remove(&lease).await;
                }
                return;
            }
            Answer::Inform => Reply::Inform(settings.clone()),
        };
        if let Some(exchange) = self.ports.four.get() {
            exchange.answer(envelope, &reply);
        }
    }

    /// A guest that is told of a time server asks nobody else: it is told of one that answers.
    async fn keeps_time(&mut self, served: &Served4) -> bool {
        if let Some((keeps_time, _)) = self.time.filter(|(_, at)| at.elapsed() < TIME_BELIEVED) {
            return keeps_time;
        }
        let Some(exchange) = self.ports.four.get() else { return false };
        let keeps_time = exchange.time_is_kept_at(served.settings.gateway.addr()).await;
        self.time = Some((keeps_time, Instant::now()));
        keeps_time
    }

    async fn drop_ended(&mut self, served: &Served) {
        if let Some(lease) = self.book.ended(self.now_s()).cloned() {
            self.remove(&lease).await;
            self.keep_own(served, lease.mac).await;
        }
        if let Some(lease) = self.book6.ended(self.now_s()).cloned() {
            self.remove6(&lease).await;
            self.keep_own(served, lease.client.mac).await;
        }
    }

    /// Writes the guests' names where dnsmasq reads them.
    fn tell_names(&mut self, served: &Served) {
        let (now_s, four) = (self.now_s(), served.four.as_ref());
        let ends = [self.book.next_name_end(now_s), self.book6.next_name_end(now_s)];
        self.right_until_s = ends.into_iter().flatten().min().unwrap_or(u64::MAX);
        self.is_stale = false;
        let text = four.map(|four| hosts(&four.pool, &self.book, now_s)).unwrap_or_default();
        let text = text + &self.hosts6(served, now_s);
        if self.told.as_ref() == Some(&text) {
            return;
        }
        match replace(&self.folder, &text) {
            Ok(()) => self.told = Some(text),
            Err(error) => {
                self.is_stale = true;
                self.warn(&format!("names cannot be written in {}: {error}", self.folder.display()));
            }
        }
    }

    fn warn(&mut self, what: &str) {
        if self.warned.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            warn!("network {}: {what}", self.vni);
            self.warned = Some(Instant::now());
        }
    }
}

fn acknowledge(lease: &Lease, settings: &Settings, now_s: u64) -> Reply {
    let left = u32::try_from(lease.expires_s.saturating_sub(now_s)).unwrap_or(u32::MAX);
    Reply::Acknowledge(lease.address, Settings { lease_s: left, ..settings.clone() })
}

/// The file as a whole, for whoever may read it. What begins with a point is not read by dnsmasq.
fn replace(folder: &Path, text: &str) -> io::Result<()> {
    let beside = folder.join(".guests");
    fs::write(&beside, text)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644))?;
    fs::rename(beside, folder.join(NAMES))
}
