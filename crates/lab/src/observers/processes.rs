//! An outside observer of guests: which QEMU process lived where, from when to when.
//! Asks neither libvirt nor pvcd, and sees the frozen and the orphaned as well: it reads the machine's own `/proc`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{lab::Lab, layout::Layout};

/// How often it looks. An end is seen that much late at most; a beginning is the kernel's own figure.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a virtual CPU must use between two looks to count as executing. Measured on a guest of these labs, which counts aloud: 2 to 18 ms
/// in most looks; while it is stopped, and while its process ends, 0.1 ms at most.
const EXECUTES: Duration = Duration::from_millis(1);
/// The unit of a process' start in `/proc/PID/stat`: USER_HZ is 100 on every Linux that runs this.
const TICK: Duration = Duration::from_millis(10);

/// One QEMU process.
#[derive(Clone, Debug)]
pub struct Run {
    /// The node.
    pub node: String,
    /// The VM's UUID.
    pub vm: String,
    /// Its number, as this machine counts.
    pub pid: i32,
    /// Whether it was started to receive a guest that runs elsewhere.
    pub incoming: bool,
    /// When it was started.
    pub began: Instant,
    /// When it was seen last: it lived longer than that, but not for long.
    pub seen: Instant,
    /// The two looks between which its guest executed last: a process outlives its guest, which a migration has taken elsewhere.
    pub executed: Option<(Instant, Instant)>,
    /// When it was seen to be gone; `None`: it is there.
    pub ended: Option<Instant>,
    /// The CPU time of its guest, as of `seen`.
    cpu: Duration,
}

impl Run {
    /// How long both lived at the same time.
    pub fn overlap(&self, other: &Self) -> Duration {
        let now = Instant::now();
        let end = self.ended.unwrap_or(now).min(other.ended.unwrap_or(now));
        end.saturating_duration_since(self.began.max(other.began))
    }
}

/// By process number and start, which together are never used twice.
type Runs = BTreeMap<(i32, u64), Run>;

/// Records all QEMU processes of a lab, from its start until it is dropped.
pub struct Processes {
    runs: Arc<Mutex<Runs>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Processes {
    /// Starts looking.
    pub fn record(lab: &Lab) -> Result<Self> {
        let (runs, stop) = (Arc::<Mutex<Runs>>::default(), Arc::<AtomicBool>::default());
        let (record, ended, layout) = (Arc::clone(&runs), Arc::clone(&stop), lab.layout().clone());
        uptime().context("could not read /proc/uptime")?;
        let thread = thread::Builder::new().name("qemu-observer".into()).spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                look(&layout, &record);
                thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(Self { runs, stop, thread: Some(thread) })
    }

    /// All that were seen, in the order in which they began.
    pub fn all(&self) -> Vec<Run> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = runs.values().cloned().collect();
        all.sort_by_key(|run| run.began);
        all
    }

    /// Those of a VM.
    pub fn of(&self, vm: &str) -> Vec<Run> {
        self.all().into_iter().filter(|run| run.vm == vm).collect()
    }

    /// The nodes on which a process of the VM is now.
    pub fn where_is(&self, vm: &str) -> Vec<String> {
        self.of(vm).into_iter().filter(|run| run.ended.is_none()).map(|run| run.node).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only reads, and a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

fn look(layout: &Layout, runs: &Mutex<Runs>) {
    let (now, up) = (Instant::now(), uptime());
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(start) = qemu_start(&entry.path()) else { continue };
        let known = runs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(pid, start));
        if !known {
            let (Some(node), Some((vm, incoming))) = (node_of(layout, &entry.path()), vm_of(&entry.path()))
            else {
                continue;
            };
            let age = up.map(|up| up.saturating_sub(TICK * u32::try_from(start).unwrap_or(u32::MAX)));
            let began = age.and_then(|age| now.checked_sub(age)).unwrap_or(now);
            let cpu = Duration::ZERO;
            let run = Run { node, vm, pid, incoming, began, seen: began, executed: None, ended: None, cpu };
            runs.lock().unwrap_or_else(PoisonError::into_inner).insert((pid, start), run);
        }
        seen.push(((pid, start), guest_cpu(&entry.path())));
    }
    let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    for (process, run) in runs.iter_mut().filter(|(_, run)| run.ended.is_none()) {
        if let Some((_, cpu)) = seen.iter().find(|(other, _)| other == process) {
            if cpu.saturating_sub(run.cpu) >= EXECUTES {
                run.executed = Some((run.seen, Instant::now()));
            }
            // Of a process that is just ending, not all threads are there to be asked.
            (run.seen, run.cpu) = (now, run.cpu.max(*cpu));
        } else {
            run.ended = Some(Instant::now());
        }
    }
}

/// When the process started, in ticks since the machine's boot, if it is a QEMU and not a zombie.
fn qemu_start(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    (name.starts_with("qemu-system") && fields.first() != Some(&"Z")).then(|| fields.get(19)?.parse().ok())?
}

/// The CPU time of all virtual CPUs of a QEMU; what its other threads use is not the guest's.
fn guest_cpu(process: &Path) -> Duration {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let used = threads.filter_map(|thread| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        let spent = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        name.starts_with("CPU ")
            .then(|| spent.split_whitespace().next()?.parse().ok().map(Duration::from_nanos))?
    });
    used.sum()
}

/// The node whose cgroup it is in.
fn node_of(layout: &Layout, process: &Path) -> Option<String> {
    let cgroups = fs::read_to_string(process.join("cgroup")).ok()?;
    let top = format!("/{}/", layout.cgroup());
    let below = cgroups.lines().find_map(|line| line.strip_prefix("0::")?.strip_prefix(&top))?;
    Some(below.split('/').next()?.to_owned())
}

/// The VM, as libvirt says in the arguments, and whether it is to come from elsewhere. A QEMU that asks what this machine can do
/// has none.
fn vm_of(process: &Path) -> Option<(String, bool)> {
    let arguments = fs::read(process.join("cmdline")).ok()?;
    let arguments: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let uuid = arguments.iter().position(|argument| argument == "-uuid")? + 1;
    let incoming = arguments.iter().any(|argument| argument == "-incoming");
    Some((arguments.get(uuid)?.clone().into_owned(), incoming))
}

fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_overlap_as_long_as_both_last() {
        let zero = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let at = |s| zero + Duration::from_secs(s);
        let run = |began, ended: u64| Run {
            node: "node1".into(),
            vm: "vm".into(),
            pid: 1,
            incoming: false,
            began: at(began),
            seen: at(ended),
            executed: None,
            ended: Some(at(ended)),
            cpu: Duration::ZERO,
        };
        assert_eq!(run(0, 10).overlap(&run(8, 20)), Duration::from_secs(2));
        assert_eq!(run(8, 20).overlap(&run(0, 10)), Duration::from_secs(2));
        assert_eq!(run(0, 10).overlap(&run(11, 20)), Duration::ZERO);
        assert!(Run { ended: None, ..run(0, 1) }.overlap(&run(50, 55)) == Duration::from_secs(5));
    }

    #[test]
    fn only_qemus_count_as_processes_of_guests() {
        assert_eq!(qemu_start(Path::new("/proc/self")), None);
        assert!(uptime().is_some_and(|up| up > Duration::from_secs(1)));
    }
}
