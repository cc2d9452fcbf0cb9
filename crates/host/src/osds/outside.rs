//! The daemon's unit keeps it from all devices, and from writing below `/var/lib`: what has to do with either is done by a unit of its own, which runs this
//! program for one request and its answer. One change at a time, whoever asks: a daemon that was killed leaves its unit running, and the next one stops that
//! before it changes anything.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::model::{
    HostDevice,
    ceph::OsdId,
    osd::{LocalOsd, ObservedDevice, OsdUuid},
    storage_command::Device,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    MayHold, OsdError, OsdHost,
    real::{CephVolume, SERVICE_WITHIN, run},
};
use crate::run::{Program, RunError};

/// Longer than its slowest request takes at its own deadlines.
const CHANGED_WITHIN: Duration = Duration::from_mins(20);
const LOOKED_WITHIN: Duration = Duration::from_mins(2);
/// What runs this program, for as long as a request takes.
const CHANGES: &str = "pvcd-osd.service";
/// One that hangs keeps the next one from being started.
const LOOKS: &str = "pvcd-osd-look.service";
/// The largest request.
pub const LONGEST_REQUEST: u64 = 4 << 20;

/// What a unit is asked to do.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Device { device: Device, names: Vec<HostDevice> },
    Write { device: Device, identity: String, may: MayHold, osd: u32, key: String },
    TakeAway { osd: u32, device: Option<(Device, String)> },
    Start(u32),
    Stop(u32),
    Clear { osd: u32, uuid: OsdUuid, device_too: bool },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Device(Option<ObservedDevice>),
    Done,
}

/// Carries out one request, as the program that a unit runs, and answers what is to be printed.
pub async fn serve(request: &str) -> String {
    let answer = match serde_json::from_str(request) {
        Ok(request) => carry_out(&CephVolume::default(), request).await,
        Err(error) => Err(OsdError::Refused { doing: "read the request".into(), why: error.to_string() }),
    };
    serde_json::to_string(&answer).unwrap_or_default()
}

async fn carry_out(host: &CephVolume, request: Request) -> Result<Answer, OsdError> {
    match request {
        Request::Device { device, names } => {
            return host.device(&device, &names).await.map(Answer::Device);
        }
        Request::Write { device, identity, may, osd, key } => {
            host.write(&device, &identity, may, OsdId(osd), &key).await?;
        }
        Request::TakeAway { osd, device } => {
            let device = device.as_ref().map(|(device, identity)| (device, identity.as_str()));
            host.take_away(OsdId(osd), device).await?;
        }
        Request::Start(osd) => host.start(OsdId(osd)).await?,
        Request::Stop(osd) => host.stop(OsdId(osd)).await?,
        Request::Clear { osd, uuid, device_too } => host.clear(OsdId(osd), &uuid, device_too).await?,
    }
    Ok(Answer::Done)
}

/// See the module's documentation.
pub struct ThisNode {
    inside: CephVolume,
    /// This program, and by which word it serves a request.
    program: (PathBuf, &'static str),
    changes: Mutex<()>,
    looks: Mutex<()>,
}

impl ThisNode {
    /// `word` has this program serve one request: see [`serve`].
    pub fn new(word: &'static str) -> Arc<Self> {
        let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/sbin/pvcd"));
        Arc::new(Self {
            inside: CephVolume::default(),
            program: (program, word),
            changes: Mutex::new(()),
            looks: Mutex::new(()),
        })
    }

    async fn ask(&self, unit: &str, request: &Request, within: Duration) -> Result<Answer, OsdError> {
        let failed = |why: String| OsdError::Refused { doing: format!("run {unit}"), why };
        let input = serde_json::to_string(request).map_err(|error| failed(error.to_string()))?;
        let (unit_name, lasts) =
            (format!("--unit={unit}"), format!("--property=RuntimeMaxSec={}", within.as_secs()));
        let program = self.program.0.display().to_string();
        let words =
            ["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec", &unit_name, &lasts, "--"];
        let words = [&words[..], &[&program, self.program.1]].concat();
        // systemd ends it first.
        let ended =
            async { Program::find("systemd-run")?.run_on(&words, &input, within + SERVICE_WITHIN).await };
        let ended = match ended.await {
            Ok(ended) => ended,
            Err(RunError::Late { .. }) => return Err(OsdError::Late(unit.to_owned())),
            Err(error @ RunError::Missing { .. }) => return Err(OsdError::Missing(error.to_string())),
            Err(error) => return Err(failed(error.to_string())),
        };
        match serde_json::from_str::<Result<Answer, OsdError>>(ended.stdout.trim()) {
            Ok(answer) => answer,
            Err(_) => {
                let said =
                    ended.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let said: String = said.trim().chars().take(300).collect();
                Err(failed(if said.is_empty() { "it was ended without an answer".to_owned() } else { said }))
            }
        }
    }

    async fn change(&self, request: Request) -> Result<(), OsdError> {
        let _alone = self.changes.lock().await;
        // Of a daemon that is no more.
        let state = run("systemctl", &["show", "--property=ActiveState", CHANGES], SERVICE_WITHIN).await?;
        if !matches!(state.stdout.trim(), "ActiveState=inactive" | "ActiveState=failed") {
            run("systemctl", &["stop", CHANGES], SERVICE_WITHIN).await?;
        }
        self.ask(CHANGES, &request, CHANGED_WITHIN).await.map(drop)
    }
}

#[async_trait]
impl OsdHost for ThisNode {
    async fn device(
        &self,
        device: &Device,
        names: &[HostDevice],
    ) -> Result<Option<ObservedDevice>, OsdError> {
        let _alone = self.looks.lock().await;
        let request = Request::Device { device: device.clone(), names: names.to_vec() };
        match self.ask(LOOKS, &request, LOOKED_WITHIN).await? {
            Answer::Device(found) => Ok(found),
            Answer::Done => Err(OsdError::Late(LOOKS.to_owned())),
        }
    }

    /// Folders and the states of units can be read from within.
    async fn local(&self, osd: OsdId) -> Result<Option<LocalOsd>, OsdError> {
        self.inside.local(osd).await
    }

    async fn write(
        &self,
        device: &Device,
        identity: &str,
        may: MayHold,
        osd: OsdId,
        key: &str,
    ) -> Result<(), OsdError> {
        let (device, identity, key) = (device.clone(), identity.to_owned(), key.to_owned());
        self.change(Request::Write { device, identity, may, osd: osd.0, key }).await
    }

    async fn take_away(&self, osd: OsdId, device: Option<(&Device, &str)>) -> Result<(), OsdError> {
        let device = device.map(|(device, identity)| (device.clone(), identity.to_owned()));
        self.change(Request::TakeAway { osd: osd.0, device }).await
    }

    async fn start(&self, osd: OsdId) -> Result<(), OsdError> {
        self.change(Request::Start(osd.0)).await
    }

    async fn stop(&self, osd: OsdId) -> Result<(), OsdError> {
        self.change(Request::Stop(osd.0)).await
    }

    async fn clear(&self, osd: OsdId, uuid: &OsdUuid, device_too: bool) -> Result<(), OsdError> {
        self.change(Request::Clear { osd: osd.0, uuid: uuid.clone(), device_too }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_in_one_line_and_what_is_none_is_refused() {
        let asked = serde_json::to_string(&Request::Device {
            device: "/dev/null".parse().unwrap(),
            names: Vec::new(),
        })
        .unwrap();
        let answer: Result<Answer, OsdError> = serde_json::from_str(&serve(&asked).await).unwrap();
        assert!(matches!(answer, Ok(Answer::Device(None))), "{answer:?}");
        for wrong in [
            "",
            "{}",
            r#"{"Device":{"device":"/etc/passwd","names":[]}}"#,
            r#"{"Clear":{"osd":1,"uuid":"x","device_too":true}}"#,
        ] {
            let answer: Result<Answer, OsdError> = serde_json::from_str(&serve(wrong).await).unwrap();
            assert!(matches!(answer, Err(OsdError::Refused { .. })), "{wrong}: {answer:?}");
        }
    }
}
