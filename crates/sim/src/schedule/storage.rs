//! What goes wrong with storage: faults of Ceph, and silent nodes that write on.

use std::time::Duration;

use super::{Bmc, Command, Fault, What, ms};
use crate::{
    event::Net,
    options::Options,
    physics::ceph::{CephFault, OSDS},
    rng::Rng,
};

/// The steps of a story of that name, in the order of their times.
pub(super) fn story(rng: &Rng, name: &str, options: &Options) -> Vec<(Duration, What)> {
    let rng = &mut rng.fork("storage");
    let s = Duration::from_secs;
    let (node, vm) = (rng.below(options.nodes), rng.below(options.vms));
    let lasts = if rng.chance(0.5) { rng.time(s(1), s(20)) } else { rng.time(s(20), s(200)) };
    let slow = ms(rng.time(s(1), s(40)));
    let fault = match name {
        "slow_ceph" => CephFault::Slow(slow),
        "ceph_down" => CephFault::Down,
        "refuse_blocklist" => CephFault::RefusesBlocklist,
        "lose_ceph_answers" => CephFault::AnswersAreLost,
        "slow_osd" => CephFault::SlowOsd(rng.below(OSDS), slow),
        "old_maps" => CephFault::OldMaps,
        "cut_storage" => CephFault::Cut(node),
        "liar" => return liar(rng, node),
        "lift" => return vec![(Duration::ZERO, What::Command(Command::LiftShutOuts))],
        "flush_locks" => return vec![(Duration::ZERO, What::Command(Command::FlushLocks(vm)))],
        _ => return Vec::new(),
    };
    vec![(Duration::ZERO, What::Fault(Fault::Ceph(fault), ms(lasts)))]
}

/// A node falls silent whose BMC says that it is off: its VMs start elsewhere while it writes on, at once or when it goes on. Nothing but the
/// storage keeps it from that. Meanwhile Ceph may not shut anybody out, and operators tidy up.
fn liar(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let lasts = rng.time(s(60), s(400));
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let bmc = if rng.chance(0.8) { Bmc::OffIsALie } else { Bmc::ResetIsALie };
    let mut steps = vec![fault(s(0), Fault::Bmc(node, bmc), lasts + s(60))];
    let silences = [
        Fault::Freeze(node),
        Fault::Freeze(node),
        Fault::Isolate(node),
        Fault::CutNet(Net::Store, node),
        Fault::FreezeDaemon(node),
    ];
    steps.push(fault(s(1), *rng.pick(&silences).unwrap_or(&Fault::Freeze(node)), lasts));
    let also =
        [CephFault::RefusesBlocklist, CephFault::OldMaps, CephFault::Cut(node), CephFault::AnswersAreLost];
    for ceph in also {
        let (after, lasts) = (rng.time(s(1), s(60)), rng.time(s(10), lasts));
        if rng.chance(0.25) {
            steps.push(fault(after, Fault::Ceph(ceph), lasts));
        }
    }
    steps.push((lasts.mul_f64(0.8), What::Command(Command::LiftShutOuts)));
    steps.sort_by_key(|(at, _)| *at);
    steps
}
