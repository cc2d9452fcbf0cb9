//! Shuts a dead node's, or an ended instance's, Ceph clients out of the storage, before anything that they had open is opened elsewhere.
//! Whom, and in which order, is decided by `core::plan::storage_fence`; who is recorded is found by whoever asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use pvc_core::{
    model::{
        NodeName,
        ceph::{ClientAddress, ImageName, PoolName, Users},
    },
    plan::storage_fence::{Facts, Request, Step, plan},
};

use crate::{
    ceph::{Ceph, CephError},
    warrant::{Void, Warrant},
};

/// So many rounds are enough for an entry that a broken lock has shortened, and for users that came meanwhile.
const ROUNDS: usize = 16;

/// Calls that are under way side by side.
const AT_ONCE: usize = 32;

/// So many images of a pool are late one after the other before it is taken for one that does not answer.
const LATE: usize = 4;

/// Why somebody may still be writing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageFenceError {
    /// This node does not use Ceph.
    #[error("this node does not manage storage (enable_storage)")]
    NoStorage,
    /// Ceph did not do, or say, what was asked.
    #[error(transparent)]
    Ceph(#[from] CephError),
    /// It was done again and again, and Ceph says that it is not so.
    #[error("Ceph has accepted the blocklist entries and does not keep them")]
    Endless,
    /// It is not for this node to do any more.
    #[error(transparent)]
    Void(#[from] Void),
}

/// Who of this host has an image open.
pub type OpenHere = Option<BTreeSet<ClientAddress>>;

/// The images that could not be looked at, and why.
pub type Unseen = BTreeMap<ImageName, CephError>;

/// The storage's side of a fence. Idempotent: what is shut out already is success.
#[async_trait]
pub trait StorageFence: Send + Sync + 'static {
    /// Whether this node can do it at all; without, VMs with RBD images are not recovered by it.
    fn is_available(&self) -> bool;

    /// The clients of this host that have an image open for writing, or hold its lock; `None` if there is no such image.
    async fn open_here(&self, image: &ImageName) -> Result<OpenHere, StorageFenceError>;

    /// Shuts out whom the request names, and takes their locks. When it returns, nothing that they still send is written.
    /// `of` is the node that they are on, or were, as far as one is known.
    ///
    /// The warrant is asked after each look at who uses the images, and before anybody is shut out because of that look. More is not
    /// needed: whoever was seen before a warrant that holds is one of those that were to be shut out, and no other client will ever have
    /// that address.
    ///
    /// Answers what could not be looked at: it holds up nothing else, and somebody of whom nothing is recorded may still write to it.
    async fn shut_out(
        &self,
        of: &NodeName,
        request: &Request,
        warrant: &dyn Warrant,
    ) -> Result<Unseen, StorageFenceError>;
}

/// A node without Ceph: it can shut nobody out.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStorage;

#[async_trait]
impl StorageFence for NoStorage {
    fn is_available(&self) -> bool {
        false
    }

    async fn open_here(&self, _image: &ImageName) -> Result<OpenHere, StorageFenceError> {
        Err(StorageFenceError::NoStorage)
    }

    async fn shut_out(
        &self,
        _of: &NodeName,
        _request: &Request,
        _warrant: &dyn Warrant,
    ) -> Result<Unseen, StorageFenceError> {
        Err(StorageFenceError::NoStorage)
    }
}

/// By a connection to Ceph.
pub struct CephFence {
    ceph: Arc<dyn Ceph>,
    now_unix_s: Box<dyn Fn() -> u64 + Send + Sync>,
    /// How often it was asked to shut somebody out.
    attempts: AtomicUsize,
}

impl CephFence {
    /// Of that cluster, by a clock of this machine, which agrees with the monitors' as far as Ceph needs it to.
    pub fn new(ceph: Arc<dyn Ceph>, now_unix_s: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { ceph, now_unix_s: Box::new(now_unix_s), attempts: AtomicUsize::new(0) }
    }

    /// Who uses the images that have not failed before. An image that is not there has no users. Each attempt begins with others: what is late
    /// may have kept the rest of its pool from being asked for.
    async fn users(
        &self,
        request: &Request,
        attempt: usize,
        unseen: &mut Unseen,
    ) -> BTreeMap<ImageName, Users> {
        let mut pools: BTreeMap<&PoolName, Vec<ImageName>> = BTreeMap::new();
        for image in request.images.keys().filter(|image| !unseen.contains_key(*image)) {
            pools.entry(&image.pool).or_default().push(image.clone());
        }
        for images in pools.values_mut() {
            let first = attempt % images.len();
            images.rotate_left(first);
        }
        let looks =
            self.at_once(pools.into_values(), |ceph, images| async move { in_pool(&*ceph, images).await });
        let mut seen = BTreeMap::new();
        for (image, users) in looks.await.into_iter().flatten() {
            match users {
                Ok(users) => drop(seen.insert(image, users.unwrap_or_default())),
                Err(error) => drop(unseen.insert(image, error)),
            }
        }
        seen
    }

    /// All of them, some side by side: each entry waits for an agreement of the monitors, which takes up to a second and is the same for
    /// what comes together.
    async fn at_once<T, U, F: Future<Output = U>>(
        &self,
        of: impl IntoIterator<Item = T>,
        call: impl Fn(Arc<dyn Ceph>, T) -> F,
    ) -> Vec<U> {
        let calls = of.into_iter().map(|item| call(Arc::clone(&self.ceph), item));
        stream::iter(calls.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await
    }
}

/// An image, and who uses it.
type Look = (ImageName, Result<Option<Users>, CephError>);

/// Who uses these images of one pool. One that is late may be of a placement group that does not answer, which is no matter of the others. Of a pool
/// that does not answer no more are asked for: each would take its time to fail, and keep those of other pools from being asked for.
async fn in_pool(ceph: &dyn Ceph, mut images: Vec<ImageName>) -> Vec<Look> {
    let late = AtomicUsize::new(0);
    let others = images.split_off(LATE.min(images.len()));
    let mut looks = Vec::new();
    for images in [images, others] {
        let asked = images.into_iter().map(|image| look(ceph, image, &late));
        looks.extend(
            stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await,
        );
    }
    looks
}

/// `late` are so many of its pool since one has answered.
async fn look(ceph: &dyn Ceph, image: ImageName, late: &AtomicUsize) -> Look {
    if late.load(Relaxed) >= LATE {
        let doing = format!("asking who uses {image}, since {LATE} others of its pool did not answer");
        return (image, Err(CephError::Late { doing }));
    }
    let users = ceph.users(&image).await;
    match &users {
        Err(CephError::Late { .. }) => drop(late.fetch_add(1, Relaxed)),
        _ => late.store(0, Relaxed),
    }
    (image, users)
}

#[async_trait]
impl StorageFence for CephFence {
    fn is_available(&self) -> bool {
        true
    }

    async fn open_here(&self, image: &ImageName) -> Result<OpenHere, StorageFenceError> {
        let here = self.ceph.own_hosts().await?;
        let users = self.ceph.users(image).await?;
        Ok(users.map(|users| users.addresses().filter(|client| here.contains(&client.host.ip())).collect()))
    }

    async fn shut_out(
        &self,
        of: &NodeName,
        request: &Request,
        warrant: &dyn Warrant,
    ) -> Result<Unseen, StorageFenceError> {
        let mut unseen = Unseen::new();
        let attempt = self.attempts.fetch_add(1, Relaxed);
        for _ in 0..ROUNDS {
            let users = self.users(request, attempt, &mut unseen).await;
            let blocklisted = self.ceph.blocklisted().await?;
            warrant.holds().await?;
            let facts =
                Facts { request, users: &users, blocklisted: &blocklisted, now_unix_s: (self.now_unix_s)() };
            match plan(&facts) {
                Step::Blocklist(clients) => {
                    let done = self.at_once(clients, |ceph, client| async move {
                        ceph.blocklist(&client).await?;
                        tracing::warn!(%client, node = %of, "shut out of the storage");
                        Ok::<_, CephError>(())
                    });
                    done.await.into_iter().collect::<Result<(), _>>()?;
                }
                Step::BreakLocks(locks) => {
                    self.ceph.await_latest_map().await?;
                    let done = self.at_once(locks, |ceph, (image, lock)| async move {
                        let broken = ceph.break_lock(&image, &lock).await;
                        if broken.is_ok() {
                            tracing::info!(%image, holder = %lock.address, "its lock is taken");
                        }
                        (image, broken)
                    });
                    let failed =
                        done.await.into_iter().filter_map(|(image, done)| Some((image, done.err()?)));
                    unseen.extend(failed);
                }
                Step::Done(_) => {
                    self.ceph.await_latest_map().await?;
                    return Ok(unseen);
                }
            }
        }
        Err(StorageFenceError::Endless)
    }
}
