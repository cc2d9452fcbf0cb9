//! What a run is: its seed, its size, and how often what goes wrong.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

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
            faults.each(|_, rate| *rate *= if rng.chance(0.3) { 3.0 } else { 0.0 });
        }
        // Of its own, so that what else is drawn stays what it was.
        if Rng::new(self.seed).fork("halts").chance(0.4) {
            (faults.panic_guest, faults.pause_guest, faults.io_error) =
                (2.0 * factor, 3.0 * factor, 3.0 * factor);
        }
        // Off until seed 22167536707567685 (invariant 11: a lease that is lost) is judged.
        let networks = 0;
        let vms = self.vms * nodes / 5;
        let commands = self.commands * rng.pick(&[0.2, 1.0, 3.0]).unwrap_or(&1.0);
        let longest_session = *rng.pick(&[40, 40, 40, 12, 8]).unwrap_or(&40);
        Self { nodes, vms, timing, suicide_intervals, longest_session, networks, faults, commands, ..self }
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

/// Faults an hour, of the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// A machine loses power for a while.
    pub power: f64,
    /// A machine is reset.
    pub reset: f64,
    /// All programs of a machine are frozen.
    pub freeze: f64,
    /// A daemon is frozen.
    pub freeze_daemon: f64,
    /// A daemon is killed.
    pub kill_daemon: f64,
    /// A daemon is stopped in order, and started later.
    pub stop_daemon: f64,
    /// Libvirt is restarted.
    pub restart_libvirt: f64,
    /// Libvirt hangs.
    pub freeze_libvirt: f64,
    /// A guest crashes.
    pub crash_guest: f64,
    /// A guest panics, and its process stays.
    pub panic_guest: f64,
    /// Somebody pauses a guest for a while.
    pub pause_guest: f64,
    /// A guest is stopped by an I/O error for a while.
    pub io_error: f64,
    /// VMs start, stop and travel badly for a while.
    pub bad_guests: f64,
    /// A node is cut off from all others.
    pub isolate: f64,
    /// A node is cut off from ZooKeeper's servers.
    pub cut_store: f64,
    /// A node is cut off from the other nodes' libvirts.
    pub cut_cluster: f64,
    /// A direction between two nodes is cut.
    pub cut_one_way: f64,
    /// A node's network comes and goes.
    pub flap: f64,
    /// The nodes fall apart into two halves.
    pub split: f64,
    /// A node does not reach BMCs.
    pub cut_bmcs: f64,
    /// A ZooKeeper server ends for a while.
    pub end_server: f64,
    /// ZooKeeper takes its time.
    pub slow_store: f64,
    /// A node loses answers of ZooKeeper.
    pub lose_answers: f64,
    /// A node's session is ended.
    pub expire: f64,
    /// A node reads old values.
    pub fall_behind: f64,
    /// A BMC does not answer, or slowly, or its answers are lost.
    pub mute_bmc: f64,
    /// A BMC does not power off, or takes its time.
    pub stubborn_bmc: f64,
    /// A BMC says what is not true.
    pub lying_bmc: f64,
    /// A wall clock jumps.
    pub clock: f64,
    /// Two machines lose power in the same instant.
    pub power_of_two: f64,
    /// A machine is reset whose libvirt starts some VM by itself.
    pub autostart: f64,
    /// A VM is started by hand.
    pub start_by_hand: f64,
    /// A VM is defined that runs already, unknown to the cluster.
    pub define_running: f64,
    /// A machine loses power while its daemon starts or stops.
    pub die_halfway: f64,
    /// A machine is reset, and its libvirt does not answer for a while after its boot.
    pub slow_start: f64,
    /// A machine breaks for good, at most one in a run, of five and more; its BMC perhaps with it.
    pub gone: f64,
    /// An operator says that a node is dead which comes back at once, and falls silent later.
    pub early_word: f64,
    /// An operator has a node fenced that lives.
    pub fence_living: f64,
    /// A key of a node or a VM holds what nobody can read for a while.
    pub garble: f64,
    /// An old client has a VM migrate to the node `None`.
    pub write_none: f64,
    /// An old client changes a definition, well or badly, and asks for a restart.
    pub modify: f64,
    /// A VM is undefined, defined again and started.
    pub redefine: f64,
    /// An old client undefines what runs on a node whose daemon says nothing, defines it on another and starts it.
    pub redefine_elsewhere: f64,
    /// A VM that was started by hand, unknown to the cluster, is defined and started elsewhere while its node's daemon says nothing.
    pub silent_stranger: f64,
    /// A node is flushed, and operators stop what leaves it, or was shut down by it.
    pub stop_in_flush: f64,
    /// Another machine boots from a copy of a node's disk, mostly while that node is not heard.
    pub clone: f64,
    /// A key of a node holds what nobody can read for a while, in which the node perhaps has no power.
    pub garble_node: f64,
    /// The primary's ZooKeeper server loses its leader, and another node shall be primary.
    pub deaf_primary: f64,
    /// Nodes do not learn whether they have promised a reset, and one of them is cut off in maintenance.
    pub lost_promise: f64,
    /// A machine is shut down in order, for minutes; or only its daemon stops for as long.
    pub shut_down: f64,
    /// A machine loses power for a while and comes back with an empty disk.
    pub reinstall: f64,
    /// A node is flushed while the claim of one of its VMs cannot be read.
    pub unreadable_in_flush: f64,
    /// A node has no libvirt for minutes.
    pub lose_libvirt: f64,
    /// A node cannot start any guest for minutes.
    pub lack: f64,
}

impl Default for Rates {
    /// Something goes wrong about every minute.
    fn default() -> Self {
        Self {
            power: 3.0,
            reset: 1.0,
            freeze: 2.0,
            freeze_daemon: 4.0,
            kill_daemon: 6.0,
            stop_daemon: 2.0,
            restart_libvirt: 4.0,
            freeze_libvirt: 2.0,
            crash_guest: 4.0,
            panic_guest: 0.0,
            pause_guest: 0.0,
            io_error: 0.0,
            bad_guests: 2.0,
            isolate: 2.0,
            cut_store: 2.0,
            cut_cluster: 2.0,
            cut_one_way: 4.0,
            flap: 1.0,
            split: 1.0,
            cut_bmcs: 2.0,
            end_server: 3.0,
            slow_store: 2.0,
            lose_answers: 6.0,
            expire: 3.0,
            fall_behind: 3.0,
            mute_bmc: 2.0,
            stubborn_bmc: 2.0,
            lying_bmc: 0.0,
            clock: 2.0,
            power_of_two: 0.5,
            autostart: 0.5,
            start_by_hand: 0.5,
            define_running: 0.5,
            die_halfway: 1.5,
            slow_start: 1.0,
            gone: 0.05,
            early_word: 1.0,
            fence_living: 0.5,
            garble: 0.0,
            write_none: 1.0,
            modify: 2.0,
            redefine: 1.0,
            redefine_elsewhere: 1.0,
            silent_stranger: 0.5,
            stop_in_flush: 2.0,
            clone: 0.5,
            garble_node: 1.0,
            deaf_primary: 0.5,
            lost_promise: 0.3,
            shut_down: 0.5,
            reinstall: 0.2,
            unreadable_in_flush: 0.0,
            lose_libvirt: 0.0,
            lack: 0.0,
        }
    }
}

impl Rates {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default().times(0.0)
    }

    /// All of it so many times as often.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        self.each(|_, rate| *rate *= factor);
        self
    }

    /// Every rate with its name.
    pub fn each(&mut self, mut f: impl FnMut(&'static str, &mut f64)) {
        f("power", &mut self.power);
        f("reset", &mut self.reset);
        f("freeze", &mut self.freeze);
        f("freeze_daemon", &mut self.freeze_daemon);
        f("kill_daemon", &mut self.kill_daemon);
        f("stop_daemon", &mut self.stop_daemon);
        f("restart_libvirt", &mut self.restart_libvirt);
        f("freeze_libvirt", &mut self.freeze_libvirt);
        f("crash_guest", &mut self.crash_guest);
        f("panic_guest", &mut self.panic_guest);
        f("pause_guest", &mut self.pause_guest);
        f("io_error", &mut self.io_error);
        f("bad_guests", &mut self.bad_guests);
        f("isolate", &mut self.isolate);
        f("cut_store", &mut self.cut_store);
        f("cut_cluster", &mut self.cut_cluster);
        f("cut_one_way", &mut self.cut_one_way);
        f("flap", &mut self.flap);
        f("split", &mut self.split);
        f("cut_bmcs", &mut self.cut_bmcs);
        f("end_server", &mut self.end_server);
        f("slow_store", &mut self.slow_store);
        f("lose_answers", &mut self.lose_answers);
        f("expire", &mut self.expire);
        f("fall_behind", &mut self.fall_behind);
        f("mute_bmc", &mut self.mute_bmc);
        f("stubborn_bmc", &mut self.stubborn_bmc);
        f("lying_bmc", &mut self.lying_bmc);
        f("clock", &mut self.clock);
        f("power_of_two", &mut self.power_of_two);
        f("autostart", &mut self.autostart);
        f("start_by_hand", &mut self.start_by_hand);
        f("define_running", &mut self.define_running);
        f("die_halfway", &mut self.die_halfway);
        f("slow_start", &mut self.slow_start);
        f("gone", &mut self.gone);
        f("early_word", &mut self.early_word);
        f("fence_living", &mut self.fence_living);
        f("garble", &mut self.garble);
        f("write_none", &mut self.write_none);
        f("modify", &mut self.modify);
        f("redefine", &mut self.redefine);
        f("redefine_elsewhere", &mut self.redefine_elsewhere);
        f("silent_stranger", &mut self.silent_stranger);
        f("stop_in_flush", &mut self.stop_in_flush);
        f("clone", &mut self.clone);
        f("garble_node", &mut self.garble_node);
        f("deaf_primary", &mut self.deaf_primary);
        f("lost_promise", &mut self.lost_promise);
        f("shut_down", &mut self.shut_down);
        f("reinstall", &mut self.reinstall);
        f("unreadable_in_flush", &mut self.unreadable_in_flush);
        f("lose_libvirt", &mut self.lose_libvirt);
        f("lack", &mut self.lack);
    }
}

impl FromStr for Rates {
    type Err = String;

    /// `none`, `default`, `storm` (five times as much), and after that `name=rate` of single faults, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut rates = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match (word, word.split_once('=')) {
                ("none", _) => rates = Self::none(),
                ("default", _) => rates = Self::default(),
                ("storm", _) => rates = Self::default().times(5.0),
                (_, Some((name, rate))) => {
                    let value: f64 =
                        rate.parse().map_err(|_| format!("{rate:?} is no rate (faults an hour)"))?;
                    let mut known = false;
                    rates.each(|one, rate| {
                        if one == name {
                            *rate = value;
                            known = true;
                        }
                    });
                    if !known {
                        return Err(format!("no fault is called {name}"));
                    }
                }
                _ => return Err(format!("{word:?}: none, default, storm, or a fault's name=rate")),
            }
        }
        Ok(rates)
    }
}

/// VMs that may be defined besides those that are from the beginning.
pub const SPARE: usize = 5;

/// The memory of a VM, MiB.
pub(crate) fn vm_memory_mib(number: usize) -> u64 {
    [1024, 2048, 3072, 4096][number % 4]
}
