//! Carries out what goes wrong, and undoes it when its time is over.

mod halted;
mod unkind;

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use pvc_host::{
    hypervisor::{Activity, Seen},
    power::fake::{Off, Reach, Reset},
};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    event::{Event, Net},
    parts::{
        hypervisor::FaultRates,
        power::{RESET, bmc},
    },
    physics::network::Number,
    schedule::{Bmc, Command, Fault},
    tree::Tree,
    workload,
};

/// How VMs behave while they behave badly.
const BAD: FaultRates = FaultRates {
    start_fails: 0.1,
    button_ignored: 0.3,
    never_converges: 0.2,
    fails_at_switch: 0.2,
    reply_lost: 0.2,
    answer_lost: 0.1,
};

/// A fault from its beginning to its end.
pub async fn happen(cluster: Arc<Cluster>, fault: Fault, lasts: Duration) {
    let tell =
        |begins| cluster.around.journal.tell(Event::Fault { text: format!("{fault} for {lasts:?}"), begins });
    tell(true);
    match fault {
        Fault::Power(node) => out_of_power(&cluster, &[node], lasts).await,
        Fault::ShortPower(node) => {
            cluster.nodes[node].boots_quickly();
            out_of_power(&cluster, &[node], lasts).await;
        }
        Fault::PowerOfTwo(a, b) => out_of_power(&cluster, &[a, b], lasts).await,
        Fault::Reset(node) => {
            plug(&cluster, node, false);
            plug(&cluster, node, true);
        }
        Fault::Freeze(node) => {
            cluster.nodes[node].freeze(true);
            sleep(lasts).await;
            cluster.nodes[node].freeze(false);
        }
        Fault::FreezeDaemon(node) => {
            cluster.nodes[node].freeze_daemon(true);
            sleep(lasts).await;
            cluster.nodes[node].freeze_daemon(false);
        }
        Fault::KillDaemon(node) => cluster.nodes[node].kill_daemon(),
        Fault::StopDaemon(node) => {
            cluster.nodes[node].stop_daemon();
            sleep(lasts).await;
            cluster.nodes[node].start_daemon();
        }
        Fault::RestartLibvirt(node) => {
            cluster.nodes[node].end_libvirt(true);
            sleep(lasts).await;
            cluster.nodes[node].end_libvirt(false);
        }
        Fault::FreezeLibvirt(node) => {
            cluster.nodes[node].freeze_libvirt(true);
            sleep(lasts).await;
            cluster.nodes[node].freeze_libvirt(false);
        }
        Fault::Lack(node) => {
            cluster.nodes[node].lacks(true);
            sleep(lasts).await;
            cluster.nodes[node].lacks(false);
        }
        Fault::CrashGuest(vm) => {
            for node in &cluster.nodes {
                node.crash_guest(cluster.vms[vm]);
            }
        }
        Fault::BadGuests => {
            behave(&cluster, BAD);
            sleep(lasts).await;
            behave(&cluster, FaultRates::GOOD);
        }
        Fault::Isolate(_) | Fault::CutNet(..) | Fault::CutOneWay(..) | Fault::Split(_) => {
            let cuts = directions(&cluster, fault);
            cut(&cluster, &cuts);
            sleep(lasts).await;
            mend(&cluster, &cuts);
        }
        Fault::Flap(node) => flap(&cluster, node, lasts).await,
        Fault::EndServer(node) => {
            cluster.around.ensemble.down(node, true);
            sleep(lasts).await;
            cluster.around.ensemble.down(node, false);
        }
        Fault::SlowStore(ms) => {
            cluster.around.ensemble.set_latency(Some([Duration::from_millis(1), Duration::from_millis(ms)]));
            sleep(lasts).await;
            cluster.around.ensemble.set_latency(None);
        }
        Fault::LoseAnswers(node, count) => cluster.around.ensemble.lose_answers(node, count),
        Fault::Expire(node) => cluster.around.ensemble.expire(node),
        Fault::FallBehind(node) => {
            cluster.around.ensemble.fall_behind(node);
            // A follower that is behind for longer leaves the quorum.
            sleep(lasts.min(Duration::from_secs(8))).await;
            cluster.around.ensemble.catch_up(node);
        }
        Fault::Bmc(node, matter) => {
            set_bmc(&cluster, node, Some(matter));
            sleep(lasts).await;
            set_bmc(&cluster, node, None);
        }
        Fault::Clock(node, by_s) => jump_clock(&cluster, node, by_s, lasts).await,
        Fault::Autostart(node, vm) => {
            cluster.nodes[node].leave_autostart(guest(&cluster, vm));
            cluster.nodes[node].boots_quickly();
            plug(&cluster, node, false);
            plug(&cluster, node, true);
        }
        Fault::StartByHand(node, vm) => drop(cluster.nodes[node].start_by_hand(guest(&cluster, vm))),
        Fault::StartOwnByHand(node, which) => start_own(&cluster, node, which),
        Fault::DefineRunning(node, vm) => define_running(&cluster, node, vm, lasts).await,
        _ => unkind::happen(&cluster, fault, lasts).await,
    }
    tell(false);
}

async fn define_running(cluster: &Arc<Cluster>, node: Number, vm: usize, lasts: Duration) {
    let known = cluster.around.journal.tree(|tree| tree.vms().any(|known| known == cluster.vms[vm]));
    if !known && cluster.nodes[node].start_by_hand(guest(cluster, vm)) {
        // Its node may not have said yet that it runs there.
        sleep(lasts.min(Duration::from_secs(20))).await;
        workload::perform(Arc::clone(cluster), 0, Command::Define(vm)).await;
    }
}

/// `virsh create` of one of those that shall run on a node.
fn start_own(cluster: &Cluster, node: Number, which: usize) {
    let own = own_vms(cluster, node);
    if let Some(vm) = own.get(which % own.len().max(1)) {
        cluster.nodes[node].start_by_hand(guest(cluster, *vm));
    }
}

/// The VMs that shall run on a node.
fn own_vms(cluster: &Cluster, node: Number) -> Vec<usize> {
    let name = &cluster.nodes[node].name;
    let is_there = |tree: &Tree, number: &usize| {
        let id = cluster.vms[*number];
        tree.vm(id, "node") == name.as_str() && tree.vm(id, "state") == "start"
    };
    cluster
        .around
        .journal
        .tree(|tree| (0..cluster.vms.len()).filter(|number| is_there(tree, number)).collect())
}

/// A VM as plain libvirt runs it.
fn guest(cluster: &Cluster, vm: usize) -> Seen {
    let memory_mib = crate::options::vm_memory_mib(vm);
    let name = format!("vm{vm}");
    Seen { id: cluster.vms[vm], name, activity: Activity::Running, memory_mib, vcpus: 2 }
}

/// What an operator does when the storm is over: power is on everywhere.
pub fn repair(cluster: &Cluster) {
    for node in (0..cluster.nodes.len()).filter(|node| cluster.gone() != Some(*node)) {
        plug(cluster, node, true);
    }
}

fn plug(cluster: &Cluster, node: Number, on: bool) {
    // Other faults of a machine that is broken end, too.
    if on && cluster.gone() == Some(node) {
        return;
    }
    cluster.around.power.plug(&bmc(&cluster.nodes[node].name), on);
}

async fn jump_clock(cluster: &Cluster, node: Number, by_s: i64, lasts: Duration) {
    cluster.nodes[node].jump_clock(by_s);
    sleep(lasts).await;
    cluster.nodes[node].jump_clock(-by_s);
}

async fn out_of_power(cluster: &Cluster, nodes: &[Number], lasts: Duration) {
    for node in nodes {
        plug(cluster, *node, false);
    }
    sleep(lasts).await;
    for node in nodes {
        plug(cluster, *node, true);
    }
}

fn behave(cluster: &Cluster, fault_rates: FaultRates) {
    *cluster.around.fault_rates.lock().unwrap_or_else(PoisonError::into_inner) = fault_rates;
}

/// The directions that a fault cuts.
fn directions(cluster: &Cluster, fault: Fault) -> Vec<(Net, Number, Number)> {
    let both = |net, a, b| [(net, a, b), (net, b, a)];
    let between = [Net::Store, Net::Cluster];
    match fault {
        Fault::Isolate(node) => {
            let others = cluster.others(node).flat_map(|other| between.map(|net| both(net, node, other)));
            others.flatten().collect()
        }
        // A BMC's own node reaches it by the same network as all others.
        Fault::CutNet(Net::Bmc, node) => {
            (0..cluster.nodes.len()).map(|other| (Net::Bmc, node, other)).collect()
        }
        Fault::CutNet(Net::Store, node) => {
            let servers = cluster.around.ensemble.servers();
            servers
                .into_iter()
                .filter(|server| *server != node)
                .flat_map(|server| both(Net::Store, node, server))
                .collect()
        }
        Fault::CutNet(net, node) => cluster.others(node).flat_map(|other| both(net, node, other)).collect(),
        Fault::CutOneWay(net, from, to) => vec![(net, from, to)],
        Fault::Split(sides) => {
            let side = |node: Number| sides >> node & 1;
            let pairs = (0..cluster.nodes.len()).flat_map(|a| cluster.others(a).map(move |b| (a, b)));
            let apart = pairs.filter(|(a, b)| side(*a) != side(*b));
            apart.flat_map(|(a, b)| between.map(|net| (net, a, b))).collect()
        }
        _ => Vec::new(),
    }
}

fn cut(cluster: &Cluster, directions: &[(Net, Number, Number)]) {
    for (net, from, to) in directions {
        cluster.around.network.cut(*net, *from, *to);
    }
}

fn mend(cluster: &Cluster, directions: &[(Net, Number, Number)]) {
    for (net, from, to) in directions {
        cluster.around.network.mend(*net, *from, *to);
    }
}

async fn flap(cluster: &Cluster, node: Number, lasts: Duration) {
    let cuts = directions(cluster, Fault::Isolate(node));
    let mut left = lasts;
    while left > Duration::ZERO {
        let pause = Duration::from_millis(1700).min(left);
        cut(cluster, &cuts);
        sleep(pause).await;
        mend(cluster, &cuts);
        sleep(pause).await;
        left = left.saturating_sub(2 * pause);
    }
}

fn set_bmc(cluster: &Cluster, node: Number, matter: Option<Bmc>) {
    if matter.is_none() && cluster.gone() == Some(node) {
        return;
    }
    let (power, host) = (&cluster.around.power, bmc(&cluster.nodes[node].name));
    let (mut reach, mut off, mut reset) = (Reach::Answers, Off::Works, RESET);
    match matter {
        None => {}
        Some(Bmc::Silent) => reach = Reach::Silent,
        Some(Bmc::Slow(ms)) => reach = Reach::Slow(Duration::from_millis(ms)),
        Some(Bmc::AnswersAreLost) => reach = Reach::AnswersAreLost,
        Some(Bmc::OffTakesAWhile(ms)) => off = Off::TakesAWhile(Duration::from_millis(ms)),
        Some(Bmc::OffIsIgnored) => off = Off::Ignored,
        Some(Bmc::OffIsRefused) => off = Off::Refused,
        Some(Bmc::OffIsALie) => off = Off::Lies,
        Some(Bmc::ResetIsALie) => (off, reset) = (Off::Refused, Reset::Ignored),
    }
    cluster.nodes[node].bmc_lies(matches!(matter, Some(Bmc::OffIsALie | Bmc::ResetIsALie)));
    power.set_reach(&host, reach);
    power.set_off(&host, off);
    power.set_reset(&host, reset);
}
