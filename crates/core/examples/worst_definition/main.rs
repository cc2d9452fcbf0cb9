//! Prints what the worst definitions cost that are accepted, and fails if one costs more than it may: run by `cargo xtask bench`.

#![allow(clippy::disallowed_methods, reason = "it measures; core itself has no clock")]

#[path = "texts.rs"]
mod texts;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use pvc_core::model::{DomainDetails, DomainSpec};

/// What one parse may cost.
const AT_MOST: Duration = Duration::from_millis(20);
/// Each is parsed so often; the median counts.
const TIMES: usize = 11;

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let mut worst = Duration::ZERO;
    for (what, text) in texts::texts() {
        let spec = median(|| DomainSpec::parse(&text).is_ok());
        let details = median(|| DomainDetails::parse(&text).is_ok());
        worst = worst.max(spec).max(details);
        let ms = |took: Duration| took.as_secs_f64() * 1000.0;
        writeln!(out, "a definition of {what}: {:.2} ms checked, {:.2} ms described", ms(spec), ms(details))?;
    }
    let kept = worst <= AT_MOST;
    let verdict = if kept { "met" } else { "missed" };
    writeln!(
        out,
        "the worst definition: {:.2} ms, at most {} ms: {verdict}",
        worst.as_secs_f64() * 1000.0,
        AT_MOST.as_millis()
    )?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn median(parse: impl Fn() -> bool) -> Duration {
    let mut took: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let begin = Instant::now();
            assert!(parse(), "what is refused is no measure");
            begin.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[TIMES / 2]
}
