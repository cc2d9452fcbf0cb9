//! BMCs through the program `ipmitool`, over `lanplus`. The password goes by environment.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{Bmc, Power, PowerError, PowerState};
use crate::run::{Ended, Program, RunError};

/// How long an answer is waited for before the request is sent once more: BMCs take a second or two to switch power. Not more often,
/// since a BMC may carry out every copy. One that is dead has then cost six seconds.
const PATIENCE_S: &str = "3";
const REPETITIONS: &str = "1";

/// The deadline of one run: a BMC that is slow at every step of it, a slow name server, a stuck program.
const WITHIN: Duration = Duration::from_secs(12);

/// Tried in this order, unless the configuration names one: 3 (SHA-1) is what every BMC knows, 17 (SHA-256) what some insist on.
const CIPHER_SUITES: [u8; 2] = [3, 17];

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Ipmitool {
    cipher_suite: Option<u8>,
    program: OnceLock<Program>,
    /// The suite that worked last, by BMC.
    worked: Mutex<HashMap<String, u8>>,
}

/// Why a run is of no use.
enum Useless {
    /// Another cipher suite may be.
    Suite(PowerError),
    Final(PowerError),
}

impl Ipmitool {
    /// `cipher_suite`: the only one that is tried, if the configuration says so.
    pub fn new(cipher_suite: Option<u8>) -> Self {
        Self { cipher_suite, ..Self::default() }
    }

    fn program(&self) -> Result<&Program, PowerError> {
        if let Some(found) = self.program.get() {
            return Ok(found);
        }
        let found = Program::find("ipmitool").map_err(|e| PowerError::NoProgram(e.to_string()))?;
        Ok(self.program.get_or_init(|| found))
    }

    /// The suites to try, the best first.
    fn suites(&self, bmc: &Bmc) -> Vec<u8> {
        if let Some(suite) = self.cipher_suite {
            return vec![suite];
        }
        let worked = self.worked.lock().unwrap_or_else(PoisonError::into_inner).get(&bmc.host).copied();
        worked.into_iter().chain(CIPHER_SUITES.into_iter().filter(|suite| Some(*suite) != worked)).collect()
    }

    async fn chassis_power(&self, bmc: &Bmc, what: &str) -> Result<String, PowerError> {
        let program = self.program()?;
        let mut outcome = Err(unreachable(bmc, "no cipher suite to try"));
        for suite in self.suites(bmc) {
            match chassis_power(program, bmc, suite, what).await {
                Ok(said) => {
                    let mut worked = self.worked.lock().unwrap_or_else(PoisonError::into_inner);
                    worked.insert(bmc.host.clone(), suite);
                    return Ok(said);
                }
                Err(Useless::Suite(error)) => outcome = Err(error),
                Err(Useless::Final(error)) => return Err(error),
            }
        }
        outcome
    }
}

async fn chassis_power(program: &Program, bmc: &Bmc, suite: u8, what: &str) -> Result<String, Useless> {
    let (suite, port) = (suite.to_string(), bmc.port.to_string());
    #[rustfmt::skip]
    let arguments = [
        // Once verbose, it says why no session came about.
        "-v", "-I", "lanplus", "-C", &suite, "-N", PATIENCE_S, "-R", REPETITIONS,
        "-H", &bmc.host, "-p", &port, "-U", &bmc.user, "-E",
        "chassis", "power", what,
    ];
    match program.run(&arguments, &[("IPMI_PASSWORD", &bmc.password)], WITHIN).await {
        Ok(ended) if ended.is_success() => Ok(ended.stdout),
        Ok(ended) => Err(why(bmc, &ended)),
        Err(RunError::Late { .. }) => Err(Useless::Final(PowerError::TimedOut { host: bmc.host.clone() })),
        Err(error) => Err(Useless::Final(PowerError::NoProgram(error.to_string()))),
    }
}

fn unreachable(bmc: &Bmc, why: impl Into<String>) -> PowerError {
    PowerError::Unreachable { host: bmc.host.clone(), why: why.into() }
}

/// What a failure means, from what the program says.
fn why(bmc: &Bmc, ended: &Ended) -> Useless {
    let said = |words: &[&str]| {
        let lines = ended.stderr.lines().chain(ended.stdout.lines());
        let mut lines = lines.filter(|line| words.iter().any(|word| line.contains(word)));
        lines.next().map(|line| shown(bmc, line))
    };
    let host = bmc.host.clone();
    // No answer, after the session was there: it may have been carried out, and another cipher suite is no remedy.
    if let Some(why) = said(&["Unable to set", "Unable to get", "Node busy", "Timeout", "Status failed"]) {
        return Useless::Final(unreachable(bmc, format!("no answer ({why})")));
    }
    if let Some(why) = said(&["Power Control to", "Insufficient privilege"]) {
        return Useless::Final(PowerError::Refused { host, why });
    }
    if let Some(why) = said(&["HMAC is invalid", "unauthorized name", "RAKP 2 message indicates"]) {
        return Useless::Final(PowerError::WrongCredentials { host, user: bmc.user.clone(), why });
    }
    if let Some(why) = said(&["Address lookup for", "Get Auth Capabilities error"]) {
        let why = if why.starts_with("Get Auth") { "no reply".to_owned() } else { why };
        return Useless::Final(unreachable(bmc, why));
    }
    let why = said(&["Error in open session", "Error", "rror"]).unwrap_or_else(|| "no session".to_owned());
    Useless::Suite(unreachable(bmc, why))
}

/// A line of output as it may be shown: short, and surely without the password.
fn shown(bmc: &Bmc, line: &str) -> String {
    let line = if bmc.password.is_empty() { line.to_owned() } else { line.replace(&bmc.password, "…") };
    line.trim().trim_start_matches("> ").chars().filter(|c| !c.is_control()).take(200).collect()
}

#[async_trait]
impl Power for Ipmitool {
    async fn status(&self, bmc: &Bmc) -> Result<PowerState, PowerError> {
        let said = self.chassis_power(bmc, "status").await?;
        match said.lines().find_map(|line| line.trim().strip_prefix("Chassis Power is ")) {
            Some("on") => Ok(PowerState::On),
            Some("off") => Ok(PowerState::Off),
            _ => Err(unreachable(bmc, format!("it says {:?}, not whether it is on", shown(bmc, &said)))),
        }
    }

    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.chassis_power(bmc, "off").await.map(drop)
    }

    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.chassis_power(bmc, "on").await.map(drop)
    }

    async fn reset(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.chassis_power(bmc, "reset").await.map(drop)
    }
}
