//! A machine's bridges and tunnels in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use pvc_core::model::{
    Mac,
    bridging::{Bridging, BridgingChange, Device},
};
use tokio::sync::watch;

use super::super::{Bridges, LinksError};

/// The fake.
pub struct FakeBridges {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    bridging: Bridging,
    /// The number of the device that was made last: none has it again.
    last: u32,
    looks: usize,
    /// Devices that cannot be made.
    refused: Vec<String>,
    changes: Vec<String>,
}

impl FakeBridges {
    /// A machine without any.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// What there is.
    pub fn bridging(&self) -> Bridging {
        self.state().bridging.clone()
    }

    /// Somebody else changes it.
    pub fn by_hand(&self, change: impl FnOnce(&mut Bridging)) {
        change(&mut self.state().bridging);
        self.changed.send_replace(());
    }

    /// From now on this device, and no other, cannot be made.
    pub fn refuse(&self, devices: &[&str]) {
        self.state().refused = devices.iter().map(|name| (*name).to_owned()).collect();
    }

    /// How often it was looked at so far.
    pub fn looks(&self) -> usize {
        self.state().looks
    }

    /// The changes that were made since the last call.
    pub fn take_changes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().changes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, change: &BridgingChange) -> Result<(), LinksError> {
        let doing = change.to_string();
        self.changes.push(doing.clone());
        let missing = |device: &str| LinksError::NoDevice { doing: doing.clone(), device: device.to_owned() };
        let last = &mut self.last;
        let Bridging { devices, forwards, learnt, routed } = &mut self.bridging;
        let is_dead = |by: Option<u32>| by.is_some_and(|by| !devices.iter().any(|d| d.index == by));
        match change.clone() {
            BridgingChange::Add { name, .. } if self.refused.contains(&name) => return Err(missing(&name)),
            BridgingChange::Add { master: Some(master), .. }
            | BridgingChange::Set { master: Some(master), .. }
                if !devices.iter().any(|device| device.name == master) =>
            {
                return Err(missing(&master));
            }
            BridgingChange::Add { name, kind, mtu, master } => {
                if let Some(device) = devices.iter_mut().find(|device| device.name == name) {
                    (device.mtu, device.master, device.up) = (mtu, master, true);
                    return Ok(());
                }
                let index =
                    devices.iter().map(|device| device.index).chain([*last]).max().unwrap_or_default() + 1;
                *last = index;
                let mac = Mac([2, 0, 0, 0, 1, 0]);
                devices.push(Device {
                    name,
                    index,
                    kind,
                    mac,
                    mtu,
                    up: true,
                    master,
                    ours: true,
                    learns: false,
                });
            }
            BridgingChange::Remove { name } => {
                devices.retain(|device| device.name != name);
                for entries in [forwards, learnt, routed] {
                    entries.retain(|forward| forward.device != name);
                }
            }
            BridgingChange::Set { name, mtu, master } => {
                let device = devices.iter_mut().find(|device| device.name == name);
                let device = device.ok_or_else(|| missing(&name))?;
                (device.mtu, device.master, device.up) = (mtu, master, true);
            }
            BridgingChange::Address { name, mac } => {
                let device = devices.iter_mut().find(|device| device.name == name);
                device.ok_or_else(|| missing(&name))?.mac = mac;
            }
            BridgingChange::Learn { name, learns } => {
                let device = devices.iter_mut().find(|device| device.name == name);
                device.ok_or_else(|| missing(&name))?.learns = learns;
            }
            BridgingChange::Forward(forward) => {
                if !devices.iter().any(|device| device.name == forward.device) {
                    return Err(missing(&forward.device));
                }
                if is_dead(forward.by) {
                    return Err(missing("of that number"));
                }
                let takes_the_place = |other: &_| {
                    let pvc_core::model::bridging::Forward { device, mac, .. } = other;
                    mac.is_some() && *device == forward.device && *mac == forward.mac
                };
                for entries in [&mut *forwards, learnt, routed] {
                    entries.retain(|other| !takes_the_place(other));
                }
                forwards.insert(forward);
            }
            // All of that address go with one by a device that is gone.
            BridgingChange::Unforward(forward) if is_dead(forward.by) => {
                for entries in [forwards, learnt, routed] {
                    entries.retain(|other| (&other.device, other.mac) != (&forward.device, forward.mac));
                }
            }
            BridgingChange::Unforward(forward) => {
                for entries in [forwards, learnt, routed] {
                    entries.remove(&forward);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Bridges for FakeBridges {
    async fn observe(&self) -> Result<Bridging, LinksError> {
        self.state().looks += 1;
        Ok(self.bridging())
    }

    async fn apply(&self, changes: &[BridgingChange]) -> Vec<Result<(), LinksError>> {
        let outcomes = changes.iter().map(|change| self.state().change(change)).collect();
        self.changed.send_replace(());
        outcomes
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
