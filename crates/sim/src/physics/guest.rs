//! A guest in a client network: asks for an address when it has come up, and again and again for as long as it executes, as DHCP clients do.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use pvc_core::model::{
    NodeName, VmId,
    dhcp::{Asks, Reply, Request},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::wires::Wires;
use crate::{event::Event, journal::Journal, keys::card, rng::Rng};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between two attempts to get an address.
const TRY_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];
/// Between two questions whether it may keep what it has.
const KEEP: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(10)];
/// How often a guest that has come up finds that somebody uses its address already, whom nobody gave it.
const TAKEN: f64 = 0.15;
/// How often it is looked whether a machine that was frozen goes on.
const LOOK: Duration = Duration::from_secs(5);

/// The guest of a VM, whenever and wherever it executes.
pub struct Guest {
    /// Its VM.
    pub vm: VmId,
    /// Its VM's number.
    pub number: usize,
    /// What it asks through.
    pub wires: Arc<Wires>,
    /// Where it executes.
    pub journal: Arc<Journal>,
    /// How long it waits.
    pub rng: Rng,
}

enum Now {
    /// There is no process.
    Gone,
    /// It is there, and does not execute.
    Stands,
    At(NodeName),
}

impl Guest {
    /// Its life, which does not end.
    pub async fn live(mut self) {
        let Some(network) = self.wires.of(self.number) else { return };
        let mut replies = self.wires.hear(self.vm, self.number);
        let mut turns = self.journal.guests();
        let mut has = None;
        loop {
            let node = match self.now() {
                Now::At(node) => node,
                other => {
                    if matches!(other, Now::Gone) {
                        has = None;
                    }
                    let _ = timeout(LOOK, turns.changed()).await;
                    continue;
                }
            };
            while replies.try_recv().is_ok() {}
            has = match has {
                Some(address) => self.keep(&node, network, address, &mut replies).await,
                None => self.get(&node, network, &mut replies).await,
            };
            let [shortest, longest] = if has.is_some() { KEEP } else { TRY_AGAIN };
            sleep(self.rng.time(shortest, longest)).await;
        }
    }

    fn now(&self) -> Now {
        self.journal.truth(|truth| match truth.executing(self.vm).next() {
            Some((node, _)) => Now::At(node.clone()),
            None if truth.guests.contains_key(&self.vm) => Now::Stands,
            None => Now::Gone,
        })
    }

    async fn get(
        &mut self,
        node: &NodeName,
        network: usize,
        replies: &mut mpsc::UnboundedReceiver<Reply>,
    ) -> Option<Ipv4Addr> {
        let Reply::Offer(address, settings) = self.ask(node, network, Asks::Discover(None), replies).await?
        else {
            return None;
        };
        let take = Asks::Take(settings.gateway.addr(), address);
        match self.ask(node, network, take, replies).await? {
            Reply::Acknowledge(address, _) if self.rng.chance(TAKEN) => {
                self.journal.tell(Event::GivenUp { vm: self.vm });
                self.send(node, network, Asks::Decline(address));
                None
            }
            Reply::Acknowledge(address, _) => Some(address),
            _ => None,
        }
    }

    /// What it has when nobody answers stays its own: the lease is far from its end.
    async fn keep(
        &self,
        node: &NodeName,
        network: usize,
        address: Ipv4Addr,
        replies: &mut mpsc::UnboundedReceiver<Reply>,
    ) -> Option<Ipv4Addr> {
        match self.ask(node, network, Asks::Keep(address), replies).await {
            Some(Reply::Refuse(_)) => None,
            _ => Some(address),
        }
    }

    async fn ask(
        &self,
        node: &NodeName,
        network: usize,
        asks: Asks,
        replies: &mut mpsc::UnboundedReceiver<Reply>,
    ) -> Option<Reply> {
        self.send(node, network, asks);
        timeout(PATIENCE, replies.recv()).await.ok()?
    }

    fn send(&self, node: &NodeName, network: usize, asks: Asks) {
        let name = Some(format!("vm{}", self.number));
        self.wires.ask(node, network, &Request { mac: card(self.number), asks, name, client_id: None });
    }
}
