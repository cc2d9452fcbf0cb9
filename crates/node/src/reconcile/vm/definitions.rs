//! What VMs are started from. A start looks at its definition several times, which is read each time, since it may have changed, and parsed once,
//! since that may cost milliseconds.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::model::{DomainSpec, Vm, VmId, VmName};
use pvc_store::{Store, StoreError, schema};

/// So many are kept: as many as are started at once.
const KEPT: usize = 4;
const MISSING: &str = "it has no definition (the key xml is missing): write it again";

/// What follows from a definition.
pub(super) type Read = Result<Arc<DomainSpec>, String>;

/// The definitions in the store, and the last that were parsed.
pub(super) struct Definitions {
    store: Arc<dyn Store>,
    parsed: Mutex<VecDeque<Parsed>>,
}

struct Parsed {
    id: VmId,
    name: VmName,
    xml: String,
    read: Read,
}

impl Definitions {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, parsed: Mutex::default() }
    }

    /// What a VM is started from; or what is wrong with that.
    pub(super) async fn of(&self, vm: &Vm) -> Result<Read, StoreError> {
        let Some((xml, _)) = schema::vm::read_xml(&*self.store, vm.id).await? else {
            return Ok(Err(MISSING.to_owned()));
        };
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parsed.iter().position(|p| p.id == vm.id);
        let parsed_now = match known.and_then(|at| parsed.remove(at)) {
            Some(known) if known.xml == xml && known.name == vm.name => known,
            _ => parse(vm, xml),
        };
        let read = parsed_now.read.clone();
        parsed.push_front(parsed_now);
        parsed.truncate(KEPT);
        Ok(read)
    }
}

fn parse(vm: &Vm, xml: String) -> Parsed {
    let read = DomainSpec::parse_as(&xml, vm.id, &vm.name)
        .map(Arc::new)
        .map_err(|error| format!("its definition is not usable: {error}"));
    Parsed { id: vm.id, name: vm.name.clone(), xml, read }
}
