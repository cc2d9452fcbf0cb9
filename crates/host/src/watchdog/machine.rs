//! What resets this machine: its watchdog device, else the kernel's sysrq, else reboot(2).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use pvc_core::plan::selffence;
use tracing::error;

use super::{Found, Hardware, WatchdogError, device::Device};

/// How long the log's last line may take to its disk before the end.
const SYNC_WITHIN: Duration = Duration::from_secs(1);

/// How long the log's own thread gets to write it, before the sync.
const LOG_WITHIN: Duration = Duration::from_millis(100);

/// Where the kernel has what this uses.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The watchdog device.
    pub device: PathBuf,
    /// Whether that device cannot be stopped once started: `1` or `0`.
    pub nowayout: PathBuf,
    /// `b` written here resets the machine at once.
    pub sysrq: PathBuf,
    /// Where the reason is printed.
    pub consoles: Vec<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            device: "/dev/watchdog".into(),
            nowayout: "/sys/class/watchdog/watchdog0/nowayout".into(),
            sysrq: "/proc/sysrq-trigger".into(),
            // The kernel's log reaches serial consoles, pstore and netconsole.
            consoles: vec!["/dev/console".into(), "/dev/kmsg".into()],
        }
    }
}

/// This machine.
pub struct MachineHardware {
    paths: Paths,
    reboot: fn() -> io::Result<()>,
    device: Option<Device>,
}

impl MachineHardware {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        Self::new(Paths::default(), || {
            rustix::system::reboot(rustix::system::RebootCommand::Restart).map_err(io::Error::from)
        })
    }

    /// One with other paths and another last way out.
    pub fn new(paths: Paths, reboot: fn() -> io::Result<()>) -> Self {
        Self { paths, reboot, device: None }
    }

    fn arm_device(&mut self, within: Duration) -> Result<Found, String> {
        let path = self.paths.device.display();
        // A stop of the daemon would become a reset of the machine.
        if fs::read_to_string(&self.paths.nowayout).is_ok_and(|text| text.trim() == "1") {
            return Err(format!("{path} could not be disarmed again (nowayout)"));
        }
        let mut device = match self.device.take() {
            Some(device) => device,
            None => Device::open(&self.paths.device).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("there is no {path}"),
                io::ErrorKind::ResourceBusy => {
                    format!("{path} is in use by another program (systemd's RuntimeWatchdogSec?)")
                }
                _ => format!("{path} cannot be opened: {error}"),
            })?,
        };
        let timeout = device.set_timeout(within);
        let is_hardware = device.is_hardware();
        let fed = device.feed();
        self.device = Some(device);
        let timeout = match timeout.and_then(|timeout| fed.map(|()| timeout)) {
            Ok(timeout) => timeout,
            Err(error) => return Err(format!("{path} cannot be used: {error}")),
        };
        Ok(match timeout {
            Some(timeout) if !is_hardware => Found {
                device: selffence::Device::Software(timeout),
                what: format!(
                    "{path} with a time-out of {} s, a timer of the kernel itself (softdog), which fires in no kernel that hangs",
                    timeout.as_secs()
                ),
            },
            Some(timeout) => Found {
                device: selffence::Device::After(timeout),
                what: format!("{path} with a time-out of {} s", timeout.as_secs()),
            },
            None => Found {
                device: selffence::Device::Unknown,
                what: format!(
                    "{path}, whose own time-out can be neither set nor asked for, fed every second"
                ),
            },
        })
    }
}

impl Hardware for MachineHardware {
    fn arm(&mut self, within: Duration) -> Found {
        self.arm_device(within).unwrap_or_else(|why| Found {
            device: selffence::Device::None,
            what: format!("a thread of the daemon alone, since {why}"),
        })
    }

    fn feed(&mut self) -> io::Result<()> {
        self.device.as_mut().map_or(Ok(()), Device::feed)
    }

    fn disarm(&mut self) -> Result<(), WatchdogError> {
        let Some(device) = self.device.take() else { return Ok(()) };
        device
            .magic_close()
            .map_err(|cause| WatchdogError::Disarm { device: self.paths.device.clone(), cause })
    }

    fn last_resort(&mut self, reason: &str) {
        error!("{reason}");
        for console in &self.paths.consoles {
            // One that is not there or not ours is no reason to stay alive.
            let _ = say(console, reason);
        }
        sync();
        for key in ["s", "b"] {
            if let Err(error) = write(&self.paths.sysrq, key) {
                error!(error = &error as &dyn std::error::Error, "sysrq {key} was refused");
            }
        }
        if let Err(error) = (self.reboot)() {
            error!(error = &error as &dyn std::error::Error, "reboot was refused");
        }
    }
}

fn say(console: &Path, reason: &str) -> io::Result<()> {
    write(console, &format!("pvcd: {reason}\n"))
}

/// Never waits: a console with nobody behind it must not keep the machine alive.
fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Writes to disk what can be in time. A disk that hangs is left hanging.
fn sync() {
    let (done, wait) = mpsc::channel();
    let started = thread::Builder::new().name("sync".into()).spawn(move || {
        thread::sleep(LOG_WITHIN);
        rustix::fs::sync();
        let _ = done.send(());
    });
    if started.is_ok() {
        let _ = wait.recv_timeout(SYNC_WITHIN);
    }
}
