//! What a daemon does beside saying that it lives: each started from the configuration and what the daemon is given.

use std::{io, sync::Arc};

use pvc_config::Config;
use pvc_core::model::screen::SCREEN_PORT;
use pvc_process::JoinSet;
use pvc_store::mirror::Mirror;
use tokio::{sync::watch, time::Instant};
use tracing::warn;

use super::Dependencies;
use crate::{
    ability::Ability,
    bmcs::Bmcs,
    console::ConsoleLogs,
    controller::Cluster,
    metrics::Sources,
    network_troubles::Troubles,
    old_commands::OldCommands,
    ownership::Ownership,
    reconcile::{
        client_network::{self, ClientNetworks, Definitions},
        client_records::Recorder,
        database_leader::{self, DatabaseLeader},
        dns::{self, Names},
        fence::{self, Fencing},
        firewall::{self, Walls},
        flush::{self, Flush},
        gateway_services::{self, GatewayServices},
        osd_tasks::OsdTasks,
        primary::{self, Primary, PrimaryService},
        routing::{self, RoutingNeighbours},
        storage_tasks::StorageTasks,
        vm::{self, Peers, Vms},
    },
    screens::{Limits, ScreenService},
    selffence::{self, SelfFence},
    storage_figures::{StorageFigures, Told},
    strangers::{self, Strangers},
    write_streak::WriteStreak,
};

/// What client networks need on a node.
pub(super) struct ClientNetworkTenants {
    _walls: Option<Walls>,
    _networks: Option<ClientNetworks>,
    _routing: Option<RoutingNeighbours>,
    _names: Option<Names>,
}

/// On a node whose networks are managed: walls before tunnels.
pub(super) fn client_networks(
    config: &Config,
    dependencies: &Dependencies,
    cluster: &Cluster,
    troubles: &Troubles,
) -> Option<ClientNetworkTenants> {
    let bridges = dependencies.bridges.as_ref()?;
    // Read once, for both.
    let definitions = Arc::new(Definitions::new(Arc::clone(&cluster.store)));
    let walls = dependencies.firewall.as_ref().zip(firewall::ground(config)).map(|(firewall, ground)| {
        Walls::start(
            cluster.clone(),
            Arc::clone(firewall),
            Arc::clone(bridges),
            Arc::clone(&definitions),
            ground,
            troubles.teller("firewall"),
        )
    });
    let networks = client_network::ground(config).map(|ground| {
        ClientNetworks::start(
            cluster.clone(),
            Arc::clone(bridges),
            definitions,
            ground,
            troubles.teller("client networks"),
        )
    });
    let routing = dependencies.routing.as_ref().zip(routing::ground(config)).map(|(daemon, ground)| {
        RoutingNeighbours::start(cluster.clone(), Arc::clone(daemon), ground, troubles.teller("routing"))
    });
    let names = names(config, dependencies, cluster.clone(), troubles);
    Some(ClientNetworkTenants { _walls: walls, _networks: networks, _routing: routing, _names: names })
}

/// On a coordinator whose networks are managed.
fn names(
    config: &Config,
    dependencies: &Dependencies,
    cluster: Cluster,
    troubles: &Troubles,
) -> Option<Names> {
    let database = dependencies.zones.as_ref()?;
    let server = dns::Server::new(config).unwrap_or_else(|error| {
        warn!("names: PowerDNS does not run here: {error}");
        None
    });
    let server = server.zip(dependencies.programs.clone());
    Some(Names::start(cluster, Arc::clone(database), server, troubles.teller("names")))
}

/// On a node with a hypervisor.
pub(super) fn vms(config: &Config, dependencies: &Dependencies, cluster: Cluster) -> io::Result<Option<Vms>> {
    let Some(hypervisor) = &dependencies.hypervisor else { return Ok(None) };
    Ok(Some(Vms::start(vm::Dependencies {
        cluster,
        peers: Peers::new(config),
        hypervisor: Arc::clone(hypervisor),
        storage: dependencies.storage.is_available().then(|| Arc::clone(&dependencies.storage)),
        selector: config.target_selector,
        consoles: follow_consoles(dependencies)?,
    })))
}

/// Only once the name is this daemon's: what guests print is written like everything else.
fn follow_consoles(dependencies: &Dependencies) -> io::Result<Option<Arc<ConsoleLogs>>> {
    let Some(desired) = &dependencies.consoles else { return Ok(None) };
    Ok(Some(Arc::new(ConsoleLogs::start(Arc::clone(&dependencies.store), desired)?)))
}

/// On a node with a hypervisor and an address in the cluster network.
pub(super) fn screens(config: &Config, dependencies: &Dependencies, background: &mut JoinSet<()>) {
    let own = config.interfaces.as_ref().and_then(|interfaces| interfaces.cluster.address);
    let Some((screens, own)) = dependencies.screens.as_ref().zip(own) else { return };
    let service = ScreenService {
        me: config.node.clone(),
        store: Arc::clone(&dependencies.store),
        machine: Arc::clone(&dependencies.machine),
        screens: Arc::clone(screens),
        network: own.trunc(),
        limits: Limits::default(),
    };
    background.spawn(service.run((own.addr(), SCREEN_PORT).into()));
}

/// Tells Prometheus, if it may ask.
pub(super) fn figures(
    config: &Config,
    dependencies: &Dependencies,
    mirror: Mirror,
    background: &mut JoinSet<()>,
) {
    let Some(metrics) = dependencies.metrics.clone() else { return };
    let sources = Sources { me: config.node.clone(), store: Arc::clone(&dependencies.store), mirror };
    background.spawn(async move { metrics.serve(sources).await });
}

pub(super) fn self_fence(
    config: &Config,
    dependencies: &Dependencies,
    mirror: Mirror,
    acknowledged: watch::Receiver<Option<Instant>>,
) -> SelfFence {
    SelfFence::start(selffence::Dependencies {
        me: config.node.clone(),
        store: Arc::clone(&dependencies.store),
        mirror,
        watchdog: dependencies.watchdog.clone(),
        within: config.intervals.suicide_after(),
        acknowledged,
        place: dependencies.lifeline.clone(),
    })
}

pub(super) fn primary(
    config: &Config,
    dependencies: &Dependencies,
    cluster: Cluster,
    troubles: &Troubles,
) -> Primary {
    let mut services: Vec<Arc<dyn PrimaryService>> = vec![Arc::new(OldCommands::new(
        Arc::clone(&dependencies.store),
        Arc::clone(&dependencies.machine),
        dependencies.ceph.is_some(),
    ))];
    if let Some(service_units) = dependencies.services.as_ref().filter(|_| config.functions.api) {
        services.push(primary::Unit::api(Arc::clone(service_units)));
    }
    // They stop first and start last: what they serve is on the addresses.
    if let Some(served) = gateway_services(config, dependencies, &cluster, troubles) {
        services.push(served);
    }
    // It has a task of its own, and holds up none of the others.
    if let Some((database, ground)) =
        dependencies.database_cluster.as_ref().zip(database_leader::ground(config))
    {
        services.push(DatabaseLeader::start(ground, Arc::clone(database)));
    }
    Primary::start(primary::Dependencies {
        cluster,
        links: dependencies.links.clone(),
        floating: primary::floating(config),
        own_networks: primary::nobodys_networks(config),
        services,
    })
}

fn gateway_services(
    config: &Config,
    dependencies: &Dependencies,
    cluster: &Cluster,
    troubles: &Troubles,
) -> Option<Arc<dyn PrimaryService>> {
    let programs = dependencies.programs.as_ref().filter(|_| dependencies.bridges.is_some())?;
    let ground = client_network::ground(config)?;
    Some(GatewayServices::start(gateway_services::Dependencies {
        cluster: cluster.clone(),
        programs: Arc::clone(programs),
        port: Arc::clone(dependencies.dhcp.as_ref()?),
        own_networks: primary::nobodys_networks(config),
        uplink: (ground.mtu, ground.address?),
        folder: config.directories.dynamic.clone(),
        teller: troubles.teller("gateways"),
    }))
}

pub(super) fn ask_bmcs(config: &Config, dependencies: &Dependencies, mirror: Mirror) -> Bmcs {
    Bmcs {
        me: config.node.clone(),
        store: Arc::clone(&dependencies.store),
        mirror,
        machine: Arc::clone(&dependencies.machine),
        power: Arc::clone(&dependencies.power),
        keepalive: config.intervals.keepalive(),
    }
}

/// On a node with a hypervisor that manages storage.
pub(super) fn recorder(
    config: &Config,
    dependencies: &Dependencies,
    mirror: Mirror,
    vms: Option<&Vms>,
) -> Option<Recorder> {
    Some(Recorder {
        me: config.node.clone(),
        store: Arc::clone(&dependencies.store),
        mirror,
        ceph: dependencies.ceph.clone()?,
        active: vms?.active(),
        events: vms?.events(),
    })
}

/// On a coordinator that manages storage.
pub(super) fn storage_tasks(
    config: &Config,
    dependencies: &Dependencies,
    cluster: &Cluster,
) -> Option<StorageTasks> {
    let ceph = dependencies.ceph.clone().filter(|_| config.is_coordinator())?;
    Some(StorageTasks::start(cluster.clone(), ceph))
}

/// On a node that manages storage.
pub(super) fn osd_tasks(dependencies: &Dependencies, cluster: &Cluster) -> Option<OsdTasks> {
    let (ceph, osds) = (dependencies.ceph.clone()?, dependencies.osds.clone()?);
    Some(OsdTasks::start(cluster.clone(), ceph, osds))
}

/// On a node that manages storage; what its keepalives log of it, if they shall.
pub(super) fn storage_figures(
    config: &Config,
    dependencies: &Dependencies,
    mirror: Mirror,
    background: &mut JoinSet<()>,
) -> Option<Told> {
    let figures = StorageFigures {
        me: config.node.clone(),
        store: Arc::clone(&dependencies.store),
        mirror,
        machine: Arc::clone(&dependencies.machine),
        ceph: dependencies.ceph.clone()?,
        every: config.intervals.keepalive(),
    };
    // What nobody is shown is not asked for.
    let logged = config.logging.keepalives && config.logging.keepalive_storage_details;
    if !logged && !config.is_coordinator() {
        return None;
    }
    let (told, task) = figures.follow();
    background.spawn(task);
    logged.then_some(told)
}

pub(super) fn fencing(
    config: &Config,
    dependencies: &Dependencies,
    cluster: Cluster,
    write_streak: watch::Receiver<Option<WriteStreak>>,
) -> Fencing {
    Fencing::start(fence::Dependencies {
        cluster,
        write_streak,
        power: Arc::clone(&dependencies.power),
        storage: Arc::clone(&dependencies.storage),
        servers: Arc::clone(&dependencies.servers),
        settings: fence::settings(config),
        // The words are the same; the configuration has checked them.
        selector: config.target_selector.as_str().parse().unwrap_or_default(),
    })
}

/// Every node flushes itself, also one without a hypervisor, which has nothing to send away.
pub(super) fn flush(config: &Config, cluster: Cluster, vms: Option<&Vms>, ability: Ability) -> Flush {
    Flush::start(flush::Dependencies {
        cluster,
        active: vms.map(Vms::active),
        ability,
        selector: config.target_selector,
        limits: config.limits,
        keepalive: config.intervals.keepalive(),
    })
}

/// Whatever executes here meanwhile.
pub(super) fn watch_strangers(
    config: &Config,
    dependencies: &Dependencies,
    ownership: &Arc<Ownership>,
) -> Option<Strangers> {
    let hypervisor = dependencies.hypervisor.as_ref()?;
    Some(Strangers::watch(strangers::Dependencies {
        me: config.node.clone(),
        boot: dependencies.process.boot.clone(),
        note: Arc::clone(&dependencies.boot_note),
        ownership: Arc::clone(ownership),
        store: Arc::clone(&dependencies.store),
        hypervisor: Arc::clone(hypervisor),
    }))
}
