//! A VM from its keys, one by one: what cannot be read of one says nothing against the others. No VM is taken out of recovery, flush or
//! an operator's hands because somebody spoilt, deleted or forbade a key of it.
//!
//! Never guesses a desired state: what cannot be read counts as what changes least, as is said at the fields of [`Vm`].

use std::collections::BTreeSet;

use pvc_core::model::{
    Claim, Entry, Field, MigrationMethod, NodeName, Problem, Vm, VmId, VmKey, VmName, VmState,
};

use super::{key_path, migration_method_path, path};
use crate::{
    schema::text::{Decoder, field, present},
    store::{Stat, Store, StoreError, Value},
};

/// The word for a migration to what `lastnode` says. Old clients know it, and write the same as a `migrate` with a node.
const UNMIGRATE: &[u8] = b"unmigrate";

/// Whether a key below a VM is among those that [`paths`] names.
pub(crate) fn is_read(key: &str) -> bool {
    matches!(key, "state" | "node" | "lastnode" | "failedreason" | "rbdlist" | "migration_method")
}

/// The number of keys that [`paths`] names.
pub(crate) const READ_KEYS: usize = 8;
/// Which of them is the claim.
const CLAIM: usize = 6;

/// The keys whose contents make a [`Vm`], in the order that [`decode`] takes them. `xml` is not among them.
pub fn paths(id: VmId) -> [String; READ_KEYS] {
    [
        path(id),
        key_path(id, VmKey::State),
        key_path(id, VmKey::Node),
        key_path(id, VmKey::LastNode),
        key_path(id, VmKey::FailedReason),
        format!("{}/rbdlist", path(id)),
        key_path(id, VmKey::Claim),
        migration_method_path(id),
    ]
}

/// The claim among the values of a VM's [`paths`]; `None` if it has no record.
pub(crate) fn decode_claim(id: VmId, values: &[Option<Value>]) -> Option<Entry<Field<Claim>>> {
    let value = values.get(CLAIM).and_then(Option::as_ref)?;
    let mut d = Decoder::default();
    let claim = claim(&mut d, &key_path(id, VmKey::Claim), Some(value), &mut BTreeSet::new());
    Some(if d.problems.is_empty() { Entry::Good(claim) } else { Entry::Bad(d.problems) })
}

/// A VM from the values of its [`paths`] and what is known of its `xml`; `None` if there is no such VM.
pub fn decode(id: VmId, values: &[Option<Value>], xml: Option<Stat>) -> Option<Entry<Vm>> {
    decode_shown(id, values, xml, Vec::new()).map(Entry::Good)
}

/// As [`decode`]. The store refused to show the keys of `refused`: of these only the versions in `values` mean anything.
fn decode_shown(id: VmId, values: &[Option<Value>], xml: Option<Stat>, refused: Vec<Problem>) -> Option<Vm> {
    let keys = paths(id);
    let value = |i: usize| values.get(i).and_then(Option::as_ref);
    let own = value(0)?;
    let mut d = Decoder::without(refused);
    let name = name(&mut d, id, &keys[0], own)?;
    let mut unread = BTreeSet::new();
    let claim = claim(&mut d, &keys[CLAIM], value(CLAIM), &mut unread);
    let desired =
        desired(&mut d, [&keys[1], &keys[2], &keys[3]], [value(1), value(2), value(3)], &claim, &mut unread);
    let reason = d.text(&keys[4], value(4)).and_then(present).unwrap_or_default();
    let images = d.text(&keys[5], value(5)).and_then(present).unwrap_or_default();
    let method = d.text(&keys[7], value(7)).map(|text| d.parse::<MigrationMethod>(&keys[7], text));
    let method = if value(7).is_none() { Some(MigrationMethod::None) } else { method.flatten() };
    Some(Vm {
        id,
        name,
        state: desired.state,
        node: desired.node,
        last_node: desired.last_node,
        failed_reason: field(reason.to_owned(), value(4)),
        claim,
        migration_method: method.unwrap_or(MigrationMethod::Live),
        rbd_images: images.split(',').map(str::trim).filter(|i| !i.is_empty()).map(str::to_owned).collect(),
        xml_version: xml.map(|xml| xml.version),
        xml_zxid: xml.map(|xml| xml.mzxid),
        unread,
        problems: d.problems,
    })
}

/// The UUID is a name, too: one that no other VM has.
fn name(d: &mut Decoder, id: VmId, key: &str, own: &Value) -> Option<VmName> {
    d.required::<VmName>(key, Some(own)).map(|name| name.value).or_else(|| id.to_string().parse().ok())
}

fn claim(d: &mut Decoder, key: &str, value: Option<&Value>, unread: &mut BTreeSet<VmKey>) -> Field<Claim> {
    if value.is_none() {
        return field(Claim::none(), None);
    }
    let claim = d.text(key, value).and_then(|text| d.parse::<Claim>(key, text));
    if claim.is_none() {
        unread.insert(VmKey::Claim);
    }
    field(claim.unwrap_or_else(Claim::unknown), value)
}

struct Desired {
    state: Field<VmState>,
    node: Field<NodeName>,
    last_node: Field<Option<NodeName>>,
}

fn desired(
    d: &mut Decoder,
    [state_key, node_key, last_key]: [&str; 3],
    [state_value, node_value, last_value]: [Option<&Value>; 3],
    claim: &Field<Claim>,
    unread: &mut BTreeSet<VmKey>,
) -> Desired {
    let told = d.problems.len();
    let last_node = d.optional::<NodeName>(last_key, last_value);
    if d.problems.len() > told {
        unread.insert(VmKey::LastNode);
    }
    let node = node(d, node_key, node_value);
    let claimant = claim.value.iter().next().filter(|_| !unread.contains(&VmKey::Claim));
    let home = || claimant.cloned().unwrap_or_else(NodeName::nobody);
    if state_value.is_some_and(|value| value.data.trim_ascii() == UNMIGRATE) {
        unread.extend([VmKey::State, VmKey::Node, VmKey::LastNode]);
        let to = last_node.value.or(node).unwrap_or_else(home);
        return Desired {
            state: field(VmState::Migrate, state_value),
            node: field(to, node_value),
            last_node: field(None, last_value),
        };
    }
    let Some(state) = d.required::<VmState>(state_key, state_value) else {
        // As it is: where it may be executing it goes on, and elsewhere it does not begin.
        unread.insert(VmKey::State);
        let state = if claim.value.is_empty() { VmState::Stop } else { VmState::Start };
        let stays = claimant.or(node.as_ref()).cloned();
        if stays.is_none() || stays != node {
            unread.insert(VmKey::Node);
        }
        let node = stays.unwrap_or_else(NodeName::nobody);
        return Desired { state: field(state, state_value), node: field(node, node_value), last_node };
    };
    let node = node.unwrap_or_else(|| {
        unread.insert(VmKey::Node);
        if state.value == VmState::Migrate { NodeName::nobody() } else { home() }
    });
    Desired { state, node: field(node, node_value), last_node }
}

/// Nothing and `None` are what old clients write who leave the choice to the daemons.
fn node(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<NodeName> {
    if value.is_none() {
        d.problem(key, "missing");
    }
    let text = d.text(key, value)?;
    if present(text).is_none() {
        d.problem(key, "it names no node; one is chosen when the VM is to run or to migrate");
        return None;
    }
    d.parse::<NodeName>(key, text)
}

/// Reads one VM as it is now.
pub async fn read(store: &dyn Store, id: VmId) -> Result<Option<Entry<Vm>>, StoreError> {
    let values = match store.get_many(&paths(id)).await {
        Err(StoreError::Refused { .. }) => return Ok(read_key_by_key(store, id).await?.map(Entry::Good)),
        values => values?,
    };
    let xml = store.stat_many(&[key_path(id, VmKey::Xml)]).await?;
    Ok(decode(id, &values, xml.first().copied().flatten()))
}

/// Reads one VM some of whose keys the store refuses to show.
pub(crate) async fn read_key_by_key(store: &dyn Store, id: VmId) -> Result<Option<Vm>, StoreError> {
    let keys = paths(id);
    let stats = store.stat_many(&[keys.as_slice(), &[key_path(id, VmKey::Xml)]].concat()).await?;
    let (mut values, mut refused) = (Vec::with_capacity(keys.len()), Vec::new());
    for (key, stat) in keys.into_iter().zip(&stats) {
        values.push(match store.get(&key).await {
            Err(StoreError::Refused { why, .. }) => {
                refused.push(Problem { key, what: format!("the state store refuses to show it: {why}") });
                stat.map(|Stat { version, mzxid, .. }| Value {
                    data: Vec::new(),
                    version,
                    mzxid,
                    children: 0,
                })
            }
            value => value?,
        });
    }
    Ok(decode_shown(id, &values, stats.last().copied().flatten(), refused))
}
