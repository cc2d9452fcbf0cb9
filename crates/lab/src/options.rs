//! What a lab is to be like. Written into the lab's folder, where the capsule and later commands read it again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::layout::{LabName, MAX_NODES, NodeNumber};

/// Our own programs on the nodes.
pub(crate) const PROGRAMS: [&str; 3] = ["pvcd", "pvc", "pvc-api"];

/// What a lab is made from. Start with [`LabOptions::new`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct LabOptions {
    /// The lab's name; labs of different names run side by side. See [`LabName`].
    pub name: String,
    /// How many nodes; 1 to 20.
    pub nodes: u8,
    /// The `pvc-lab` program, which becomes the capsule. Tests say `env!("CARGO_BIN_EXE_pvc-lab")`.
    pub executable: PathBuf,
    /// The folder of the `pvcd` and `pvc` that the nodes run. They are copied, so that a later build does not change
    /// a running lab.
    pub binaries: PathBuf,
    /// Whether the nodes run `pvcd`. Without it they still have ZooKeeper, libvirtd and a BMC.
    pub daemon: bool,
    /// Keepalives and fencing, as in pvcd.yaml.
    pub timings: Timings,
    /// `enable_networking` of pvcd.yaml.
    pub enable_networking: bool,
    /// `enable_api` of pvcd.yaml, with the packaged `pvc-api.service` on the nodes.
    /// What an older build left says nothing of it.
    #[serde(default)]
    pub enable_api: bool,
    /// `enable_storage` of pvcd.yaml, with a Ceph cluster beside the nodes.
    #[serde(default)]
    pub storage: bool,
    /// Whether the first node runs PostgreSQL, for the names of client networks.
    #[serde(default)]
    pub database: bool,
    /// `console_log_lines` of pvcd.yaml.
    pub console_log_lines: u32,
    /// How long the nodes may take until their services answer.
    pub boot_deadline: Duration,
}

/// The intervals of pvcd.yaml, in its units, and what follows a fence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timings {
    /// Seconds between keepalives.
    pub keepalive_interval_s: u32,
    /// Keepalives that may be missed before a node is fenced; 0 never fences.
    pub fence_intervals: u32,
    /// Keepalives that a node may miss before it resets itself; 0 never does.
    pub suicide_intervals: u32,
    /// `migrate` or `None`.
    pub successful_fence: String,
    /// `migrate` or `None`.
    pub failed_fence: String,
}

impl Timings {
    /// The silence after which the others take a node for dead.
    pub fn fence_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.keepalive_interval_s) * u64::from(self.fence_intervals))
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            keepalive_interval_s: 2,
            fence_intervals: 5,
            suicide_intervals: 0,
            successful_fence: "migrate".into(),
            failed_fence: "None".into(),
        }
    }
}

impl LabOptions {
    /// Three nodes with a daemon each. `executable` is the `pvc-lab` program; `pvcd` and `pvc` are taken from its folder.
    pub fn new(name: &str, executable: impl Into<PathBuf>) -> Self {
        let executable = executable.into();
        Self {
            name: name.into(),
            nodes: 3,
            binaries: executable.parent().unwrap_or(Path::new(".")).to_owned(),
            executable,
            daemon: true,
            timings: Timings::default(),
            enable_networking: true,
            enable_api: false,
            storage: false,
            database: false,
            console_log_lines: 1000,
            boot_deadline: Duration::from_mins(2),
        }
    }

    /// The same with `nodes` nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// The same with these intervals and fence actions.
    #[must_use]
    pub fn timings(mut self, timings: Timings) -> Self {
        self.timings = timings;
        self
    }

    /// The same with a Ceph cluster beside the nodes.
    #[must_use]
    pub fn with_storage(mut self) -> Self {
        self.storage = true;
        self
    }

    /// The same with PostgreSQL on the first node.
    #[must_use]
    pub fn with_database(mut self) -> Self {
        self.database = true;
        self
    }

    /// The same without `pvcd` on the nodes.
    #[must_use]
    pub fn without_daemon(mut self) -> Self {
        self.daemon = false;
        self
    }

    /// The checked name.
    pub fn lab_name(&self) -> Result<LabName> {
        self.name.parse()
    }

    /// Its nodes.
    pub fn node_numbers(&self) -> impl Iterator<Item = NodeNumber> + use<> {
        NodeNumber::first(self.nodes)
    }

    /// The nodes that run ZooKeeper: three, or one if there are fewer than three.
    pub fn coordinators(&self) -> impl Iterator<Item = NodeNumber> + use<> {
        NodeNumber::first(if self.nodes < 3 { 1 } else { 3 })
    }

    /// The programs of ours that its nodes cannot do without.
    pub(crate) fn programs(&self) -> Vec<&'static str> {
        let is_wanted = |name: &&str| if *name == "pvc-api" { self.enable_api } else { self.daemon };
        PROGRAMS.into_iter().filter(is_wanted).collect()
    }

    /// Refuses what cannot be built.
    pub fn check(&self) -> Result<()> {
        self.lab_name()?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            bail!("{} nodes: choose 1 to {MAX_NODES}", self.nodes);
        }
        for name in self.programs() {
            let path = self.binaries.join(name);
            path.metadata().with_context(|| {
                format!(
                    "no {}: run `cargo build -p pvcd -p pvc-cli -p pvc-api -p pvc-lab` first",
                    path.display()
                )
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinators_are_one_or_three() {
        for (nodes, coordinators) in [(1, 1), (2, 1), (3, 3), (5, 3)] {
            let options = LabOptions::new("x", "/x").nodes(nodes);
            assert_eq!(options.coordinators().count(), coordinators, "with {nodes} nodes");
        }
    }

    #[test]
    fn what_an_older_build_left_can_be_read() {
        let mut left = serde_json::to_value(LabOptions::new("x", "/x")).unwrap();
        left.as_object_mut().unwrap().remove("enable_api").unwrap();
        assert!(!serde_json::from_value::<LabOptions>(left).unwrap().enable_api);
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let fine = LabOptions::new("x", "/x").without_daemon();
        fine.check().unwrap();
        assert!(fine.clone().nodes(0).check().is_err());
        assert!(fine.clone().nodes(21).check().is_err());
        let missing = LabOptions { daemon: true, ..fine };
        assert!(missing.check().unwrap_err().to_string().contains("cargo build"));
    }
}
