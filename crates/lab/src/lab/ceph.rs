//! The lab's Ceph, from outside.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};

use super::Lab;
use crate::{
    devices::ceph::{POOL, SERVES},
    layout::{CEPH_KEYRING, CEPH_SECRET},
    node::Node,
    program::wait_until,
};

const DEADLINE: Duration = Duration::from_mins(1);

impl Lab {
    /// Waits until Ceph serves, and gives every node's libvirtd the key.
    pub(super) fn provide_ceph(&self) -> Result<()> {
        let folder = self.layout.ceph();
        let mut state = String::new();
        wait_until("Ceph", self.options.boot_deadline, || {
            state = fs::read_to_string(folder.join("state")).unwrap_or_default();
            !state.is_empty()
        })?;
        if state != SERVES {
            bail!("Ceph did not come up: {state}");
        }
        let keyring = fs::read_to_string(folder.join(CEPH_KEYRING)).context("Ceph's keyring")?;
        let key = keyring.lines().find_map(|line| line.trim().strip_prefix("key = "));
        let key = key.context("Ceph's keyring holds no key")?;
        self.nodes().iter().try_for_each(|node| give_key(node, key))
    }

    /// Makes an image of 16 MiB, all zeros; what definitions call it.
    pub fn create_image(&self, name: &str) -> Result<String> {
        let image = format!("{POOL}/{name}");
        self.run_ceph("/usr/bin/rbd", &["create", "--size", "16M", &image])?;
        Ok(image)
    }

    /// What `ceph` answers.
    pub fn ceph(&self, words: &[&str]) -> Result<String> {
        self.run_ceph("/usr/bin/ceph", words)
    }

    /// What `rados` answers.
    pub fn rados(&self, words: &[&str]) -> Result<String> {
        self.run_ceph("/usr/bin/rados", words)
    }

    /// What `rbd` answers.
    pub fn rbd(&self, words: &[&str]) -> Result<String> {
        self.run_ceph("/usr/bin/rbd", words)
    }

    fn run_ceph(&self, program: &str, words: &[&str]) -> Result<String> {
        let configuration = self.layout.ceph().join("ceph.conf").display().to_string();
        self.exec_in_switch(&[&[program, "-c", &configuration], words].concat(), DEADLINE)?.ok()
    }
}

/// It keeps it over its power cycles.
fn give_key(node: &Node, key: &str) -> Result<()> {
    let secret = format!(
        "<secret ephemeral='no' private='yes'><uuid>{CEPH_SECRET}</uuid><usage type='ceph'><name>client.admin</name></usage></secret>"
    );
    node.write_file("/etc/lab/secret.xml", secret.as_bytes())?;
    node.run(&["/usr/bin/virsh", "-q", "secret-define", "/etc/lab/secret.xml"], DEADLINE)?;
    // No secret: nothing outside the capsule reaches this Ceph.
    node.run(&["/usr/bin/virsh", "-q", "secret-set-value", CEPH_SECRET, key], DEADLINE)?;
    Ok(())
}
