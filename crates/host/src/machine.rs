//! What this machine is and how busy it is: processors, memory, load, its clock, its processes. Read from the kernel's own files, which
//! never block on a disk.
//! Never asks a program and never changes anything.

#[cfg(any(test, feature = "fake"))]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    time::{SystemTime, UNIX_EPOCH},
};

use pvc_core::model::{MachineId, StaticData};

/// How busy the machine is now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Physical memory, MiB.
    pub mem_total_mib: u64,
    /// Memory that could not be given to a VM now, MiB. Caches that the kernel would give up are not in use.
    pub mem_used_mib: u64,
    /// Memory that nothing uses, not even a cache, MiB: what old clients show as free.
    pub mem_free_mib: u64,
    /// One-minute load average.
    pub load: f64,
}

/// A machine that can be asked about itself.
pub trait Machine: Send + Sync + 'static {
    /// What does not change while it is up.
    fn describe(&self) -> io::Result<StaticData>;

    /// What tells it from other machines; without what cannot be read. Does not change while it is up.
    fn identity(&self) -> MachineId;

    /// How busy it is now. Cheap: some ten microseconds.
    fn figures(&self) -> io::Result<Figures>;

    /// Seconds since 1970 by the wall clock, for people to read: it may jump, and no two machines agree.
    fn unix_s(&self) -> u64;

    /// When a process started, in clock ticks since boot; `None` if there is none, or only what its parent did not bury yet.
    fn process_started(&self, pid: u32) -> io::Result<Option<u64>>;
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl ThisMachine {
    /// What the machine calls itself.
    pub fn host_name(self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

impl Machine for ThisMachine {
    fn describe(&self) -> io::Result<StaticData> {
        let system = rustix::system::uname();
        let word =
            |text: &std::ffi::CStr| text.to_string_lossy().split_whitespace().collect::<Vec<_>>().join("_");
        Ok(StaticData {
            cpu_count: cpu_count(&read("/sys/devices/system/cpu/online")?)
                .ok_or_else(|| unreadable("/sys/devices/system/cpu/online"))?,
            kernel: word(system.release()),
            os: "GNU/Linux".into(),
            arch: word(system.machine()),
        })
    }

    fn identity(&self) -> MachineId {
        let [uuid, board, chassis] = ["product_uuid", "board_serial", "chassis_serial"]
            .map(|name| read(&format!("/sys/class/dmi/id/{name}")).ok());
        let installation = read("/etc/machine-id").ok();
        MachineId::of(uuid.as_deref(), board.as_deref(), chassis.as_deref(), installation.as_deref())
    }

    fn figures(&self) -> io::Result<Figures> {
        let memory = memory(&read("/proc/meminfo")?).ok_or_else(|| unreadable("/proc/meminfo"))?;
        let load = read("/proc/loadavg")?.split_ascii_whitespace().next().and_then(|w| w.parse().ok());
        Ok(Figures {
            mem_total_mib: memory.total,
            mem_used_mib: memory.total.saturating_sub(memory.available),
            mem_free_mib: memory.free,
            load: load.ok_or_else(|| unreadable("/proc/loadavg"))?,
        })
    }

    fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    fn process_started(&self, pid: u32) -> io::Result<Option<u64>> {
        let file = format!("/proc/{pid}/stat");
        let stat = match fs::read_to_string(&file) {
            Ok(stat) => stat,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // The process ended while it was read.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(e) => return Err(e),
        };
        // The program's name, in parentheses, may hold anything: fields are counted from its end (proc(5): state is the 3rd, starttime the 22nd).
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        match (fields.first(), fields.get(19).and_then(|f| f.parse().ok())) {
            (Some(&("Z" | "X")), _) => Ok(None),
            (Some(_), Some(started)) => Ok(Some(started)),
            _ => Err(unreadable(&file)),
        }
    }
}

/// The whole of one of the kernel's small files. Not `fs::read_to_string`: that asks for a size which such files do not have, and
/// then reads them in many small pieces.
fn read(path: &str) -> io::Result<String> {
    let attempt = || {
        let mut file = File::open(path)?;
        let mut buffer = [0; 8 * 1024];
        let mut length = 0;
        loop {
            match file.read(&mut buffer[length..])? {
                0 => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
                n => length += n,
            }
        }
    };
    attempt().map_err(|e: io::Error| io::Error::new(e.kind(), format!("cannot read {path}: {e}")))
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} does not look as expected"))
}

/// How many processors a list such as `0-3,6` names.
fn cpu_count(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0_u32, |sum, range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        sum.checked_add(to.checked_sub(from)?.checked_add(1)?)
    })
}

/// Lines of `/proc/meminfo`, MiB.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    total: u64,
    free: u64,
    available: u64,
}

fn memory(meminfo: &str) -> Option<Memory> {
    let mib = |name: &str| {
        let kib = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        kib.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
    };
    Some(Memory { total: mib("MemTotal")?, free: mib("MemFree")?, available: mib("MemAvailable")? })
}

/// A machine for tests that says what it is told to; its processes are the real machine's, and so is its clock unless it is stopped.
#[cfg(any(test, feature = "fake"))]
#[derive(Debug, Clone)]
pub struct FakeMachine {
    /// What it is.
    pub described: StaticData,
    /// What tells it from others.
    pub id: MachineId,
    /// How busy it is.
    pub figures: Figures,
    /// What its clock shows, whatever the real one does.
    pub stopped_at_unix_s: Option<u64>,
    /// How far its clock is ahead of that, in seconds.
    pub ahead_s: Arc<AtomicU64>,
}

#[cfg(any(test, feature = "fake"))]
impl Default for FakeMachine {
    fn default() -> Self {
        Self {
            described: StaticData {
                cpu_count: 8,
                kernel: "6.1.0-18-amd64".into(),
                os: "GNU/Linux".into(),
                arch: "x86_64".into(),
            },
            id: MachineId::default(),
            figures: Figures { mem_total_mib: 16384, mem_used_mib: 4096, mem_free_mib: 12288, load: 0.25 },
            stopped_at_unix_s: None,
            ahead_s: Arc::default(),
        }
    }
}

#[cfg(any(test, feature = "fake"))]
impl Machine for FakeMachine {
    fn describe(&self) -> io::Result<StaticData> {
        Ok(self.described.clone())
    }

    fn identity(&self) -> MachineId {
        self.id.clone()
    }

    fn figures(&self) -> io::Result<Figures> {
        Ok(self.figures)
    }

    fn unix_s(&self) -> u64 {
        self.stopped_at_unix_s.unwrap_or_else(|| ThisMachine.unix_s()) + self.ahead_s.load(Ordering::Relaxed)
    }

    fn process_started(&self, pid: u32) -> io::Result<Option<u64>> {
        ThisMachine.process_started(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_through_gaps() {
        for (list, count) in
            [("0\n", Some(1)), ("0-7\n", Some(8)), ("0-3,6,8-9\n", Some(7)), ("", None), ("3-1", None)]
        {
            assert_eq!(cpu_count(list), count, "{list:?}");
        }
    }

    #[test]
    fn caches_are_neither_used_nor_free_memory() {
        let meminfo = "MemTotal:       16384000 kB\nMemFree:          102400 kB\nMemAvailable:    8192000 kB\nCached: 1 kB\n";
        assert_eq!(memory(meminfo), Some(Memory { total: 16000, free: 100, available: 8000 }));
        assert_eq!(memory("MemTotal: lots\n"), None);
    }

    #[test]
    fn this_machine_knows_itself() {
        let described = ThisMachine.describe().unwrap();
        assert!(described.cpu_count >= 1);
        assert_eq!(described.to_string().parse(), Ok(described), "four words, whatever the kernel is called");
        let figures = ThisMachine.figures().unwrap();
        assert!(
            figures.mem_total_mib > 0 && figures.mem_free_mib <= figures.mem_total_mib && figures.load >= 0.0
        );
    }
}
