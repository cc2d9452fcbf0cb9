//! What the definitions of a watched cluster's VMs say: each is read once for each time that it is written.
//!
//! Of a definition is kept what lists show of it, as JSON, and what who looks at the whole cluster wants to know: ten thousand take 9 MB so, and 75 as texts. Of
//! texts, which the old API shows, as many are kept as fit into [`TEXTS`]; the others are read whenever they are asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::{
    model::{DomainDetails, DomainSpec, Entry, Vm, VmId, VmName, Vni},
    plan::placement::Size,
};
use pvc_store::{Store, StoreError, Value, schema::vm};
use tokio::sync::Mutex as Turn;

use crate::Failure;

/// So many definitions are read in one request: each may be as large as ZooKeeper takes it.
pub const AT_ONCE: usize = 64;

/// So many bytes of definitions are kept as texts …
const TEXTS: usize = 10 << 20;
/// … and so many of what lists show of them: of 40,000 VMs, unless somebody writes very long descriptions.
const DETAILS: usize = 32 << 20;

/// What a definition says, for lists.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// What is wrong with it.
    pub problem: Option<Arc<str>>,
    /// What is in it: a JSON object without its braces. `None`: it cannot be read.
    pub details: Option<Arc<str>>,
    /// The definition itself, where it was asked for: a JSON text, for it is as long as all else and is sent much more often than it is read.
    pub text: Option<Arc<str>>,
    /// … and for who looks at the whole cluster; `None`: there is no VM.
    pub(crate) digest: Option<Arc<Digest>>,
}

/// What whoever looks at the whole cluster wants to know of a definition.
#[derive(Debug)]
pub(crate) struct Digest {
    /// What is spoken for by the VM, or why nobody knows.
    pub(crate) size: Result<Size, String>,
    /// Whether it lacks what clients of the 0.5 generation cannot do without.
    pub(crate) is_bare: bool,
    /// Its network cards: the network, and the address as it is written.
    pub(crate) cards: Box<[(Vni, Box<str>)]>,
}

impl Digest {
    pub(crate) fn of(spec: &Result<DomainSpec, String>, details: Option<&DomainDetails>) -> Self {
        let lacks = |spec: &DomainSpec| spec.completed().is_ok_and(|done| !done.filled_in.is_empty());
        let cards = details.into_iter().flat_map(|details| &details.networks);
        let cards = cards.filter_map(|card| Some((Vni::of_bridge(&card.source)?, card.mac.as_str().into())));
        Self {
            size: spec.as_ref().map(Size::from).map_err(Clone::clone),
            is_bare: spec.as_ref().is_ok_and(lacks),
            cards: cards.collect(),
        }
    }

    fn bytes(&self) -> usize {
        let of_cards: usize =
            self.cards.iter().map(|(_, mac)| size_of::<(Vni, Box<str>)>() + mac.len()).sum();
        size_of::<Self>() + of_cards + self.size.as_ref().err().map_or(0, String::len)
    }
}

/// What a definition says, as far as a list wants to know it.
#[derive(Default)]
pub(crate) struct Definition {
    pub(crate) problem: Option<String>,
    pub(crate) details: Option<DomainDetails>,
    pub(crate) xml: Option<String>,
}

impl Definition {
    pub(crate) fn of(vm: &Vm, text: Result<String, String>, long: bool) -> Self {
        let spec = spec(vm, text.as_deref());
        Self::with(&spec, text, long)
    }

    fn with(spec: &Result<DomainSpec, String>, text: Result<String, String>, long: bool) -> Self {
        match text {
            Ok(xml) => Self {
                problem: spec.as_ref().err().map(|why| format!("the definition is damaged: {why}")),
                details: if long { DomainDetails::parse(&xml).ok() } else { None },
                xml: long.then_some(xml),
            },
            Err(why) => Self { problem: Some(format!("the definition: {why}")), ..Self::default() },
        }
    }
}

/// What a VM would be started from, or why it could not be.
fn spec(vm: &Vm, text: Result<&str, &String>) -> Result<DomainSpec, String> {
    let text = text.map_err(Clone::clone)?;
    DomainSpec::parse_as(text, vm.id, &vm.name).map_err(|e| e.to_string())
}

/// Those that were read.
#[derive(Default)]
pub(crate) struct Definitions {
    kept: Mutex<Kept>,
    /// Held while definitions are read: who comes meanwhile finds them.
    turn: Turn<()>,
}

#[derive(Default)]
struct Kept {
    known: BTreeMap<VmId, Known>,
    /// The bytes of all texts, and of all that is shown.
    texts: usize,
    details: usize,
    /// The VMs that there were last.
    vms: Option<Arc<Vms>>,
}

type Vms = BTreeMap<VmId, Arc<Entry<Vm>>>;

struct Known {
    /// Which write of it was read.
    zxid: i64,
    /// For whom it was looked at: a definition of another name is damaged.
    name: VmName,
    said: Said,
}

impl Definitions {
    /// What the definitions of these say, in their order; of none, nothing.
    pub(crate) async fn of(
        &self,
        store: &dyn Store,
        vms: &[Option<&Vm>],
        texts: bool,
    ) -> Result<Vec<Said>, Failure> {
        let mut said = self.kept().of(vms, texts);
        if said.iter().any(Option::is_none) {
            let _turn = self.turn.lock().await;
            said = self.kept().of(vms, texts);
            let unread = said.iter_mut().zip(vms).filter(|(said, _)| said.is_none());
            let mut unread: Vec<(&mut Option<Said>, &Vm)> =
                unread.filter_map(|(said, vm)| Some((said, (*vm)?))).collect();
            for some in unread.chunks_mut(AT_ONCE) {
                let vms: Vec<&Vm> = some.iter().map(|(_, vm)| *vm).collect();
                for ((said, _), read) in some.iter_mut().zip(self.read(store, &vms, texts).await?) {
                    **said = Some(read);
                }
            }
        }
        Ok(said.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Forgets those of VMs that are gone.
    pub(crate) fn forget_all_but(&self, vms: &Arc<Vms>) {
        let mut kept = self.kept();
        if kept.vms.as_ref().is_some_and(|last| Arc::ptr_eq(last, vms)) {
            return;
        }
        let gone: Vec<VmId> = kept.known.keys().filter(|id| !vms.contains_key(id)).copied().collect();
        for id in gone {
            kept.forget(id);
        }
        kept.vms = Some(Arc::clone(vms));
    }

    /// Reads definitions and keeps what they say. What the store does not show costs nobody else, and is looked at again.
    async fn read(&self, store: &dyn Store, vms: &[&Vm], texts: bool) -> Result<Vec<Said>, Failure> {
        let paths: Vec<String> = vms.iter().map(|vm| vm::xml_path(vm.id)).collect();
        let values: Vec<Result<Option<Value>, String>> = match store.get_many(&paths).await {
            Err(StoreError::Refused { .. }) => {
                let mut values = Vec::with_capacity(paths.len());
                for path in &paths {
                    values.push(match store.get(path).await {
                        Err(refused @ StoreError::Refused { .. }) => Err(refused.to_string()),
                        value => Ok(value?),
                    });
                }
                values
            }
            values => values?.into_iter().map(Ok).collect(),
        };
        let mut kept = self.kept();
        let said = vms.iter().zip(values).map(|(vm, value)| match value {
            Ok(Some(value)) => {
                let said = Said::of(vm, Ok(vm::definition(&value.data)));
                kept.keep(vm, value.mzxid, &said, texts);
                said
            }
            Ok(None) => Said::missing(),
            Err(why) => Said::of(vm, Err(why)),
        });
        Ok(said.collect())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn of(vm: &Vm, text: Result<String, String>) -> Self {
        let spec = spec(vm, text.as_deref());
        let definition = Definition::with(&spec, text, true);
        let digest = Digest::of(&spec, definition.details.as_ref());
        let members = |details| {
            let object = serde_json::to_string(&details).ok()?;
            object.strip_prefix('{')?.strip_suffix('}').map(Arc::from)
        };
        Self {
            problem: definition.problem.map(Arc::from),
            details: definition.details.and_then(members),
            text: definition.xml.and_then(|xml| Some(Arc::from(serde_json::to_string(&xml).ok()?))),
            digest: Some(Arc::new(digest)),
        }
    }

    fn missing() -> Self {
        let why = "it is missing".to_owned();
        let digest = Digest::of(&Err(why), None);
        Self {
            problem: Some("the definition: it is missing".into()),
            digest: Some(Arc::new(digest)),
            ..Self::default()
        }
    }

    /// Of its text, and of what else it holds.
    fn bytes(&self) -> (usize, usize) {
        let of = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let digest = self.digest.as_ref().map_or(0, |digest| digest.bytes());
        (of(&self.text), of(&self.problem) + of(&self.details) + digest)
    }
}

impl Kept {
    /// What is known of these; `None`: it is to be read.
    fn of(&self, vms: &[Option<&Vm>], texts: bool) -> Vec<Option<Said>> {
        vms.iter().map(|vm| vm.map_or_else(|| Some(Said::default()), |vm| self.of_vm(vm, texts))).collect()
    }

    fn of_vm(&self, vm: &Vm, text: bool) -> Option<Said> {
        let Some(zxid) = vm.xml_zxid else { return Some(Said::missing()) };
        let known = self.known.get(&vm.id).filter(|known| known.zxid == zxid && known.name == vm.name)?;
        (!text || known.said.text.is_some()).then(|| known.said.clone())
    }

    fn keep(&mut self, vm: &Vm, zxid: i64, said: &Said, text: bool) {
        self.forget(vm.id);
        let text = said.text.clone().filter(|kept| text && self.texts + kept.len() <= TEXTS);
        let said = Said { text, ..said.clone() };
        let (text, details) = said.bytes();
        if self.details + details <= DETAILS {
            self.texts += text;
            self.details += details;
            self.known.insert(vm.id, Known { zxid, name: vm.name.clone(), said });
        }
    }

    fn forget(&mut self, id: VmId) {
        let Some(known) = self.known.remove(&id) else { return };
        let (text, details) = known.said.bytes();
        self.texts -= text;
        self.details -= details;
    }
}
