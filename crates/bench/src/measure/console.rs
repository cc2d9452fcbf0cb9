//! From a guest's line on its serial console to the state tree. The line is appended to the console's log file, which is what
//! QEMU does when a guest prints.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    awake::Awake,
    daemon::{Daemon, KEEPALIVE_S},
    events::Events,
    probe,
    tree::{Definition, Tree},
};

/// Shortest pause between two lines: longer than the second in which a VM's log is written once at most.
const PAUSE: Duration = Duration::from_millis(1300);
/// How much longer each pause is than the one before, so that the lines fall into every phase of any hidden interval.
const DRIFT: Duration = Duration::from_millis(87);
/// Lines a second of a guest that prints much.
const BUSY_LINES: u32 = 20;
/// Keepalives watched while it does.
const BUSY_KEEPALIVES: u32 = 4;

/// What the console costs.
pub(crate) struct Console {
    /// One sample a line.
    pub(crate) line_ms: Vec<f64>,
    pub(crate) busy_cpu_ms: f64,
}

pub(crate) async fn measure(binaries: &Path, tree: &Tree, vm: &Definition, repeat: usize) -> Result<Console> {
    let base = format!("/domains/{}", vm.id);
    let consolelog = format!("{base}/consolelog");
    let (daemon, _) = Daemon::start(binaries, tree).await?;
    let mut events = Events::subscribe()?;
    tree.write(&format!("{base}/state"), "start").await?;
    events.wait_for(&vm.name, "Started").await?;
    let path = format!("/var/log/libvirt/{}.log", vm.name);
    let mut log =
        File::options().append(true).open(&path).with_context(|| format!("could not open {path}"))?;

    // The first line waits for whatever still happens after the start.
    say(&mut log, "ready")?;
    tree.wait_for(&consolelog, |text| text.contains("ready")).await?;
    let mut line_ms = Vec::new();
    for number in 0..u32::try_from(repeat)? {
        tokio::time::sleep(PAUSE + DRIFT * (number % 12)).await;
        let line = format!("line {number} of the guest");
        let began = Instant::now();
        say(&mut log, &line)?;
        let seen = tree.wait_for(&consolelog, |text| text.contains(&line)).await?;
        line_ms.push((seen - began).as_secs_f64() * 1e3);
    }

    let awake = Awake::keep()?;
    let before = probe::cpu(daemon.pid())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / BUSY_LINES);
    for number in 0..BUSY_LINES * BUSY_KEEPALIVES * u32::try_from(KEEPALIVE_S)? {
        tick.tick().await;
        say(&mut log, &format!("a busy guest prints its line number {number}"))?;
    }
    let busy = probe::cpu(daemon.pid())?.saturating_sub(before);
    drop(awake);

    tree.write(&format!("{base}/state"), "stop").await?;
    events.wait_for(&vm.name, "Stopped").await?;
    daemon.stop().await?;
    Ok(Console { line_ms, busy_cpu_ms: busy.as_secs_f64() * 1e3 / f64::from(BUSY_KEEPALIVES) })
}

fn say(log: &mut File, line: &str) -> Result<()> {
    log.write_all(format!("{line}\r\n").as_bytes())?;
    Ok(())
}
