//! Which devices VMs' definitions name: also that of a VM which is off has a disk that it wants back.

use std::collections::BTreeMap;

use pvc_core::model::{HostDevice, VmId, host_devices};
use pvc_store::{
    Store, StoreError, Value,
    schema::vm::{definition, xml_path},
};

use crate::controller::{Cluster, StepError};

/// So many definitions are read at once; each may have a megabyte.
const AT_ONCE: usize = 16;
/// So much of names is looked at: some eighty thousand, which nobody has.
const MOST_BYTES: usize = 4 << 20;
/// And so much of one VM's, which counts beyond as one that cannot be read: it hides its own disks, not those of others.
const MOST_OF_A_VM: usize = 64 << 10;

/// The store does not show it.
struct Hidden;

/// What the definitions of all VMs name.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Each with the first VM that names it.
    named: BTreeMap<HostDevice, String>,
    bytes: usize,
    /// A VM whose definition cannot be read.
    pub(super) unread: Option<String>,
}

impl Definitions {
    /// As the leader has them now.
    pub(super) async fn read(cluster: &Cluster) -> Result<Self, StepError> {
        cluster.catch_up_with_everybody().await?;
        let (view, mut all) = (cluster.view(), Self::default());
        let ids: Vec<VmId> = view.vms.keys().copied().collect();
        for ids in ids.chunks(AT_ONCE) {
            let paths: Vec<String> = ids.iter().map(|id| xml_path(*id)).collect();
            let values = match cluster.store.get_many(&paths).await {
                Err(StoreError::Refused { .. }) => one_by_one(&*cluster.store, &paths).await?,
                values => values?.into_iter().map(Ok).collect(),
            };
            for (id, value) in ids.iter().zip(values) {
                let vm = view.vm(*id).map_or_else(|| id.to_string(), |vm| vm.name.to_string());
                all.add(vm, value);
            }
            if all.bytes > MOST_BYTES {
                return Err(StepError::Failed(format!(
                    "the definitions of VMs name more devices than are looked at ({} MiB of names): whether one of them names this one is not known",
                    MOST_BYTES >> 20
                )));
            }
        }
        Ok(all)
    }

    /// A VM without a definition names nothing.
    fn add(&mut self, vm: String, value: Result<Option<Value>, Hidden>) {
        let names = match value {
            Ok(None) => return,
            Ok(Some(value)) => host_devices(&definition(&value.data)).ok(),
            Err(Hidden) => None,
        };
        let Some(names) = names else {
            self.unread.get_or_insert(vm);
            return;
        };
        let mut own = 0;
        for name in names {
            let (HostDevice::Path(text) | HostDevice::On(text)) = &name;
            own += text.len();
            if own > MOST_OF_A_VM {
                self.unread.get_or_insert(vm);
                return;
            }
            if !self.named.contains_key(&name) {
                self.bytes += text.len();
                self.named.insert(name, vm.clone());
            }
        }
    }

    /// All names.
    pub(super) fn names(&self) -> Vec<HostDevice> {
        self.named.keys().cloned().collect()
    }

    /// The VM that names it.
    pub(super) fn vm(&self, name: &HostDevice) -> Option<String> {
        self.named.get(name).cloned()
    }
}

/// One of them may not be read: the others are.
async fn one_by_one(
    store: &dyn Store,
    paths: &[String],
) -> Result<Vec<Result<Option<Value>, Hidden>>, StoreError> {
    let mut values = Vec::new();
    for path in paths {
        values.push(match store.get(path).await {
            Err(StoreError::Refused { .. }) => Err(Hidden),
            value => Ok(value?),
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(data: Vec<u8>) -> Value {
        Value { data, version: 0, mzxid: 0, children: 0 }
    }

    fn xml(devices: &str) -> Value {
        let data = format!("<domain><devices>{devices}</devices></domain>").into_bytes();
        value(data)
    }

    #[test]
    fn each_name_has_a_vm_and_what_is_unread_or_too_much_is_said() {
        let disk = |name: &str| Ok(Some(xml(&format!("<disk><source dev='{name}'/></disk>"))));
        let mut all = Definitions::default();
        all.add("web".into(), disk("/dev/sdb"));
        all.add("db".into(), disk("/dev/sdb"));
        all.add("none".into(), Ok(None));
        assert_eq!((all.names().len(), all.unread.clone()), (1, None));
        assert_eq!(all.vm(&all.names()[0]).as_deref(), Some("web"));
        all.add("odd".into(), Ok(Some(value(b"<domain".to_vec()))));
        all.add("hidden".into(), Err(Hidden));
        assert_eq!(all.unread.as_deref(), Some("odd"), "the first");

        // Twenty names of 4000 bytes; what the next VM names is known all the same.
        let mut full = Definitions::default();
        let many: Vec<String> =
            (0..20).map(|disk| format!("<disk><source dev='/dev/{disk:04000}'/></disk>")).collect();
        full.add("many".into(), Ok(Some(xml(&many.concat()))));
        full.add("next".into(), disk("/dev/sdc"));
        assert_eq!((full.names().len(), full.unread.as_deref()), (17, Some("many")));
        assert!(full.names().iter().any(|name| full.vm(name).as_deref() == Some("next")));
    }
}
