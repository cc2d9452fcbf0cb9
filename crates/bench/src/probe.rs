//! What can be read about a process and a server from outside, without disturbing them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use crate::capsule::ZOOKEEPER;

/// What a process occupies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub(crate) resident_mib: f64,
    /// Shared pages divided among those who share them.
    pub(crate) proportional_mib: f64,
    pub(crate) threads: f64,
}

/// CPU time that a process has used in all its threads, ended ones included.
pub(crate) fn cpu(pid: i32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).with_context(|| format!("no process {pid}"))?;
    Ok(clock_gettime(clock)?.into())
}

/// How often the kernel has woken the process: the voluntary context switches of all its threads that live.
pub(crate) fn wakes(pid: i32) -> Result<f64> {
    let mut wakes = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let key = "voluntary_ctxt_switches:";
        wakes += field(&status, key).with_context(|| format!("process {pid} shows no {key}"))?;
    }
    Ok(wakes)
}

pub(crate) fn size(pid: i32) -> Result<Size> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let read =
        |text: &str, key: &str| field(text, key).with_context(|| format!("process {pid} shows no {key}"));
    Ok(Size {
        resident_mib: read(&status, "VmRSS:")? / 1024.0,
        proportional_mib: read(&rollup, "Pss:")? / 1024.0,
        threads: read(&status, "Threads:")?,
    })
}

/// What ZooKeeper has served since it started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Served {
    /// Packets from clients: requests and pings.
    pub(crate) packets: f64,
}

/// A connection for one four-letter question.
pub(crate) fn zookeeper_socket() -> Result<TcpStream> {
    let stream = TcpStream::connect(ZOOKEEPER)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

pub(crate) fn zookeeper() -> Result<Served> {
    let mut stream = zookeeper_socket()?;
    stream.write_all(b"mntr")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let packets =
        field(&text, "zk_packets_received").context("ZooKeeper's mntr shows no zk_packets_received")?;
    Ok(Served { packets })
}

/// The number after the word `key`.
fn field(text: &str, key: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace().skip_while(|word| *word != key);
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_number_after_its_word() {
        let status = "Name:\tpvcd\nVmHWM:\t  9000 kB\nVmRSS:\t  8192 kB\nThreads:\t4\n";
        assert_eq!(field(status, "VmRSS:"), Some(8192.0));
        assert_eq!(field(status, "Threads:"), Some(4.0));
        assert_eq!(field(status, "Pss:"), None);
    }

    #[test]
    fn a_process_that_works_uses_cpu_time() {
        let me = i32::try_from(std::process::id()).unwrap();
        let before = cpu(me).unwrap();
        let mut sum = 0_u64;
        while cpu(me).unwrap() < before + Duration::from_millis(5) {
            sum = (0..10_000).fold(sum, u64::wrapping_add);
        }
        assert!(size(me).unwrap().resident_mib > 0.5, "{sum}");
        let woken = wakes(me).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        assert!(wakes(me).unwrap() > woken);
    }
}
