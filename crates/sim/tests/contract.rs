//! The simulated ZooKeeper keeps the promises that the real one keeps: the cases of pvc-store's contract.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[macro_use]
#[path = "../../store/tests/contract/list.rs"]
mod list;

#[path = "../../store/tests/contract/bench.rs"]
mod bench;
#[path = "../../store/tests/contract/cases.rs"]
mod cases;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use pvc_process::{Process, Scheduler};
use pvc_sim::{
    checkers::Timing,
    event::{Author, Net},
    journal::Journal,
    parts::store::{Place, SimStore},
    physics::{
        ensemble::Ensemble,
        network::{Network, Number},
    },
    rng::Rng,
};
use pvc_store::Store;

use self::bench::{Bench, Client};

const SERVERS: usize = 3;
/// More than any case has clients.
const NODES: usize = 12;
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Three servers, whose clients are elsewhere.
struct Simulated {
    world: Process,
    network: Arc<Network>,
    ensemble: Arc<Ensemble>,
    clients: Mutex<Number>,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let mut order = rng.fork("order");
        let scheduler = Scheduler::new(move |wanting| order.below(wanting));
        let world = scheduler.process("world");
        let second = Duration::from_secs(1);
        let timing = Timing { keepalive: second, fence_after: second * 30, session: SESSION_TIMEOUT };
        let journal = Arc::new(Journal::new(timing, false));
        let names: Vec<_> = (0..NODES).map(|n| format!("hv{n}").parse().unwrap()).collect();
        let network = Arc::new(Network::new(names.clone(), Arc::clone(&journal)));
        let servers: Vec<Number> = (0..SERVERS).collect();
        let rng = rng.fork("ensemble");
        let ensemble = Ensemble::new(
            &servers,
            names,
            Arc::clone(&network),
            journal,
            world.clone(),
            rng,
            Duration::from_secs(40),
        );
        for server in servers {
            ensemble.down(server, false);
        }
        Self { world, network, ensemble, clients: Mutex::new(SERVERS) }
    }
}

#[async_trait]
impl Bench for Simulated {
    async fn client(&self) -> Box<dyn Client> {
        let node = {
            let mut clients = self.clients.lock().unwrap();
            *clients += 1;
            *clients - 1
        };
        let (network, ensemble) = (Arc::clone(&self.network), Arc::clone(&self.ensemble));
        let place = Place { world: self.world.clone(), network, ensemble, node };
        let name = format!("hv{node}").parse().unwrap();
        let store = SimStore::start(place.clone(), Author::Daemon { node: name, run: 1 }, SESSION_TIMEOUT);
        let waited = store.session().wait_for(|session| session.is_healthy()).await.map(drop);
        waited.expect("the store is open");
        Box::new(SimClient { store, place, marks: Mutex::new(0) })
    }
}

struct SimClient {
    store: Arc<SimStore>,
    place: Place,
    marks: Mutex<u32>,
}

impl SimClient {
    fn directions(&self) -> impl Iterator<Item = (Number, Number)> {
        let node = self.place.node;
        (0..SERVERS).flat_map(move |server| [(node, server), (server, node)])
    }
}

#[async_trait]
impl Client for SimClient {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn cut(&self) {
        self.silence().await;
        let waited = self.store.session().wait_for(|session| !session.is_healthy()).await.map(drop);
        waited.expect("the store is open");
    }

    async fn heal(&self) {
        for (from, to) in self.directions() {
            self.place.network.mend(Net::Store, from, to);
        }
    }

    async fn silence(&self) {
        for (from, to) in self.directions() {
            self.place.network.cut(Net::Store, from, to);
        }
    }

    async fn expire(&self, bench: &dyn Bench) {
        let number = {
            let mut marks = self.marks.lock().unwrap();
            *marks += 1;
            *marks
        };
        let mark = format!("/expiry-mark-{number}");
        cases::create_ephemeral(&*self.store, &mark).await;
        self.cut().await;
        let observer = bench.client().await;
        cases::until("the session expires", || async {
            observer.store().get(&mark).await.is_ok_and(|found| found.is_none())
        })
        .await;
        observer.store().close().await;
    }

    async fn lag(&self, on: bool) {
        if on {
            self.place.ensemble.fall_behind(self.place.node);
        } else {
            self.place.ensemble.catch_up(self.place.node);
        }
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

macro_rules! on_the_simulated {
    ($($case:ident,)+) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                for seed in 0..8 {
                    cases::$case(&Simulated::new(seed)).await;
                }
            }
        )+
    };
}

with_all_cases!(on_the_simulated);

#[tokio::test(start_paused = true)]
async fn a_client_whose_session_has_ended_already_is_not_made_to_wait_for_its_end() {
    let bench = Simulated::new(1);
    let (ensemble, node) = (Arc::clone(&bench.ensemble), SERVERS);
    let client = bench.client().await;
    client.expire(&bench).await;
    ensemble.expire(node);
    client.heal().await;
    let mut session = client.store().session();
    cases::until("it has another session", || {
        let now = *session.borrow_and_update();
        async move { now.is_healthy() }
    })
    .await;
}
