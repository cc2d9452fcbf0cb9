//! What will go wrong, and what operators will ask for: generated from the seed before anything runs, as plain data, so that a run
//! that ends badly can be made shorter by leaving entries out.

mod fault;
mod storage;
mod unkind;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    event::Net,
    options::SPARE,
    options::{Options, Timing},
    rng::Rng,
};

pub use fault::{Bmc, Command, Definition, Fault, First, Halfway, Key, OldState, Rubbish};

/// How long it takes until a new cluster has all its VMs running.
pub const BEGINNING: Duration = Duration::from_mins(6);

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// In the order of their times.
    pub entries: Vec<Entry>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it begins, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// A fault or a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Something goes wrong, for so many milliseconds.
    Fault(Fault, u64),
    /// An operator asks for something.
    Command(Command),
}

/// A phase of faults: when it begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chaos {
    /// When it begins.
    pub begins: Duration,
    /// When the last fault is over.
    pub ends: Duration,
}

/// The phases of faults of a run; after each it is calm.
pub fn phases(options: &Options) -> Vec<Chaos> {
    let whole = Duration::from_secs_f64(options.hours * 3600.0);
    let mut phases = Vec::new();
    let mut begins = BEGINNING;
    loop {
        let ends = begins + options.chaos();
        // The last one is as long as there is time for.
        let ends = ends.min(whole.saturating_sub(options.calm()).max(begins + Duration::from_mins(1)));
        phases.push(Chaos { begins, ends });
        begins = ends + options.calm();
        if begins + Duration::from_mins(5) + options.calm() > whole {
            return phases;
        }
    }
}

impl Schedule {
    /// What the seed says.
    pub fn generate(options: &Options) -> Self {
        let mut entries = Vec::new();
        let rng = Rng::new(options.seed).fork("schedule");
        for (n, chaos) in phases(options).into_iter().enumerate() {
            let rng = rng.fork(&n.to_string());
            let mut rates = options.faults;
            rates.each(|name, rate| {
                let mut rng = rng.fork(name);
                for at in times(&mut rng, chaos, *rate) {
                    for (fault, lasts) in faults(&mut rng, name, options) {
                        let lasts = lasts.min(chaos.ends.saturating_sub(at));
                        entries.push(Entry { at_ms: ms(at), what: What::Fault(fault, ms(lasts)) });
                    }
                    let story = unkind::story(&rng, name, options).into_iter();
                    let story = story.chain(storage::story(&rng, name, options));
                    for (after, what) in story.take_while(|(after, _)| at + *after < chaos.ends) {
                        let left = ms(chaos.ends.saturating_sub(at + after));
                        let what = match what {
                            What::Fault(fault, lasts) => What::Fault(fault, lasts.min(left)),
                            What::Command(_) => what,
                        };
                        entries.push(Entry { at_ms: ms(at + after), what });
                    }
                }
            });
            let mut rng = rng.fork("commands");
            for at in times(&mut rng, chaos, options.commands) {
                let command = command(&mut rng, options);
                entries.push(Entry { at_ms: ms(at), what: What::Command(command) });
                // Two clients at once, or the second while what the first asked for is done.
                let mut left = options.contradictions;
                while left > 0.0 && rng.chance(left.min(1.0)) {
                    left -= 1.0;
                    let another = also(&mut rng, command, options);
                    let longest = *rng.pick(&[50, 1000, 20_000]).unwrap_or(&50);
                    let at = at + rng.time(Duration::ZERO, Duration::from_millis(longest));
                    if at >= chaos.ends {
                        continue;
                    }
                    entries.push(Entry { at_ms: ms(at), what: What::Command(another) });
                }
            }
        }
        entries.sort_by_key(|entry| entry.at_ms);
        Self { entries }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The times of a Poisson process.
fn times(rng: &mut Rng, chaos: Chaos, per_hour: f64) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut at = chaos.begins;
    if per_hour <= 0.0 {
        return times;
    }
    loop {
        at += Duration::from_secs_f64(rng.exponential() * 3600.0 / per_hour);
        if at >= chaos.ends {
            return times;
        }
        times.push(at);
    }
}

/// One fault of that name, or several that belong together, and how long each lasts.
fn faults(rng: &mut Rng, name: &str, options: &Options) -> Vec<(Fault, Duration)> {
    let s = Duration::from_secs;
    let node = rng.below(options.nodes);
    let other = (node + 1 + rng.below(options.nodes.saturating_sub(1).max(1))) % options.nodes.max(1);
    let server = rng.below(options.coordinators());
    // Short ones are healed before anybody notices, long ones outlast every time-out.
    let (short, long) = match options.timing {
        Timing::Default | Timing::Mixed => (s(4), s(150)),
        Timing::Fast => (s(1), s(60)),
    };
    let mut lasts = if rng.chance(0.5) { rng.time(s(0), short) } else { rng.time(short, long) };
    let net = *rng.pick(&[Net::Store, Net::Cluster]).unwrap_or(&Net::Store);
    let fault = match name {
        "power" => {
            lasts = rng.time(s(1), s(400));
            Fault::Power(node)
        }
        "power_of_two" => {
            lasts = rng.time(s(1), s(400));
            Fault::PowerOfTwo(node, other)
        }
        "reset" => Fault::Reset(node),
        "freeze" => Fault::Freeze(node),
        "freeze_daemon" => Fault::FreezeDaemon(node),
        "kill_daemon" => Fault::KillDaemon(node),
        "stop_daemon" => Fault::StopDaemon(node),
        "restart_libvirt" => Fault::RestartLibvirt(node),
        "freeze_libvirt" => Fault::FreezeLibvirt(node),
        "crash_guest" => Fault::CrashGuest(rng.below(options.vms)),
        "panic_guest" => Fault::PanicGuest(rng.below(options.vms)),
        "pause_guest" => Fault::PauseGuest(rng.below(options.vms)),
        "io_error" => Fault::IoError(rng.below(options.vms)),
        "bad_guests" => {
            lasts = rng.time(s(60), s(400));
            Fault::BadGuests
        }
        "isolate" => Fault::Isolate(node),
        "cut_store" => Fault::CutNet(Net::Store, node),
        "cut_cluster" => Fault::CutNet(Net::Cluster, node),
        "cut_one_way" => Fault::CutOneWay(net, node, other),
        "flap" => Fault::Flap(node),
        "split" => {
            let all = (1_u64 << options.nodes.min(63)) - 1;
            Fault::Split(u64::try_from(rng.below(usize::try_from(all).unwrap_or(usize::MAX))).unwrap_or(1))
        }
        "cut_bmcs" => Fault::CutNet(Net::Bmc, node),
        "end_server" => Fault::EndServer(server),
        "slow_store" => Fault::SlowStore(ms(rng.time(Duration::from_millis(20), s(3)))),
        "lose_answers" => Fault::LoseAnswers(node, 1 + u32::try_from(rng.below(3)).unwrap_or(0)),
        "expire" => Fault::Expire(node),
        "fall_behind" => Fault::FallBehind(node),
        "mute_bmc" => {
            lasts = rng.time(s(30), s(400));
            let slow = ms(rng.time(Duration::from_millis(200), s(8)));
            let all = [Bmc::Silent, Bmc::Slow(slow), Bmc::AnswersAreLost];
            Fault::Bmc(node, *rng.pick(&all).unwrap_or(&Bmc::Silent))
        }
        "stubborn_bmc" => {
            lasts = rng.time(s(60), s(600));
            let takes = ms(rng.time(s(1), s(30)));
            let all = [Bmc::OffTakesAWhile(takes), Bmc::OffIsIgnored, Bmc::OffIsRefused];
            Fault::Bmc(node, *rng.pick(&all).unwrap_or(&Bmc::OffIsIgnored))
        }
        "lying_bmc" => {
            lasts = rng.time(s(60), s(600));
            Fault::Bmc(node, *rng.pick(&[Bmc::OffIsALie, Bmc::ResetIsALie]).unwrap_or(&Bmc::OffIsALie))
        }
        "clock" => {
            let by = [-3600, 3600, -5, 5, 86_400, -86_400];
            Fault::Clock(node, *rng.pick(&by).unwrap_or(&3600))
        }
        "autostart" => Fault::Autostart(node, rng.below(options.vms)),
        "start_by_hand" => Fault::StartByHand(node, rng.below(options.vms)),
        "define_running" => Fault::DefineRunning(node, options.vms + rng.below(SPARE)),
        _ => return Vec::new(),
    };
    let mut all = vec![(fault, lasts)];
    // What is stubborn matters while its machine is to be fenced.
    if let Fault::Bmc(node, _) = fault
        && rng.chance(0.7)
    {
        let silence = match rng.below(3) {
            0 => Fault::Isolate(node),
            1 => Fault::FreezeDaemon(node),
            _ => Fault::Power(node),
        };
        all.push((silence, rng.time(s(20), s(200))));
    }
    all
}

fn command(rng: &mut Rng, options: &Options) -> Command {
    let vm = rng.below(options.vms);
    let node = rng.below(options.nodes);
    let spare = options.vms + rng.below(SPARE);
    match rng.below(112) {
        0..12 => Command::Start(vm),
        12..18 => Command::Stop(vm),
        18..26 => Command::Shutdown(vm),
        26..32 => Command::Restart(vm),
        32..46 => Command::Migrate(vm, rng.chance(0.5).then_some(node)),
        46..52 => Command::Unmigrate(vm),
        52..58 => Command::Move(vm, node),
        58..62 => Command::Define(spare),
        62..64 => Command::Start(spare),
        64..67 => Command::Undefine(spare),
        67..71 => Command::Flush(node),
        71..79 => Command::Ready(node),
        79..83 => Command::Primary(rng.below(options.coordinators())),
        83..85 => Command::Secondary(rng.below(options.coordinators())),
        85..86 => Command::Maintenance(true),
        86..90 => Command::Maintenance(false),
        90..92 => Command::ConfirmDead(node),
        92..97 => {
            let states = [OldState::Start, OldState::Stop, OldState::Shutdown, OldState::Restart];
            Command::WriteState(vm, *rng.pick(&states).unwrap_or(&OldState::Start))
        }
        97..100 => Command::WriteMigrate(vm, node),
        _ => impatient(rng, vm),
    }
}

/// A script that waits for the guest, an operator with the next command at hand, and one to whom ZooKeeper is slow.
fn impatient(rng: &mut Rng, vm: usize) -> Command {
    let first = *rng.pick(&[First::Restart, First::Shutdown, First::Migrate]).unwrap_or(&First::Restart);
    let then = match first {
        First::Shutdown => OldState::Start,
        First::Restart | First::Migrate => {
            let all = [OldState::Stop, OldState::Shutdown, OldState::Restart];
            *rng.pick(&all).unwrap_or(&OldState::Stop)
        }
    };
    let longest = *rng.pick(&[10, 50, 3000]).unwrap_or(&50);
    Command::Impatient {
        vm,
        first,
        then,
        after_ms: ms(rng.time(Duration::ZERO, Duration::from_millis(longest))),
    }
}

/// What somebody else asks of the same at the same time.
fn also(rng: &mut Rng, command: Command, options: &Options) -> Command {
    let node = rng.below(options.nodes);
    match command {
        Command::Start(vm)
        | Command::Stop(vm)
        | Command::Shutdown(vm)
        | Command::Restart(vm)
        | Command::Migrate(vm, _)
        | Command::Unmigrate(vm)
        | Command::Move(vm, _)
        | Command::WriteState(vm, _)
        | Command::WriteMigrate(vm, _)
        | Command::Impatient { vm, .. } => match rng.below(5) {
            0 => Command::Start(vm),
            1 => Command::Stop(vm),
            2 => Command::Shutdown(vm),
            3 => Command::Restart(vm),
            _ => Command::Migrate(vm, Some(node)),
        },
        Command::Flush(node) => Command::Ready(node),
        Command::Ready(node) => Command::Flush(node),
        Command::Primary(_) | Command::Secondary(_) => Command::Primary(rng.below(options.coordinators())),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_has_the_same_schedule_and_every_fault_ends_before_the_calm() {
        let options = Options { hours: 6.0, ..Options::default() };
        let schedule = Schedule::generate(&options);
        assert_eq!(schedule, Schedule::generate(&options));
        assert_ne!(schedule, Schedule::generate(&Options { seed: 2, ..options.clone() }));
        let phases = phases(&options);
        assert!(phases.len() > 3, "{phases:?}");
        for entry in &schedule.entries {
            let What::Fault(_, lasts) = entry.what else { continue };
            let within =
                |chaos: &Chaos| ms(chaos.begins) <= entry.at_ms && entry.at_ms + lasts <= ms(chaos.ends);
            assert!(phases.iter().any(within), "{entry:?}");
        }
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
}
