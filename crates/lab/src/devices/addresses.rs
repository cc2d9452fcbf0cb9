//! An outside observer of addresses: which node had which one, from when to when, as the nodes' kernels tell it.
//!
//! Beside every node, in its network but not among its processes, runs an `ip monitor` as long as the node has power. It goes on
//! while the node is frozen; when the power is cut, the switch notes that all is gone.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::IpAddr,
    process::{Child, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use chrono::NaiveDateTime;

use crate::{
    layout::{Layout, NodeNumber},
    program::command,
};

/// In front of the time, in milliseconds since 1970, at which a node's network was gone.
const OFF: &str = "=== off ";

/// For how long a node had an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The node.
    pub node: String,
    /// Since when.
    pub came: SystemTime,
    /// Until when; `None`: it still has it.
    pub went: Option<SystemTime>,
}

/// All tenures of an address, node by node, each in order.
pub fn tenures(layout: &Layout, nodes: impl Iterator<Item = NodeNumber>, address: IpAddr) -> Vec<Tenure> {
    let of_node = |node: NodeNumber| {
        let log = fs::read_to_string(layout.addresses(node)).unwrap_or_default();
        tenures_in(&log, &node.to_string(), address)
    };
    nodes.flat_map(of_node).collect()
}

/// Begins to take notes of a node that is being switched on. Runs in the capsule.
pub fn watch(layout: &Layout, node: NodeNumber) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(layout.addresses(node))?;
    command("/sbin/ip")
        .args(["-n", &node.to_string(), "-ts", "-o", "monitor", "address"])
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .context("could not start ip monitor")
}

/// Ends the notes of a node whose network is gone.
pub fn unwatch(layout: &Layout, node: NodeNumber, mut watching: Child) -> Result<()> {
    watching.kill()?;
    watching.wait()?;
    let mut log = OpenOptions::new().append(true).open(layout.addresses(node))?;
    Ok(writeln!(log, "{OFF}{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn tenures_in(log: &str, node: &str, address: IpAddr) -> Vec<Tenure> {
    let mut tenures: Vec<Tenure> = Vec::new();
    for line in log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let Some((at, here)) = read(line, address) else { continue };
        let held = tenures.last_mut().filter(|tenure| tenure.went.is_none());
        match (here, held) {
            (true, None) => tenures.push(Tenure { node: node.to_owned(), came: at, went: None }),
            (false, Some(tenure)) => tenure.went = Some(at),
            // Lifetimes that are made longer; what went before the power did.
            (true, Some(_)) | (false, None) => {}
        }
    }
    tenures
}

/// When the address came or was confirmed (`true`), or went.
fn read(line: &str, address: IpAddr) -> Option<(SystemTime, bool)> {
    if let Some(ms) = line.strip_prefix(OFF) {
        return Some((UNIX_EPOCH + Duration::from_millis(ms.parse().ok()?), false));
    }
    let (at, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let gone = rest.starts_with("Deleted ");
    let mut words = rest.split_whitespace().skip_while(|word| !matches!(*word, "inet" | "inet6")).skip(1);
    let (found, _) = words.next()?.split_once('/')?;
    (found.parse() == Ok(address)).then(|| Some((time(at)?, !gone)))?
}

/// `2026-11-25T13:37:53.193247`, in UTC.
fn time(text: &str) -> Option<SystemTime> {
    Some(NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?.and_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time("1970-01-01T00:00:00.000000"), Some(at(0)));
        assert_eq!(time("2024-02-29T23:59:59.250000"), Some(at(1_709_251_199_250)));
        assert_eq!(time("2026-11-25T13:37:53.193000"), Some(at(1_795_613_873_193)));
        assert_eq!(time("yesterday"), None);
    }

    #[test]
    fn a_tenure_ends_with_the_address_or_with_the_power() {
        let log = "\
[1970-01-01T00:00:01.000000] 2: eth0    inet 10.1.1.1/24 scope global eth0\\       valid_lft forever
[1970-01-01T00:00:02.000000] 2: eth0    inet 10.1.1.9/24 scope global eth0\\       valid_lft 9sec
[1970-01-01T00:00:03.000000] 2: eth0    inet 10.1.1.9/24 scope global eth0\\       valid_lft 9sec
[1970-01-01T00:00:04.000000] Deleted 2: eth0    inet 10.1.1.9/24 scope global eth0\\       valid_lft 9sec
[1970-01-01T00:00:05.000000] 2: eth0    inet 10.1.1.9/24 scope global eth0\\       valid_lft 9sec
=== off 6000
=== off 7000
[1970-01-01T00:00:08.000000] 2: eth0    inet 10.1.1.9/24 scope glo";
        let tenure = |came, went| Tenure { node: "node1".into(), came: at(came), went: Some(at(went)) };
        let found = tenures_in(log, "node1", "10.1.1.9".parse().unwrap());
        assert_eq!(found, [tenure(2000, 4000), tenure(5000, 6000)]);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let log = "[1970-01-01T00:00:01.000000] 1: lo    inet6 fd00::1/64 scope global nodad \\  valid_lft\n";
        assert_eq!(tenures_in(log, "node2", "fd00::1".parse().unwrap()).len(), 1);
    }
}
