//! A node's devices and OSDs in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pvc_core::model::{
    HostDevice,
    ceph::OsdId,
    osd::{LocalOsd, ObservedDevice, OsdUuid},
    storage_command::Device,
};

use super::{MayHold, OsdError, OsdHost};
use crate::ceph::fake::FakeCeph;

/// See the module's documentation.
pub struct FakeOsds {
    ceph: Arc<FakeCeph>,
    host: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    devices: BTreeMap<String, ObservedDevice>,
    links: BTreeMap<String, String>,
    local: BTreeMap<OsdId, LocalOsd>,
    fails: Option<(&'static str, OsdError, usize)>,
    filled: Option<(String, String)>,
    calls: Vec<String>,
}

impl FakeOsds {
    /// Of the node with this name.
    pub fn new(ceph: Arc<FakeCeph>, host: &str) -> Arc<Self> {
        Arc::new(Self { ceph, host: host.to_owned(), state: Mutex::default() })
    }

    /// There is such a device.
    pub fn has_device(&self, path: &str, device: ObservedDevice) {
        self.state().devices.insert(path.to_owned(), device);
    }

    /// That device has another name, too.
    pub fn is_also(&self, path: &str, link: &str) {
        self.state().links.insert(link.to_owned(), path.to_owned());
    }

    /// What is on a device.
    pub fn holds(&self, path: &str) -> Option<String> {
        self.state().devices.get(path).and_then(|device| device.holds.clone())
    }

    /// The next calls that begin so fail.
    pub fn fail(&self, call: &'static str, error: OsdError, times: usize) {
        self.state().fails = Some((call, error, times));
    }

    /// Somebody is quicker with a device.
    pub fn is_filled_before_it_is_written(&self, path: &str, what: &str) {
        self.state().filled = Some((path.to_owned(), what.to_owned()));
    }

    /// What changed anything.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self, call: String) -> Result<(), OsdError> {
        let mut state = self.state();
        let failed = state.fails.as_mut().filter(|(begins, _, left)| *left > 0 && call.starts_with(begins));
        let error = failed.map(|(_, error, left)| {
            *left -= 1;
            error.clone()
        });
        state.calls.push(call);
        error.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl OsdHost for FakeOsds {
    async fn device(
        &self,
        device: &Device,
        names: &[HostDevice],
    ) -> Result<Option<ObservedDevice>, OsdError> {
        let state = self.state();
        let links = |path: &String| state.links.get(path).unwrap_or(path).clone();
        let is_its = |name: &&HostDevice| match name {
            HostDevice::Path(path) => links(path) == links(&device.to_string()),
            HostDevice::On(_) => false,
        };
        let named = names.iter().find(is_its).cloned();
        let found = state.devices.get(device.as_str()).cloned();
        Ok(found.map(|found| ObservedDevice { named, ..found }))
    }

    async fn local(&self, osd: OsdId) -> Result<Option<LocalOsd>, OsdError> {
        Ok(self.state().local.get(&osd).cloned())
    }

    async fn write(
        &self,
        device: &Device,
        identity: &str,
        may: MayHold,
        osd: OsdId,
        _key: &str,
    ) -> Result<(), OsdError> {
        {
            let mut state = self.state();
            if let Some((path, what)) = state.filled.take()
                && let Some(there) = state.devices.get_mut(&path)
            {
                there.holds = Some(what);
            }
        }
        if self.state().devices.get(device.as_str()).is_none_or(|there| there.identity != identity) {
            return Err(OsdError::Another(device.to_string()));
        }
        if let Some(what) = self.holds(device.as_str())
            && (may == MayHold::Nothing || (may == MayHold::Own && what != "an OSD"))
        {
            return Err(OsdError::NotBlank { device: device.to_string(), what });
        }
        let uuid = self.ceph.writes_osd(osd);
        {
            let mut state = self.state();
            if let Some(there) = state.devices.get_mut(device.as_str()) {
                there.holds = Some("an OSD".to_owned());
            }
            state.local.insert(osd, LocalOsd { uuid, runs: false, device: Some(device.clone()) });
        }
        self.called(format!("write {osd} to {device}"))
    }

    async fn take_away(&self, osd: OsdId, device: Option<(&Device, &str)>) -> Result<(), OsdError> {
        self.called(format!("take away {osd}{}", if device.is_some() { "" } else { ", not the device" }))?;
        self.state().local.remove(&osd);
        Ok(())
    }

    async fn start(&self, osd: OsdId) -> Result<(), OsdError> {
        self.called(format!("start {osd}"))?;
        if let Some(local) = self.state().local.get_mut(&osd) {
            local.runs = true;
        }
        self.ceph.hears_osd(osd, Some(&self.host));
        Ok(())
    }

    async fn stop(&self, osd: OsdId) -> Result<(), OsdError> {
        self.called(format!("stop {osd}"))?;
        if let Some(local) = self.state().local.get_mut(&osd) {
            local.runs = false;
        }
        self.ceph.hears_osd(osd, None);
        Ok(())
    }

    async fn clear(&self, osd: OsdId, uuid: &OsdUuid, device_too: bool) -> Result<(), OsdError> {
        if !device_too {
            self.called(format!("forget {osd}"))?;
            self.state().local.remove(&osd);
            return Ok(());
        }
        self.called(format!("clear {osd}"))?;
        let mut state = self.state();
        if state.local.get(&osd).is_some_and(|local| local.uuid.as_ref() == Some(uuid))
            && let Some(device) = state.local.remove(&osd).and_then(|local| local.device)
            && let Some(device) = state.devices.get_mut(device.as_str())
        {
            device.holds = None;
        }
        Ok(())
    }
}
