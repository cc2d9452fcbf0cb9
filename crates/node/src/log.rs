//! The daemon's log, by the manual's switches: a file, standard output, colours, dates.
//! Never makes anybody wait: lines go through a bounded channel to a thread of its own; when a slow disk has filled it, lines are
//! dropped, counted, and the count is said. A log that cannot be written never stops the daemon.
//!
//! # A line
//! `2026-11-23 14:00:00.123 node1 I vm web1: started in 0.41 s`: time, node, letter, subject, what happened. The letters:
//! `E` an error, somebody has to act; `W` a warning, it goes on by itself; `I` something happened; `K` a keepalive;
//! `D`, `T` details for developers (`pvc.debug`).
//!
//! # Fields of an event
//! A field `vm`, `node` or `network` is the subject (`vm web1: …`); `error` ends the line (`…: connection refused`);
//! every other field follows in brackets (`… (pid=12)`).

mod line;
mod sink;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use pvc_core::model::NodeName;
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt as _, registry::LookupSpan};

use line::Line;
pub use line::chain;

/// The target of keepalive lines: `tracing::info!(target: log::KEEPALIVE, …)` prints with the letter `K`.
pub const KEEPALIVE: &str = "pvcd::keepalive::line";

/// Lines that may wait for the disk; a busy daemon writes some hundred a second.
const QUEUE: usize = 2048;

/// The name of the log file in `log_directory`.
pub const FILE_NAME: &str = "pvcd.log";

/// What to log and where to.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "the manual's switches, each on its own")]
pub struct Settings {
    /// Printed in every line.
    pub node: NodeName,
    /// The log file, if there shall be one. Its directory is made if absent.
    pub file: Option<PathBuf>,
    /// Whether to print to standard output.
    pub stdout: bool,
    /// Whether to print ANSI colours, to both.
    pub colours: bool,
    /// Whether lines begin with date and time.
    pub dates: bool,
    /// Whether details for developers are logged too.
    pub debug: bool,
}

/// A handle on the running log.
#[derive(Debug, Clone)]
pub struct Log {
    lines: mpsc::SyncSender<writer::Item>,
    shared: Arc<Shared>,
}

/// What the callers tell the writer past the queue, which may be full.
#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    reopen: AtomicBool,
}

impl Log {
    /// Starts the writer and makes it the process' log.
    ///
    /// # Errors
    /// If the process has a log already, or no thread can be started.
    pub fn install(settings: &Settings) -> anyhow::Result<Self> {
        let (log, subscriber) = Self::start(settings)?;
        tracing::subscriber::set_global_default(subscriber)?;
        Ok(log)
    }

    /// Starts the writer and returns the subscriber that feeds it, for a process with several logs (tests, simulations).
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(settings: &Settings) -> std::io::Result<(Self, impl Subscriber + Send + Sync + use<>)> {
        let shared = Arc::<Shared>::default();
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        let sink = sink::Sink::new(settings);
        let for_writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".into())
            .stack_size(256 * 1024)
            .spawn(move || writer::run(&queue, sink, &for_writer))?;
        let log = Self { lines, shared };
        let level = if settings.debug { Level::DEBUG } else { Level::INFO };
        // Ours are all called pvc…; of libraries only what an operator must know.
        let filter = Targets::new().with_target("pvc", level).with_default(Level::WARN);
        let layer = Feed { log: log.clone() }.with_filter(filter);
        Ok((log, tracing_subscriber::registry().with(layer)))
    }

    /// Opens the log file anew, for logrotate (SIGHUP).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Only wakes the writer: if the queue is full it is awake and looks at the flag with the next line.
        let _ = self.lines.try_send(writer::Item::Wake);
    }

    /// Waits until everything logged so far is written, at most `deadline`. Blocks: for the end of the process.
    pub fn finish(&self, deadline: Duration) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.lines.try_send(writer::Item::Finish(done)).is_ok() {
            let _ = wait.recv_timeout(deadline);
        }
    }

    fn put(&self, line: Line) {
        if self.lines.try_send(writer::Item::Line(line)).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The layer that turns events into lines.
struct Feed {
    log: Log,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Feed {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        self.log.put(Line::of(event));
    }
}

#[cfg(test)]
mod tests;
