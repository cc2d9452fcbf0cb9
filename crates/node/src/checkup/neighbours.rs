//! The other nodes: what this one must reach when it fences them, migrates to them, or carries guests' frames to them.

use futures_util::{StreamExt as _, stream};
use pvc_config::Config;
use pvc_core::{
    command::checkup::Checkup,
    model::{ClusterView, NO_HYPERVISOR, Node, screen::SCREEN_PORT},
    plan::placement,
};
use pvc_host::{
    hypervisor::{Peer, Transport, Versions},
    power::{PowerError, PowerState},
    surroundings::Carried,
};
use pvc_store::mirror::Mirror;

use super::{Parts, versions};
use crate::{bmcs, reconcile::vm::Peers};

/// By so much clocks may differ: keepalives carry whole seconds.
const CLOCKS_S: u64 = 2;
/// Nodes that are looked at at once: a BMC that is dead takes twelve seconds.
const AT_ONCE: usize = 8;

pub(super) struct Neighbours<'a> {
    pub(super) config: &'a Config,
    pub(super) parts: &'a Parts,
    pub(super) mirror: &'a Mirror,
    pub(super) view: &'a ClusterView,
    /// What is installed here; `None`: nothing, or that is not known.
    pub(super) versions: Option<Versions>,
}

impl Neighbours<'_> {
    pub(super) async fn look(&self) -> Checkup {
        let mut found = Checkup::new(self.config.node.clone());
        let others = self.view.all_nodes().filter(|node| node.name != self.config.node);
        let mut looks = stream::iter(others.map(|node| self.look_at(node))).buffered(AT_ONCE);
        while let Some(look) = looks.next().await {
            found.add(look);
        }
        found
    }

    async fn look_at(&self, node: &Node) -> Checkup {
        let mut found = Checkup::new(self.config.node.clone());
        // Only coordinators fence.
        if self.config.is_coordinator() && self.bmc(node, &mut found).await == Some(PowerState::Off) {
            return found;
        }
        // Of a node that does not work, nothing else can be expected.
        if placement::works(node) {
            self.clock(node, &mut found);
            versions::daemon(&*self.parts.store, &node.name, false, &mut found).await;
            self.guests(node, &mut found).await;
            self.network(node, &mut found).await;
        }
        found
    }

    async fn bmc(&self, node: &Node, found: &mut Checkup) -> Option<PowerState> {
        let name = &node.name;
        let settings =
            format!("on {name}: check system.fencing.ipmi in pvcd.yaml, then systemctl restart pvcd");
        let bmc = match bmcs::read(&*self.parts.store, name).await {
            Ok(Some(bmc)) => bmc,
            Ok(None) => {
                found.notice(format!("{name} names no BMC: nobody can fence it"), settings);
                return None;
            }
            Err(error) => {
                found.wrong(format!("what {name} says of its BMC cannot be read: {error}"), "pvc status");
                return None;
            }
        };
        let power = match self.parts.power.status(&bmc).await {
            Ok(power) => power,
            Err(error) => {
                let todo = match &error {
                    PowerError::WrongCredentials { .. } => settings,
                    PowerError::NoProgram(_) => "apt install ipmitool".into(),
                    _ => format!("the cable and the address of the BMC {}; then {settings}", bmc.host),
                };
                found.wrong(format!("{name} cannot be fenced from here: {error}"), todo);
                return None;
            }
        };
        match power {
            PowerState::Off if !placement::works(node) => {
                found.fine(format!("the BMC of {name}, which is off"));
            }
            PowerState::Off if bmcs::speaks(self.mirror, node, self.config.intervals.keepalive()).await => {
                found.wrong(
                    format!("the BMC {} says that its machine is off, while {name} speaks: it is another machine's", bmc.host),
                    settings,
                );
                return None;
            }
            PowerState::Off => found.wrong(
                format!("{name} is off by its BMC, is silent, and nobody has declared it dead yet"),
                format!("pvc node explain {name}"),
            ),
            PowerState::On => found.fine(format!("the BMC of {name}")),
        }
        Some(power)
    }

    /// Nothing of the cluster goes by clocks; people do, who read logs, and Ceph's monitors. A clock that is behind is seen from the other
    /// node: from here it cannot be told from a keepalive that is late.
    fn clock(&self, node: &Node, found: &mut Checkup) {
        let (name, theirs) = (&node.name, node.report.keepalive_unix_s);
        let ahead = theirs.saturating_sub(self.parts.machine.unix_s());
        if theirs == 0 {
            return;
        }
        if ahead > CLOCKS_S {
            found.wrong(
                format!("the clock of {name} is {ahead} s ahead of this node's"),
                "timedatectl, on both nodes",
            );
        } else {
            found.fine(format!("the clock of {name}"));
        }
    }

    /// What is had of a node that executes guests.
    async fn guests(&self, node: &Node, found: &mut Checkup) {
        if node.report.cannot_start.as_deref() == Some(NO_HYPERVISOR) {
            return;
        }
        self.libvirt(node, found).await;
        // Screens are shown to who is in the cluster network, by who has an address there.
        let (Some(_), Some(address)) = (&self.config.interfaces, node.vtep) else { return };
        let name = &node.name;
        match self.parts.surroundings.connects(&address.to_string(), SCREEN_PORT).await {
            Ok(()) => found.fine(format!("pvcd of {name}, for guests' screens")),
            Err(why) => found.wrong(
                format!("no screen of a guest on {name} can be seen from here: its pvcd at {address}, port {SCREEN_PORT}, cannot be reached: {why}"),
                format!("on {name}: ss -ltn 'sport = :{SCREEN_PORT}'; if it listens, a packet filter is in between"),
            ),
        }
    }

    async fn libvirt(&self, node: &Node, found: &mut Checkup) {
        let (name, peer) = (&node.name, Peers::new(self.config).of(&node.name));
        let (Some(hypervisor), Some((host, port))) = (&self.parts.hypervisor, peer.address()) else { return };
        let away = |why: String, found: &mut Checkup| {
            found.wrong(
                format!("no VM can be migrated to {name}: its libvirt at {host}:{port} {why}"),
                format!("on {name}: systemctl status {} libvirtd", socket(&peer)),
            );
        };
        if let Err(why) = self.parts.surroundings.connects(host, port).await {
            away(format!("cannot be reached: {why}"), found);
            return;
        }
        let (Ok(hypervisor), Some(here)) = (hypervisor, self.versions) else {
            found.fine(format!("a connection to libvirt of {name}"));
            return;
        };
        match hypervisor.versions(Some(&peer)).await {
            Ok(there) => {
                found.fine(format!("libvirt of {name}, for migrations"));
                versions::between(name, here, there, found);
            }
            Err(error) => away(format!("does not answer: {error}"), found),
        }
    }

    async fn network(&self, node: &Node, found: &mut Checkup) {
        let (name, surroundings) = (&node.name, &self.parts.surroundings);
        let peer = Peers::new(self.config).of(name);
        let Some(interfaces) = &self.config.interfaces else { return };
        let (device, mtu) = (&interfaces.cluster.device, interfaces.cluster.mtu);
        match surroundings.carries(&peer.host, mtu).await {
            Carried::Whole => found.fine(format!("packets of {mtu} bytes to {name}")),
            Carried::OnlySmaller => found.wrong(
                format!(
                    "packets of {mtu} bytes do not reach {name}, smaller ones do: guests' frames will be lost"
                ),
                format!(
                    "the mtu of {device} in pvcd.yaml of both nodes, and that of the switch between them"
                ),
            ),
            Carried::Nothing(why) => found.wrong(
                format!("{name} does not answer a ping at {}: {why}", peer.host),
                format!("ping {}", peer.host),
            ),
            Carried::NotTried => found.notice(
                format!("whether packets of {mtu} bytes reach {name} was not tried: there is no ping"),
                "apt install iputils-ping",
            ),
        }
    }
}

/// What listens for other nodes.
fn socket(peer: &Peer) -> &'static str {
    match peer.transport {
        Transport::Tls => "libvirtd-tls.socket",
        Transport::Tcp | Transport::Socket(_) => "libvirtd-tcp.socket",
    }
}
