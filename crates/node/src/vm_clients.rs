//! The Ceph clients by which VMs write are shut out before anybody else writes. Who they are is recorded by `reconcile::client_records`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{
        ClusterView, DomainSpec, Node, NodeName, Problem, Vm, VmChange, VmId, VmKey,
        ceph::{ClientAddress, ImageName, Recorded, VmClients},
    },
    plan::{
        storage_fence::{Claimed, Request, images, of_dead_node, of_ended_instances},
        vm::proven_dead,
    },
};
use pvc_host::{
    storage_fence::{StorageFence, StorageFenceError, Unseen},
    warrant::{Void, Warrant},
};
use pvc_store::{CommitError, Store, StoreError, Transaction, schema};
use tokio::time::timeout;

use crate::{controller::StepError, sizes::Images};

/// How long the storage may take to shut somebody out.
const WITHIN: Duration = Duration::from_mins(1);

/// Why somebody may still be writing.
#[derive(Debug)]
pub(crate) enum NotShutOut {
    /// It was decided from something that has changed: look again.
    Overtaken(String),
    /// In words for an operator.
    Failed(String),
}

impl fmt::Display for NotShutOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overtaken(what) => write!(f, "{what} has changed"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl NotShutOut {
    /// What failed, in words for an operator.
    ///
    /// # Errors
    /// If nothing has failed: it is looked again.
    pub(crate) fn failed(self) -> Result<String, StepError> {
        match self {
            Self::Overtaken(what) => Err(StepError::Conflict(what)),
            Self::Failed(why) => Ok(why),
        }
    }
}

impl From<String> for NotShutOut {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<StoreError> for NotShutOut {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StorageFenceError> for NotShutOut {
    fn from(error: StorageFenceError) -> Self {
        match error {
            StorageFenceError::Void(Void::Overtaken(what)) => Self::Overtaken(what),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// A warrant that holds while the state tree is as it was when something was decided: a transaction of nothing but checks is judged by
/// the leader, where what is read may come from a server that lags behind.
pub(crate) struct AsDecided<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) checks: Transaction,
}

#[async_trait]
impl Warrant for AsDecided<'_> {
    async fn holds(&self) -> Result<(), Void> {
        match self.store.commit(self.checks.clone()).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { path, .. }) => Err(Void::Overtaken(path)),
            Err(error) => Err(Void::Unknown(error.to_string())),
        }
    }
}

/// That whether and where a VM is to execute is as it was when something was decided.
pub(crate) fn decided_from(vm: &Vm) -> Transaction {
    schema::vm::transaction(&VmChange::update(vm, &[VmKey::State, VmKey::Node, VmKey::Claim], Vec::new()))
}

/// That none of these nodes has said anew what it executes since that was looked at.
pub(crate) fn words_as_seen<'a>(view: &ClusterView, nodes: impl Iterator<Item = &'a Node>) -> Transaction {
    let mut words = Transaction::default();
    for node in nodes {
        let expected = if proven_dead(view, node) {
            schema::node::expect_daemon_state(node)
        } else {
            schema::node::expect_last_word(node)
        };
        words.ops.extend(expected.ops);
    }
    words
}

/// Shuts out everything of a node that is proven dead, and removes what is recorded of it. Answers of which of its VMs that did not come to
/// an end, and why: of all others, somebody else may start.
///
/// # Errors
/// Somebody of any VM may still be writing.
pub(crate) async fn shut_out_node(
    store: &dyn Store,
    storage: &dyn StorageFence,
    node: &Node,
    view: &ClusterView,
    images: &BTreeMap<VmId, Images>,
    warrant: &dyn Warrant,
) -> Result<BTreeMap<VmId, String>, NotShutOut> {
    let dead = &node.name;
    let (records, problems) = schema::vm_clients::read_all(store).await?;
    let mut waiting = BTreeMap::new();
    for problem in problems {
        match schema::vm_clients::whose(&problem.key) {
            Some((vm, node)) if node == *dead => drop(waiting.insert(vm, problem.to_string())),
            // Which VM it is about is not known, so of none it is known that it is shut out.
            None if problem.key.ends_with(&format!("@{dead}")) => return Err(problem.to_string().into()),
            _ => {}
        }
    }
    let mut claimed = Vec::new();
    for (id, images) in images {
        let Some(vm) = view.vm(*id) else { continue };
        let by = vm.claim.value.clone();
        match images {
            Ok(images) => claimed.push((*id, Claimed { by, images: images.clone() })),
            Err(why) if by.names(dead) => drop(waiting.insert(*id, why.clone())),
            Err(_) => {}
        }
    }
    let open: Vec<Claimed> = claimed.iter().map(|(_, claimed)| claimed.clone()).collect();
    let request = of_dead_node(dead, node.storage_host, &open, &records);
    let theirs = || records.iter().filter(|record| record.node == *dead);
    let unseen = shut_out(storage, dead, &request, warrant).await?;
    let claimed = claimed.iter().filter(|(_, claimed)| claimed.by.names(dead));
    let recorded = theirs().map(|record| (record.vm, &record.clients.images));
    for (vm, images) in claimed.map(|(vm, claimed)| (*vm, &claimed.images)).chain(recorded) {
        if let Some((image, error)) = unseen.iter().find(|(image, _)| images.contains(*image)) {
            waiting.entry(vm).or_insert_with(|| format!("{image}: {error}"));
        }
    }
    remove(store, theirs().filter(|record| !waiting.contains_key(&record.vm))).await?;
    Ok(waiting)
}

/// Shuts out whatever is recorded of a VM that is off everywhere and about to start on this node, and removes the records. Whether there
/// was anything: then it took a while.
///
/// # Errors
/// As [`shut_out_node`].
pub(crate) async fn shut_out_ended(
    store: &dyn Store,
    storage: &dyn StorageFence,
    me: &NodeName,
    spec: &DomainSpec,
    warrant: &dyn Warrant,
) -> Result<bool, NotShutOut> {
    if let Some(strange) = images(&spec.rbd_images).1.first() {
        let why = format!(
            "the name of its RBD image {strange} is none that pvcd can look at; it must be pool/image"
        );
        return Err(why.into());
    }
    let vm = spec.id;
    let (its, problems) = schema::vm_clients::read_vm(store, vm).await?;
    readable(problems.into_iter())?;
    if its.is_empty() {
        return Ok(false);
    }
    let mut records = Vec::new();
    for node in its.iter().map(|record| &record.node).collect::<BTreeSet<_>>() {
        records.extend(schema::vm_clients::read_node(store, node).await?.0);
    }
    let request = of_ended_instances(vm, &records);
    let of = its.first().map_or(me, |record| &record.node);
    if let Some((image, error)) = shut_out(storage, of, &request, warrant).await?.first_key_value() {
        return Err(format!("{image}: {error}").into());
    }
    remove(store, its.iter()).await?;
    Ok(true)
}

/// Shuts out what a VM that executes nowhere has left, and removes what is recorded of it.
///
/// # Errors
/// As [`shut_out_node`].
pub(crate) async fn flush(
    store: &dyn Store,
    storage: &dyn StorageFence,
    me: &NodeName,
    vm: VmId,
    request: &Request,
    warrant: &dyn Warrant,
) -> Result<(), NotShutOut> {
    let (its, problems) = schema::vm_clients::read_vm(store, vm).await?;
    readable(problems.into_iter())?;
    let of = its.first().map_or(me, |record| &record.node);
    if let Some((image, error)) = shut_out(storage, of, request, warrant).await?.first_key_value() {
        return Err(format!("{image}: {error}").into());
    }
    // One that was made meanwhile is of clients that nobody has asked about.
    let known = |client: &ClientAddress| request.recorded.contains(client) || request.spared.contains(client);
    let asked_about = |record: &&Recorded| record.clients.clients.iter().all(known);
    remove(store, its.iter().filter(asked_about)).await
}

/// Why a VM is not to be started here, if so: no process is made that would hang with its storage, or write to what nobody could shut it out of.
pub(crate) async fn written_images_are_there(
    storage: &dyn StorageFence,
    spec: &DomainSpec,
) -> Result<(), String> {
    for image in images(&spec.written_images()).0 {
        if storage.open_here(&image).await.map_err(|error| error.to_string())?.is_none() {
            return Err(format!("{image} is not there; {IN_THIS_CEPH}"));
        }
    }
    Ok(())
}

/// What helps where a VM writes to what cannot be seen.
const IN_THIS_CEPH: &str = "the disks that a VM writes to must be in the Ceph cluster that its node uses (its ceph.conf), so that it can be shut out of them: correct its definition, or move \
     the image there";

/// Records the clients of a process of this node that has opened its VM's images and executes nothing yet, while everything is as the start
/// was decided from. Ceph loses sight of a client that is frozen after half a minute, and of one that has not written yet nothing is left
/// then: whoever fences this node would not find it, and it would write when it goes on.
///
/// # Errors
/// It must not execute.
pub(crate) async fn record_unstarted(
    store: &dyn Store,
    storage: &dyn StorageFence,
    me: &Node,
    spec: &DomainSpec,
    decided_from: &Transaction,
) -> Result<(), NotShutOut> {
    let (boot, me) = (me.boot.clone(), &me.name);
    let (mut new, written) = (VmClients::default(), spec.written_images());
    for image in images(&spec.rbd_images).0 {
        let clients = storage.open_here(&image).await?.unwrap_or_default();
        if clients.is_empty() && written.contains(&image.to_string()) {
            return Err(
                format!("Ceph knows of nobody on this node who has {image} open; {IN_THIS_CEPH}").into()
            );
        }
        new.clients.extend(clients);
        new.images.insert(image);
    }
    record(store, (me, boot), spec.id, &new, decided_from).await
}

/// Records the clients of a guest that was executed elsewhere or before, and does not go on here yet. Its process has open what its definition said at its start: of
/// the images that are known by now it may have some only.
///
/// # Errors
/// As [`record_unstarted`].
pub(crate) async fn record_arrived(
    store: &dyn Store,
    storage: &dyn StorageFence,
    me: &Node,
    vm: &Vm,
    decided_from: &Transaction,
) -> Result<(), NotShutOut> {
    let mut known = images_of(store, vm).await?;
    let (records, problems) = schema::vm_clients::read_vm(store, vm.id).await?;
    readable(problems.into_iter())?;
    known.extend(records.into_iter().flat_map(|record| record.clients.images));
    let mut new = VmClients::default();
    for image in known {
        let clients = storage.open_here(&image).await?.unwrap_or_default();
        if !clients.is_empty() {
            new.clients.extend(clients);
            new.images.insert(image);
        }
    }
    if new.clients.is_empty() {
        return Ok(());
    }
    record(store, (&me.name, me.boot.clone()), vm.id, &new, decided_from).await
}

/// Adds these clients to what is recorded of a VM on this node in this boot.
async fn record(
    store: &dyn Store,
    (me, boot): (&NodeName, Option<String>),
    vm: VmId,
    new: &VmClients,
    decided_from: &Transaction,
) -> Result<(), NotShutOut> {
    let own = schema::vm_clients::path(vm, me);
    loop {
        let (records, problems) = schema::vm_clients::read_vm(store, vm).await?;
        readable(problems.into_iter())?;
        let before = records.iter().find(|record| record.node == *me);
        let mut clients = before.map_or_else(VmClients::default, |record| record.clients.clone());
        clients.clients.extend(&new.clients);
        clients.images.extend(new.images.iter().cloned());
        clients.boot.clone_from(&boot);
        let record = (&clients, before);
        match schema::vm_clients::record(store, vm, me, record, decided_from).await {
            Ok(()) => return Ok(()),
            // The recorder has seen it, too.
            Err(CommitError::Conflict { path, .. }) if path == own => {}
            Err(CommitError::Conflict { path, .. }) => return Err(NotShutOut::Overtaken(path)),
            Err(error) => return Err(error.to_string().into()),
        }
    }
}

async fn shut_out(
    storage: &dyn StorageFence,
    of: &NodeName,
    request: &Request,
    warrant: &dyn Warrant,
) -> Result<Unseen, NotShutOut> {
    if request.is_empty() {
        return Ok(Unseen::new());
    }
    match timeout(WITHIN, storage.shut_out(of, request, warrant)).await {
        Ok(unseen) => Ok(unseen?),
        Err(_) => Err(format!("the storage did not answer within {} s", WITHIN.as_secs()).into()),
    }
}

async fn remove(store: &dyn Store, records: impl Iterator<Item = &Recorded>) -> Result<(), NotShutOut> {
    for record in records {
        // Whoever lets them in again wants to know whose they were, and where.
        schema::shut_out::note(store, record).await.map_err(|error| error.to_string())?;
        schema::vm_clients::remove(store, record).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What a VM may have open: its list goes stale, since clients change the definition alone. A name that cannot be looked at is left out:
/// this node starts no VM with one, and the list may say anything.
pub(crate) async fn images_of(store: &dyn Store, vm: &Vm) -> Result<BTreeSet<ImageName>, StoreError> {
    let (mut all, _) = images(&vm.rbd_images);
    if let Some((xml, _)) = schema::vm::read_xml(store, vm.id).await?
        && let Ok(spec) = DomainSpec::parse_as(&xml, vm.id, &vm.name)
    {
        // One that cannot be read has started nothing.
        all.extend(images(&spec.rbd_images).0);
    }
    Ok(all)
}

/// Whom a record that cannot be read is about is not known, so nobody is known to be shut out.
fn readable(mut problems: impl Iterator<Item = Problem>) -> Result<(), String> {
    match problems.next() {
        None => Ok(()),
        Some(problem) => Err(problem.to_string()),
    }
}
