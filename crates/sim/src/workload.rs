//! Operators: what `pvc` does for them, by the same decisions, and what old clients write.

mod definition;
mod impatient;
mod old_client;
mod unkind;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_core::{
    command::{
        Refusal, Roster,
        node::{self, Life, NodeChange, Signature},
        vm::{self, Define, Migrate, Target, Undefine},
    },
    model::{ClusterView, DaemonState, DomainSpec, DomainState, NodeName, Vm, VmId, VmState},
    plan::placement::{Rooms, Selector, Size, Sizes},
};
use pvc_store::{
    CommitError, Op, Store, StoreError, Transaction,
    memory::MemoryStore,
    mirror::Mirror,
    schema::{self, fence, maintenance, placement},
};
use tokio::time::{sleep, timeout};

use crate::{
    cluster::Cluster,
    event::{Event, Told},
    schedule::{Command, Definition, OldState},
};

/// A client that finds that somebody was faster decides anew, so often.
const ATTEMPTS: usize = 5;

/// Why a command was not carried out.
enum No {
    /// The command line client would have said so.
    Refused(String),
    /// The state tree could not be read or written.
    Store(String),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

impl From<StoreError> for No {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<CommitError> for No {
    fn from(error: CommitError) -> Self {
        Self::Store(error.to_string())
    }
}

/// Has client number `client` give a command, and whatever it has in mind to give after that.
pub async fn give(cluster: Arc<Cluster>, client: u32, command: Command) {
    match command {
        Command::Impatient { vm, first, then, after_ms } => {
            impatient::act(cluster, client, vm, (first, then), Duration::from_millis(after_ms)).await;
        }
        Command::Redefine(vm) => unkind::redefine(cluster, client, vm).await,
        Command::StopOn(node) => unkind::stop_on(cluster, client, node).await,
        _ => perform(cluster, client, command).await,
    }
}

/// Carries one command out, as client number `client`.
pub async fn perform(cluster: Arc<Cluster>, client: u32, command: Command) {
    let operator = Operator::new(&cluster, client);
    let outcome = if cluster.around.ensemble.works() {
        match timeout(Duration::from_secs(30), operator.perform(command)).await {
            Ok(Ok(done)) => done,
            Ok(Err(No::Refused(why))) => format!("refused: {why}"),
            Ok(Err(No::Store(why))) => format!("failed: {why}"),
            Err(_) => "gave up".to_owned(),
        }
    } else {
        "failed: ZooKeeper does not answer".to_owned()
    };
    let seen = operator.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let told = seen.and_then(|(vm, seen)| Some(Told { vm, runs: wants(command)?, seen }));
    cluster.around.journal.tell(Event::Command { client, text: format!("{command:?}"), outcome, told });
}

/// Whether who gives a command wants a VM to run, if it is about that.
fn wants(command: Command) -> Option<bool> {
    match command {
        Command::Start(_) | Command::Restart(_) => Some(true),
        Command::Stop(_) | Command::Shutdown(_) => Some(false),
        _ => None,
    }
}

/// The memory of a VM, MiB.
pub(crate) fn memory_mib(number: usize) -> u64 {
    [1024, 2048, 3072, 4096][number % 4]
}

struct Operator<'a> {
    cluster: &'a Cluster,
    store: Arc<MemoryStore>,
    /// Of which VM he was told that it is wished already, and the transaction of the wish that he saw.
    seen: Mutex<Option<(VmId, i64)>>,
}

impl<'a> Operator<'a> {
    fn new(cluster: &'a Cluster, client: u32) -> Self {
        Self { cluster, store: cluster.around.ensemble.operator(client), seen: Mutex::default() }
    }

    async fn perform(&self, command: Command) -> Result<String, No> {
        match command {
            Command::Define(vm) => self.define(vm).await,
            Command::Undefine(vm) => self.undefine(self.id(vm)).await,
            Command::Start(vm) => self.wish(vm, |vm, view| Ok(vm::start(vm, view.all_nodes())?.change)).await,
            Command::Stop(vm) => self.wish(vm, |vm, _| Ok(vm::stop(vm)?.change)).await,
            Command::Shutdown(vm) => self.wish(vm, |vm, _| Ok(vm::shutdown(vm)?.change)).await,
            Command::Restart(vm) => self.wish(vm, |vm, _| Ok(vm::restart(vm)?.change)).await,
            Command::Migrate(vm, to) => {
                let name = to.map(|to| self.name(to));
                let target =
                    name.as_ref().map_or(Target::Chosen(Selector::Mem), |n| Target::Named(n.as_str()));
                let request = Migrate { target, force: true };
                self.relocate(vm, |vm, view, rooms, size| vm::migrate(vm, request, view, rooms, size)).await
            }
            Command::Unmigrate(vm) => {
                self.relocate(vm, |vm, view, rooms, size| vm::unmigrate(vm, true, view, rooms, size)).await
            }
            Command::Move(vm, to) => {
                let name = self.name(to);
                let request = Migrate { target: Target::Named(name.as_str()), force: true };
                self.relocate(vm, |vm, view, rooms, size| vm::move_to(vm, request, view, rooms, size)).await
            }
            Command::Flush(n) => self.node(|view| Ok(node::flush(view, self.name(n).as_str())?.change)).await,
            Command::Ready(n) => self.node(|view| Ok(node::ready(view, self.name(n).as_str())?.change)).await,
            Command::Primary(n) => {
                self.node(|view| Ok(node::primary(view, self.name(n).as_str())?.change)).await
            }
            Command::Secondary(n) => {
                self.node(|view| Ok(node::secondary(view, self.name(n).as_str())?.change)).await
            }
            Command::Maintenance(on) => {
                maintenance::set(&*self.store, on).await?;
                Ok("done".into())
            }
            Command::ConfirmDead(n) => self.confirm_dead(&self.name(n)).await,
            Command::Fence(n) => self.fence(&self.name(n)).await,
            Command::WriteState(vm, state) => {
                let word = match state {
                    OldState::Start => "start",
                    OldState::Stop => "stop",
                    OldState::Shutdown => "shutdown",
                    OldState::Restart => "restart",
                };
                self.write(&[(vm, "state", word)]).await
            }
            Command::WriteMigrate(vm, to) => {
                let now = self.view().await?;
                let Some(seen) = now.vm(self.id(vm)) else { return Err(No::Refused("no such VM".into())) };
                // Old clients migrate what runs only.
                if seen.state.value != VmState::Start || seen.node.value == self.name(to) {
                    return Err(No::Refused("it does not run, or is there already".into()));
                }
                let (from, to) = (seen.node.value.to_string(), self.name(to).to_string());
                self.write(&[(vm, "state", "migrate"), (vm, "node", &to), (vm, "lastnode", &from)]).await
            }
            Command::WriteNone(vm) => self.write_none(vm).await,
            Command::WriteModify(vm, definition) => self.write_modify(vm, definition).await,
            Command::RedefineElsewhere(from, to) => self.redefine_elsewhere(from, to).await,
            Command::Impatient { .. } | Command::Redefine(_) | Command::StopOn(_) => {
                Err(No::Refused("those are several commands".into()))
            }
        }
    }

    fn id(&self, vm: usize) -> VmId {
        self.cluster.vms[vm]
    }

    fn name(&self, node: usize) -> NodeName {
        self.cluster.nodes[node].name.clone()
    }

    async fn view(&self) -> Result<Arc<ClusterView>, No> {
        let mirror = Mirror::start(Arc::clone(&self.store) as Arc<dyn Store>);
        mirror.ready().await;
        Ok(mirror.view())
    }

    /// Whatever is there.
    async fn write(&self, keys: &[(usize, &str, &str)]) -> Result<String, No> {
        let set = |(vm, key, text): &(usize, &str, &str)| Op::Set {
            path: format!("/domains/{}/{key}", self.id(*vm)),
            data: text.as_bytes().to_vec(),
            version: None,
        };
        self.store.commit(Transaction { ops: keys.iter().map(set).collect() }).await?;
        Ok("done".into())
    }

    async fn wish(
        &self,
        number: usize,
        decide: impl Fn(&Vm, &ClusterView) -> Result<Option<pvc_core::model::VmChange>, No>,
    ) -> Result<String, No> {
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            let vm = view.vm(self.id(number)).ok_or_else(|| No::Refused("no such VM".into()))?;
            let Some(change) = decide(vm, &view)? else {
                let seen = Some((vm.id, vm.state.zxid));
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
                return Ok("already so".into());
            };
            match schema::vm::apply(&*self.store, &change).await {
                Err(CommitError::Conflict { .. }) => {}
                outcome => return Ok(outcome.map(|_| "done".to_owned())?),
            }
        }
        Err(No::Store("others were faster".into()))
    }

    async fn relocate(
        &self,
        number: usize,
        decide: impl Fn(&Vm, &ClusterView, &Rooms, Size) -> Result<vm::Moved, Refusal>,
    ) -> Result<String, No> {
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            let id = self.id(number);
            let vm = view.vm(id).ok_or_else(|| No::Refused("no such VM".into()))?;
            let sizes = self.sizes(&view).await?;
            let rooms = Rooms::count(&view, &sizes, &BTreeSet::new());
            let size = sizes.get(&id).copied().ok_or_else(|| No::Refused("it has no definition".into()))?;
            let moved = decide(vm, &view, &rooms, size)?;
            let Some(change) = &moved.accepted.change else { return Ok("already so".into()) };
            let written = if moved.live {
                placement::apply_placed(&*self.store, change, view.placement_version).await
            } else {
                schema::vm::apply(&*self.store, change).await
            };
            match written {
                Err(CommitError::Conflict { .. }) => {}
                outcome => return Ok(outcome.map(|_| format!("done, to {}", moved.node))?),
            }
        }
        Err(No::Store("others were faster".into()))
    }

    async fn sizes(&self, view: &ClusterView) -> Result<Sizes, No> {
        let ids: Vec<VmId> = view.good_vms().map(|vm| vm.id).collect();
        let paths: Vec<String> = ids.iter().map(|id| schema::vm::xml_path(*id)).collect();
        let mut sizes = Sizes::new();
        for (id, value) in ids.into_iter().zip(self.store.get_many(&paths).await?) {
            let spec = value.and_then(|v| DomainSpec::parse(std::str::from_utf8(&v.data).ok()?).ok());
            if let Some(spec) = spec {
                sizes.insert(id, Size { memory_mib: spec.memory_mib, vcpus: spec.vcpus });
            }
        }
        Ok(sizes)
    }

    async fn node(
        &self,
        decide: impl Fn(&ClusterView) -> Result<Option<NodeChange>, No>,
    ) -> Result<String, No> {
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            let Some(change) = decide(&view)? else { return Ok("already so".into()) };
            let txn = match &change {
                NodeChange::DomainState { node, state, version } => {
                    schema::node::set_domain_state(node, *state, *version)
                }
                NodeChange::Primary { seen, node } => schema::primary::wish(seen, node.as_ref()),
                NodeChange::Fence { seen, job } => fence::ask(seen, job),
                NodeChange::ConfirmDead { seen, fence: known, job } => {
                    fence::confirm_dead(seen, known.as_ref(), job)
                }
                NodeChange::CancelFence { seen, fence: Some(known) } => fence::cancel(known, seen),
                NodeChange::CancelFence { seen, fence: None } => {
                    match fence::read_unreadable(&*self.store, &seen.name).await? {
                        Some(raw) => fence::cancel_unreadable(&raw, seen),
                        None => continue,
                    }
                }
            };
            match self.store.commit(txn).await {
                Err(CommitError::Conflict { .. }) => {}
                outcome => return Ok(outcome.map(|_| "done".to_owned())?),
            }
        }
        Err(No::Store("others were faster".into()))
    }

    /// Gives an operator's word, who has looked: the machine has no power.
    async fn confirm_dead(&self, name: &NodeName) -> Result<String, No> {
        let has_power = self.cluster.around.journal.truth(|truth| truth.machine(name).boot.is_some());
        if has_power {
            return Err(No::Refused("it has power, as one sees".into()));
        }
        let life = self.life(name).await?;
        let signature = || Signature { by: "an operator".into(), at_unix_s: 0 };
        self.node(|view| Ok(node::confirm_dead(view, name.as_str(), &life, signature())?.change)).await
    }

    /// Asks for a node's fence, whatever it does.
    async fn fence(&self, name: &NodeName) -> Result<String, No> {
        let life = self.life(name).await?;
        let signature = || Signature { by: "an operator".into(), at_unix_s: 0 };
        self.node(|view| Ok(node::fence(view, name.as_str(), &life, signature())?.change)).await
    }

    async fn life(&self, name: &NodeName) -> Result<Life, No> {
        let held = schema::owner::read(&*self.store, name).await?;
        let instance = held.map(|held| held.by.map_or_else(|| "unknown".to_owned(), |owner| owner.instance));
        Ok(Life { instance, heard: false, has_bmc: true })
    }

    async fn define(&self, number: usize) -> Result<String, No> {
        let id = self.id(number);
        let xml = definition::xml(id, number, Definition::Good);
        let spec = DomainSpec::parse(&xml).map_err(|error| No::Refused(error.to_string()))?;
        for _ in 0..ATTEMPTS {
            let view = self.view().await?;
            let sizes = self.sizes(&view).await?;
            let rooms = Rooms::count(&view, &sizes, &BTreeSet::new());
            let roster = Roster::of(&view);
            let request = Define { spec: &spec, target: None, selector: Selector::Mem };
            let (node, accepted) = vm::define(request, &roster, view.all_nodes(), &rooms)?;
            let Some(change) = accepted.change else { return Ok("already so".into()) };
            match placement::apply_placed(&*self.store, &change, view.placement_version).await {
                Err(CommitError::Conflict { .. }) => {}
                outcome => return Ok(outcome.map(|_| format!("done, on {node}"))?),
            }
        }
        Err(No::Store("others were faster".into()))
    }

    async fn undefine(&self, id: VmId) -> Result<String, No> {
        loop {
            let view = self.view().await?;
            let Some(vm) = view.vm(id) else { return Ok("gone".into()) };
            let change = match vm::undefine(vm, view.all_nodes()) {
                Undefine::Change(change) | Undefine::Last(change) => change,
                Undefine::WaitFor(_) => {
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            match schema::vm::apply(&*self.store, &change).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What an operator does again and again: whatever waits for one. Maintenance is ended when it is calm.
pub async fn tidy_up(cluster: Arc<Cluster>, calm: bool) {
    let operator = Operator::new(&cluster, 0);
    let Ok(view) = operator.view().await else { return };
    if view.maintenance && calm {
        perform(Arc::clone(&cluster), 0, Command::Maintenance(false)).await;
    }
    for (number, node) in cluster.nodes.iter().enumerate() {
        let Some(seen) = view.node(&node.name) else { continue };
        let idle = matches!(seen.domain_state.value, DomainState::Flushed | DomainState::Flush);
        if idle && seen.daemon_state.value == DaemonState::Run {
            perform(Arc::clone(&cluster), 0, Command::Ready(number)).await;
        }
    }
    if calm {
        unkind::repair(&cluster, &operator, &view).await;
    }
    for (number, id) in cluster.vms.iter().enumerate() {
        match view.vm(*id).map(|vm| vm.state.value) {
            Some(VmState::Failed) => perform(Arc::clone(&cluster), 0, Command::Start(number)).await,
            // Somebody gave up in the middle of it.
            Some(VmState::Delete) => perform(Arc::clone(&cluster), 0, Command::Undefine(number)).await,
            _ => {}
        }
    }
}

/// Whether every node's daemon says that it runs.
pub fn all_run(cluster: &Cluster) -> bool {
    let run = |name: &NodeName| cluster.around.journal.tree(|tree| tree.node(name, "daemonstate") == "run");
    cluster.nodes.iter().all(|node| run(&node.name))
}
