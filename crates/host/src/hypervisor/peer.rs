//! Where a live migration goes: another node's hypervisor.

use std::{fmt, path::Path};

use crate::certificate::Pair;

/// The port on which the 0.5 generation's nodes reach each other's libvirt.
const TCP_PORT: u16 = 16509;
/// The same with certificates on both sides.
const TLS_PORT: u16 = 16514;

/// Where libvirt looks unless it is told otherwise: who is believed, what its client side shows, and what its daemon does.
const AUTHORITY: &str = "etc/pki/CA/cacert.pem";
const CLIENT: [&str; 2] = ["etc/pki/libvirt/clientcert.pem", "etc/pki/libvirt/private/clientkey.pem"];
const DAEMON: [&str; 2] = ["etc/pki/libvirt/servercert.pem", "etc/pki/libvirt/private/serverkey.pem"];

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
    pub fn address(&self) -> Option<(&str, u16)> {
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
        let [certificate, key] = CLIENT;
        let are_there = [AUTHORITY, certificate, key].iter().all(|file| root.join(file).exists());
        if are_there { Self::Tls } else { Self::Tcp }
    }

    /// The certificates that migrations from and to this machine depend on; none where they are in the clear. A daemon that is told to look
    /// elsewhere for its own has none where it is looked for here.
    pub fn certificates(root: &Path) -> Vec<Pair> {
        if Self::of_this_machine(root) == Self::Tcp {
            return Vec::new();
        }
        let pair = |[certificate, key]: [&str; 2]| Pair {
            certificate: root.join(certificate),
            key: Some(root.join(key)),
        };
        let has_own = DAEMON.iter().any(|file| root.join(file).exists());
        let authority = Pair { certificate: root.join(AUTHORITY), key: None };
        [authority, pair(CLIENT)].into_iter().chain(has_own.then(|| pair(DAEMON))).collect()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
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
        let names = |pairs: Vec<Pair>| {
            let name = |pair: &Pair| pair.certificate.file_stem().unwrap().to_str().unwrap().to_owned();
            pairs.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(Transport::certificates(root.path())), ["cacert", "clientcert"]);
        fs::write(root.path().join(DAEMON[1]), "").unwrap();
        assert_eq!(names(Transport::certificates(root.path())), ["cacert", "clientcert", "servercert"]);
        fs::remove_file(root.path().join(CLIENT[1])).unwrap();
        assert_eq!(Transport::certificates(root.path()), []);
        let peer = Peer { host: "hv2.pvc.local".into(), transport: Transport::Tls };
        assert_eq!(peer.uri(), "qemu+tls://hv2.pvc.local/system");
    }
}
