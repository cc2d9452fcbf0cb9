//! What definitions say: how large VMs are, for placements, which images they have open, for fences, and whether a VM could be started
//! from it. Read when it is needed, and kept until a definition changes.
//!
//! The mirror holds no definitions, only their versions; this keeps a few words of each. Never more VMs than the cluster has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::{
    model::{ClusterView, DomainSpec, Vm, VmId, ceph::ImageName},
    plan::{
        placement::{Size, Sizes, kept_on},
        storage_fence::images,
    },
};
use pvc_store::{
    Store, StoreError, Value,
    schema::vm::{definition, xml_path},
};
use tracing::debug;

/// Definitions per request: some 8 KiB each.
const AT_ONCE: usize = 64;

/// Bytes of a definition from which on it is no ordinary one, and may take milliseconds to parse: others have their turn before the next.
const LARGE: usize = 32 * 1024;

/// What a VM may have open, or why that is not known.
pub type Images = Result<BTreeSet<ImageName>, String>;

/// See the module's documentation.
pub struct VmSizes {
    store: Arc<dyn Store>,
    /// By the version of the definition it was read from; or what is wrong with that one.
    known: Mutex<HashMap<VmId, Known>>,
}

type Known = (i32, Result<Said, String>);

/// What a definition says.
struct Said {
    size: Size,
    images: BTreeSet<ImageName>,
}

impl VmSizes {
    /// Knows nothing yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// The sizes of all VMs that some node's memory is kept for, and of those that are asked for besides.
    ///
    /// # Errors
    /// If the store does not answer. What is not readable is no error: it is left out.
    pub async fn of(&self, view: &ClusterView, besides: &[VmId]) -> Result<Sizes, StoreError> {
        let counted = view.good_vms().filter(|vm| besides.contains(&vm.id) || !kept_on(vm).is_empty());
        let wanted: Vec<(VmId, i32)> = counted.filter_map(|vm| Some((vm.id, vm.xml_version?))).collect();
        let missing: Vec<VmId> = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|id, _| view.vms.contains_key(id));
            let at = |id: &VmId| known.get(id).map(|(version, _)| *version);
            wanted.iter().filter(|(id, version)| at(id) != Some(*version)).map(|(id, _)| *id).collect()
        };
        for some in missing.chunks(AT_ONCE) {
            let paths: Vec<String> = some.iter().map(|id| xml_path(*id)).collect();
            let values = self.read(&paths).await?;
            for (id, value) in some.iter().zip(values) {
                let is_large = value.as_ref().is_some_and(|value| value.data.len() > LARGE);
                let read = value.zip(view.vm(*id)).map(|(value, vm)| (value.version, said(vm, &value.data)));
                self.know(*id, read);
                if is_large {
                    tokio::task::yield_now().await;
                }
            }
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |id: &VmId| Some(known.get(id)?.1.as_ref().ok()?.size);
        Ok(wanted.iter().filter_map(|(id, _)| Some((*id, size(id)?))).collect())
    }

    /// What each VM that some node claims may have open: its list goes stale, since clients change the definition alone. A name that
    /// cannot be looked at is left out: no VM is started with one, and the list may say anything. Of a definition from which nothing could
    /// be started only the list counts; one that the store does not show is an error of its VM.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn images(&self, view: &ClusterView) -> Result<BTreeMap<VmId, Images>, StoreError> {
        self.of(view, &[]).await?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let claimed = view.good_vms().filter(|vm| !vm.claim.value.is_empty());
        let open = claimed.map(|vm| {
            let (listed, _) = images(&vm.rbd_images);
            let said = known.get(&vm.id).map(|(_, said)| said);
            let open = match (said, vm.xml_version) {
                (Some(Ok(said)), _) => Ok(listed.union(&said.images).cloned().collect()),
                (Some(Err(_)), _) | (None, None) => Ok(listed),
                (None, Some(_)) => Err("its definition cannot be read".to_owned()),
            };
            (vm.id, open)
        });
        Ok(open.collect())
    }

    fn know(&self, id: VmId, read: Option<Known>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Some(read) => known.insert(id, read),
            None => known.remove(&id),
        };
    }

    /// Of the definitions that were read: what is wrong with those from which no VM could be started.
    pub fn unusable(&self) -> BTreeMap<VmId, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(|(id, (_, read))| Some((*id, read.as_ref().err()?.clone()))).collect()
    }

    /// A definition that the store refuses to show is one that cannot be read: it costs nobody else.
    async fn read(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        let together = self.store.get_many(paths).await;
        let Err(StoreError::Refused { .. }) = together else { return together };
        let mut values = Vec::with_capacity(paths.len());
        for path in paths {
            values.push(match self.store.get(path).await {
                Err(StoreError::Refused { .. }) => None,
                value => value?,
            });
        }
        Ok(values)
    }
}

fn said(vm: &Vm, xml: &[u8]) -> Result<Said, String> {
    let spec = DomainSpec::parse_as(&definition(xml), vm.id, &vm.name).map_err(|error| {
        debug!(vm = %vm.name, %error, "its size cannot be read from its definition");
        format!("its definition is not usable: {error}")
    })?;
    Ok(Said { size: Size::from(&spec), images: images(&spec.rbd_images).0 })
}

#[cfg(test)]
mod tests {
    use pvc_core::model::{NodeName, VmChange, VmSet, VmState};
    use pvc_store::{
        memory::MemoryTree,
        mirror::Mirror,
        schema::{root, vm},
    };

    use super::*;

    fn id(n: u8) -> VmId {
        format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
    }

    fn xml(n: u8, mib: u32) -> String {
        format!(
            "<domain type='kvm'><name>vm{n}</name><uuid>{}</uuid><memory unit='MiB'>{mib}</memory><vcpu>2</vcpu><devices/></domain>",
            id(n)
        )
    }

    async fn set(store: &dyn Store, n: u8, set: VmSet) {
        vm::apply(store, &VmChange::Update { id: id(n), expect: vec![], set: vec![set] }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn sizes_are_read_once_a_definition_and_only_of_vms_that_count() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let node: NodeName = "a".parse().unwrap();
        for (n, xml) in [(1, xml(1, 64)), (2, xml(2, 128)), (3, "rubbish".into()), (4, xml(4, 256))] {
            let name = format!("vm{n}").parse().unwrap();
            let define = VmChange::Define { id: id(n), name, node: node.clone(), xml, rbd_images: vec![] };
            vm::apply(&*store, &define).await.unwrap();
        }
        for n in [1, 3] {
            set(&*store, n, VmSet::State(VmState::Start)).await;
        }
        let mirror = Mirror::start(store.clone());
        mirror.ready().await;
        let sizes = VmSizes::new(store.clone());
        let of = |memory_mib| Size { memory_mib, vcpus: 2, ..Size::default() };
        let first = sizes.of(&mirror.view(), &[id(4)]).await.unwrap();
        assert_eq!(first, [(id(1), of(64)), (id(4), of(256))].into(), "2 is off, 3 is no definition");
        assert_eq!(sizes.unusable().into_keys().collect::<Vec<_>>(), [id(3)]);

        store.refuse(1);
        assert_eq!(sizes.of(&mirror.view(), &[id(4)]).await.unwrap(), first, "nothing is read again");
        assert!(store.get("/nodes").await.is_err(), "the refusal was not used up");

        set(&*store, 1, VmSet::Xml(xml(1, 96))).await;
        vm::apply(&*store, &VmChange::Remove { id: id(3), expect: vec![] }).await.unwrap();
        mirror.caught_up(std::time::Duration::from_secs(5)).await.unwrap();
        assert_eq!(sizes.of(&mirror.view(), &[]).await.unwrap(), [(id(1), of(96))].into());
        assert!(!sizes.known.lock().unwrap().contains_key(&id(3)), "what is gone is forgotten");
    }
}
