//! What the observers saw of a scenario, put together for its judges: all on one clock, all from outside.
//! Asks neither pvcd nor libvirt.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use crate::{
    cluster::{Cluster, Vm},
    devices::addresses::{Tenure, tenures},
    guest::Beat,
    layout::{Layout, Net},
    observers::tree::History,
};

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// The state tree.
    pub(super) history: History,
    /// QEMU processes.
    pub(super) lives: Vec<Life>,
    /// Who had each floating address.
    pub(super) tenures: BTreeMap<String, Vec<Tenure>>,
    /// What happened to machines: by the test, by BMCs, by watchdogs.
    pub(super) machines: Vec<Happening>,
    /// What each VM counted, on whatever node.
    pub(super) beats: BTreeMap<String, Vec<Beat>>,
    /// The nodes that the scenario gave the others reason to fence.
    pub(super) victims: BTreeSet<String>,
    /// What the scenario had somebody start behind the daemons' backs.
    pub(super) strangers: Vec<Stranger>,
    /// The nodes of which the scenario said that they are dead although they are not.
    pub(super) undead: BTreeSet<String>,
}

/// A VM's processes on a node where it does not belong, started by no daemon: its second one for as long as it is there.
#[derive(Clone, Debug)]
pub(super) struct Stranger {
    pub(super) node: String,
    pub(super) vm: String,
    /// Those that began after this are meant.
    pub(super) since: SystemTime,
    /// How long each may be there, suspended for nearly all of it.
    pub(super) within: Duration,
}

impl Stranger {
    pub(super) fn is(&self, life: &Life) -> bool {
        life.node == self.node && life.vm == self.vm && life.began >= self.since
    }
}

/// A QEMU process.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) node: String,
    pub(super) vm: String,
    pub(super) incoming: bool,
    pub(super) began: SystemTime,
    /// When it was surely there for the last time.
    pub(super) seen: SystemTime,
    /// Between which moments its guest executed last, if it did.
    pub(super) executed: Option<(SystemTime, SystemTime)>,
    pub(super) ended: Option<SystemTime>,
}

/// A line of the capsule's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) at: SystemTime,
    pub(super) what: String,
}

/// Two clocks, read at the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    instant: Instant,
    system: SystemTime,
}

impl Clock {
    pub(super) fn read() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }

    pub(super) fn at(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.system + later,
            None => self.system - self.instant.duration_since(instant),
        }
    }
}

impl Evidence {
    /// As it is now. The servers of ZooKeeper have to agree by then.
    pub(super) fn gather(cluster: &Cluster, clock: &Clock, vms: &[Vm]) -> Result<Self> {
        let lives = cluster.processes.all().into_iter().map(|run| Life {
            began: clock.at(run.began),
            seen: clock.at(run.seen),
            executed: run.executed.map(|(from, to)| (clock.at(from), clock.at(to))),
            ended: run.ended.map(|ended| clock.at(ended)),
            node: run.node,
            vm: run.vm,
            incoming: run.incoming,
        });
        let floating = [Net::Cluster, Net::Upstream].into_iter().flat_map(Net::floating);
        let nodes = cluster.lab.nodes();
        let beats = |vm: &Vm| nodes.iter().flat_map(|node| vm.beats(node)).collect();
        Ok(Self {
            history: History::of(&cluster.lab)?,
            lives: lives.collect(),
            tenures: floating
                .map(|ip| {
                    (ip.to_string(), tenures(cluster.lab.layout(), cluster.lab.options().node_numbers(), ip))
                })
                .collect(),
            machines: machines(cluster.lab.layout()),
            beats: vms.iter().map(|vm| (vm.name.clone(), beats(vm))).collect(),
            ..Self::default()
        })
    }
}

fn machines(layout: &Layout) -> Vec<Happening> {
    happenings(&fs::read_to_string(layout.capsule_log()).unwrap_or_default())
}

/// The lines that begin with a time; the others are what the capsule's programs print.
fn happenings(log: &str) -> Vec<Happening> {
    let read = |line: &str| {
        let (ms, what) = line.split_once(' ')?;
        let at = UNIX_EPOCH + Duration::from_millis(ms.parse().ok()?);
        Some(Happening { at, what: what.to_owned() })
    };
    log.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_tell_the_same_moment() {
        let clock = Clock::read();
        let second = Duration::from_secs(1);
        assert_eq!(clock.at(clock.instant + second), clock.system + second);
        assert_eq!(clock.at(clock.instant.checked_sub(second).unwrap()), clock.system - second);
    }

    #[test]
    fn only_lines_with_a_time_are_happenings() {
        let found = happenings("dnsmasq: started\n1500 PowerOff(1)\n");
        let at = UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(found, [Happening { at, what: "PowerOff(1)".into() }]);
    }
}
