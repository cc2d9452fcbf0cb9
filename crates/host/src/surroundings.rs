//! What this machine has, and whom it reaches, for a person who asks what is wrong. No daemon decides anything by it.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use crate::{
    certificate::{CertificateError, Pair, Validity},
    hypervisor::Transport,
    run::Program,
};

/// Who does not answer a connection in this time cannot be reached.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a disk may take to show a certificate.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Three packets 0.2 s apart, each of which may take a second.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// What IPv4 and ICMP put before a packet's content.
const HEADERS: u16 = 28;
/// A content that fits everywhere.
const SMALL: u16 = 56;

/// What becomes of full-size packets on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// They arrive whole.
    Whole,
    /// Only smaller ones do.
    OnlySmaller,
    /// None does, of whatever size, or whoever is there does not answer; and why, if that is known.
    Nothing(String),
    /// There is no `ping` to try it with.
    NotTried,
}

/// This machine and its neighbours.
#[async_trait]
pub trait Surroundings: Send + Sync {
    /// Opens a TCP connection, and closes it; or why it cannot be opened.
    async fn connects(&self, host: &str, port: u16) -> Result<(), String>;

    /// Sends packets of `mtu` bytes that no router may cut.
    async fn carries(&self, host: &str, mtu: u16) -> Carried;

    /// Whether a program is installed.
    fn has_program(&self, name: &str) -> bool;

    /// Whether the machine has a watchdog.
    fn has_watchdog(&self) -> bool;

    /// Until when a certificate is good, if it and its key can be shown.
    async fn certificate(&self, pair: &Pair) -> Result<Validity, CertificateError>;

    /// The certificates that migrations from and to this machine depend on; none where they are in the clear.
    fn migration_certificates(&self) -> Vec<Pair>;
}

/// The real ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct TheseSurroundings;

#[async_trait]
impl Surroundings for TheseSurroundings {
    async fn connects(&self, host: &str, port: u16) -> Result<(), String> {
        match timeout(CONNECT_WITHIN, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", CONNECT_WITHIN.as_secs())),
        }
    }

    async fn carries(&self, host: &str, mtu: u16) -> Carried {
        let Ok(ping) = Program::find("ping") else { return Carried::NotTried };
        if ping_of(&ping, host, mtu.saturating_sub(HEADERS)).await.is_ok() {
            return Carried::Whole;
        }
        match ping_of(&ping, host, SMALL).await {
            Ok(()) => Carried::OnlySmaller,
            Err(why) => Carried::Nothing(why),
        }
    }

    fn has_program(&self, name: &str) -> bool {
        Program::find(name).is_ok()
    }

    fn has_watchdog(&self) -> bool {
        Path::new("/dev/watchdog").exists()
    }

    async fn certificate(&self, pair: &Pair) -> Result<Validity, CertificateError> {
        let (file, pair) = (pair.certificate.display().to_string(), pair.clone());
        match timeout(READ_WITHIN, spawn_blocking(move || pair.look())).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(error)) => Err(CertificateError::Unreadable { file, why: error.to_string() }),
            Err(_) => {
                let why = format!("no answer within {} s", READ_WITHIN.as_secs());
                Err(CertificateError::Unreadable { file, why })
            }
        }
    }

    fn migration_certificates(&self) -> Vec<Pair> {
        Transport::certificates(Path::new("/"))
    }
}

/// Sends three packets of that content, of which one at least must be answered; or why none was.
async fn ping_of(ping: &Program, host: &str, content: u16) -> Result<(), String> {
    let size = content.to_string();
    let arguments =
        ["-4", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", &size, "--", host];
    let ended = ping.run(&arguments, &[], PING_WITHIN).await.map_err(|error| error.to_string())?;
    if ended.is_success() {
        return Ok(());
    }
    // It says more where the name is not known, or there is no way.
    Err(ended.stderr.lines().next().unwrap_or("no answer").trim().to_owned())
}

/// Surroundings for tests.
#[cfg(any(test, feature = "fake"))]
pub mod fake {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Carried, CertificateError, Pair, Surroundings, Validity, async_trait};

    /// All is well but for what is said here.
    #[derive(Debug, Clone, Default)]
    pub struct FakeSurroundings {
        /// Hosts that cannot be connected to, or `host:port`.
        pub closed: BTreeSet<String>,
        /// What becomes of full-size packets to hosts.
        pub carried: BTreeMap<String, Carried>,
        /// Programs that are not installed.
        pub missing: BTreeSet<String>,
        /// Whether there is no watchdog.
        pub no_watchdog: bool,
        /// What migrations depend on.
        pub migration_certificates: Vec<Pair>,
        /// What is to be said of certificates; others are good for as long as there is time.
        pub certificates: BTreeMap<Pair, Result<Validity, CertificateError>>,
    }

    #[async_trait]
    impl Surroundings for FakeSurroundings {
        async fn connects(&self, host: &str, port: u16) -> Result<(), String> {
            let is_closed = self.closed.contains(host) || self.closed.contains(&format!("{host}:{port}"));
            if is_closed { Err("Connection refused".into()) } else { Ok(()) }
        }

        async fn carries(&self, host: &str, _mtu: u16) -> Carried {
            self.carried.get(host).cloned().unwrap_or(Carried::Whole)
        }

        fn has_program(&self, name: &str) -> bool {
            !self.missing.contains(name)
        }

        fn has_watchdog(&self) -> bool {
            !self.no_watchdog
        }

        async fn certificate(&self, pair: &Pair) -> Result<Validity, CertificateError> {
            let always = Validity { from_s: 0, until_s: u64::MAX };
            self.certificates.get(pair).cloned().unwrap_or(Ok(always))
        }

        fn migration_certificates(&self) -> Vec<Pair> {
            self.migration_certificates.clone()
        }
    }
}
