//! The life of a daemon from its start to its stop, over whatever store and hypervisor it is given: real ones, or fakes in tests
//! and simulations.
//!
//! ```text
//! networks, units ─► suspend strangers, connect ─► own the name ─► read the tree ─► register (init) ─► read libvirt, adopt ─► run ─► … ─► stop
//! ```
//!
//! Guests outlive it: neither a stop nor a crash of the daemon touches what runs.

mod tenants;

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pvc_config::Config;
use pvc_core::model::{DaemonMode, DaemonState, NodeName, StaticData};
use pvc_host::{
    boot_note::BootNote,
    ceph::CephAdmin,
    database_cluster::DatabaseCluster,
    dhcp::DhcpPort,
    firewall::Firewall,
    hypervisor::{Hypervisor, screen::Screens},
    links::{Bridges, Links},
    machine::Machine,
    osds::OsdHost,
    power::Power,
    programs::Programs,
    routing::RoutingDaemon,
    services::Services,
    storage_fence::StorageFence,
    watchdog::Watchdog,
    zones::ZoneDatabase,
};
use pvc_process::{JoinSet, Place};
use pvc_store::{
    Store,
    mirror::{Mirror, Needs},
    schema::{
        SchemaError,
        node::{self, Ipmi, Registration, register},
        owner::Owner,
        root,
    },
    servers::Servers,
};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::{
    ability::Ability,
    console::Consoles,
    controller::Cluster,
    keepalive::{Facts, Keepalive, Shown},
    metrics::Metrics,
    network_troubles::Troubles,
    notify::Notify,
    ownership::{Ownership, OwnershipError},
    reconcile::{
        client_network,
        fence::Fencing,
        flush::Flush,
        network::{self, NetworkError, Networks},
        osd_tasks::OsdTasks,
        primary::Primary,
        storage_tasks::StorageTasks,
        vm::Vms,
    },
    reserve,
    selffence::SelfFence,
    service_units,
    stop::Stop,
};

/// The longest a stop takes, whatever is away.
const STOP_WITHIN: Duration = Duration::from_secs(6);
/// … and the parts of it.
const SAY_WITHIN: Duration = Duration::from_secs(1);
const FINISH_WITHIN: Duration = Duration::from_secs(2);
const DISARM_WITHIN: Duration = Duration::from_secs(1);
const STEP_DOWN_WITHIN: Duration = Duration::from_secs(3);

/// How long start-up waits for libvirt before it goes on without: a node must say that it lives even so.
const LIBVIRT_WITHIN: Duration = Duration::from_secs(5);

/// How long something may take before it is said that it is waited for.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// What a daemon stands on.
pub struct Dependencies {
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The hypervisor, on a node that has one.
    pub hypervisor: Option<Arc<dyn Hypervisor>>,
    /// The guests' consoles that are shown in the state tree; `None`: none is.
    pub consoles: Option<Consoles>,
    /// The guests' screens, for clients in the cluster network; `None`: none is shown.
    pub screens: Option<Arc<dyn Screens>>,
    /// The machine's network; `None`: it is not managed, and there are no floating addresses.
    pub links: Option<Arc<dyn Links>>,
    /// The bridges and tunnels of client networks; `None`: they are not managed.
    pub bridges: Option<Arc<dyn Bridges>>,
    /// The machine's packet filter; `None`: client networks are not managed.
    pub firewall: Option<Arc<dyn Firewall>>,
    /// The machine's routing daemon; `None`: client networks are not managed.
    pub routing: Option<Arc<dyn RoutingDaemon>>,
    /// The DNS aggregator's database; `None`: guests' names are not served.
    pub zones: Option<Arc<dyn ZoneDatabase>>,
    /// The servers of that database, of which one leads; `None`: they are not beside the coordinators.
    pub database_cluster: Option<Arc<dyn DatabaseCluster>>,
    /// Programs that are kept running; `None`: none is.
    pub programs: Option<Arc<dyn Programs>>,
    /// Where guests ask for addresses; `None`: they are given none.
    pub dhcp: Option<Arc<dyn DhcpPort>>,
    /// The machine's service units; `None`: they are not managed.
    pub services: Option<Arc<dyn Services>>,
    /// The coordinators' ZooKeeper servers.
    pub servers: Arc<dyn Servers>,
    /// The other machines' power.
    pub power: Arc<dyn Power>,
    /// The cluster that holds VMs' images; `None`: storage is not managed.
    pub ceph: Option<Arc<dyn CephAdmin>>,
    /// This node's OSDs; `None`: it manages no storage.
    pub osds: Option<Arc<dyn OsdHost>>,
    /// The storage's side of a fence.
    pub storage: Arc<dyn StorageFence>,
    /// What resets this machine if it loses the cluster; `None`: nothing does.
    pub watchdog: Option<Arc<dyn Watchdog>>,
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// Remembers whether a daemon has read the state tree since the machine's boot.
    pub boot_note: Arc<dyn BootNote>,
    /// This process: no two daemons of one node may be the same.
    pub process: Owner,
    /// Whom figures are told; `None`: nobody.
    pub metrics: Option<Metrics>,
    /// The service manager.
    pub notify: Notify,
    /// Where the keepalive and what feeds the watchdog run, and should what keeps the store's session: if that is a thread of its own, no plan, no parse
    /// and no listing makes this node look dead.
    pub lifeline: Place,
}

/// Why a daemon ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon has its name.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// The state tree cannot be used.
    #[error("cannot {doing}")]
    Tree {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: SchemaError,
    },
    /// This machine cannot be used.
    #[error("cannot {doing}")]
    Machine {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// This machine's networks cannot be as configured.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A part of the daemon ended by itself.
    #[error("the {0} ended unexpectedly: this is a bug")]
    Ended(&'static str),
}

/// Runs a daemon until it is asked to stop. Returns at the latest some seconds after that.
///
/// # Errors
/// If it cannot be the daemon of its node, or not any longer. Guests are not affected.
pub async fn run(config: &Config, mut dependencies: Dependencies, mut stop: Stop) -> Result<(), DaemonError> {
    let registered = AtomicBool::new(false);
    let ownership = Arc::new(Ownership::new(
        Arc::clone(&dependencies.store),
        Arc::clone(&dependencies.machine),
        config.node.clone(),
        dependencies.process.clone(),
    ));
    // From here on nothing is written under a name that is not this daemon's.
    dependencies.store = ownership.store();
    let mut lost = pin!(ownership.keep());
    let started = tokio::select! {
        biased;
        () = stop.requested() => None,
        error = &mut lost => Some(Err(error.into())),
        started = start(config, &dependencies, &ownership, &registered) => Some(started),
    };
    let Some(started) = started else {
        info!("asked to stop before the start was complete");
        dependencies.notify.stopping();
        // A node in `init` that says nothing any more would be fenced. The keys of one that is not registered are somebody else's.
        if registered.load(Ordering::Relaxed) && dependencies.store.session().borrow().is_healthy() {
            let stopped = dependencies.store.commit(node::set_daemon_state(&config.node, DaemonState::Stop));
            if matches!(timeout(SAY_WITHIN, stopped).await, Ok(Ok(_))) {
                say_stopped(&dependencies, &config.node).await;
            }
        }
        close(&dependencies).await;
        return Ok(());
    };
    let mut daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => {
            close(&dependencies).await;
            return Err(error);
        }
    };
    let outcome = tokio::select! {
        biased;
        () = stop.requested() => Ok(()),
        error = lost => Err(error.into()),
        () = daemon.keepalive.ended() => Err(DaemonError::Ended("keepalive")),
    };
    dependencies.notify.stopping();
    if outcome.is_ok() {
        daemon.stop(&dependencies, &config.node).await;
    } else {
        // Whoever has our name now writes these keys: not a word more from us. What guards this machine stays armed.
        drop(daemon.keepalive);
        drop(daemon.fencing);
        drop(daemon.flush);
        drop(daemon.self_fence);
        if let Some(primary) = daemon.primary {
            primary.abandon().await;
        }
        if let Some(vms) = daemon.vms {
            vms.stop(FINISH_WITHIN).await;
        }
        close(&dependencies).await;
    }
    outcome
}

/// What runs after the start.
struct Daemon {
    keepalive: Keepalive,
    flush: Flush,
    self_fence: SelfFence,
    vms: Option<Vms>,
    /// On a coordinator.
    primary: Option<Primary>,
    /// On a coordinator.
    fencing: Option<Fencing>,
    _networks: Option<Networks>,
    _client_networks: Option<tenants::ClientNetworkTenants>,
    _storage_tasks: Option<StorageTasks>,
    _osd_tasks: Option<OsdTasks>,
    _troubles: Troubles,
    /// What ends with the daemon, whatever it is doing then.
    _background: JoinSet<()>,
}

/// What this node says of itself in the tree.
fn registration(config: &Config, dependencies: &Dependencies, static_data: StaticData) -> Registration {
    Registration {
        name: config.node.clone(),
        mode: mode(config),
        static_data,
        boot: dependencies.process.boot.clone(),
        keepalive_interval: config.intervals.keepalive(),
        vtep: if dependencies.bridges.is_some() { client_network::vtep(config) } else { None },
        storage: dependencies.storage.is_available(),
        ipmi: Ipmi {
            hostname: config.ipmi.host.clone(),
            username: config.ipmi.user.clone(),
            password: config.ipmi.pass.reveal().to_owned(),
        },
    }
}

fn mode(config: &Config) -> DaemonMode {
    if config.is_coordinator() { DaemonMode::Coordinator } else { DaemonMode::Hypervisor }
}

async fn start(
    config: &Config,
    dependencies: &Dependencies,
    ownership: &Arc<Ownership>,
    registered: &AtomicBool,
) -> Result<Daemon, DaemonError> {
    let began = Instant::now();
    let machine = |doing| move |cause| DaemonError::Machine { doing, cause };
    let static_data = dependencies.machine.describe().map_err(machine("find out what this machine is"))?;
    let version = env!("CARGO_PKG_VERSION");
    info!("pvcd {version} starts as {} {} on {static_data}", mode(config), config.node);
    let (mut background, networks) = prepare_machine(config, dependencies).await?;
    let mut strangers = tenants::watch_strangers(config, dependencies, ownership);
    connect(config, dependencies).await;
    let looking = Instant::now();
    if let Some(strangers) = &mut strangers {
        strangers.first_look().await;
    }
    let libvirt_within = LIBVIRT_WITHIN.saturating_sub(looking.elapsed());

    let tree = |doing| move |cause| DaemonError::Tree { doing, cause };
    let created = root::init(ownership.nameless_store()).await.map_err(tree("prepare the state tree"))?;
    if !created.is_empty() {
        info!("the state tree was prepared: {} keys created", created.len());
    }
    ownership.take().await?;
    let needs =
        Needs { me: Some(config.node.clone()), networks: dependencies.bridges.is_some(), ..Needs::default() };
    let mirror = Mirror::start_on(Arc::clone(&dependencies.store), &needs);
    let registration = registration(config, dependencies, static_data);
    registered.store(true, Ordering::Relaxed);
    register(&*dependencies.store, &registration).await.map_err(tree("register this node"))?;
    mirror.ready().await;
    if let Some(strangers) = &strangers {
        strangers.tree_is_read();
    }
    debug!("registered and read the tree in {:.2} s", began.elapsed().as_secs_f32());

    let (store, machine_clock) = (Arc::clone(&dependencies.store), Arc::clone(&dependencies.machine));
    let cluster = Cluster::new(config.node.clone(), store, mirror.clone(), machine_clock);
    let troubles = Troubles::start(cluster.clone());
    let client_networks = tenants::client_networks(config, dependencies, &cluster, &troubles);
    let vms = tenants::vms(config, dependencies, cluster.clone()).map_err(machine("follow console logs"))?;
    let ability = Ability::new(vms.as_ref().map(Vms::trouble), networks.as_ref().map(Networks::trouble));
    let keepalive = Keepalive::start(
        Arc::clone(&dependencies.store),
        registration,
        config.intervals.keepalive(),
        Facts {
            machine: Arc::clone(&dependencies.machine),
            active: vms.as_ref().map(Vms::active),
            ability: ability.clone(),
            mirror: mirror.clone(),
            storage: tenants::storage_figures(config, dependencies, mirror.clone(), &mut background),
        },
        config
            .logging
            .keepalives
            .then_some(Shown { cluster_details: config.logging.keepalive_cluster_details }),
        dependencies.notify.clone(),
        &dependencies.lifeline,
    );
    // From its registration on the node speaks: one that dies on its way is missed like any other.
    tokio::join!(keepalive.declare(DaemonState::Init), wait_for_libvirt(vms.as_ref(), libvirt_within));
    // From here on the reconcilers see to it.
    drop(strangers);
    tenants::figures(config, dependencies, mirror.clone(), &mut background);
    tenants::screens(config, dependencies, &mut background);
    let self_fence = tenants::self_fence(config, dependencies, mirror.clone(), keepalive.acknowledged());
    keepalive.declare(DaemonState::Run).await;
    if let Some(recorder) = tenants::recorder(config, dependencies, mirror.clone(), vms.as_ref()) {
        background.spawn(recorder.run());
    }
    let flush = tenants::flush(config, cluster.clone(), vms.as_ref(), ability);
    let fencing = config
        .is_coordinator()
        .then(|| tenants::fencing(config, dependencies, cluster.clone(), keepalive.write_streak()));
    if config.is_coordinator() {
        background.spawn(tenants::ask_bmcs(config, dependencies, mirror.clone()).run());
        background.spawn(reserve::run(config.node.clone(), Arc::clone(&dependencies.store), mirror.clone()));
    }
    let storage_tasks = tenants::storage_tasks(config, dependencies, &cluster);
    let osd_tasks = tenants::osd_tasks(dependencies, &cluster);
    let primary = config.is_coordinator().then(|| tenants::primary(config, dependencies, cluster, &troubles));
    info!("runs, {:.2} s after its start", began.elapsed().as_secs_f32());
    dependencies.notify.status("runs");
    dependencies.notify.ready();
    Ok(Daemon {
        keepalive,
        flush,
        self_fence,
        vms,
        primary,
        fencing,
        _networks: networks,
        _client_networks: client_networks,
        _storage_tasks: storage_tasks,
        _osd_tasks: osd_tasks,
        _troubles: troubles,
        _background: background,
    })
}

/// Networks first: without them neither ZooKeeper nor anybody else is reached. Then what this node's functions need.
async fn prepare_machine(
    config: &Config,
    dependencies: &Dependencies,
) -> Result<(JoinSet<()>, Option<Networks>), NetworkError> {
    let (mut background, mut networks) = (JoinSet::new(), None);
    if let (Some(links), Some(desired)) = (&dependencies.links, network::desired(config)) {
        network::bring_up(&**links, &desired).await?;
        networks = Some(Networks::start(&config.node, Arc::clone(links), desired));
    }
    if let Some(services) = &dependencies.services {
        background.spawn(service_units::start(Arc::clone(services), service_units::needed(config)));
    }
    Ok((background, networks))
}

/// Waits for a session, as long as it takes, and says once what is waited for.
async fn connect(config: &Config, dependencies: &Dependencies) {
    let mut session = dependencies.store.session();
    let mut healthy = std::pin::pin!(session.wait_for(|s| s.is_healthy()));
    if timeout(SAY_AFTER, &mut healthy).await.is_ok() {
        return;
    }
    let servers = config.zookeeper_connect_string();
    // Why it does not answer, and which server, is said by the store.
    info!("the start waits for ZooKeeper; guests are not affected");
    dependencies.notify.status(&format!("waits for ZooKeeper ({servers})"));
    // The store says when it is there.
    let _ = healthy.await;
}

async fn wait_for_libvirt(vms: Option<&Vms>, within: Duration) {
    let Some(vms) = vms else { return };
    let mut active = vms.active();
    let mut known = std::pin::pin!(active.wait_for(Option::is_some));
    if timeout(within, &mut known).await.is_err() {
        warn!(
            "libvirt does not answer: the node says that it lives, and its VMs are left alone until libvirt does"
        );
    }
}

impl Daemon {
    async fn stop(self, dependencies: &Dependencies, me: &NodeName) {
        let end = Instant::now() + STOP_WITHIN;
        info!("stops; what runs here keeps running");
        let said = self.say(dependencies, DaemonState::Shutdown).await;
        drop(self.fencing);
        drop(self.flush);
        self.self_fence.disarm(DISARM_WITHIN).await;
        // The others take over while the rest is still being finished here.
        if let Some(primary) = self.primary {
            let _ = timeout_at(end - 2 * SAY_WITHIN, primary.stop(STEP_DOWN_WITHIN)).await;
        }
        if let Some(vms) = self.vms {
            let _ = timeout_at(end - 2 * SAY_WITHIN, vms.stop(FINISH_WITHIN)).await;
        }
        let said = said && timeout(SAY_WITHIN, self.keepalive.declare(DaemonState::Stop)).await.is_ok();
        if said {
            say_stopped(dependencies, me).await;
        }
        if !said {
            warn!("ZooKeeper does not answer: the node's keys do not say that it has stopped");
        }
        drop(self.keepalive);
        close(dependencies).await;
        info!("stopped");
    }

    async fn say(&self, dependencies: &Dependencies, state: DaemonState) -> bool {
        let healthy = dependencies.store.session().borrow().is_healthy();
        healthy && timeout(SAY_WITHIN, self.keepalive.declare(state)).await.is_ok()
    }
}

/// Without it the node's state has only one key to be read from.
async fn say_stopped(dependencies: &Dependencies, name: &NodeName) {
    let said = node::say_stopped(&*dependencies.store, name, &dependencies.process.boot);
    if !matches!(timeout(SAY_WITHIN, said).await, Ok(Ok(()))) {
        debug!("that this node has stopped could not be written twice");
    }
}

/// Ends the session, so that what hangs on it is free at once.
async fn close(dependencies: &Dependencies) {
    let _ = timeout(SAY_WITHIN, dependencies.store.close()).await;
}
