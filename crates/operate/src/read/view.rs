//! The whole cluster at once, for what is decided from more than one of its objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use pvc_core::{
    model::{ClusterView, DomainSpec, FlushProgress, NodeName, Vm, VmId, VmName},
    plan::placement::{ClusterCapacity, Reserve, Size, Sizes, kept_on, works},
};
use pvc_store::{
    Store, StoreError, Value,
    mirror::{Mirror, Needs},
    schema::{flush, node, owner, vm},
};

use crate::{Cluster, Failure, definitions::Digest, watched::Figures};

/// How long a listing may take.
const WITHIN: Duration = Duration::from_secs(15);

/// What each VM would be started from, or what is wrong with that.
pub(crate) type Definitions = BTreeMap<VmId, Result<DomainSpec, String>>;

fn sizes(definitions: &Definitions) -> Sizes {
    definitions.iter().filter_map(|(id, spec)| Some((*id, Size::from(spec.as_ref().ok()?)))).collect()
}

/// What the definitions of all VMs say that are in order.
#[derive(Default)]
pub(crate) struct Looked {
    pub(crate) sizes: Sizes,
    /// Those that could not be started, and why.
    pub(crate) damaged: BTreeMap<VmId, String>,
    /// Those that lack what clients of the 0.5 generation cannot do without.
    pub(crate) bare: BTreeSet<VmId>,
}

impl Looked {
    fn note(&mut self, id: VmId, digest: &Digest) {
        match &digest.size {
            Ok(size) => drop(self.sizes.insert(id, *size)),
            Err(why) => drop(self.damaged.insert(id, why.clone())),
        }
        if digest.is_bare {
            self.bare.insert(id);
        }
    }
}

/// What a target is chosen from.
pub(crate) struct Ground {
    /// What is spoken for.
    pub(crate) capacity: ClusterCapacity,
    sizes: Sizes,
}

impl Ground {
    /// Whether there is memory left for what may happen.
    pub(crate) fn reserve(&self, view: &ClusterView) -> Reserve {
        Reserve::count(view, &self.capacity, &self.sizes)
    }
}

impl Cluster {
    /// Reads the cluster.
    pub async fn view(&self) -> Result<ClusterView, Failure> {
        self.read_view(Mirror::start).await
    }

    /// The same without VMs.
    pub(crate) async fn view_without_vms(&self) -> Result<ClusterView, Failure> {
        self.read_view(|store| Mirror::start_on(store, &Needs { no_vms: true, ..Needs::default() })).await
    }

    /// The cluster as it is and becomes.
    pub(crate) async fn mirror(&self) -> Result<Mirror, Failure> {
        self.start_mirror(|store| Mirror::start_on(store, &Needs { networks: true, ..Needs::default() }))
            .await
    }

    async fn read_view(&self, start: impl FnOnce(Arc<dyn Store>) -> Mirror) -> Result<ClusterView, Failure> {
        if let Some(view) = self.known(Figures::Newest).await? {
            return Ok((*view).clone());
        }
        Ok((*self.start_mirror(start).await?.view()).clone())
    }

    async fn start_mirror(&self, start: impl FnOnce(Arc<dyn Store>) -> Mirror) -> Result<Mirror, Failure> {
        self.children(node::ROOT).await?;
        let mirror = start(self.store.clone());
        let late = |_| StoreError::Unavailable(format!("no complete answer within {} s", WITHIN.as_secs()));
        tokio::time::timeout(WITHIN, mirror.ready()).await.map_err(late)?;
        Ok(mirror)
    }

    /// Counts what is spoken for in a view, from the definitions of the VMs that are kept somewhere.
    pub(crate) async fn capacity(&self, view: &ClusterView) -> Result<Ground, Failure> {
        if self.definitions_known().is_some() {
            let sizes = self.looked(view).await?.sizes;
            return self.ground(view, sizes).await;
        }
        let kept = view.good_vms().filter(|vm| !kept_on(vm).is_empty());
        let definitions = self.definitions(kept.map(|vm| (vm.id, &vm.name))).await?;
        self.ground(view, sizes(&definitions)).await
    }

    /// The same, from definitions that were read.
    pub(crate) async fn ground(&self, view: &ClusterView, sizes: Sizes) -> Result<Ground, Failure> {
        let silent = self.absent(view).await?;
        Ok(Ground { capacity: ClusterCapacity::count(view, &sizes, &silent), sizes })
    }

    /// The nodes that say they work and whose daemons have no session: no VM is to be given to them. Not by the time of their last
    /// keepalive, which is by their own clocks.
    pub(crate) async fn absent(&self, view: &ClusterView) -> Result<BTreeSet<NodeName>, Failure> {
        let present: BTreeSet<String> =
            self.store.children(owner::ROOT).await?.unwrap_or_default().into_iter().collect();
        let absent = view.all_nodes().filter(|node| works(node) && !present.contains(node.name.as_str()));
        Ok(absent.map(|node| node.name.clone()).collect())
    }

    /// The size of a VM, by its definition.
    pub(crate) async fn size(&self, ground: &Ground, vm: &Vm) -> Result<Size, Failure> {
        let id = vm.id;
        if let Some(size) = ground.sizes.get(&id) {
            return Ok(*size);
        }
        let definitions = self.definitions([(id, &vm.name)].into_iter()).await?;
        sizes(&definitions).remove(&id).ok_or_else(|| {
            Failure::Failed(format!(
                "VM {id} has no readable definition: nobody knows how much memory it needs; `pvc vm explain {id}`"
            ))
        })
    }

    /// What all definitions say.
    pub(crate) async fn looked(&self, view: &ClusterView) -> Result<Looked, Failure> {
        let mut looked = Looked::default();
        let Some(known) = self.definitions_known() else {
            let definitions = self.definitions(view.good_vms().map(|vm| (vm.id, &vm.name))).await?;
            for (id, spec) in &definitions {
                looked.note(*id, &Digest::of(spec, None));
            }
            return Ok(looked);
        };
        known.forget_all_but(&view.vms);
        let vms: Vec<Option<&Vm>> = view.good_vms().map(Some).collect();
        for (vm, said) in view.good_vms().zip(known.of(&*self.store, &vms, false).await?) {
            let digest = said.digest.ok_or_else(Failure::unwatched)?;
            looked.note(vm.id, &digest);
        }
        Ok(looked)
    }

    /// What each of these would be started from, or what is wrong with that.
    pub(crate) async fn definitions<'a>(
        &self,
        vms: impl Iterator<Item = (VmId, &'a VmName)>,
    ) -> Result<Definitions, Failure> {
        let (ids, names): (Vec<VmId>, Vec<&VmName>) = vms.unzip();
        let texts = self.definition_texts(&ids).await?;
        let parse = |((id, name), text): ((VmId, &VmName), Result<String, String>)| {
            let spec = text.and_then(|xml| DomainSpec::parse_as(&xml, id, name).map_err(|e| e.to_string()));
            (id, spec)
        };
        Ok(ids.into_iter().zip(names).zip(texts).map(parse).collect())
    }

    /// The texts of definitions, or why there is none. One that may not be read costs nobody else.
    pub(crate) async fn definition_texts(
        &self,
        ids: &[VmId],
    ) -> Result<Vec<Result<String, String>>, Failure> {
        let paths: Vec<String> = ids.iter().map(|id| vm::xml_path(*id)).collect();
        let text = |value: Option<Value>| {
            let value = value.ok_or("it is missing")?;
            Ok(vm::definition(&value.data))
        };
        match self.store.get_many(&paths).await {
            Err(StoreError::Refused { .. }) => {}
            values => return Ok(values?.into_iter().map(text).collect()),
        }
        let mut texts = Vec::with_capacity(paths.len());
        for path in &paths {
            texts.push(match self.store.get(path).await {
                Err(refused @ StoreError::Refused { .. }) => Err(refused.to_string()),
                value => text(value?),
            });
        }
        Ok(texts)
    }

    /// What nodes say of the flushes and unflushes that go on.
    pub(crate) async fn flushes(
        &self,
        view: &ClusterView,
    ) -> Result<BTreeMap<NodeName, FlushProgress>, Failure> {
        let mut flushes = BTreeMap::new();
        for name in view.nodes.keys() {
            if let Some(Ok(progress)) = flush::read(&*self.store, name).await? {
                flushes.insert(name.clone(), progress);
            }
        }
        Ok(flushes)
    }
}
