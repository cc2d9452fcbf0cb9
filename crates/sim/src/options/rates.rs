//! How often what goes wrong.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    /// A machine boots whose daemon is not heard, while its VMs wait for room, and some of them are started there by hand.
    #[serde(default)]
    pub boots_unheard: f64,
    /// A node is flushed while the claim of one of its VMs cannot be read.
    pub unreadable_in_flush: f64,
    /// A node has no libvirt for minutes.
    pub lose_libvirt: f64,
    /// A node cannot start any guest for minutes.
    pub lack: f64,
    /// Ceph's monitors take their time.
    #[serde(default)]
    pub slow_ceph: f64,
    /// Ceph's monitors do not answer.
    #[serde(default)]
    pub ceph_down: f64,
    /// Ceph refuses to shut anybody out.
    #[serde(default)]
    pub refuse_blocklist: f64,
    /// Answers of Ceph are lost.
    #[serde(default)]
    pub lose_ceph_answers: f64,
    /// An OSD takes its time.
    #[serde(default)]
    pub slow_osd: f64,
    /// OSDs learn late whom the monitors have shut out.
    #[serde(default)]
    pub old_maps: f64,
    /// A node does not reach Ceph.
    #[serde(default)]
    pub cut_storage: f64,
    /// A node that is silent writes on, its BMC says that it is off, and somebody lets in whoever was shut out.
    #[serde(default)]
    pub liar: f64,
    /// An operator lets in all whose processes are proven dead.
    #[serde(default)]
    pub lift: f64,
    /// An operator has the locks of a VM taken.
    #[serde(default)]
    pub flush_locks: f64,
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
            boots_unheard: 0.3,
            unreadable_in_flush: 0.0,
            lose_libvirt: 0.0,
            lack: 0.0,
            slow_ceph: 0.0,
            ceph_down: 0.0,
            refuse_blocklist: 0.0,
            lose_ceph_answers: 0.0,
            slow_osd: 0.0,
            old_maps: 0.0,
            cut_storage: 0.0,
            liar: 0.0,
            lift: 0.0,
            flush_locks: 0.0,
        }
    }
}

impl Rates {
    /// Those that only clusters with storage have.
    pub(super) const OF_STORAGE: [&'static str; 10] = [
        "slow_ceph",
        "ceph_down",
        "refuse_blocklist",
        "lose_ceph_answers",
        "slow_osd",
        "old_maps",
        "cut_storage",
        "liar",
        "lift",
        "flush_locks",
    ];

    /// What goes wrong with storage, so many times as often as by default.
    pub fn of_storage(&mut self, factor: f64) {
        self.slow_ceph = 2.0 * factor;
        self.ceph_down = 1.0 * factor;
        self.refuse_blocklist = 2.0 * factor;
        self.lose_ceph_answers = 2.0 * factor;
        self.slow_osd = 3.0 * factor;
        self.old_maps = 3.0 * factor;
        self.cut_storage = 2.0 * factor;
        self.liar = 3.0 * factor;
        self.lift = 3.0 * factor;
        self.flush_locks = 2.0 * factor;
    }

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
        f("boots_unheard", &mut self.boots_unheard);
        f("unreadable_in_flush", &mut self.unreadable_in_flush);
        f("lose_libvirt", &mut self.lose_libvirt);
        f("lack", &mut self.lack);
        f("slow_ceph", &mut self.slow_ceph);
        f("ceph_down", &mut self.ceph_down);
        f("refuse_blocklist", &mut self.refuse_blocklist);
        f("lose_ceph_answers", &mut self.lose_ceph_answers);
        f("slow_osd", &mut self.slow_osd);
        f("old_maps", &mut self.old_maps);
        f("cut_storage", &mut self.cut_storage);
        f("liar", &mut self.liar);
        f("lift", &mut self.lift);
        f("flush_locks", &mut self.flush_locks);
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
