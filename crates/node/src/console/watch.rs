//! The thread that reads console logs when inotify says that they grew. It sleeps until then; a slow look at all files is the
//! safety net for what inotify cannot tell (a log that was moved to another directory, a queue that overflowed).

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use inotify::{EventMask, Inotify, WatchMask};
use pvc_core::model::{VmId, VmName};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tracing::{debug, warn};

use super::{Console, file::Follower, publish::Publisher};

/// After a reading the next waits so long: a guest may print a character at a time, and what follows the first line of a quiet console is
/// published a second later anyway.
const REST: Duration = Duration::from_millis(500);
/// How often all files are looked at without a reason.
const SWEEP: Duration = Duration::from_secs(10);
/// … while inotify does not work.
const SWEEP_BLIND: Duration = Duration::from_secs(1);

/// Tells the thread what to read; the thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    commands: Option<mpsc::Sender<Command>>,
    bell: Arc<OwnedFd>,
}

#[derive(Debug)]
enum Command {
    Follow(VmId, VmName),
    Forget(VmId),
}

impl Reader {
    pub(super) fn follow(&self, id: VmId, name: &VmName) {
        self.tell(Command::Follow(id, name.clone()));
    }

    pub(super) fn forget(&self, id: VmId) {
        self.tell(Command::Forget(id));
    }

    fn tell(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread ends only after this value does.
            let _ = commands.send(command);
            self.ring();
        }
    }

    fn ring(&self) {
        // A full counter means that it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.commands = None;
        self.ring();
    }
}

/// Starts the thread.
pub(super) fn start(directory: PathBuf, lines: usize, publisher: Publisher) -> io::Result<Reader> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (commands, orders) = mpsc::channel();
    let mut files = Files {
        directory,
        lines,
        publisher,
        bell: Arc::clone(&bell),
        inotify: None,
        blind: false,
        followed: HashMap::new(),
        ids: HashMap::new(),
    };
    std::thread::Builder::new()
        .name("console".into())
        .stack_size(256 * 1024)
        .spawn(move || files.run(&orders))?;
    Ok(Reader { commands: Some(commands), bell })
}

struct Files {
    directory: PathBuf,
    lines: usize,
    publisher: Publisher,
    bell: Arc<OwnedFd>,
    inotify: Option<Inotify>,
    /// It was said that inotify does not work.
    blind: bool,
    followed: HashMap<VmId, Followed>,
    /// By name: no two VMs of one name run on one node.
    ids: HashMap<VmName, VmId>,
}

struct Followed {
    console: Arc<Console>,
    file: Follower,
    /// The last reading failed, and it was said.
    failing: bool,
}

impl Files {
    fn run(&mut self, orders: &mpsc::Receiver<Command>) {
        let mut swept = Instant::now();
        let mut read = None;
        loop {
            loop {
                match orders.try_recv() {
                    Ok(Command::Follow(id, name)) => self.follow(id, name),
                    Ok(Command::Forget(id)) => self.forget(id),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let sweep_at = swept + if self.inotify.is_some() { SWEEP } else { SWEEP_BLIND };
            let rests_until = read.map(|read| read + REST).filter(|until| *until > Instant::now());
            self.wait(rests_until.unwrap_or(sweep_at), rests_until.is_some());
            if rests_until.is_some_and(|until| until > Instant::now()) {
                // A command came.
                continue;
            }
            let blind = match self.read_events() {
                Some(0) => false,
                Some(_) => {
                    read = Some(Instant::now());
                    false
                }
                None => true,
            };
            if blind || Instant::now() >= sweep_at {
                swept = Instant::now();
                self.watch_directory();
                self.followed.values_mut().for_each(|f| f.catch_up(&self.publisher));
            }
        }
    }

    fn follow(&mut self, id: VmId, name: VmName) {
        self.forget(id);
        if self.lines == 0 {
            return;
        }
        if self.inotify.is_none() {
            self.watch_directory();
        }
        let file = Follower::new(self.directory.join(format!("{name}.log")));
        self.ids.insert(name.clone(), id);
        let console = Arc::new(Console::new(id, name, self.lines));
        let mut followed = Followed { console: Arc::clone(&console), file, failing: false };
        self.publisher.follow(console);
        followed.catch_up(&self.publisher);
        self.followed.insert(id, followed);
    }

    fn forget(&mut self, id: VmId) {
        if let Some(mut followed) = self.followed.remove(&id) {
            followed.catch_up(&self.publisher);
            if self.ids.get(&followed.console.name) == Some(&id) {
                self.ids.remove(&followed.console.name);
            }
            self.publisher.forget(id);
        }
    }

    /// Waits for a command, or an event unless it `rests`, but not longer than this.
    fn wait(&self, until: Instant, rests: bool) {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(1),
            tv_nsec: left.subsec_nanos().into(),
        };
        // Without a reason to look there need be no looking: nothing is followed, a command will ring.
        let timeout = (!self.followed.is_empty()).then_some(&timeout);
        let mut waits_for = vec![PollFd::new(&self.bell, PollFlags::IN)];
        if let Some(inotify) = self.inotify.as_ref().filter(|_| !rests) {
            waits_for.push(PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN));
        }
        // An interrupted wait is a short one.
        let _ = poll(&mut waits_for, timeout);
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Reads the files that changed, and answers how many; `None`: that is not known, so that all must be looked at.
    fn read_events(&mut self) -> Option<usize> {
        let Some(inotify) = &mut self.inotify else {
            return Some(0);
        };
        let mut buffer = [0; 4096];
        let mut changed = Vec::new();
        loop {
            let events = match inotify.read_events(&mut buffer) {
                Ok(events) => events,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    debug!(error = %e, "inotify failed, starting it anew");
                    self.inotify = None;
                    return None;
                }
            };
            for event in events {
                if event.mask.contains(EventMask::IGNORED) {
                    // The directory itself is gone.
                    self.inotify = None;
                    return None;
                }
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    return None;
                }
                for id in event.name.into_iter().flat_map(|name| vms_of(name, &self.ids)) {
                    if !changed.contains(&id) {
                        changed.push(id);
                    }
                }
            }
        }
        let count = changed.len();
        for id in changed {
            if let Some(followed) = self.followed.get_mut(&id) {
                followed.catch_up(&self.publisher);
            }
        }
        Some(count)
    }

    /// Watches the directory, which may not exist yet: libvirt needs it too, so it is made.
    fn watch_directory(&mut self) {
        if self.inotify.is_some() {
            return;
        }
        let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
        let watched = std::fs::create_dir_all(&self.directory)
            .and_then(|()| Inotify::init())
            .and_then(|inotify| inotify.watches().add(&self.directory, mask).map(|_| inotify));
        match watched {
            Ok(inotify) => {
                self.inotify = Some(inotify);
                self.blind = false;
            }
            Err(e) if !self.blind => {
                self.blind = true;
                let directory = self.directory.display();
                warn!(error = %e, "cannot watch {directory}: consoles are looked at every second instead");
            }
            Err(_) => {}
        }
    }
}

impl Followed {
    fn catch_up(&mut self, publisher: &Publisher) {
        // The tail is locked for copying only, never while the disk is waited for.
        let outcome = self.file.catch_up(&mut |printed| self.console.tail().take(printed));
        match outcome {
            Ok(false) => self.failing = false,
            Ok(true) => {
                self.failing = false;
                if !self.console.news.swap(true, Ordering::AcqRel) {
                    publisher.news(self.console.id);
                }
            }
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(vm = %self.console.name, error = %error, "cannot read its console log");
            }
            Err(_) => {}
        }
    }
}

/// The followed VMs whose log this file may be: `web1.log`, and `web1.log.0` or `web1.log-20261123` after a rotation.
fn vms_of<'a>(file: &'a OsStr, ids: &'a HashMap<VmName, VmId>) -> impl Iterator<Item = VmId> + 'a {
    let file = file.to_str().unwrap_or_default();
    file.match_indices(".log").filter_map(move |(i, _)| Some(*ids.get(&file[..i].parse().ok()?)?))
}
