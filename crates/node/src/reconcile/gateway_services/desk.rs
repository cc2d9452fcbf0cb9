//! Gives out addresses: one desk a network, each with the book of its leases.
//!
//! A lease is written before its guest is told, in a transaction that counts only while this node is primary. So whoever is primary next knows of every address
//! that a guest has; what a node writes that is no longer primary never counts.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{
        Lease, Vni,
        dhcp::{Reply, Request, Settings},
    },
    plan::{
        dhcp::{Answer, Book, hosts},
        gateway_services::Served,
    },
    sabotage::{self, Bug},
};
use pvc_host::dhcp::{DhcpExchange, DhcpPort, Envelope, Received};
use pvc_process::JoinSet;
use pvc_store::schema::network::leases;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::controller::Cluster;

/// The file with the names of a network's guests.
pub(super) const NAMES: &str = "guests";

/// So many requests of a network wait. Who is not answered asks again.
const MOST_WAITING: usize = 256;

/// Who asked so long ago has asked again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(4);

/// How long a lease may take to be written before its guest has to ask again.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// The pause before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// How often a trouble is told that goes on.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Names are told at the latest after so long while requests keep coming.
const NAMES_WITHIN: Duration = Duration::from_millis(50);

/// The longest wait for a lease to end: clocks may be set.
const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// The desks that are open, and what brings them requests. All close when this is dropped.
pub(super) struct Desks {
    cluster: Cluster,
    /// A folder a network is in here, with its guests' names.
    names: PathBuf,
    exchange: Arc<dyn DhcpExchange>,
    open: Arc<Mutex<BTreeMap<Vni, Open>>>,
    _hears: JoinSet<()>,
}

/// A request that waits, and since when.
struct Waiting {
    request: Request,
    envelope: Envelope,
    since: Instant,
}

struct Open {
    requests: mpsc::Sender<Waiting>,
    serves: watch::Sender<Served>,
    _works: JoinSet<()>,
}

impl Desks {
    /// Opens the machine's DHCP port; there is no desk yet.
    pub(super) fn open(cluster: Cluster, port: &dyn DhcpPort, names: PathBuf) -> io::Result<Self> {
        let exchange: Arc<dyn DhcpExchange> = Arc::from(port.open()?);
        let open = Arc::<Mutex<BTreeMap<Vni, Open>>>::default();
        let mut hears = JoinSet::new();
        hears.spawn(hear(Arc::clone(&exchange), Arc::clone(&open)));
        Ok(Self { cluster, names, exchange, open, _hears: hears })
    }

    /// What is served from now on.
    pub(super) fn serve(&self, wanted: &BTreeMap<Vni, Served>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for vni in open.keys().copied().filter(|vni| !wanted.contains_key(vni)).collect::<Vec<_>>() {
            open.remove(&vni);
            // Nobody keeps its names up to date any more.
            let _ = fs::remove_file(folder(&self.names, vni).join(NAMES));
        }
        for (vni, served) in wanted {
            let desk = open.entry(*vni).or_insert_with(|| self.begin(*vni, served.clone()));
            desk.serves.send_if_modified(|now| {
                let differs = now != served;
                now.clone_from(served);
                differs
            });
        }
    }

    /// What is served.
    pub(super) fn serving(&self) -> BTreeMap<Vni, Served> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(vni, desk)| (*vni, desk.serves.borrow().clone())).collect()
    }

    fn begin(&self, vni: Vni, served: Served) -> Open {
        let (requests, waiting) = mpsc::channel(MOST_WAITING);
        let serves = watch::Sender::new(served);
        let desk = Desk {
            vni,
            cluster: self.cluster.clone(),
            exchange: Arc::clone(&self.exchange),
            folder: folder(&self.names, vni),
            book: Book::default(),
            told: None,
            warned: None,
        };
        let mut works = JoinSet::new();
        works.spawn(desk.work(serves.subscribe(), waiting));
        Open { requests, serves, _works: works }
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
                let open = open.lock().unwrap_or_else(PoisonError::into_inner);
                let vni = open.keys().find(|vni| vni.bridge() == device);
                if let Some(desk) = vni.and_then(|vni| open.get(vni)) {
                    let _ = desk.requests.try_send(Waiting { request, envelope, since: Instant::now() });
                }
            }
            Err(error) => {
                warn!("client networks: no request for an address is heard: {error}");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

struct Desk {
    vni: Vni,
    cluster: Cluster,
    exchange: Arc<dyn DhcpExchange>,
    folder: PathBuf,
    book: Book,
    /// What the file of names says.
    told: Option<String>,
    warned: Option<Instant>,
}

impl Desk {
    async fn work(mut self, mut serves: watch::Receiver<Served>, mut requests: mpsc::Receiver<Waiting>) {
        self.book = self.read().await;
        let mut told = Instant::now();
        loop {
            let served = serves.borrow_and_update().clone();
            if requests.is_empty() || told.elapsed() > NAMES_WITHIN {
                self.tell_names(&served);
                told = Instant::now();
            }
            tokio::select! {
                biased;
                changed = serves.changed() => if changed.is_err() {
                    return;
                },
                request = requests.recv() => {
                    let Some(Waiting { request, envelope, since }) = request else { return };
                    if since.elapsed() < FORGOTTEN_AFTER {
                        self.answer(&served, &request, &envelope).await;
                    }
                }
                () = sleep(self.next_end()) => {}
            }
            // One at a time: nobody waits for what is over.
            if requests.is_empty() {
                self.drop_ended().await;
            }
        }
    }

    fn now_s(&self) -> u64 {
        self.cluster.machine.unix_s()
    }

    fn next_end(&self) -> Duration {
        let end = self.book.next_end().map(|end| Duration::from_secs(end.saturating_sub(self.now_s())));
        end.unwrap_or(LOOK_AGAIN).clamp(Duration::from_secs(1), LOOK_AGAIN)
    }

    /// The leases of the network. No address is given out before they are known.
    async fn read(&mut self) -> Book {
        loop {
            match leases::read(&*self.cluster.store, self.vni).await {
                Ok(_) if sabotage::commits(Bug::ForgetLeases) => return Book::default(),
                Ok((leases, problems)) => {
                    if let Some(first) = problems.first() {
                        warn!(
                            "network {}: {} keys of leases cannot be read, {} first: {}",
                            self.vni,
                            problems.len(),
                            first.key,
                            first.what
                        );
                    }
                    return Book::new(leases);
                }
                Err(error) => {
                    self.warn(&format!("no address is given out before its leases are read: {error}"));
                }
            }
            sleep(TRY_AGAIN).await;
        }
    }

    async fn answer(&mut self, served: &Served, request: &Request, envelope: &Envelope) {
        let (now_s, settings) = (self.now_s(), &served.settings);
        let reply = match self.book.answer(&served.pool, request, now_s) {
            Answer::Nothing => return,
            Answer::Full => return self.warn("all its addresses are given out"),
            Answer::Offer(address) => Reply::Offer(address, settings.clone()),
            Answer::Give(lease) => {
                let store = &*self.cluster.store;
                let write = leases::write(store, self.vni, &lease, &self.cluster.me);
                match timeout(WRITE_WITHIN, write).await {
                    Ok(Ok(())) => {}
                    _ if sabotage::commits(Bug::TellUnwritten) => {}
                    Ok(Err(error)) => return self.warn(&format!("a lease is not written: {error}")),
                    Err(_) => return self.warn("a lease could not be written in time"),
                }
                self.book.note(lease.clone());
                acknowledge(&lease, settings, now_s)
            }
            Answer::Refuse => Reply::Refuse(settings.gateway.addr()),
            Answer::Forget(_) => {
                let lease = self.book.leases().find(|lease| lease.mac == request.mac).cloned();
                if let Some(lease) = lease {
                    self.remove(&lease).await;
                }
                return;
            }
            Answer::Inform => Reply::Inform(settings.clone()),
        };
        self.exchange.answer(envelope, &reply);
    }

    async fn drop_ended(&mut self) {
        if let Some(lease) = self.book.ended(self.now_s()).cloned() {
            self.remove(&lease).await;
        }
    }

    async fn remove(&mut self, lease: &Lease) {
        let store = &*self.cluster.store;
        let remove = leases::remove(store, self.vni, lease, &self.cluster.me);
        match timeout(WRITE_WITHIN, remove).await {
            Ok(Ok(())) => self.book.forget(lease.mac),
            Ok(Err(error)) => self.warn(&format!("a lease is not removed: {error}")),
            Err(_) => {}
        }
    }

    /// Writes the guests' names where dnsmasq reads them.
    fn tell_names(&mut self, served: &Served) {
        let text = hosts(&served.pool, &self.book, self.now_s());
        if self.told.as_ref() == Some(&text) {
            return;
        }
        match replace(&self.folder, &text) {
            Ok(()) => self.told = Some(text),
            Err(error) => {
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
