//! A real Ceph cluster beside the nodes: in the capsule, on the switch's end of the storage network, in memory.

use std::{fs, net::SocketAddrV4, thread};

use pvc_host::testing::ceph::CephCluster;

use crate::layout::{CEPH_PORT, Layout, Net};

/// The pool that there is.
pub use pvc_host::testing::ceph::POOL;

/// What the file `state` in its folder says once it serves; anything else is why it does not.
pub const SERVES: &str = "serves";

/// Starts it, in the background.
pub fn start(layout: &Layout) {
    let folder = layout.ceph();
    // Its programs end with the thread that started them.
    thread::spawn(move || {
        let monitor = SocketAddrV4::new(Net::Storage.switch(), CEPH_PORT);
        let cluster = CephCluster::start_at(folder.clone(), monitor);
        let said = cluster.as_ref().map_or_else(ToString::to_string, |_| SERVES.to_owned());
        let _ = fs::create_dir_all(&folder);
        let _ = fs::write(folder.join("state"), said);
        loop {
            thread::park();
        }
    });
}
