//! Client networks, as an operator defines them.

use pvc_core::{command::network::Settings, model::NetworkKind};
use pvc_operate::network;

use super::Operator;
use crate::{cluster::Cluster, options::SPARE};

/// Addresses that a network has to give out besides one for each VM.
const MORE: usize = 8;

/// Defines those of a cluster. So few addresses that a guest is soon given another one's if they are not minded.
pub async fn define(cluster: &Cluster, vms: usize) {
    let operator = Operator::new(cluster, 0);
    for vni in cluster.around.wires.all() {
        let text = |text: String| Some(text);
        let settings = Settings {
            description: text(format!("net{vni}")),
            ip4_network: text(format!("10.{vni}.0.0/24")),
            ip4_gateway: text(format!("10.{vni}.0.1")),
            dhcp4: Some(true),
            dhcp4_start: text(format!("10.{vni}.0.10")),
            dhcp4_end: text(format!("10.{vni}.0.{}", (10 + vms + SPARE + MORE).min(254))),
            ..Settings::default()
        };
        let added =
            network::add(&operator.client, &vni.to_string(), NetworkKind::Managed, &settings, &[]).await;
        if let Err(error) = added {
            cluster.around.journal.blame(crate::checkers::Violation {
                invariant: 0,
                what: format!("the client network {vni} is refused: {error}"),
            });
        }
    }
}
