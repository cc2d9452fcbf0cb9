//! Finds the state store's servers and connects to them, within seconds or not at all.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use pvc_core::plan::placement::Selector;
use pvc_operate::Cluster;
use pvc_store::{
    Store,
    zookeeper::{Options, ZooKeeperStore},
};

use crate::failure::Failure;

/// How long a connection may take. A server on a local network answers within milliseconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the end of the session may take; the server ends it anyway.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
const DEFAULT_CONFIG: &str = "/etc/pvc/pvcd.yaml";

/// The servers, and who named them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// As ZooKeeper clients write them.
    pub(crate) connect: String,
    source_of: String,
}

/// Ends the session, so that the servers need not wait for it to expire.
pub(crate) async fn close(cluster: Cluster) {
    let _ = tokio::time::timeout(CLOSE_WITHIN, cluster.store.close()).await;
}

fn config_file() -> PathBuf {
    std::env::var_os("PVCD_CONFIG_FILE").map_or_else(|| PathBuf::from(DEFAULT_CONFIG), PathBuf::from)
}

/// Whether this machine is a node, whose configuration says where the state store is.
pub(crate) fn is_node() -> bool {
    config_file().exists()
}

/// How a node is chosen: as given on the command line, else as this machine's configuration says (if there is one, and it is
/// in order), else by memory.
pub(crate) fn selector(given: Option<Selector>) -> Selector {
    let configured = || Some(pvc_config::load(&config_file()).config?.target_selector);
    given.or_else(configured).unwrap_or_default()
}

/// The cluster's own networks, by name, as this machine's configuration says (if there is one, and it is in order).
pub(crate) fn own_networks() -> Vec<(&'static str, IpNet)> {
    let networks = pvc_config::load(&config_file()).config.and_then(|config| config.networks);
    let both = |(name, network): (&'static str, &pvc_config::Network)| {
        let (ip4, ip6) = (network.network.map(IpNet::from), network.network6.map(IpNet::from));
        ip4.into_iter().chain(ip6).map(move |net| (name, net))
    };
    networks.iter().flat_map(|networks| networks.iter().flat_map(both)).collect()
}

/// How this machine reaches the nodes, as its configuration says (if there is one, and it is in order), else by their bare names.
pub(crate) fn nodes() -> pvc_console::Nodes {
    let config = pvc_config::load(&config_file()).config;
    let domain = config.as_ref().and_then(|config| config.networks.as_ref()?.cluster.domain.clone());
    pvc_console::Nodes { here: config.map(|config| config.node), domain, ..Default::default() }
}

/// The servers given on the command line or in the environment, else those of the node's configuration.
pub(crate) fn addresses(given: Option<&str>) -> Result<Addresses, Failure> {
    if let Some(connect) = given.map(str::trim).filter(|text| !text.is_empty()) {
        return Ok(Addresses { connect: connect.to_owned(), source_of: "-z or PVC_ZOOKEEPER".into() });
    }
    let file = config_file();
    let coordinators = pvc_config::coordinators_in(&file)
        .map_err(|e| Failure::NoAddress(format!("\n{}", e.render(false).trim_end())))?;
    let source_of = file.display().to_string();
    Ok(Addresses { connect: pvc_config::connect_string(&coordinators), source_of })
}

/// Connects; returns when the session is established.
pub(crate) async fn connect(addresses: Addresses) -> Result<Cluster, Failure> {
    let options = Options { request_timeout: CONNECT_WITHIN, ..Options::new(addresses.connect.as_str()) };
    let store: Arc<dyn Store> = ZooKeeperStore::start(options);
    let mut session = store.session();
    let connected = tokio::time::timeout(CONNECT_WITHIN, session.wait_for(|s| s.is_healthy())).await;
    if !matches!(connected, Ok(Ok(_))) {
        let Addresses { connect, source_of } = addresses;
        return Err(Failure::Unreachable { addresses: connect, source_of });
    }
    Ok(Cluster::new(store, addresses.connect))
}
