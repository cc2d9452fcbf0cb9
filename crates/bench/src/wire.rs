//! What goes over a daemon's connection to ZooKeeper, as the kernel and the server count it.

use std::{
    io::{Read, Write},
    ops::Sub,
};

use anyhow::{Context, Result};

use crate::{
    probe::zookeeper_socket,
    program::{command, output},
};

/// Since the connection was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wire {
    /// Requests, pings included.
    pub(crate) requests: f64,
    /// Answers and events.
    pub(crate) told: f64,
    /// Segments of TCP, both directions.
    pub(crate) packets: f64,
    /// What TCP carried, both directions, without its headers.
    pub(crate) bytes: f64,
}

impl Sub for Wire {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            told: self.told - before.told,
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// Of the connection that a process has.
pub(crate) fn of(pid: i32) -> Result<Wire> {
    let sockets = output(command("ss").args(["-tinpHO", "state", "established", "dport", "=", ":2181"]))?;
    let mut stream = zookeeper_socket()?;
    stream.write_all(b"cons")?;
    let mut connections = String::new();
    stream.read_to_string(&mut connections)?;
    wire(&sockets, &connections, pid)
        .with_context(|| format!("process {pid} has no connection: {sockets}{connections}"))
}

fn wire(sockets: &str, connections: &str, pid: i32) -> Option<Wire> {
    let owner = format!("pid={pid},");
    let socket = sockets.lines().find(|line| line.contains(&owner))?;
    let local = socket.split_ascii_whitespace().find(|word| word.contains(':') && !word.contains('('))?;
    let port = local.rsplit(':').next()?;
    let connection = connections.lines().find(|line| line.contains(&format!(":{port}[")))?;
    let of_socket = |key: &str| number_after(socket, key);
    let of_server = |key: &str| number_after(connection, key);
    Some(Wire {
        requests: of_server("recved=")?,
        told: of_server("sent=")?,
        packets: of_socket("segs_out:")? + of_socket("segs_in:")?,
        bytes: of_socket("bytes_sent:")? + of_socket("bytes_received:")?,
    })
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    let (_, rest) = text.split_once(key)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_connection_is_found_on_both_sides() {
        let sockets = "0 0 127.0.0.1:4000 127.0.0.1:2181 users:((\"a\",pid=7,fd=9)) cubic bytes_sent:1 bytes_received:2 segs_out:3 segs_in:4\n\
             0 0 127.0.0.1:4001 127.0.0.1:2181 users:((\"b\",pid=77,fd=9)) cubic bytes_sent:10 bytes_acked:11 bytes_received:20 segs_out:30 segs_in:40\n";
        let connections = " /127.0.0.1:4000[1](queued=0,recved=5,sent=6,sid=0x1)\n /127.0.0.1:4001[1](queued=0,recved=50,sent=60,sid=0x2)\n";
        let found = Wire { requests: 50.0, told: 60.0, packets: 70.0, bytes: 30.0 };
        assert_eq!(wire(sockets, connections, 77), Some(found));
        assert_eq!(wire(sockets, connections, 8), None);
    }
}
