//! Three worlds in which the same case is run. A fourth one is the simulator's.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use pvc_store::{
    Store,
    memory::{MemoryStore, MemoryTree},
    testing::{Proxy, ZooKeeperProcess},
    zookeeper::{Options, ZooKeeperStore},
};

use super::bench::{Bench, Client};

#[derive(Default)]
pub(crate) struct Memory {
    tree: MemoryTree,
}

#[async_trait]
impl Bench for Memory {
    async fn client(&self) -> Box<dyn Client> {
        Box::new(self.tree.client())
    }
}

#[async_trait]
impl Client for Arc<MemoryStore> {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self) as Arc<dyn Store>
    }

    async fn cut(&self) {
        self.suspend();
    }

    async fn heal(&self) {
        self.resume();
    }

    async fn silence(&self) {
        self.lose_requests(1);
    }

    async fn expire(&self, _: &dyn Bench) {
        self.suspend();
        MemoryStore::expire(self);
    }

    async fn lag(&self, on: bool) {
        if on {
            self.fall_behind();
        } else {
            self.catch_up();
        }
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A memory whose clients are asked once.
#[derive(Default)]
pub(crate) struct Kept(Memory);

struct KeptClient {
    client: Box<dyn Client>,
    kept: Arc<dyn Store>,
}

#[async_trait]
impl Bench for Kept {
    async fn client(&self) -> Box<dyn Client> {
        let client = self.0.client().await;
        let kept = pvc_store::Kept::of(client.store(), &["/"]);
        Box::new(KeptClient { client, kept })
    }
}

#[async_trait]
impl Client for KeptClient {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.kept)
    }

    async fn cut(&self) {
        self.client.cut().await;
    }

    async fn heal(&self) {
        self.client.heal().await;
    }

    async fn silence(&self) {
        self.client.silence().await;
    }

    async fn expire(&self, bench: &dyn Bench) {
        self.client.expire(bench).await;
    }

    async fn lag(&self, on: bool) {
        self.client.lag(on).await;
    }

    fn request_timeout(&self) -> Duration {
        self.client.request_timeout()
    }
}

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) struct Real {
    server: ZooKeeperProcess,
}

impl Real {
    pub(crate) async fn start() -> Self {
        let server = tokio::task::spawn_blocking(ZooKeeperProcess::start).await.unwrap();
        Self { server }
    }
}

#[async_trait]
impl Bench for Real {
    async fn client(&self) -> Box<dyn Client> {
        let proxy = Proxy::start(self.server.port()).await;
        let options = Options {
            session_timeout: SESSION_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            ..Options::new(proxy.connect_string())
        };
        let store = ZooKeeperStore::start(options);
        let waited = store.session().wait_for(|s| s.is_healthy()).await.map(drop);
        waited.expect("the store is open");
        Box::new(RealClient { store, proxy, marks: Mutex::new(0) })
    }
}

struct RealClient {
    store: Arc<ZooKeeperStore>,
    proxy: Proxy,
    marks: Mutex<u32>,
}

#[async_trait]
impl Client for RealClient {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn cut(&self) {
        let mut session = self.store.session();
        self.proxy.cut();
        let waited = session.wait_for(|s| !s.is_healthy()).await.map(drop);
        waited.expect("the store is open");
    }

    async fn heal(&self) {
        self.proxy.heal();
    }

    async fn silence(&self) {
        self.proxy.silence();
    }

    async fn expire(&self, bench: &dyn Bench) {
        let number = {
            let mut marks = self.marks.lock().unwrap();
            *marks += 1;
            *marks
        };
        // The servers tell nobody of an expiry but by the disappearance of what the session owned.
        let mark = format!("/expiry-mark-{number}");
        super::cases::create_ephemeral(&*self.store, &mark).await;
        self.cut().await;
        let observer = bench.client().await;
        super::cases::until("the session expires", || async {
            observer.store().get(&mark).await.is_ok_and(|found| found.is_none())
        })
        .await;
        observer.store().close().await;
    }

    fn request_timeout(&self) -> Duration {
        REQUEST_TIMEOUT
    }
}
