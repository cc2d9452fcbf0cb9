//! Tells systemd how the daemon is (`sd_notify(3)`). Never waits: a service manager that is busy must not delay a keepalive.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};

use tracing::debug;

/// A service manager, or nobody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The service manager that started this process, if one did and wants to know.
    pub fn systemd() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let bytes = address.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&address),
        };
        match address.and_then(|address| connect(&address)) {
            Ok(socket) => Self { socket: Some(Arc::new(socket)), watchdog: watchdog() },
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "cannot reach the service manager");
                Self::default()
            }
        }
    }

    /// Start-up is complete.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// A sign of life for the watchdog.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often a sign of life is wanted: three times as often as it is waited for.
    pub fn sign_of_life_every(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 3)
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket {
            // Whether anybody listens is not our business; it does not block.
            let _ = socket.send(what.as_bytes());
        }
    }
}

fn connect(address: &SocketAddr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(address)?;
    Ok(socket)
}

/// The watchdog's patience, if it watches this process.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|&us| us > 0).map(Duration::from_micros)
}
