//! A disk of a node: a loop device over a sparse file, which is gone when this is dropped.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{node::Node, program::run};

const DEADLINE: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub struct Disk {
    file: PathBuf,
    device: String,
}

impl Disk {
    /// Gives a running node a blank disk of so many bytes. It is there until the node is off.
    pub fn add(node: &Node, bytes: u64) -> Result<Self> {
        let file = node.layout.node(node.number).join("disk-of-osd");
        File::create_new(&file)
            .and_then(|file| file.set_len(bytes))
            .context("could not make the disk's file")?;
        let path = file.display().to_string();
        // Another lab may take the same one at the same moment.
        let find = || run("/sbin/losetup", ["--find", "--show", &path], DEADLINE);
        let device = find().or_else(|_| find()).or_else(|_| find())?.trim().to_owned();
        let this = Self { file, device };
        let number = this.device.trim_start_matches(|c: char| !c.is_ascii_digit());
        node.run(&["/usr/bin/mknod", &this.device, "b", "7", number], DEADLINE)?;
        Ok(this)
    }

    /// By what name the node has it.
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("/sbin/losetup", ["--detach", &self.device], DEADLINE);
        let _ = fs::remove_file(&self.file);
    }
}
