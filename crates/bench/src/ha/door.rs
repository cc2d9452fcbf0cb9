//! Asks the HTTP API at a floating address, one request after the other, each over a connection of its own, and tells how long no good
//! answer came.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread::{Scope, ScopedJoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pvc_lab::{
    Cluster,
    layout::{API_PORT, API_TOKEN},
};

/// Between two requests.
const EVERY: Duration = Duration::from_millis(5);
/// A request that takes longer counts as unanswered: its address has gone, or its service.
const WITHIN: Duration = Duration::from_millis(250);

/// Asks until `stop`; the longest time from one good answer to the next.
pub(super) fn ask<'scope>(
    scope: &'scope Scope<'scope, '_>,
    cluster: &'scope Cluster,
    address: IpAddr,
    stop: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, Result<Duration>> {
    scope.spawn(move || cluster.lab.in_switch_network(|| longest_silence(address, stop)))
}

fn longest_silence(address: IpAddr, stop: &AtomicBool) -> Duration {
    let (mut heard, mut longest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        if answers(address).is_ok_and(|good| good) {
            longest = longest.max(heard.elapsed());
            heard = Instant::now();
        }
        sleep(EVERY);
    }
    longest.max(heard.elapsed())
}

/// Whether it answers with the list of the nodes.
pub(super) fn answers(address: IpAddr) -> Result<bool> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, API_PORT), WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    let request = format!(
        "GET /api/v2/nodes HTTP/1.1\r\nHost: {address}\r\nX-Api-Key: {API_TOKEN}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).context("no answer")?;
    Ok(status == *b"HTTP/1.1 200")
}
