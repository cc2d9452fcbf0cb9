//! From a written `start` to a running guest, beside plain virsh with the same XML, in turns.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    capsule::ROOM,
    daemon::Daemon,
    events::Events,
    program::{command, output},
    tree::{Definition, Tree, definition},
};

/// The VM that virsh starts: the daemon knows nothing of it.
const PLAIN: usize = 0xf_ffff;
/// Quiet time between two samples: what follows a stop belongs to neither.
const REST: Duration = Duration::from_millis(300);

/// Milliseconds, one sample a pair, in the same order.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) running: Vec<f64>,
    pub(crate) virsh: Vec<f64>,
    pub(crate) stop: Vec<f64>,
    pub(crate) destroy: Vec<f64>,
    /// What `virsh` takes to do nothing: its median.
    pub(crate) virsh_itself: f64,
}

pub(crate) async fn measure(binaries: &Path, tree: &Tree, vm: &Definition, repeat: usize) -> Result<Samples> {
    let plain = definition(PLAIN);
    let file = Path::new(ROOM).join("plain.xml");
    std::fs::write(&file, &plain.xml)?;
    let (daemon, _) = Daemon::start(binaries, tree).await?;
    let mut events = Events::subscribe()?;
    let mut samples = Samples::default();

    // The first of each fills libvirt's caches.
    for round in 0..=repeat {
        let mut pair = [Pair::Desired, Pair::Virsh];
        if round % 2 == 1 {
            pair.reverse();
        }
        for one in pair {
            tokio::time::sleep(REST).await;
            let (started, stopped) = match one {
                Pair::Desired => by_desired(tree, vm, &mut events).await?,
                Pair::Virsh => by_virsh(&file, &plain.name, &mut events).await?,
            };
            if round > 0 {
                let (starts, stops) = match one {
                    Pair::Desired => (&mut samples.running, &mut samples.stop),
                    Pair::Virsh => (&mut samples.virsh, &mut samples.destroy),
                };
                starts.push(started.as_secs_f64() * 1e3);
                stops.push(stopped.as_secs_f64() * 1e3);
            }
        }
    }
    samples.virsh_itself = virsh_itself(repeat)?;
    daemon.stop().await?;
    Ok(samples)
}

enum Pair {
    Desired,
    Virsh,
}

/// How long a start and a stop took through the state tree.
async fn by_desired(tree: &Tree, vm: &Definition, events: &mut Events) -> Result<(Duration, Duration)> {
    let state = format!("/domains/{}/state", vm.id);
    let claim = format!("/pvc/claim/{}", vm.id);
    let began = Instant::now();
    tree.write(&state, "start").await?;
    let started = events.wait_for(&vm.name, "Started").await? - began;
    tree.wait_for(&claim, |claim| !claim.is_empty()).await?;
    tokio::time::sleep(REST).await;
    let began = Instant::now();
    tree.write(&state, "stop").await?;
    let stopped = events.wait_for(&vm.name, "Stopped").await? - began;
    tree.wait_for(&claim, str::is_empty).await?;
    Ok((started, stopped))
}

/// How long a start and a stop took through virsh.
async fn by_virsh(file: &Path, name: &str, events: &mut Events) -> Result<(Duration, Duration)> {
    let began = Instant::now();
    output(command("virsh").args(["-c", "qemu:///system", "create"]).arg(file))?;
    let started = events.wait_for(name, "Started").await? - began;
    tokio::time::sleep(REST).await;
    let began = Instant::now();
    output(command("virsh").args(["-c", "qemu:///system", "destroy", name]))?;
    let stopped = events.wait_for(name, "Stopped").await? - began;
    Ok((started, stopped))
}

fn virsh_itself(repeat: usize) -> Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..repeat {
        let began = Instant::now();
        output(command("virsh").args(["-c", "qemu:///system", "version"]))?;
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(crate::report::median(&samples).unwrap_or_default())
}
