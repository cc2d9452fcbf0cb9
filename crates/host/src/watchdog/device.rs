//! A watchdog device of the kernel (`Documentation/watchdog/watchdog-api.rst`): opening starts it, a byte feeds it, a `V` before closing
//! stops it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

/// `WDIOC_SETTIMEOUT`: `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::c_ulong = 0xC004_5706;
/// `WDIOC_GETTIMEOUT`: `_IOR('W', 7, int)`.
const GET_TIMEOUT: libc::c_ulong = 0x8004_5707;

/// `WDIOC_GETSUPPORT`: `_IOR('W', 0, struct watchdog_info)`.
const GET_SUPPORT: libc::c_ulong = 0x8028_5700;
/// What softdog calls itself (`drivers/watchdog/softdog.c`).
const SOFTDOG: &[u8] = b"Software Watchdog";

/// `struct watchdog_info` (`include/uapi/linux/watchdog.h`).
#[repr(C)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// An open device: it resets the machine unless it is fed, also after it is closed.
#[derive(Debug)]
pub(super) struct Device(File);

impl Device {
    /// Opens and so starts it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Not to wait for ever for a reader, should it be a pipe.
        let file =
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
        Ok(Self(file))
    }

    /// Sets its time-out as near as it can; returns what it is, `None` if it does not tell.
    pub(super) fn set_timeout(&self, wanted: Duration) -> io::Result<Option<Duration>> {
        let whole = wanted.as_secs() + u64::from(wanted.subsec_nanos() > 0);
        let wanted = libc::c_int::try_from(whole).unwrap_or(libc::c_int::MAX);
        // What it cannot do is told by what it then is.
        let now = self.ioctl(SET_TIMEOUT, wanted).or_else(|_| self.ioctl(GET_TIMEOUT, 0));
        match now {
            Ok(seconds) => Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs)),
            Err(error) if is_unsupported(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether something else than the kernel that it shall reset makes it fire. One that does not say what it is does not say so.
    #[allow(unsafe_code, reason = "no crate that we have offers the watchdog's ioctls")]
    pub(super) fn is_hardware(&self) -> bool {
        let mut info = Info { options: 0, firmware_version: 0, identity: [0; 32] };
        // SAFETY: the file is open while `self` is borrowed; the request writes one `watchdog_info`, which `info` is.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_SUPPORT, &raw mut info) };
        done >= 0 && info.identity[0] != 0 && !info.identity.starts_with(SOFTDOG)
    }

    pub(super) fn feed(&mut self) -> io::Result<()> {
        self.0.write_all(b"1")
    }

    /// Stops it. It is disarmed once this is dropped.
    pub(super) fn magic_close(mut self) -> io::Result<()> {
        self.0.write_all(b"V")
    }

    #[allow(unsafe_code, reason = "no crate that we have offers the watchdog's ioctls")]
    fn ioctl(&self, request: libc::c_ulong, value: libc::c_int) -> io::Result<libc::c_int> {
        let mut value = value;
        // SAFETY: the file is open while `self` is borrowed; both requests read or write one int, which `value` is.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut value) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::EINVAL))
}
