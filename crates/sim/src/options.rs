//! What a run is: its seed, its size, and how often what goes wrong.

mod rates;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

pub use rates::Rates;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// All chance comes from it.
    pub seed: u64,
    /// Nodes, of which the first three (or five, of seven and more) are coordinators.
    pub nodes: usize,
    /// VMs that are defined from the beginning.
    pub vms: usize,
    /// How long it lasts, in its own time.
    pub hours: f64,
    /// Keepalives, and what follows from them.
    pub timing: Timing,
    /// `suicide_intervals`; with any, `failed_fence` is `migrate`.
    pub suicide_intervals: u32,
    /// The longest session that ZooKeeper's servers grant, in seconds; its default is 40.
    pub longest_session: u32,
    /// Client networks; each VM is in one of them.
    #[serde(default)]
    pub networks: usize,
    /// VMs' images are in a Ceph of its own; without, the storage does what it is asked, and nobody writes.
    #[serde(default)]
    pub storage: bool,
    /// How often what goes wrong.
    pub faults: Rates,
    /// Operators' commands an hour.
    pub commands: f64,
    /// How many others each of them has that contradict it at nearly the same time, on average.
    pub contradictions: f64,
}

/// How often a node says that it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Every 5 s; six may be missed.
    Default,
    /// Every second; three may be missed.
    Fast,
    /// Every 5 s; but every third node, as slow ones are advised to, every 30 s. Six may be missed.
    Mixed,
}

/// Seeds below this one choose no storage: they are what they were before there was any.
const OLDER: u64 = 1000;

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 5,
            vms: 40,
            hours: 24.0,
            timing: Timing::Default,
            suicide_intervals: 0,
            longest_session: 40,
            networks: 0,
            storage: false,
            faults: Rates::default(),
            commands: 60.0,
            contradictions: 0.2,
        }
    }
}

impl Options {
    /// As its seed would have it: small and large clusters, quick and slow ones, calm and stormy ones.
    #[must_use]
    pub fn varied(self) -> Self {
        let mut rng = Rng::new(self.seed).fork("options");
        let nodes = *rng.pick(&[3, 3, 4, 5, 5, 5, 7]).unwrap_or(&5);
        // A fast hour takes four times as long to simulate.
        let default = Timing::Default;
        let timing = *rng.pick(&[Timing::Fast, Timing::Mixed, default, default]).unwrap_or(&default);
        let suicide_intervals = *rng.pick(&[0, 0, 2, 4]).unwrap_or(&0);
        let factor = *rng.pick(&[0.3, 1.0, 1.0, 2.0, 4.0]).unwrap_or(&1.0);
        let mut faults = self.faults.times(factor);
        // Some kinds of faults alone show what all together hide.
        if rng.chance(0.4) {
            faults.each(|name, rate| {
                if !Rates::OF_STORAGE.contains(&name) {
                    *rate *= if rng.chance(0.3) { 3.0 } else { 0.0 };
                }
            });
        }
        // Of its own, so that what else is drawn stays what it was.
        if Rng::new(self.seed).fork("halts").chance(0.4) {
            (faults.panic_guest, faults.pause_guest, faults.io_error) =
                (2.0 * factor, 3.0 * factor, 3.0 * factor);
        }
        // Of its own, too.
        let networks = *Rng::new(self.seed).fork("networks").pick(&[0, 1, 2, 3]).unwrap_or(&0);
        // Of its own, too; and those that every commit has to pass are older.
        let storage = self.storage || self.seed >= OLDER && Rng::new(self.seed).fork("storage").chance(0.5);
        if storage {
            faults.of_storage(factor);
        }
        let vms = self.vms * nodes / 5;
        let commands = self.commands * rng.pick(&[0.2, 1.0, 3.0]).unwrap_or(&1.0);
        let longest_session = *rng.pick(&[40, 40, 40, 12, 8]).unwrap_or(&40);
        Self {
            nodes,
            vms,
            timing,
            suicide_intervals,
            longest_session,
            networks,
            storage,
            faults,
            commands,
            ..self
        }
    }

    /// How many of the nodes are coordinators.
    pub fn coordinators(&self) -> usize {
        if self.nodes >= 7 { 5 } else { self.nodes.min(3) }
    }

    /// How long faults happen at a stretch …
    pub fn chaos(&self) -> Duration {
        Duration::from_mins(40)
    }

    /// … and how long it is calm then: longer than a cluster may take to be as desired.
    pub fn calm(&self) -> Duration {
        Duration::from_mins(15)
    }
}

/// VMs that may be defined besides those that are from the beginning.
pub const SPARE: usize = 5;

/// The images of a VM, each `pool/image`: where nobody writes a third have one, else most, and some have two.
pub(crate) fn disks(number: usize, storage: bool) -> Vec<String> {
    let disks = match (storage, number % 4) {
        (false, _) if number.is_multiple_of(3) => 1,
        (false, _) | (true, 3) => 0,
        (true, 1) => 2,
        (true, _) => 1,
    };
    ["vm", "data"].into_iter().take(disks).map(|what| format!("vms/{what}{number}")).collect()
}

/// The memory of a VM, MiB.
pub(crate) fn vm_memory_mib(number: usize) -> u64 {
    [1024, 2048, 3072, 4096][number % 4]
}
