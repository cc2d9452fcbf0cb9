//! The real Ceph, through its own libraries.
//!
//! ```text
//!   no connection ──the first call──► connected ──this client was blocklisted──► no connection
//!        └─failed: the caller is told why, the next call tries again
//! ```
//! The libraries keep the connection: they find a monitor or an OSD that moved by themselves, and each of their operations ends within
//! [`OPERATION`]. A call blocks its own thread; one that still hangs keeps that, and its slot.

mod admin;
mod change;
mod figures;
mod leave;
mod osd_dump;
mod osd_stats;
mod osds;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use pvc_core::model::ceph::{ClientAddress, Figures, ImageName, Lock, OsdId, OsdStats, Users};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use self::leave::Inside;
pub use self::leave::{all_have_left, exit, exit_at_once};
use super::{
    BLOCKLIST_FOR, Ceph, CephError,
    cluster::{Cluster, Fault, Image, Libraries},
};
use crate::blocking::{Failure, Slots, Workers};

/// After how long an operation of the libraries ends without an answer, in seconds.
const OPERATION: &str = "5";
/// How long a call may take: a few operations, and a connection before.
const CALL: Duration = Duration::from_secs(20);
/// Enough for the libraries' frames.
const STACK: usize = 1024 * 1024;
/// Calls that may be under way.
const CALLS: usize = 32;
/// Changes that may be under way, each for minutes.
const CHANGES: usize = 12;

/// Where the cluster is, and as whom this node uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Ceph's configuration: where the monitors are, where the key is.
    pub configuration: String,
    /// `client.admin`.
    pub user: String,
}

impl Default for Access {
    /// What Ceph's own programs use.
    fn default() -> Self {
        Self { configuration: "/etc/ceph/ceph.conf".to_owned(), user: "client.admin".to_owned() }
    }
}

/// See the module's documentation. A clone has the same connection.
#[derive(Clone)]
pub struct Librados {
    access: Access,
    standing: Arc<Standing>,
    workers: Arc<Workers>,
    calls: Slots,
    changes: Slots,
    /// One connection is made at a time.
    connecting: Slots,
    /// One wait for the map goes on at a time: it is the one call of the libraries that ends with an answer only.
    waiting: Slots,
}

/// The connection, while there is one.
#[derive(Default)]
struct Standing(Mutex<Option<Arc<Link>>>);

impl Standing {
    fn get(&self) -> Option<Arc<Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, link: Option<Arc<Link>>) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), link);
        // Outside the lock.
        drop(old);
    }
}

/// A connection that closes itself.
struct Link {
    /// Taken when dropped only, and so is the next.
    cluster: Option<Cluster>,
    inside: Option<Inside>,
    workers: Arc<Workers>,
}

impl Link {
    fn cluster(&self) -> Result<&Cluster, CephError> {
        self.cluster.as_ref().ok_or_else(|| CephError::Unavailable("the connection is closed".to_owned()))
    }
}

impl Drop for Link {
    /// Closing blocks, and the last user may be a task of the runtime.
    fn drop(&mut self) {
        let (cluster, inside) = (self.cluster.take(), self.inside.take());
        let close = move || {
            drop(cluster);
            drop(inside);
        };
        if let Err(error) = self.workers.run(Box::new(close)) {
            tracing::warn!(%error, "no thread to close a connection to Ceph; it was closed in the caller's");
        }
    }
}

impl Librados {
    /// Connects when it is first needed.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            standing: Arc::default(),
            workers: Arc::new(Workers::new("ceph-call", STACK)),
            calls: Slots::new(CALLS),
            changes: Slots::new(CHANGES),
            connecting: Slots::new(1),
            waiting: Slots::new(1),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        doing: String,
        ask: impl FnOnce(&Cluster) -> Result<T, CephError> + Send + 'static,
    ) -> Result<T, CephError> {
        let deadline = Instant::now() + CALL;
        let slot = self.calls.take(deadline).await.map_err(|failure| told(failure, &doing))?;
        let link = self.connected(deadline).await?;
        let standing = Arc::clone(&self.standing);
        let question = move || {
            let _slot = slot;
            let answer = ask(link.cluster()?);
            if matches!(answer, Err(CephError::ShutOut)) {
                standing.set(None);
            }
            answer
        };
        self.workers.call(deadline, question).await.map_err(|failure| told(failure, &doing))
    }

    /// The connection, made now if there is none.
    async fn connected(&self, deadline: Instant) -> Result<Arc<Link>, CephError> {
        if let Some(link) = self.standing.get() {
            return Ok(link);
        }
        let doing = "connecting";
        let turn = self.connecting.take(deadline).await.map_err(|failure| told(failure, doing))?;
        let (access, standing, workers) =
            (self.access.clone(), Arc::clone(&self.standing), Arc::clone(&self.workers));
        let connect_once = move || {
            let _turn = turn;
            if let Some(link) = standing.get() {
                return Ok(link);
            }
            let link = connect(&access, OPERATION, workers)?;
            tracing::info!(configuration = access.configuration, user = access.user, "connected to Ceph");
            standing.set(Some(Arc::clone(&link)));
            Ok(link)
        };
        self.workers.call(deadline, connect_once).await.map_err(|failure| told(failure, doing))
    }

    async fn monitors(&self, command: serde_json::Value) -> Result<Vec<u8>, CephError> {
        let command = command.to_string();
        self.call(command.clone(), move |cluster| Ok(cluster.ask_monitors(&command)?)).await
    }
}

/// Makes a connection of which an operation on an OSD ends after so many seconds.
fn connect(access: &Access, operation: &str, workers: Arc<Workers>) -> Result<Arc<Link>, CephError> {
    let inside = Inside::enter();
    let libraries = Libraries::load().map_err(CephError::Missing)?;
    let expire = BLOCKLIST_FOR.as_secs().to_string();
    let settings = [
        ("client_mount_timeout", OPERATION),
        ("rados_mon_op_timeout", OPERATION),
        ("rados_osd_op_timeout", operation),
        // A lock that is broken has its holder blocklisted again, which replaces the entry that is there: an hour by default.
        ("rbd_blocklist_on_break_lock", "true"),
        ("rbd_blocklist_expire_seconds", &expire),
        ("ms_async_op_threads", "1"),
        // This process has a log of its own.
        ("log_file", ""),
        ("log_to_stderr", "false"),
        ("err_to_stderr", "false"),
        ("admin_socket", ""),
    ];
    let made = Cluster::connect(libraries, &access.user, &access.configuration, &settings);
    let cluster = made.map_err(|fault| CephError::Unavailable(format!("{}: {}", fault.call, fault.why)))?;
    Ok(Arc::new(Link { cluster: Some(cluster), inside: Some(inside), workers }))
}

/// What the caller of a call is told.
fn told(failure: Failure<CephError>, doing: &str) -> CephError {
    match failure {
        Failure::Fault(error) => error,
        Failure::NotAsked => {
            CephError::Unavailable(format!("earlier requests are unanswered; nothing was asked: {doing}"))
        }
        Failure::NoThread(error) => CephError::Unavailable(format!("no thread for {doing}: {error}")),
        Failure::Late => CephError::Late { doing: doing.to_owned() },
    }
}

impl From<Fault> for CephError {
    fn from(fault: Fault) -> Self {
        let Fault { call: doing, why, .. } = &fault;
        match fault.errno {
            libc::ESHUTDOWN => Self::ShutOut,
            libc::ETIMEDOUT => Self::Late { doing: doing.clone() },
            0 => Self::Strange(format!("{doing}: {why}")),
            _ => Self::Refused { doing: doing.clone(), why: why.clone() },
        }
    }
}

/// An entry of `osd blocklist ls`.
#[derive(Deserialize)]
struct Listed {
    addr: String,
    until: String,
}

#[async_trait]
impl Ceph for Librados {
    async fn own_address(&self) -> Result<ClientAddress, CephError> {
        self.call("where this client is".to_owned(), |cluster| client(&cluster.own_address()?)).await
    }

    async fn own_hosts(&self) -> Result<BTreeSet<IpAddr>, CephError> {
        let look = |cluster: &Cluster| {
            let own = client(&cluster.own_address()?)?.host.ip();
            let interfaces =
                getifaddrs().map_err(|error| CephError::Strange(format!("getifaddrs: {error}")))?;
            let addresses = interfaces.filter_map(|interface| ip(&interface.address?));
            Ok(addresses.filter(is_seen_by_others).chain([own]).collect())
        };
        self.call("where this host is".to_owned(), look).await
    }

    async fn users(&self, image: &ImageName) -> Result<Option<Users>, CephError> {
        let name = image.clone();
        let look = move |cluster: &Cluster| {
            let Some(image) = cluster.open(name.pool.as_str(), name.volume.as_str())? else {
                return Ok(None);
            };
            Ok(Some(users(&image)?))
        };
        self.call(format!("who uses {image}"), look).await
    }

    async fn blocklist(&self, client: &ClientAddress) -> Result<(), CephError> {
        let command = blocklist(client);
        self.monitors(command).await.map(drop)
    }

    async fn lift(&self, client: &ClientAddress) -> Result<(), CephError> {
        // Refused if it is not there.
        if !self.blocklisted().await?.contains_key(client) {
            return Ok(());
        }
        let command = json!({"prefix": "osd blocklist", "blocklistop": "rm", "addr": client.to_string()});
        self.monitors(command).await.map(drop)
    }

    async fn blocklisted(&self) -> Result<BTreeMap<ClientAddress, u64>, CephError> {
        let answer = self.monitors(json!({"prefix": "osd blocklist ls", "format": "json"})).await?;
        // Two documents follow each other: single addresses, then ranges of them.
        let mut documents = serde_json::Deserializer::from_slice(&answer).into_iter::<Vec<Listed>>();
        let listed = documents
            .next()
            .unwrap_or(Ok(Vec::new()))
            .map_err(|error| CephError::Strange(format!("blocklist: {error}")))?;
        let mut entries = BTreeMap::new();
        for Listed { addr, until } in listed {
            // Of a whole host, or of a range of addresses.
            let Ok(client) = addr.parse() else { continue };
            let until = chrono::DateTime::parse_from_str(&until, "%Y-%m-%dT%H:%M:%S%.f%z")
                .map_err(|error| CephError::Strange(format!("blocklisted until {until:?}: {error}")))?;
            entries.insert(client, u64::try_from(until.timestamp()).unwrap_or(0));
        }
        Ok(entries)
    }

    async fn await_latest_map(&self) -> Result<(), CephError> {
        let doing = "waiting for the latest OSD map".to_owned();
        let turn = self.waiting.take(Instant::now() + CALL).await.map_err(|failure| told(failure, &doing))?;
        let wait = move |cluster: &Cluster| {
            let _turn = turn;
            Ok(cluster.await_latest_map()?)
        };
        self.call(doing, wait).await
    }

    async fn figures(&self) -> Result<Figures, CephError> {
        self.call("what the cluster holds".to_owned(), figures::ask).await
    }

    async fn osd_stats(&self) -> Result<BTreeMap<OsdId, OsdStats>, CephError> {
        self.call("how its OSDs are".to_owned(), osd_stats::ask).await
    }

    async fn break_lock(&self, image: &ImageName, lock: &Lock) -> Result<(), CephError> {
        let (name, lock) = (image.clone(), lock.clone());
        let doing = format!("taking the lock of {image} from {}", lock.address);
        let take = move |cluster: &Cluster| match cluster.open(name.pool.as_str(), name.volume.as_str())? {
            Some(image) => Ok(image.break_lock(&lock.client, &lock.cookie)?),
            None => Ok(()),
        };
        self.call(doing, take).await
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Every host has the others: they tell none from another.
fn is_seen_by_others(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

fn users(image: &Image<'_>) -> Result<Users, CephError> {
    let watchers = image.watchers()?.iter().map(|text| client(text)).collect::<Result<_, _>>()?;
    let locks = image.holders()?.into_iter().map(|holder| {
        let address = client(&holder.address)?;
        Ok(Lock { client: holder.client, cookie: holder.cookie, address })
    });
    Ok(Users { watchers, locks: locks.collect::<Result<_, CephError>>()? })
}

/// The command by which a client is shut out.
fn blocklist(client: &ClientAddress) -> serde_json::Value {
    let expire = BLOCKLIST_FOR.as_secs_f64();
    json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": client.to_string(), "expire": expire})
}

fn client(text: &str) -> Result<ClientAddress, CephError> {
    text.parse().map_err(|error| CephError::Strange(format!("{error}")))
}
