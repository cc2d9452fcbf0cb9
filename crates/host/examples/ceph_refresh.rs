//! What it costs to ask a small Ceph for its figures once: by our connection, and by the seven commands that the 0.5 generation ran at
//! every keepalive. Prints CPU time of this machine's clients; needs what `tests/ceph` needs.
//!
//!     cargo run --release -p pvc-host --example ceph_refresh --features testing
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people")]

use std::{fs, io, time::Instant};

use pvc_host::{
    ceph::{Access, Ceph as _, Librados},
    testing::ceph::CephCluster,
};

const REFRESHES: u32 = 500;
const COMMANDS: [&[&str]; 7] = [
    &["health"],
    &["status"],
    &["df"],
    &["df", "detail", "--format", "json"],
    &["osd", "dump", "--format", "json"],
    &["osd", "df", "--format", "json"],
    &["osd", "status"],
];

/// Seconds of CPU that this process has taken, and its children that have ended.
fn cpu() -> io::Result<[f64; 2]> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // A hundred ticks are a second, on every Linux that there is.
    Ok([(ticks(11) + ticks(12)) / 100.0, (ticks(13) + ticks(14)) / 100.0])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = CephCluster::start()?;
    let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
    ceph.figures().await?;
    let (before, began) = (cpu()?, Instant::now());
    for _ in 0..REFRESHES {
        ceph.figures().await?;
    }
    let each = f64::from(REFRESHES);
    let (cpu_s, wall_s) = ((cpu()?[0] - before[0]) / each, began.elapsed().as_secs_f64() / each);
    println!("one connection: {:.2} ms of CPU, {:.1} ms of time", cpu_s * 1e3, wall_s * 1e3);

    let (before, began) = (cpu()?, Instant::now());
    for command in COMMANDS {
        cluster.ceph(command)?;
    }
    let (cpu_s, wall_s) = (cpu()?[1] - before[1], began.elapsed().as_secs_f64());
    println!("seven commands: {cpu_s:.2} s of CPU, {wall_s:.1} s of time");
    Ok(())
}
