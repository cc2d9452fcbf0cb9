//! While this node is primary, each client network with a gateway has a dnsmasq on it, which answers for names, and a desk that gives out addresses, and says what the router is, where DHCP is on.
//!
//! Decides nothing itself (see `pvc_core::plan::gateway_services` and `dhcp`).

mod desk;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use pvc_core::{
    model::{ClusterView, Reservation, Subject, Trouble, Vni},
    plan::{
        Next, Plan,
        client_network::guest_mtu,
        gateway_services::{Reservations, Served, pools, servers},
        primary::gateways,
    },
};
use pvc_host::{
    dhcp::DhcpPort,
    programs::{Identity, Kept, ProgramState, Programs, Spec},
};
use pvc_process::JoinSet;
use pvc_store::{Store, StoreError, schema::network::leases};
use tokio::sync::{Mutex, watch};
use tracing::info;

use self::desk::Desks;
use super::{
    per_network::{Kind, PerNetwork},
    primary::PrimaryService,
};
use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    network_troubles::Teller,
};

/// How long a dnsmasq may take to end.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// Whom they run as. They take packets from guests: root is not needed for that, and names need a low port alone.
const IDENTITY: Identity =
    Identity { user: "dnsmasq", group: "nogroup", capabilities: &["net_bind_service"] };

/// What they stand on.
pub struct Dependencies {
    /// This node, a coordinator, and the state tree.
    pub cluster: Cluster,
    /// What keeps them running.
    pub programs: Arc<dyn Programs>,
    /// Where guests ask for addresses.
    pub port: Arc<dyn DhcpPort>,
    /// The networks that this node lives in.
    pub own_networks: Vec<IpNet>,
    /// The cluster network's MTU, and this node's address in it.
    pub uplink: (u32, IpAddr),
    /// The daemon's folder for what is gone after a boot.
    pub folder: PathBuf,
    /// Whom it tells what cannot be served.
    pub teller: Teller,
}

/// The running services. They end when this is dropped.
pub struct GatewayServices {
    reconciler: Arc<ServerReconciler>,
    _controller: Controller<ServerReconciler>,
}

impl GatewayServices {
    /// Starts it; nothing is served until this node is primary.
    pub fn start(dependencies: Dependencies) -> Arc<Self> {
        let Dependencies { cluster, programs, port, own_networks, uplink: (mtu, local), folder, teller } =
            dependencies;
        let reconciler = Arc::new(ServerReconciler {
            subject: Subject::Node(cluster.me.clone()),
            reserved: PerNetwork::new(Arc::clone(&cluster.store)),
            cluster,
            programs,
            port,
            own_networks,
            mtu: guest_mtu(mtu, local),
            names: folder.join("names"),
            on: watch::Sender::new(false),
            states: watch::Sender::new(()),
            teller,
            servers: Mutex::default(),
            desks: Mutex::default(),
        });
        let mut controller = Controller::start(Arc::clone(&reconciler));
        controller.look_at_changes(reconciler.on.subscribe());
        controller.look_at_changes(reconciler.states.subscribe());
        let (poker, following) = (controller.poker(), Arc::clone(&reconciler));
        controller.spawn(async move {
            let poke_primary = || {
                if *following.on.borrow() {
                    poker.poke_all();
                }
            };
            following.reserved.follow(poke_primary).await;
        });
        Arc::new(Self { reconciler, _controller: controller })
    }
}

#[async_trait]
impl PrimaryService for GatewayServices {
    fn name(&self) -> &'static str {
        "client networks' DHCP and DNS"
    }

    async fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self) -> Result<(), String> {
        let reconciler = &self.reconciler;
        let mut desks = reconciler.desks.lock().await;
        let opened = match &mut *desks {
            Some(desks) => desks.open(&*reconciler.port),
            None => reconciler
                .desks()
                .map_err(|error| format!("no guest is given an address: {error}"))
                .and_then(|new| desks.insert(new).open(&*reconciler.port)),
        };
        drop(desks);
        // Names are served all the same if another server has a port, and so is the other family.
        reconciler.on.send_replace(true);
        opened
    }

    async fn stop(&self) -> Result<(), String> {
        self.reconciler.on.send_replace(false);
        *self.reconciler.desks.lock().await = None;
        let mut servers = self.reconciler.servers.lock().await;
        let count = servers.len();
        stop(std::mem::take(&mut *servers).into_values()).await;
        if count > 0 {
            info!("client networks: DHCP and DNS of {count} networks have stopped here");
        }
        Ok(())
    }
}

/// Makes a folder that unprivileged servers reach and list.
fn reachable(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (reached, more) in folder.ancestors().zip([0o055, 0o011]) {
        let mode = fs::metadata(reached)?.permissions().mode();
        fs::set_permissions(reached, fs::Permissions::from_mode(mode | more))?;
    }
    Ok(())
}

async fn stop(all: impl Iterator<Item = Server>) {
    let mut stopping = JoinSet::new();
    for server in all {
        stopping.spawn(server.kept.stop(STOP_WITHIN));
    }
    while stopping.join_next().await.is_some() {}
}

struct ServerReconciler {
    subject: Subject,
    cluster: Cluster,
    programs: Arc<dyn Programs>,
    port: Arc<dyn DhcpPort>,
    own_networks: Vec<IpNet>,
    reserved: PerNetwork<Reserved>,
    mtu: u32,
    /// A folder a network is in here, with its guests' names.
    names: PathBuf,
    /// Whether this node is primary.
    on: watch::Sender<bool>,
    /// Signals that a server has ended or runs again.
    states: watch::Sender<()>,
    servers: Mutex<BTreeMap<Vni, Server>>,
    desks: Mutex<Option<Desks>>,
    teller: Teller,
}

/// The reservations in the tree.
struct Reserved;

impl Kind for Reserved {
    type Of = Vec<Reservation>;

    fn network_of(key: &str) -> Option<Vni> {
        leases::network_of_reservation(key)
    }

    async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<Reservations, StoreError> {
        leases::reservations(store, vnis).await
    }
}

/// A dnsmasq that is kept running.
struct Server {
    arguments: Vec<String>,
    kept: Kept,
    _follow: JoinSet<()>,
}

struct Facts {
    view: Arc<ClusterView>,
    reservations: Reservations,
    running: BTreeMap<Vni, Vec<String>>,
    /// What guests are given; `None`: nothing can be given yet.
    serving: Option<BTreeMap<Vni, Served>>,
    /// Servers that do not run, and why.
    down: Vec<(Vni, String)>,
    on: bool,
}

/// What runs from now on, and for which networks something ends or is replaced.
#[derive(Debug)]
struct Change {
    end: Vec<Vni>,
    begin: Vec<(Vni, Vec<String>)>,
    serve: BTreeMap<Vni, Served>,
}

impl ServerReconciler {
    /// There are no names of an earlier time.
    fn desks(&self) -> io::Result<Desks> {
        reachable(&self.names)?;
        for folder in fs::read_dir(&self.names)? {
            // The folder stays: a dnsmasq may be looking at it.
            let _ = fs::remove_file(folder?.path().join(desk::NAMES));
        }
        Ok(Desks::new(self.cluster.clone(), self.names.clone()))
    }

    fn begin(&self, spec: Spec) -> Server {
        let arguments = spec.arguments.clone();
        let kept = self.programs.run(spec);
        let (mut state, states, mut follow) = (kept.state(), self.states.clone(), JoinSet::new());
        follow.spawn(async move {
            while state.changed().await.is_ok() {
                states.send_replace(());
            }
        });
        Server { arguments, kept, _follow: follow }
    }
}

#[async_trait]
impl Reconciler for ServerReconciler {
    type Facts = Facts;
    type Step = Change;

    const KIND: &'static str = "gateway-services";
    const RETRY: Retry = Retry::every(Duration::from_secs(1));

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    fn concerns(&self, changed: &Subject, _view: &ClusterView) -> bool {
        matches!(changed, Subject::Network(_)) && *self.on.borrow()
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Facts, StepError> {
        let servers = self.servers.lock().await;
        let running = servers.iter().map(|(vni, server)| (*vni, server.arguments.clone())).collect();
        let why = |server: &Server| match &*server.kept.state().borrow() {
            ProgramState::Down { why } => Some(why.clone()),
            _ => None,
        };
        let down = servers.iter().filter_map(|(vni, server)| Some((*vni, why(server)?))).collect();
        drop(servers);
        let serving = self.desks.lock().await.as_ref().map(Desks::serving);
        let (view, on) = (self.cluster.view(), *self.on.borrow());
        let reservations =
            if on { self.reserved.of(&view, Reservations::clone).await? } else { Reservations::default() };
        Ok(Facts { view, reservations, running, serving, down, on })
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Change> {
        let settled = Plan { next: Next::Settled, why: String::new() };
        if !facts.on {
            self.teller.plans([]);
            return settled;
        }
        let (all, mut troubles) = gateways(&self.own_networks, &facts.view);
        troubles.extend(facts.down.iter().map(|(vni, why)| {
            let what = format!("its dnsmasq has ended and is started again and again: {why}");
            Trouble::of(*vni, what).with_todo("its own words are in the journal: `journalctl -u pvcd`")
        }));
        self.teller.plans(troubles);
        let wanted = servers(&all, &facts.view, &self.names.display().to_string());
        let serve = pools(&all, &facts.view, std::mem::take(&mut facts.reservations), self.mtu);
        let differs = |vni: &&Vni| wanted.get(vni) != facts.running.get(vni);
        let end: Vec<Vni> = facts.running.keys().filter(differs).copied().collect();
        let begin: Vec<(Vni, Vec<String>)> =
            wanted.iter().filter(|(vni, _)| differs(vni)).map(|(vni, a)| (*vni, a.clone())).collect();
        if end.is_empty() && begin.is_empty() && facts.serving.as_ref().is_none_or(|now| *now == serve) {
            return settled;
        }
        Plan { next: Next::Do(Change { end, begin, serve }), why: "as the client networks are".to_owned() }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        change: &Change,
        _: &Facts,
        why: &str,
    ) -> Result<(), StepError> {
        let mut servers = self.servers.lock().await;
        let ending: Vec<Server> = change.end.iter().filter_map(|vni| servers.remove(vni)).collect();
        stop(ending.into_iter()).await;
        // It may have stopped being primary meanwhile.
        if !*self.on.borrow() {
            return Ok(());
        }
        if !change.begin.is_empty() {
            info!("client networks: {} networks' servers begin anew: {why}", change.begin.len());
        }
        for (vni, arguments) in &change.begin {
            reachable(&desk::folder(&self.names, *vni))
                .map_err(|error| StepError::Failed(format!("a folder for names: {error}")))?;
            let spec = Spec {
                name: format!("dnsmasq of network {vni}"),
                program: "dnsmasq".to_owned(),
                arguments: arguments.clone(),
                environment: Vec::new(),
                identity: Some(IDENTITY),
            };
            servers.insert(*vni, self.begin(spec));
        }
        if let Some(desks) = &*self.desks.lock().await {
            desks.serve(&change.serve);
        }
        Ok(())
    }

    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
