//! A door into the lab: the API's floating address, reached by this machine's loopback, so that a browser here shows the page.
//! Its process is in the lab's cgroup and ends with it.

use std::{
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::Stdio,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::setsid;

use crate::{
    layout::{API_PORT, Layout, Net},
    machine::{cgroup::Cgroup, network::in_network_of},
    program::command,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Two files and two threads each; a browser needs a dozen. More are turned away, or this process would run out of files.
const MOST_AT_ONCE: usize = 200;

/// Opens it; where.
pub fn open(layout: &Layout) -> Result<SocketAddr> {
    let child = command(layout.program())
        .args(["internal", "door", &layout.name().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("could not start the door")?;
    let mut line = String::new();
    BufReader::new(child.stdout.context("it has no output")?).read_line(&mut line)?;
    line.trim().parse().context("the door does not open")
}

/// Is the door, for ever: at the API's own port if that is free. Says its address once.
pub fn keep(layout: &Layout) -> Result<()> {
    let lab = Cgroup::top(&layout.cgroup())?;
    let cgroup = lab.child("door");
    cgroup.create()?;
    cgroup.join()?;
    // Fails only for who leads a session already.
    let _ = setsid();
    let loopback = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let door = loopback(API_PORT).or_else(|_| loopback(0)).context("no port is free")?;
    println!("{}", door.local_addr()?);
    let places = Arc::new(());
    for outside in door.incoming().flatten() {
        let place = Arc::clone(&places);
        if Arc::strong_count(&places) > MOST_AT_ONCE + 1 {
            continue;
        }
        let capsule = lab.child("capsule");
        thread::spawn(move || {
            // Who comes in finds nobody there, or the connection ends: their browser says so, and tries again.
            let _ = pass(&outside, &capsule);
            drop(place);
        });
    }
    Ok(())
}

fn pass(outside: &TcpStream, capsule: &Cgroup) -> Result<()> {
    let [floating, _] = Net::Upstream.floating();
    let to = SocketAddr::new(floating, API_PORT);
    let init = capsule.init().context("the lab is not up")?;
    let inside = in_network_of(init, || TcpStream::connect_timeout(&to, CONNECT_WITHIN))??;
    thread::scope(|scope| {
        scope.spawn(|| copy(outside, &inside));
        copy(&inside, outside);
    });
    Ok(())
}

/// Until either side ends; then both do.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
