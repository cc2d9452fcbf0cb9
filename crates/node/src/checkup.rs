//! `pvcd --examine`: looks once at what this node depends on, as this node reaches it. `pvc doctor` shows what it found.
//!
//! Only looks: BMCs are asked for their state, other nodes for a connection and a few packets. Needs no running daemon, and disturbs none.

mod certificates;
mod neighbours;
#[cfg(test)]
mod tests;
mod versions;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use pvc_config::{Config, Coordinator, TlsFiles};
use pvc_core::{
    command::checkup::Checkup,
    model::{ClusterView, Overlay},
};
use pvc_host::{
    ceph::Ceph,
    hypervisor::{Hypervisor, HypervisorError, Versions},
    machine::Machine,
    power::Power,
    surroundings::Surroundings,
    zones::ZoneDatabase,
};
use pvc_store::{
    Store,
    mirror::{Mirror, Needs},
    servers::Servers,
};
use tokio::time::{sleep, timeout};

use self::neighbours::Neighbours;

/// How long the state tree, Ceph or PostgreSQL may take. Each gives up sooner by itself.
const WITHIN: Duration = Duration::from_secs(20);
/// How long the first connection to libvirt may take, and how often it is asked for.
const LIBVIRT_WITHIN: Duration = Duration::from_secs(5);
const LIBVIRT_ASKED: Duration = Duration::from_millis(100);
/// How long the session's end is waited for; without, the server ends it later.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What is looked at, and with what.
pub struct Parts {
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The coordinators' ZooKeeper servers.
    pub servers: Arc<dyn Servers>,
    /// The hypervisor, on a node that has one; or why it cannot be used.
    pub hypervisor: Option<Result<Arc<dyn Hypervisor>, String>>,
    /// The other machines' power.
    pub power: Arc<dyn Power>,
    /// Ceph, on a node that manages storage.
    pub ceph: Option<Arc<dyn Ceph>>,
    /// The database of guests' names, on a coordinator that serves them.
    pub zones: Option<Arc<dyn ZoneDatabase>>,
    /// The API's certificate and key, on a node that serves it with TLS; or why its configuration cannot be used.
    pub api_tls: Option<Result<TlsFiles, String>>,
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// What it has, and whom it reaches.
    pub surroundings: Arc<dyn Surroundings>,
}

/// Looks at everything.
pub async fn examine(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    this_machine(config, &*parts.surroundings, &mut found);
    let looks = tokio::join!(
        zookeeper(config, parts),
        hypervisor(config, parts),
        ceph(config, parts),
        names(config, parts),
        certificates::look(config, parts),
        tree(config, parts)
    );
    for look in [looks.0, looks.1, looks.2, looks.3, looks.4, looks.5] {
        found.add(look);
    }
    let _ = timeout(CLOSE_WITHIN, parts.store.close()).await;
    found
}

/// Programs by the package that has them.
fn this_machine(config: &Config, surroundings: &dyn Surroundings, found: &mut Checkup) {
    let networking = config.functions.networking;
    let names = networking && config.is_coordinator() && config.dns_database.is_some();
    let needed = [
        ("ipmitool", "ipmitool", config.is_coordinator(), "no node can be fenced from here"),
        ("nft", "nftables", networking, "client networks have no firewall"),
        ("dnsmasq", "dnsmasq-base", networking, "client networks have no names"),
        ("pdns_server", "pdns-server", names, "guests' names are not served"),
    ];
    for (program, package, _, loss) in needed.into_iter().filter(|(_, _, needed, _)| *needed) {
        if surroundings.has_program(program) {
            found.fine(format!("the program {program}"));
        } else {
            found.wrong(
                format!("the program {program} is not installed: {loss}"),
                format!("apt install {package}"),
            );
        }
    }
    match (config.intervals.suicide_after().is_some(), surroundings.has_watchdog()) {
        (true, true) => found.fine("the watchdog"),
        (true, false) => found.notice(
            "the machine has no /dev/watchdog: the daemon resets it, which a kernel that hangs cannot be helped by",
            "load the driver of its watchdog, or softdog",
        ),
        (false, _) => {}
    }
}

async fn zookeeper(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    for look in join_all(config.coordinators.iter().map(|one| server(config, parts, one))).await {
        found.add(look);
    }
    found
}

async fn server(config: &Config, parts: &Parts, coordinator: &Coordinator) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    let Coordinator { host, port, .. } = coordinator;
    if let Err(why) = parts.surroundings.connects(host, *port).await {
        found.wrong(
            format!("ZooKeeper at {coordinator} cannot be reached: {why}"),
            format!("on {host}: systemctl status zookeeper"),
        );
        return found;
    }
    // Who is configured by address has no name to be asked by, and who is alone has no quorum.
    let name = coordinator.short_name().and_then(|name| name.to_ascii_lowercase().parse().ok());
    match name.filter(|_| config.coordinators.len() > 1) {
        None => found.fine(format!("a connection to ZooKeeper at {coordinator}")),
        Some(name) if parts.servers.serves(&name).await => found.fine(format!("ZooKeeper at {coordinator}")),
        Some(_) => found.wrong(
            format!("ZooKeeper at {coordinator} does not say that it is member of a quorum"),
            format!("on {host}: journalctl -u zookeeper"),
        ),
    }
    found
}

async fn hypervisor(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    let Some(hypervisor) = &parts.hypervisor else { return found };
    let mut why = String::new();
    let active = match hypervisor {
        Ok(hypervisor) => timeout(LIBVIRT_WITHIN, connected(&**hypervisor, &mut why)).await.ok(),
        Err(unusable) => {
            why.clone_from(unusable);
            None
        }
    };
    match active {
        Some(guests) => found.fine(format!("libvirt, with {guests} guests")),
        None => found.wrong(format!("libvirt does not answer: {why}"), "systemctl status libvirtd virtqemud"),
    }
    found
}

/// How many guests there are, once there is a connection; `why` there is none yet.
async fn connected(hypervisor: &dyn Hypervisor, why: &mut String) -> usize {
    loop {
        match hypervisor.active().await {
            Ok(active) => return active.len(),
            Err(HypervisorError::Unavailable(cause)) => *why = cause,
            Err(error) => *why = error.to_string(),
        }
        sleep(LIBVIRT_ASKED).await;
    }
}

/// What others' are compared with. That libvirt does not answer is told elsewhere.
async fn own_versions(parts: &Parts) -> Option<Versions> {
    let hypervisor = parts.hypervisor.as_ref()?.as_ref().ok()?;
    timeout(LIBVIRT_WITHIN, connected(&**hypervisor, &mut String::new())).await.ok()?;
    hypervisor.versions(None).await.ok()
}

async fn ceph(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    let Some(ceph) = &parts.ceph else { return found };
    match timeout(WITHIN, ceph.figures()).await {
        Ok(Ok(figures)) if figures.health == "HEALTH_OK" => found.fine("Ceph"),
        Ok(Ok(figures)) => {
            found.notice(format!("Ceph says of itself: {}", figures.health), "ceph health detail");
        }
        Ok(Err(error)) => found.wrong(error.to_string(), "ceph -s"),
        Err(_) => found.wrong(format!("Ceph does not answer within {} s", WITHIN.as_secs()), "ceph -s"),
    }
    found
}

async fn names(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    let (Some(zones), Some(database)) = (&parts.zones, &config.dns_database) else { return found };
    let todo = "check coordinator.dns.database in pvcd.yaml, and that server";
    match timeout(WITHIN, zones.answers()).await {
        Ok(Ok(())) => found.fine(format!("PostgreSQL at {}:{}", database.host, database.port)),
        Ok(Err(error)) => found.wrong(crate::log::chain(&error), todo),
        Err(_) => {
            let seconds = WITHIN.as_secs();
            found.wrong(format!("PostgreSQL at {} does not answer within {seconds} s", database.host), todo);
        }
    }
    found
}

/// The state tree, and what needs it: the other nodes.
async fn tree(config: &Config, parts: &Parts) -> Checkup {
    let mut found = Checkup::new(config.node.clone());
    let mirror = Mirror::start_on(parts.store.clone(), &Needs { no_vms: true, ..Needs::default() });
    if timeout(WITHIN, mirror.ready()).await.is_err() {
        let seconds = WITHIN.as_secs();
        found.wrong(
            format!(
                "the state tree could not be read within {seconds} s: nothing was asked of the other nodes"
            ),
            "pvc status; journalctl -u zookeeper",
        );
        return found;
    }
    let view = mirror.view();
    found.fine(format!("the state tree, with {} nodes", view.nodes.len()));
    routing(config, &view, &*parts.surroundings, &mut found);
    versions::daemon(&*parts.store, &config.node, true, &mut found).await;
    let versions = own_versions(parts).await;
    found.add(Neighbours { config, parts, mirror: &mirror, view: &view, versions }.look().await);
    found
}

/// FRR is needed where the overlay is EVPN, and where the site's routers are told of client networks.
fn routing(config: &Config, view: &ClusterView, surroundings: &dyn Surroundings, found: &mut Checkup) {
    let tells = config.bgp.is_some() && config.is_coordinator();
    let without = match view.overlay {
        _ if !config.functions.networking => return,
        Overlay::Evpn => "the overlay is evpn: frames for guests go to every node",
        _ if tells => "coordinator.bgp names routers: they hear of no client network from here",
        _ => return,
    };
    if surroundings.has_program("vtysh") {
        found.fine("FRR");
    } else {
        found.wrong(format!("FRR is not installed, and {without}"), "apt install frr frr-pythontools");
    }
}
