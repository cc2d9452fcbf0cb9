//! A fault, what it did, and whether all is well afterwards: a cluster with observers on it, a test that breaks something, and at the
//! end the same for all: everything is healed, every node works, every VM counts on, and the judges find nothing wrong.
//! Never judges by what a daemon says of itself; see `judge`.

mod evidence;
mod judge;
mod report;
mod timeline;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    cluster::{Cluster, PATIENCE, Vm},
    node::Node,
    observers::tree::History,
    options::LabOptions,
    program::wait_until,
};
use evidence::{Clock, Evidence, Happening, Stranger};

pub use report::{Outcome, folder};

/// How long before the first fault the printed timeline begins.
const BEFORE: Duration = Duration::from_secs(3);

/// A scenario under way.
pub struct Scenario {
    /// The cluster on which it plays.
    pub cluster: Cluster,
    clock: Clock,
    story: Mutex<Story>,
}

/// What the scenario has told so far.
#[derive(Default)]
struct Story {
    notes: Vec<Happening>,
    vms: Vec<Vm>,
    victims: BTreeSet<String>,
    undead: BTreeSet<String>,
    strangers: Vec<Stranger>,
    first_fault: Option<Instant>,
    recovery: Option<Duration>,
}

/// Plays a scenario on a cluster of its own, which is named like it; panics if anything about it is wrong. Prints what happened when,
/// leaves that and the outcome in [`folder`], and the lab's logs if it failed.
pub fn play(options: LabOptions, act: impl FnOnce(&Scenario) -> Result<()>) {
    let began = Instant::now();
    let folder = folder(&options.executable);
    let mut outcome = Outcome::begun(&options.name);
    let scenario = match Cluster::up(options) {
        Ok(cluster) => Scenario { cluster, clock: Clock::read(), story: Mutex::default() },
        Err(e) => {
            outcome.fails(&e, began.elapsed()).save(&folder, "");
            panic!("{e:?}");
        }
    };
    let played = catch_unwind(AssertUnwindSafe(|| act(&scenario)))
        .unwrap_or_else(|panic| Err(anyhow!("{}", said(&*panic))))
        .and_then(|()| scenario.end_well());
    if played.is_err() {
        scenario.ask_why();
    }
    let evidence = scenario.evidence();
    let judged = evidence.as_ref().map_err(|e| anyhow!("{e:#}")).and_then(judged);
    let timeline = evidence.as_ref().map(|evidence| scenario.timeline(evidence)).unwrap_or_default();
    outcome.recovery_s = scenario.told().recovery.map(|recovery| recovery.as_secs_f64());
    // What the judges say weighs more than a wait in vain, which may follow from it.
    let failed = judged
        .err()
        .into_iter()
        .chain(played.err())
        .reduce(|judged, played| judged.context(format!("{played:#}")));
    if let Some(failed) = &failed {
        // Before the timeline, of which a reader may see the beginning only.
        println!("FAILED: {failed:#}");
    }
    println!("{}", report::from(&timeline, -BEFORE.as_secs_f64()));
    let Some(failed) = failed else {
        outcome.passes(began.elapsed()).save(&folder, &timeline);
        return;
    };
    outcome.fails(&failed, began.elapsed()).save(&folder, &timeline);
    panic!("{failed:?}");
}

/// Plays a scenario that judges itself, where the judges cannot: they know a machine by the name that the lab gave it.
pub fn play_unjudged(options: LabOptions, act: impl FnOnce(&Cluster) -> Result<()>) {
    let began = Instant::now();
    let folder = folder(&options.executable);
    let mut outcome = Outcome::begun(&options.name);
    match Cluster::up(options).and_then(|cluster| act(&cluster)) {
        Ok(()) => outcome.passes(began.elapsed()).save(&folder, ""),
        Err(failed) => {
            outcome.fails(&failed, began.elapsed()).save(&folder, "");
            panic!("{failed:?}");
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}

fn judged(evidence: &Evidence) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, question) in judge::QUESTIONS {
        wrong.extend(question(evidence).into_iter().map(|what| format!("{name}: {what}")));
    }
    ensure!(wrong.is_empty(), "VIOLATED\n{}", wrong.join("\n"));
    Ok(())
}

impl Scenario {
    fn told(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something down with the time.
    pub fn note(&self, what: impl Into<String>) {
        let note = Happening { at: self.clock.at(Instant::now()), what: what.into() };
        self.told().notes.push(note);
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Node {
        self.cluster.node(name)
    }

    /// `pvc`, as an operator types it.
    pub fn pvc(&self, arguments: &[&str]) -> Result<String> {
        self.note(format!("pvc {}", arguments.join(" ")));
        self.cluster.pvc(arguments)
    }

    /// Writes down what the cluster itself says of its nodes and of the scenario's VMs.
    fn ask_why(&self) {
        let nodes = self.cluster.lab.nodes().into_iter().map(|node| ("node", node.name()));
        let vms: Vec<_> = self.told().vms.iter().map(|vm| ("vm", vm.name.clone())).collect();
        for (kind, name) in nodes.chain(vms) {
            let says = self.cluster.pvc(&[kind, "explain", &name]).unwrap_or_else(|e| format!("{e:#}"));
            self.note(format!("{kind} {name}: {}", says.trim()));
        }
    }

    /// VMs of these numbers, running on a node; they shall run somewhere when all is over.
    pub fn start_vms(&self, numbers: impl IntoIterator<Item = u8>, node: &str) -> Result<Vec<Vm>> {
        let vms: Vec<_> = numbers.into_iter().map(Vm::number).collect();
        self.cluster.start_vms(&vms, node)?;
        self.told().vms.extend(vms.iter().cloned());
        Ok(vms)
    }

    /// From now on the others have reason to fence this node.
    pub fn victim(&self, node: &str) -> Node {
        self.told().victims.insert(node.to_owned());
        self.node(node)
    }

    /// From now on somebody says of this node that it is dead, and it is not: what it goes on executing cannot be known to the others.
    pub fn undead(&self, node: &str) -> Node {
        self.told().undead.insert(node.to_owned());
        self.node(node)
    }

    /// From now on somebody starts this VM on a node where it does not belong, and no daemon can prevent that; each of its processes there
    /// has to end within this time.
    pub fn stranger(&self, vm: &Vm, node: &str, within: Duration) {
        let since = self.clock.at(Instant::now());
        let stranger = Stranger { node: node.to_owned(), vm: vm.uuid.clone(), since, within };
        self.told().strangers.push(stranger);
    }

    /// Breaks something, with a name. The first fault is when the time of recovery begins; the moment at which it had been done.
    pub fn fault(&self, what: &str, act: impl FnOnce() -> Result<()>) -> Result<Instant> {
        self.note(format!("FAULT {what}"));
        act().with_context(|| format!("fault: {what}"))?;
        let now = Instant::now();
        self.told().first_fault.get_or_insert(now);
        Ok(now)
    }

    /// The time from a fault to what counts as recovered, which must be within a bound: a generous one, since the machine may be busy.
    pub fn recovered(&self, what: &str, took: Duration, within: Duration) -> Result<()> {
        self.note(format!("RECOVERED {what} after {:.1} s", took.as_secs_f64()));
        let mut story = self.told();
        story.recovery = story.recovery.max(Some(took));
        ensure!(took <= within, "{what}: recovered after {took:?}, which is more than {within:?}");
        Ok(())
    }

    /// Waits until the VMs of a dead node were started elsewhere; how long after `died` the last of them was.
    pub fn recover_elsewhere(&self, vms: &[Vm], dead: &str, died: Instant, within: Duration) -> Result<()> {
        let began = self.cluster.wait_elsewhere(vms, dead)?;
        self.recovered(&format!("the VMs of {dead}"), began.saturating_duration_since(died), within)
    }

    /// An error unless each VM has had exactly one process so far: nobody has touched it.
    pub fn untouched(&self, vms: &[Vm]) -> Result<()> {
        for vm in vms {
            let runs = self.cluster.processes.of(&vm.uuid);
            ensure!(runs.len() == 1 && runs[0].ended.is_none(), "{} was touched: {runs:#?}", vm.name);
        }
        Ok(())
    }

    /// Heals what is left of the faults, and waits until all is as if they had never been: this is what an operator does, who repairs
    /// cables and switches machines on, and nothing else.
    fn end_well(&self) -> Result<()> {
        self.note("all faults end");
        self.heal()?;
        let lab = &self.cluster.lab;
        for node in lab.options().coordinators() {
            lab.wait_zookeeper(node)?;
        }
        for node in lab.nodes() {
            self.cluster.wait_node(&node.name(), "daemon_state", "run")?;
        }
        let vms = self.told().vms.clone();
        for vm in &vms {
            let home = self.cluster.home(vm)?;
            self.cluster.wait_settled(vm, &home)?;
            self.cluster.wait_counting(&home, vm)?;
        }
        self.cluster.primary()?;
        self.wait_fences_over()?;
        self.note("all is well");
        Ok(())
    }

    /// Waits until no node is being fenced.
    pub fn wait_fences_over(&self) -> Result<()> {
        let mut open = Vec::new();
        wait_until("the fences to be over", PATIENCE, || match History::of(&self.cluster.lab) {
            Ok(history) => {
                open = open_fences(&history);
                open.is_empty()
            }
            Err(_) => false,
        })
        .with_context(|| format!("{open:?}"))
    }

    fn heal(&self) -> Result<()> {
        let lab = &self.cluster.lab;
        lab.undrop()?;
        for node in lab.nodes() {
            let machine = node.machine()?;
            if machine.bmc_cut {
                node.heal_bmc()?;
            }
            if machine.bmc != crate::Behaviour::Honest {
                node.set_bmc(crate::Behaviour::Honest)?;
            }
            if machine.cut {
                node.heal()?;
            }
            if machine.paused {
                node.resume()?;
            }
            if !machine.on {
                node.start()?;
            }
        }
        Ok(())
    }

    fn evidence(&self) -> Result<Evidence> {
        let (vms, victims, undead, strangers) = {
            let story = self.told();
            (story.vms.clone(), story.victims.clone(), story.undead.clone(), story.strangers.clone())
        };
        Ok(Evidence { victims, strangers, undead, ..Evidence::gather(&self.cluster, &self.clock, &vms)? })
    }

    fn timeline(&self, evidence: &Evidence) -> String {
        let story = self.told();
        let zero = story.first_fault.map_or_else(|| self.clock.at(Instant::now()), |at| self.clock.at(at));
        timeline::timeline(evidence, &story.notes, zero)
    }
}

fn open_fences(history: &History) -> Vec<String> {
    let mut open = BTreeSet::new();
    for (_, change) in history.changes() {
        if let Some(node) = change.path.strip_prefix("/pvc/fence/").filter(|node| !node.contains('/')) {
            if change.after.is_some() {
                open.insert(node.to_owned());
            } else {
                open.remove(node);
            }
        }
    }
    open.into_iter().collect()
}
