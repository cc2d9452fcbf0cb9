//! Live migration: where to, how far it has come.

use std::{fmt, path::Path, time::Duration};

/// The port on which the 0.5 generation's nodes reach each other's libvirt.
const TCP_PORT: u16 = 16509;
/// The same with certificates on both sides.
const TLS_PORT: u16 = 16514;

/// Another node's hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its name or address on the cluster network (`<node>.<cluster domain>`). The guest's memory goes there, too.
    pub host: String,
    /// How the two libvirts talk.
    pub transport: Transport,
}

/// How libvirts of two nodes talk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// In the clear, port 16509: as the 0.5 generation, on a network that only the cluster uses.
    Tcp,
    /// With certificates on both sides, port 16514.
    Tls,
    /// A socket that both sides see as this path: for tests with several libvirtds on one machine.
    Socket(String),
}

impl Peer {
    /// The hypervisor of the node that the cluster network knows as `host`; TLS where this node's libvirt is set up for it.
    pub fn new(host: impl Into<String>) -> Self {
        Self { host: host.into(), transport: Transport::of_this_machine(Path::new("/")) }
    }

    /// Its libvirt's URI.
    pub fn uri(&self) -> String {
        match &self.transport {
            Transport::Tcp => format!("qemu+tcp://{}/system", self.host),
            Transport::Tls => format!("qemu+tls://{}/system", self.host),
            Transport::Socket(path) => format!("qemu+unix:///system?socket={path}"),
        }
    }

    /// Where the guest's memory is sent; the port is the target's choice.
    pub fn memory_uri(&self) -> String {
        format!("tcp://{}", self.host)
    }

    /// What a TCP connection is made to first, to find out quickly whether anybody is there.
    pub(super) fn address(&self) -> Option<(&str, u16)> {
        match self.transport {
            Transport::Tcp => Some((&self.host, TCP_PORT)),
            Transport::Tls => Some((&self.host, TLS_PORT)),
            Transport::Socket(_) => None,
        }
    }
}

impl Transport {
    /// TLS if the files that libvirt's client side looks for are there; the administrator put them there for this.
    pub fn of_this_machine(root: &Path) -> Self {
        let files = [
            "etc/pki/CA/cacert.pem",
            "etc/pki/libvirt/clientcert.pem",
            "etc/pki/libvirt/private/clientkey.pem",
        ];
        if files.iter().all(|file| root.join(file).exists()) { Self::Tls } else { Self::Tcp }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// A migration that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// From here to elsewhere.
    Leaving(Progress),
    /// From elsewhere to here: how far, only its source knows.
    Arriving,
}

/// How far a migration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Since its beginning.
    pub elapsed: Duration,
    /// Bytes there are to copy at all: the guest's memory.
    pub total: u64,
    /// Bytes sent so far. Memory that the guest changes meanwhile is sent again, so this may pass `total`.
    pub sent: u64,
    /// Bytes that have still to be sent as of now.
    pub remaining: u64,
}

impl Progress {
    /// How much of it is there, in percent.
    pub fn percent(&self) -> u64 {
        let done = self.total.saturating_sub(self.remaining);
        done.saturating_mul(100).checked_div(self.total).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_peer_is_reached_by_tcp_unless_this_machine_has_certificates() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Transport::of_this_machine(root.path()), Transport::Tcp);
        for file in ["etc/pki/CA/cacert.pem", "etc/pki/libvirt/clientcert.pem"] {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), "").unwrap();
        }
        assert_eq!(Transport::of_this_machine(root.path()), Transport::Tcp, "a certificate without its key");
        fs::create_dir_all(root.path().join("etc/pki/libvirt/private")).unwrap();
        fs::write(root.path().join("etc/pki/libvirt/private/clientkey.pem"), "").unwrap();
        assert_eq!(Transport::of_this_machine(root.path()), Transport::Tls);
        let peer = Peer { host: "hv2.pvc.local".into(), transport: Transport::Tls };
        assert_eq!(peer.uri(), "qemu+tls://hv2.pvc.local/system");
    }

    #[test]
    fn progress_of_nothing_is_no_division_by_zero() {
        assert_eq!(Progress::default().percent(), 0);
        let half = Progress { total: 200, remaining: 100, sent: 900, ..Progress::default() };
        assert_eq!(half.percent(), 50);
    }
}
