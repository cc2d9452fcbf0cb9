//! The serial consoles of the VMs that run here: their log files, followed by inotify into the state tree.
//!
//! One thread reads the files of all VMs, so that a disk which hangs hangs nothing else; one task writes their last lines to the
//! store, each at once after a quiet second and then at most once a second, or less often if it is heavy. Nothing here knows whether a VM runs here: the
//! reconciler says so by [`ConsoleLogs::follow`] and [`ConsoleLogs::forget`].
//!
//! ```text
//! file ──read──▶ Tail (the last lines, in memory) ──once a second──▶ /domains/<uuid>/consolelog
//!      inotify                                     publish
//! ```

mod budget;
mod file;
mod publish;
mod tail;
mod watch;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use pvc_core::model::{VmId, VmName};
use pvc_store::Store;

pub use budget::Rates;
use tail::Tail;

/// Which console logs are followed.
#[derive(Debug, Clone)]
pub struct Consoles {
    /// Where the log files are.
    pub directory: PathBuf,
    /// How many lines of each are kept in the store; 0: none is followed.
    pub lines: usize,
    /// How much of them is written.
    pub rates: Rates,
}

/// Follows the console logs of VMs. Everything ends when it is dropped.
#[derive(Debug)]
pub struct ConsoleLogs {
    followed: Mutex<HashMap<VmId, VmName>>,
    reader: watch::Reader,
}

/// One console, shared by the thread that reads it and the task that publishes it.
#[derive(Debug)]
struct Console {
    id: VmId,
    name: VmName,
    tail: Mutex<Tail>,
    /// There is something in the tail that was not published.
    news: AtomicBool,
}

impl ConsoleLogs {
    /// To be called in a tokio runtime.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(store: Arc<dyn Store>, desired: &Consoles) -> io::Result<Self> {
        let publisher = publish::start(store, desired.rates);
        let reader = watch::start(desired.directory.clone(), desired.lines, publisher)?;
        Ok(Self { followed: Mutex::default(), reader })
    }

    /// This VM runs here: its console is published from now on. Cheap to repeat.
    pub fn follow(&self, id: VmId, name: &VmName) {
        let before = self.followed().insert(id, name.clone());
        if before.as_ref() != Some(name) {
            self.reader.follow(id, name);
        }
    }

    /// This VM does not run here any more: what it printed last is published, then nothing more. Cheap to repeat.
    pub fn forget(&self, id: VmId) {
        if self.followed().remove(&id).is_some() {
            self.reader.forget(id);
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<VmId, VmName>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    fn new(id: VmId, name: VmName, lines: usize) -> Self {
        Self { id, name, tail: Mutex::new(Tail::new(lines)), news: AtomicBool::new(false) }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text to publish, if there is news; there is none after this until more is printed.
    fn take_news(&self) -> Option<String> {
        self.news.swap(false, Ordering::AcqRel).then(|| self.tail().text())
    }
}

#[cfg(test)]
mod tests;
