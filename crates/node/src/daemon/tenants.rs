//! What a daemon does beside saying that it lives: each started from the configuration and what the daemon is given.

use std::{io, sync::Arc};

use pvc_config::Config;
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
    network_troubles::Troubles,
    old_commands::OldCommands,
    reconcile::{
        client_network::{self, ClientNetworks},
        client_records::Recorder,
        dns::{self, Names},
        fence::{self, Fencing},
        firewall::{self, Walls},
        flush::{self, Flush},
        gateway_services::{self, GatewayServices},
        primary::{self, Primary, PrimaryService},
        routing::{self, RoutingNeighbours},
        storage_tasks::StorageTasks,
        vm::{self, Peers, Vms},
    },
    selffence::{self, SelfFence},
    storage_figures::{StorageFigures, Told},
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
    let walls = dependencies.firewall.as_ref().zip(firewall::ground(config)).map(|(firewall, ground)| {
        Walls::start(
            cluster.clone(),
            Arc::clone(firewall),
            Arc::clone(bridges),
            ground,
            troubles.teller("firewall"),
        )
    });
    let networks = client_network::ground(config).map(|ground| {
        ClientNetworks::start(
            cluster.clone(),
            Arc::clone(bridges),
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
    Primary::start(primary::Dependencies {
        cluster,
        links: dependencies.links.clone(),
        floating: primary::floating(config),
        own_networks: primary::own_networks(config),
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
        own_networks: primary::own_networks(config),
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
