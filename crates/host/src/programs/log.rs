//! What programs say, line by line, in this daemon's log. They may quote strangers: lines are cut, cleaned and counted.

use pvc_core::text::one_line;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    task::JoinSet,
    time::{Duration, Instant},
};
use tracing::{info, warn};

use crate::run::Group;

/// The longest line that is kept, in bytes.
const LONGEST: usize = 1024;
/// So many lines are logged in each [`PERIOD`]; the rest are counted.
const LINES: u32 = 100;
/// How long that is.
const PERIOD: Duration = Duration::from_secs(10);

/// Logs both outputs until they end or this is dropped.
pub(super) fn follow(name: &str, group: &mut Group) -> JoinSet<()> {
    let (out, err) = group.outputs();
    let mut logs = JoinSet::new();
    if let Some(out) = out {
        logs.spawn(copy(name.to_owned(), out));
    }
    if let Some(err) = err {
        logs.spawn(copy(name.to_owned(), err));
    }
    logs
}

async fn copy(name: String, mut from: impl AsyncRead + Unpin) {
    let (mut part, mut line) = ([0; 4096], Line::default());
    let (mut since, mut lines) = (Instant::now(), 0);
    // An output that cannot be read has ended.
    while let Ok(read @ 1..) = from.read(&mut part).await {
        for text in line.take(&part[..read]) {
            if since.elapsed() >= PERIOD {
                (since, lines) = (Instant::now(), 0);
            }
            lines += 1;
            match lines {
                ..LINES => info!("{name}: {text}"),
                LINES => warn!(
                    "{name}: says more than can be logged; its lines are dropped for {} s",
                    PERIOD.as_secs()
                ),
                _ => {}
            }
        }
    }
}

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
pub(super) struct Line(Vec<u8>);

impl Line {
    /// The lines that are complete with these bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let text = one_line(String::from_utf8_lossy(&self.0).trim_end());
                self.0.clear();
                if !text.is_empty() {
                    complete.push(text);
                }
            } else if self.0.len() < LONGEST {
                self.0.push(*byte);
            }
        }
        complete
    }
}
