//! Operators: what `pvc` does for them, by the same decisions, and what old clients write.

mod definition;
mod impatient;
pub mod networks;
mod old_client;
mod storage;
mod unkind;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_core::{
    command::node::Signature,
    model::{DaemonState, DomainSpec, DomainState, NodeName, VmId, VmState},
    plan::placement::Selector,
};
use pvc_operate::{
    Asked, Failure,
    node::{self, Listen},
    vm::{self, Desired, Relocation, To, Written},
};
use pvc_store::{CommitError, Op, Store, StoreError, Transaction, memory::MemoryStore};
use tokio::time::timeout;

use crate::{
    cluster::Cluster,
    event::{Event, Told},
    schedule::{Command, Definition, OldState},
};

/// Why a command was not carried out.
enum No {
    /// The command line client would have said so.
    Refused(String),
    /// The state tree could not be read or written.
    Store(String),
}

impl From<Failure> for No {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused(refusal.to_string()),
            other => Self::Store(other.to_string()),
        }
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
        Command::StartOn(node) => unkind::start_on(cluster, client, node).await,
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

struct Operator<'a> {
    cluster: &'a Cluster,
    store: Arc<MemoryStore>,
    /// The same, for what `pvc` does.
    client: pvc_operate::Cluster,
    /// Of which VM he was told that it is desired already, and the transaction of the desired state that he saw.
    seen: Mutex<Option<(VmId, i64)>>,
}

impl<'a> Operator<'a> {
    fn new(cluster: &'a Cluster, client: u32) -> Self {
        let store = cluster.around.ensemble.operator(client);
        let client = pvc_operate::Cluster::new(Arc::clone(&store) as Arc<dyn Store>, "");
        Self { cluster, store, client, seen: Mutex::default() }
    }

    async fn perform(&self, command: Command) -> Result<String, No> {
        match command {
            Command::Define(vm) => self.define(vm).await,
            Command::Undefine(vm) => self.undefine(self.id(vm)).await,
            Command::Start(vm) => self.ask_for(vm, Desired::Start).await,
            Command::Stop(vm) => self.ask_for(vm, Desired::Stop).await,
            Command::Shutdown(vm) => self.ask_for(vm, Desired::Shutdown).await,
            Command::Restart(vm) => self.ask_for(vm, Desired::Restart).await,
            Command::Migrate(vm, to) => {
                self.relocate(vm, Relocation::Migrate, to.map(|to| self.name(to))).await
            }
            Command::Unmigrate(vm) => self.relocate(vm, Relocation::Unmigrate, None).await,
            Command::Move(vm, to) => self.relocate(vm, Relocation::Move, Some(self.name(to))).await,
            Command::Flush(n) => Ok(said(&node::flush(&self.client, self.name(n).as_str()).await?)),
            Command::Ready(n) => Ok(said(&node::ready(&self.client, self.name(n).as_str()).await?)),
            Command::Primary(n) => Ok(said(&node::primary(&self.client, self.name(n).as_str()).await?)),
            Command::Secondary(n) => Ok(said(&node::secondary(&self.client, self.name(n).as_str()).await?)),
            Command::Maintenance(on) => Ok(self.client.set_maintenance(on).await?.message),
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
                let now = self.client.view().await?;
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
            Command::LiftShutOuts => self.lift_shut_outs().await,
            Command::FlushLocks(vm) => self.flush_locks(vm).await,
            Command::Impatient { .. } | Command::Redefine(_) | Command::StopOn(_) | Command::StartOn(_) => {
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

    async fn ask_for(&self, number: usize, desired: Desired) -> Result<String, No> {
        let Written { vm, asked } = vm::set_state(&self.client, self.id(number), desired).await?;
        if !asked.written {
            let seen = Some((vm.id, vm.state.zxid));
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        }
        Ok(said(&asked))
    }

    async fn relocate(
        &self,
        number: usize,
        relocation: Relocation,
        to: Option<NodeName>,
    ) -> Result<String, No> {
        let to = To { node: to.as_ref().map(NodeName::as_str), selector: Selector::Mem, force: true };
        let relocated = vm::relocate(&self.client, self.id(number), relocation, to).await?;
        Ok(format!("done, to {}", relocated.node))
    }

    /// Gives an operator's word, who has looked: the machine has no power. So he need not listen, and his word may meet the next boot.
    async fn confirm_dead(&self, name: &NodeName) -> Result<String, No> {
        let has_power = self.cluster.around.journal.truth(|truth| truth.machine(name).boot.is_some());
        if has_power {
            return Err(No::Refused("it has power, as one sees".into()));
        }
        let listen = Listen { at_least: Duration::ZERO, progress: &|_| {} };
        let prepared = node::confirm_dead(&self.client, name.as_str(), signature(), listen).await?;
        Ok(said(&prepared.carry_out(&self.client).await?))
    }

    /// Asks for a node's fence, whatever it does.
    async fn fence(&self, name: &NodeName) -> Result<String, No> {
        let prepared = node::fence(&self.client, name.as_str(), signature()).await?;
        Ok(said(&prepared.carry_out(&self.client).await?))
    }

    /// The definition of a VM.
    fn definition(&self, number: usize, how: Definition) -> String {
        let around = &self.cluster.around;
        definition::xml(self.id(number), number, (around.wires.of(number), around.ceph.is_some()), how)
    }

    async fn define(&self, number: usize) -> Result<String, No> {
        let xml = self.definition(number, Definition::Good);
        let spec = DomainSpec::parse(&xml).map_err(|error| No::Refused(error.to_string()))?;
        let (node, _) = vm::define(&self.client, &spec, None, Selector::Mem).await?;
        Ok(format!("done, on {node}"))
    }

    async fn undefine(&self, id: VmId) -> Result<String, No> {
        let (_, asked) = vm::undefine(&self.client, id).await?;
        Ok(asked.wait(&self.client, Duration::from_mins(1), &|_| {}).await?.message)
    }
}

fn signature() -> Signature {
    Signature { by: "an operator".into(), at_unix_s: 0 }
}

fn said(asked: &Asked) -> String {
    if asked.written { "done" } else { "already so" }.to_owned()
}

/// What an operator does again and again: whatever waits for one. Maintenance is ended when it is calm.
pub async fn tidy_up(cluster: Arc<Cluster>, calm: bool) {
    let operator = Operator::new(&cluster, 0);
    let Ok(view) = operator.client.view().await else { return };
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
