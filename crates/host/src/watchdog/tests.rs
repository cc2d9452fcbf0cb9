//! The guard over hardware that only takes notes, and the machine's over files of its own. Nothing here can reach this machine's.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pvc_core::plan::selffence::{Device, Promise};

use super::*;

const GENEROUS: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Notes {
    device: Device,
    calls: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Notes {
    fn new(device: Device) -> Self {
        Self { device, calls: Arc::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), what.into()));
    }

    fn count(&self, what: &str) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(_, call)| call.contains(what)).count()
    }

    fn until(&self, what: &str, times: usize) {
        let began = Instant::now();
        while self.count(what) < times {
            assert!(began.elapsed() < GENEROUS, "{what} did not happen {times} times: {:?}", self.calls);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Hardware for Notes {
    fn arm(&mut self, _within: Duration) -> Found {
        self.note("arm");
        Found { device: self.device, what: "notes".into() }
    }

    fn feed(&mut self) -> io::Result<()> {
        self.note("feed");
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), WatchdogError> {
        self.note("disarm");
        Ok(())
    }

    fn last_resort(&mut self, reason: &str) {
        self.note(format!("end: {reason}"));
    }
}

#[tokio::test]
async fn a_guard_that_is_not_fed_ends_the_machine_once_and_late_food_does_not_help() {
    let notes = Notes::new(Device::None);
    let guard = Guard::start(notes.clone()).unwrap();
    let began = Instant::now();
    let armed = guard.arm(Duration::from_millis(200), Duration::ZERO).await.unwrap();
    assert_eq!(armed.promise, Promise(None), "nobody may count on a thread alone");
    notes.until("end", 1);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(notes.count("no keepalive was acknowledged by ZooKeeper for 0."), 1, "{:?}", notes.calls);
    guard.feed(Duration::ZERO);
    guard.disarm().await.unwrap();
    assert_eq!((notes.count("feed"), notes.count("end")), (0, 1));
}

#[tokio::test]
async fn an_old_keepalive_leaves_only_the_rest_of_the_time() {
    let notes = Notes::new(Device::None);
    let guard = Guard::start(notes.clone()).unwrap();
    let began = Instant::now();
    guard.arm(Duration::from_mins(10), Duration::from_millis(599_800)).await.unwrap();
    notes.until("end", 1);
    assert!(began.elapsed() < GENEROUS);
}

#[tokio::test]
async fn a_disarmed_guard_never_ends_the_machine() {
    let notes = Notes::new(Device::After(Duration::from_secs(9)));
    let guard = Guard::start(notes.clone()).unwrap();
    let within = Duration::from_millis(100);
    let armed = guard.arm(within, Duration::ZERO).await.unwrap();
    assert_eq!(armed.promise, Promise(Some(9)), "the device is slower than what was asked for");
    guard.disarm().await.unwrap();
    guard.feed(Duration::ZERO);
    // Another one is armed after it with the same time: had the first not been disarmed, it would have ended before.
    let later = Notes::new(Device::None);
    let other = Guard::start(later.clone()).unwrap();
    other.arm(within, Duration::ZERO).await.unwrap();
    later.until("end", 1);
    assert_eq!((notes.count("end"), notes.count("disarm"), notes.count("feed")), (0, 1, 0));
}

#[tokio::test]
async fn a_guard_whose_owner_is_gone_goes_on() {
    let notes = Notes::new(Device::After(Duration::from_millis(60)));
    let guard = Guard::start(notes.clone()).unwrap();
    guard.arm(Duration::from_millis(300), Duration::ZERO).await.unwrap();
    drop(guard);
    notes.until("end", 1);
    assert!(notes.count("feed") >= 1, "a short device is fed in between: {:?}", notes.calls);
    assert_eq!(notes.count("disarm"), 0);
}

/// A folder with a pipe for a device, as the lab has it, and files for the rest.
struct Machine {
    dir: tempfile::TempDir,
}

static REBOOTS: AtomicUsize = AtomicUsize::new(0);

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["sysrq", "console"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        Self { dir }
    }

    fn hardware(&self) -> MachineHardware {
        let path = |name: &str| self.dir.path().join(name);
        let paths = Paths {
            device: path("watchdog"),
            nowayout: path("nowayout"),
            sysrq: path("sysrq"),
            consoles: vec![path("no-such-console"), path("console")],
        };
        MachineHardware::new(paths, || {
            REBOOTS.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    /// The other end of the device.
    fn pipe(&self) -> File {
        let path = self.dir.path().join("watchdog");
        make_pipe(&path);
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

fn make_pipe(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    #[allow(unsafe_code, reason = "mkfifo")]
    // SAFETY: the path is a C string for the length of the call.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
}

fn received(pipe: &mut File) -> String {
    let mut text = String::new();
    // Nothing more for now is no error; nor is the end.
    let _ = pipe.read_to_string(&mut text);
    text
}

#[test]
fn a_device_without_ioctl_is_fed_and_closed_with_the_magic_letter() {
    let machine = Machine::new();
    let mut pipe = machine.pipe();
    let mut hardware = machine.hardware();
    let found = hardware.arm(Duration::from_secs(30));
    assert_eq!(found.device, Device::Unknown, "{}", found.what);
    assert!(found.what.contains("can be neither set nor asked for"), "{}", found.what);
    hardware.feed().unwrap();
    assert_eq!(received(&mut pipe), "11");
    hardware.disarm().unwrap();
    assert_eq!(received(&mut pipe), "V");
    hardware.disarm().unwrap();
    hardware.feed().unwrap();
    assert_eq!(received(&mut pipe), "", "what is disarmed is not fed");
    assert_eq!(hardware.arm(Duration::from_secs(30)).device, Device::Unknown, "it can be armed again");
    drop(hardware);
    assert_eq!(received(&mut pipe), "1", "a daemon that just ends leaves it armed");
}

#[test]
fn without_a_usable_device_it_says_why() {
    let machine = Machine::new();
    let why = |machine: &Machine| {
        let found = machine.hardware().arm(Duration::from_secs(30));
        assert_eq!(found.device, Device::None);
        found.what
    };
    assert!(why(&machine).contains("there is no "), "{}", why(&machine));
    make_pipe(&machine.dir.path().join("watchdog"));
    assert!(why(&machine).contains("cannot be opened"), "nobody reads it: {}", why(&machine));
    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(machine.dir.path().join("watchdog"))
        .unwrap();
    fs::write(machine.dir.path().join("nowayout"), "1\n").unwrap();
    assert!(why(&machine).contains("nowayout"), "{}", why(&machine));
    assert_eq!(received(&mut pipe), "", "it was not even started");
}

#[test]
fn the_last_resort_says_why_and_then_asks_sysrq_and_reboot() {
    let machine = Machine::new();
    let before = REBOOTS.load(Ordering::Relaxed);
    machine.hardware().last_resort("no keepalive for 30.0 s");
    assert_eq!(machine.read("console"), "pvcd: no keepalive for 30.0 s\n");
    assert_eq!(machine.read("sysrq"), "sb", "sync first");
    assert_eq!(REBOOTS.load(Ordering::Relaxed) - before, 1, "sysrq did not do it here");
}
