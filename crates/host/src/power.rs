//! Cuts and restores other machines' power, through their BMCs.
//!
//! Never decides whom to shoot, and never says that a machine is off unless its BMC did: a command that was accepted is not a
//! machine that is off, and no answer is no news.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod ipmitool;

use std::fmt;

use async_trait::async_trait;

pub use ipmitool::Ipmitool;

/// The port of IPMI over LAN.
pub const IPMI_PORT: u16 = 623;

/// How to reach a machine's BMC.
#[derive(Clone, PartialEq, Eq)]
pub struct Bmc {
    /// Its name or address.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// A user that may switch power.
    pub user: String,
    /// That user's password. Never in logs, errors or arguments.
    pub password: String,
}

impl fmt::Debug for Bmc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bmc {{ host: {:?}, port: {}, user: {:?}, .. }}", self.host, self.port, self.user)
    }
}

/// What a BMC says of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// It has power.
    On,
    /// It has none.
    Off,
}

/// Why a BMC did not do, or say, what it was asked. Never contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// No answer, or none that makes a session: a command may have been carried out or not.
    #[error("the BMC {host} cannot be reached: {why}")]
    Unreachable {
        /// Which.
        host: String,
        /// In the program's words.
        why: String,
    },
    /// It answered and does not know the user or the password.
    #[error("the BMC {host} refuses user {user}: {why}; check system.fencing.ipmi of that node")]
    WrongCredentials {
        /// Which.
        host: String,
        /// Who.
        user: String,
        /// In the program's words.
        why: String,
    },
    /// It answered and will not do it.
    #[error("the BMC {host} refuses: {why}")]
    Refused {
        /// Which.
        host: String,
        /// In the program's words.
        why: String,
    },
    /// Nothing was heard in time: a command may have been carried out or not.
    #[error("the BMC {host} did not answer in time")]
    TimedOut {
        /// Which.
        host: String,
    },
    /// This node cannot ask any BMC.
    #[error("this node cannot reach BMCs: {0}")]
    NoProgram(String),
}

/// Machines' power. Every call has a deadline of its own.
#[async_trait]
pub trait Power: Send + Sync + 'static {
    /// Whether a machine has power.
    async fn status(&self, bmc: &Bmc) -> Result<PowerState, PowerError>;

    /// Asks for power off, at once. Accepted is not done; for a machine that is off it is success.
    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError>;

    /// Asks for power on; for a machine that is on it is success.
    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError>;

    /// Asks for a hard reset. Says success of a machine that is off, too, which then stays off.
    async fn reset(&self, bmc: &Bmc) -> Result<(), PowerError>;
}
