//! What goes wrong in several steps, each with its time after the first: operators whose word is old when it counts, old clients that
//! know nothing of claims, machines that end in the middle of something. Each step is an entry of its own, so that a run that
//! ends badly is made shorter step by step.

use std::time::Duration;

use super::{Bmc, Command, Definition, Fault, Halfway, Key, OldState, Rubbish, What, ms};
use crate::{event::Net, options::Options, options::SPARE, rng::Rng};

/// The steps of a story of that name, in the order of their times.
pub(super) fn story(rng: &Rng, name: &str, options: &Options) -> Vec<(Duration, What)> {
    // What other faults draw stays what it was.
    let rng = &mut rng.fork("story");
    let s = Duration::from_secs;
    let node = rng.below(options.nodes);
    let vm = rng.below(options.vms);
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let command = |after, command| (after, What::Command(command));
    let now = Duration::ZERO;
    match name {
        "die_halfway" => {
            let halfway = *rng.pick(&[Halfway::Init, Halfway::Shutdown]).unwrap_or(&Halfway::Init);
            vec![fault(now, Fault::DieHalfway(node, halfway), rng.time(s(1), s(300)))]
        }
        "slow_start" => {
            let lasts = rng.time(s(60), s(150));
            vec![fault(now, Fault::FreezeLibvirt(node), lasts), fault(s(1), Fault::Reset(node), now)]
        }
        // Where silence is a proof nobody can know what runs in the next boot: the manual says so of `failed_fence: migrate`.
        "boots_unheard" if options.nodes >= 3 && options.suicide_intervals == 0 => {
            boots_unheard(rng, node, options)
        }
        "gone" if options.nodes >= 5 => vec![fault(now, Fault::Gone(node, rng.chance(0.5)), now)],
        "clone" => another_machine(rng, node),
        "garble_node" => unreadable(rng, node),
        "deaf_primary" => deaf_primary(rng, options),
        "lost_promise" => lost_promise(rng, node),
        "reinstall" => vec![fault(now, Fault::Reinstall(node), rng.time(s(30), s(400)))],
        "shut_down" => shut_down(rng, node),
        "early_word" => early_word(rng, node),
        "fence_living" => vec![command(now, Command::Fence(node))],
        "garble" => {
            let which = rng.below(1000);
            let key = if rng.chance(0.5) { Key::Node(node, which) } else { Key::Vm(vm, which) };
            let rubbish = rubbish(rng);
            vec![fault(now, Fault::Garble(key, rubbish), rng.time(s(5), s(200)))]
        }
        "unreadable_in_flush" => unreadable_in_flush(rng, node),
        "lose_libvirt" => lose_libvirt(rng, node, options),
        "lack" => lack(rng, node, options),
        "write_none" => vec![command(now, Command::WriteNone(vm))],
        "modify" => {
            let bad =
                [Definition::Renamed, Definition::Truncated, Definition::WithoutMemory, Definition::Empty];
            let definition = if rng.chance(0.4) {
                Definition::Good
            } else {
                *rng.pick(&bad).unwrap_or(&Definition::Truncated)
            };
            let mended = rng.time(s(20), s(300));
            vec![
                command(now, Command::WriteModify(vm, definition)),
                command(mended, Command::WriteModify(vm, Definition::Good)),
            ]
        }
        "redefine" => {
            let vm = if rng.chance(0.5) { vm } else { options.vms + rng.below(SPARE) };
            vec![command(now, Command::Redefine(vm))]
        }
        "redefine_elsewhere" => {
            let other = another(rng, node, options);
            let silence = *rng
                .pick(&[Fault::FreezeDaemon(node), Fault::KillDaemon(node), Fault::StopDaemon(node)])
                .unwrap_or(&Fault::StopDaemon(node));
            // Or it has nothing to say before it is fenced.
            let lasts = if rng.chance(0.5) { rng.time(s(5), s(25)) } else { rng.time(s(25), s(300)) };
            let mut steps = vec![command(s(1), Command::RedefineElsewhere(node, other))];
            if rng.chance(0.8) {
                steps.insert(0, fault(now, silence, lasts));
            }
            steps
        }
        "silent_stranger" => {
            let vm = options.vms + rng.below(SPARE);
            let other = another(rng, node, options);
            let silence = *rng
                .pick(&[Fault::FreezeDaemon(node), Fault::KillDaemon(node)])
                .unwrap_or(&Fault::KillDaemon(node));
            vec![
                fault(now, Fault::StartByHand(node, vm), now),
                fault(s(12), silence, rng.time(s(5), s(200))),
                command(s(14), Command::Define(vm)),
                command(s(15), Command::Move(vm, other)),
                command(s(16), Command::Start(vm)),
            ]
        }
        "stop_in_flush" => {
            let (stops, ready) = (rng.time(s(1), s(120)), rng.time(s(5), s(120)));
            let mut steps = vec![
                // Half of them cannot go, and are shut down.
                fault(now, Fault::BadGuests, rng.time(s(0), s(200))),
                command(s(1), Command::Flush(node)),
                command(stops, Command::StopOn(node)),
            ];
            let old = rng.chance(0.5);
            steps.extend(old.then(|| command(stops, Command::WriteState(vm, OldState::Stop))));
            steps.push(command(stops + ready, Command::Ready(node)));
            steps
        }
        _ => Vec::new(),
    }
}

/// Another machine boots from a copy of a node's disk, mostly while that node is not heard.
fn another_machine(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let all = [
        Fault::Isolate(node),
        Fault::CutNet(Net::Store, node),
        Fault::Freeze(node),
        Fault::FreezeDaemon(node),
        Fault::StopDaemon(node),
        Fault::Power(node),
    ];
    let silence = *rng.pick(&all).unwrap_or(&Fault::Power(node));
    let mut steps = vec![fault(rng.time(s(0), s(20)), Fault::Clone(node), rng.time(s(60), s(300)))];
    if rng.chance(0.9) {
        steps.insert(0, fault(s(0), silence, rng.time(s(20), s(300))));
    }
    steps
}

/// A node loses its power while no other has libvirt. It has power again soon, its daemon mostly does not start or is not heard, and somebody
/// starts some of its VMs there. Then the others have libvirt.
fn boots_unheard(rng: &mut Rng, node: usize, options: &Options) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let off = rng.time(s(20), s(120));
    let by_hand = s(20) + off + rng.time(s(60), s(200));
    let room = by_hand + rng.time(s(5), s(60));
    let unheard = if rng.chance(0.7) { Fault::StopDaemon(node) } else { Fault::CutNet(Net::Store, node) };
    let others = (1..options.nodes).map(|n| (node + n) % options.nodes);
    let mut steps: Vec<_> = others.map(|n| fault(s(0), Fault::RestartLibvirt(n), room)).collect();
    steps.push(fault(s(20), Fault::Power(node), off));
    steps.push(fault(s(21), unheard, room + s(100)));
    steps.extend((0..4).map(|_| fault(by_hand, Fault::StartOwnByHand(node, rng.below(1000)), s(0))));
    steps
}

/// A node's daemon stops in order for minutes, mostly because its machine is shut down.
fn shut_down(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let (down, off) = (rng.time(s(2), s(20)), rng.time(s(90), s(400)));
    let mut steps = vec![(s(0), What::Fault(Fault::StopDaemon(node), ms(down + off)))];
    if rng.chance(0.7) {
        steps.push((down, What::Fault(Fault::Power(node), ms(off))));
    }
    steps
}

/// A key of a node cannot be read, and half of the time the node has no power for as long.
fn unreadable(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let lasts = rng.time(s(5), s(200));
    let garble = Fault::Garble(Key::Node(node, rng.below(1000)), rubbish(rng));
    let mut steps = vec![(s(0), What::Fault(garble, ms(lasts)))];
    if rng.chance(0.5) {
        steps.push((s(1), What::Fault(Fault::Power(node), ms(lasts))));
    }
    steps
}

/// A node is flushed while the claim of one of its VMs cannot be read, and fills again.
fn unreadable_in_flush(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let garble = Fault::Garble(Key::ClaimOn(node, rng.below(1000)), rubbish(rng));
    vec![
        (s(0), What::Fault(garble, ms(rng.time(s(30), s(300))))),
        (rng.time(s(0), s(20)), What::Command(Command::Flush(node))),
        (s(240), What::Command(Command::Ready(node))),
    ]
}

/// A node has no libvirt for minutes. What is off there shall run, and mostly another node dies, whose VMs need new homes.
fn lose_libvirt(rng: &mut Rng, node: usize, options: &Options) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let other = another(rng, node, options);
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let lasts = rng.time(s(200), s(600));
    let mut steps = vec![
        (s(0), What::Command(Command::StopOn(node))),
        fault(s(25), Fault::RestartLibvirt(node), lasts),
        (rng.time(s(26), s(60)), What::Command(Command::StartOn(node))),
    ];
    match rng.below(4) {
        0 => steps.push(fault(s(25), Fault::RestartLibvirt(other), lasts)),
        1 | 2 => steps.push(fault(rng.time(s(60), s(90)), Fault::Power(other), rng.time(s(100), s(400)))),
        _ => {}
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

/// A node cannot start any guest for minutes. What is off there shall run, and what runs elsewhere is to come.
fn lack(rng: &mut Rng, node: usize, options: &Options) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let mut steps = vec![
        (s(0), What::Command(Command::StopOn(node))),
        (s(20), What::Fault(Fault::Lack(node), ms(rng.time(s(200), s(600))))),
        (rng.time(s(21), s(60)), What::Command(Command::StartOn(node))),
    ];
    for _ in 0..3 {
        let command = Command::Migrate(rng.below(options.vms), Some(node));
        steps.push((rng.time(s(25), s(120)), What::Command(command)));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn rubbish(rng: &mut Rng) -> Rubbish {
    let all = [Rubbish::Empty, Rubbish::NoText, Rubbish::NoWord, Rubbish::NoWord, Rubbish::Long];
    *rng.pick(&all).unwrap_or(&Rubbish::NoWord)
}

/// A coordinator is primary, its ZooKeeper server loses its leader, and an operator wants another one to be primary.
fn deaf_primary(rng: &mut Rng, options: &Options) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let servers = options.coordinators();
    let primary = rng.below(servers);
    let other = (primary + 1 + rng.below(servers - 1)) % servers;
    vec![
        (s(0), What::Command(Command::Primary(primary))),
        (s(25), What::Fault(Fault::CutNet(Net::Store, primary), ms(rng.time(s(10), s(40))))),
        (s(25) + rng.time(s(1), s(6)), What::Command(Command::Primary(other))),
    ]
}

/// Maintenance ends while ZooKeeper is so slow that nodes do not learn whether they have promised to reset themselves, begins again, and
/// ends where one of them does not hear it, whose BMC does not answer.
fn lost_promise(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let command = |after, on| (after, What::Command(Command::Maintenance(on)));
    let again = rng.time(s(10), s(20));
    let silent = again + rng.time(s(2), s(8));
    vec![
        command(s(0), true),
        fault(s(3), Fault::SlowStore(3000), s(20)),
        command(s(6), false),
        command(again, true),
        fault(silent, Fault::Isolate(node), rng.time(s(60), s(200))),
        fault(silent, Fault::Bmc(node, Bmc::Silent), s(200)),
        command(silent + s(8), false),
    ]
}

fn another(rng: &mut Rng, node: usize, options: &Options) -> usize {
    (node + 1 + rng.below(options.nodes.saturating_sub(1).max(1))) % options.nodes
}

/// Its BMC does not answer when it loses power, so somebody has to say that it is dead; it is back before anybody has counted its
/// silence, and silent again when the word is old.
fn early_word(rng: &mut Rng, node: usize) -> Vec<(Duration, What)> {
    let s = Duration::from_secs;
    let fault = |after, fault, lasts| (after, What::Fault(fault, ms(lasts)));
    let command = |after, command| (after, What::Command(command));
    let silent = fault(s(0), Fault::Bmc(node, Bmc::Silent), s(600));
    let mut steps = vec![silent];
    let off = if rng.chance(0.5) {
        // Its session ends shortly before it has power again.
        let word = rng.time(s(10), s(18));
        let again = word + Duration::from_millis(500);
        let off = word + Duration::from_millis(600);
        steps.push(command(s(2), Command::Fence(node)));
        steps.extend([word, again].map(|at| command(at, Command::ConfirmDead(node))));
        steps.push(fault(s(0), Fault::ShortPower(node), off));
        off
    } else {
        let off = rng.time(s(15), s(150));
        steps.push(fault(s(1), Fault::Power(node), off));
        if rng.chance(0.5) {
            steps.push(command(rng.time(s(2), s(40)), Command::Fence(node)));
        }
        let word = rng.time(s(10), s(40)).min(off);
        steps.extend([word, word + s(20)].map(|at| command(at, Command::ConfirmDead(node))));
        off
    };
    let back = off + rng.time(s(30), s(200));
    let silence = match rng.below(3) {
        0 => Fault::FreezeDaemon(node),
        1 => Fault::Freeze(node),
        _ => Fault::Isolate(node),
    };
    // One that speaks seldom is silent for long before anybody acts on it.
    let longest = if rng.chance(0.5) { s(150) } else { s(400) };
    steps.push(fault(back, silence, rng.time(s(20), longest)));
    steps.sort_by_key(|(at, _)| *at);
    steps
}
