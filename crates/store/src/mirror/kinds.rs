//! The table of kinds: what a mirror watches, and what becomes of it in the view.
//!
//! To mirror one more kind of object, such as OSDs, pools or tasks:
//!
//! 1. give `ClusterView` a map of them and [`Subject`] a word for one;
//! 2. write an [`Objects`] below: root, identifier, keys, decoding, map, subject. The text of its keys is `schema`'s;
//! 3. add a row to [`TABLE`]: `Row::objects::<Pools>(|needs| needs.pools)`.
//!
//! The rest is common to all: an event names the object that is read again, with all its keys in one request, which is one moment; names
//! that are no object's are strays; what the store refuses to show is shown as unreadable and looked at again; only who needs a
//! kind watches it. Keys deeper than `<root>/<object>/<key>` cause no read: they are another kind's.
//!
//! Nodes and VMs are rows too, but more than rows (the figures of keepalives; spellings of a UUID, claims, definitions that are not
//! loaded): `task` reads them itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    str::FromStr,
    sync::Arc,
};

use pvc_core::model::{ClusterView, Entry, Fence, Network, NodeName, Problem, Subject, Vni};

use super::{Needs, view_builder::ViewBuilder};
use crate::{
    Value,
    schema::{fence, maintenance, network, node, placement, primary, vm},
};

/// A kind of object whose keys lie directly below it, and nothing else is to be known of it.
pub(super) trait Objects: 'static {
    /// As the object's own key is called.
    type Id: Ord + Clone + FromStr<Err: Display> + Display;
    /// As the view holds it.
    type Object: Clone + PartialEq;
    /// The key whose children are the objects.
    const ROOT: &'static str;

    /// Whether a key below an object is among its [`paths`](Self::paths).
    fn is_read(key: &str) -> bool;
    /// The keys that make one, in the order that [`decode`](Self::decode) takes them.
    fn paths(id: &Self::Id) -> Vec<String>;
    /// One from the values of its keys; `None` if there is no such object.
    fn decode(id: &Self::Id, values: &[Option<Value>]) -> Option<Self::Object>;
    /// One of which the store refuses to show keys.
    fn unreadable(id: &Self::Id, problems: Vec<Problem>) -> Self::Object;
    /// Whose change it is.
    fn subject(id: Self::Id) -> Subject;
    /// The view's map of them.
    fn map(view: &ClusterView) -> &Arc<BTreeMap<Self::Id, Self::Object>>;
    /// The same, to change it.
    fn map_mut(view: &mut ClusterView) -> &mut Arc<BTreeMap<Self::Id, Self::Object>>;
}

struct Fences;

impl Objects for Fences {
    type Id = NodeName;
    type Object = Entry<Fence>;
    const ROOT: &'static str = fence::ROOT;

    fn is_read(key: &str) -> bool {
        fence::is_read(key)
    }

    fn paths(id: &NodeName) -> Vec<String> {
        fence::paths(id).into()
    }

    fn decode(id: &NodeName, values: &[Option<Value>]) -> Option<Entry<Fence>> {
        let value = |i: usize| values.get(i).and_then(Option::as_ref);
        fence::decode(id, value(0), value(1))
    }

    fn unreadable(_: &NodeName, problems: Vec<Problem>) -> Entry<Fence> {
        Entry::Bad(problems)
    }

    fn subject(id: NodeName) -> Subject {
        Subject::Fence(id)
    }

    fn map(view: &ClusterView) -> &Arc<BTreeMap<NodeName, Entry<Fence>>> {
        &view.fences
    }

    fn map_mut(view: &mut ClusterView) -> &mut Arc<BTreeMap<NodeName, Entry<Fence>>> {
        &mut view.fences
    }
}

struct Networks;

impl Objects for Networks {
    type Id = Vni;
    type Object = Arc<Network>;
    const ROOT: &'static str = network::ROOT;

    fn is_read(key: &str) -> bool {
        network::is_read(key)
    }

    fn paths(id: &Vni) -> Vec<String> {
        network::paths(*id)
    }

    fn decode(id: &Vni, values: &[Option<Value>]) -> Option<Arc<Network>> {
        network::decode(*id, values).map(Arc::new)
    }

    fn unreadable(id: &Vni, problems: Vec<Problem>) -> Arc<Network> {
        Arc::new(Network { problems, ..Network::bare(*id) })
    }

    fn subject(id: Vni) -> Subject {
        Subject::Network(id)
    }

    fn map(view: &ClusterView) -> &Arc<BTreeMap<Vni, Arc<Network>>> {
        &view.networks
    }

    fn map_mut(view: &mut ClusterView) -> &mut Arc<BTreeMap<Vni, Arc<Network>>> {
        &mut view.networks
    }
}

/// All kinds; problems with names are shown in this order.
static TABLE: [Row; 9] = [
    Row::always(node::ROOT, Form::Nodes),
    Row::always(vm::ROOT, Form::Vms),
    Row::always(vm::CLAIM_ROOT, Form::Claims),
    Row::key(primary::PRIMARY_NODE, ViewBuilder::set_primary),
    Row::objects::<Networks>(|needs| needs.networks),
    Row::key(primary::HOLDER, ViewBuilder::set_holder),
    Row::objects::<Fences>(|_| true),
    Row::key(maintenance::MAINTENANCE, ViewBuilder::set_maintenance),
    Row::always(placement::PLACEMENT, Form::Placement),
];

pub(super) struct Row {
    /// The subtree that is watched, by a watch of its own: others are nobody's business here.
    pub(super) root: &'static str,
    pub(super) form: Form,
    needed: fn(&Needs) -> bool,
}

/// How a kind is read.
pub(super) enum Form {
    Nodes,
    Vms,
    /// Together with their VMs.
    Claims,
    Objects(Plain),
    /// A single key, of which the value and the number of children count.
    Key(fn(&mut ViewBuilder, Option<&Value>)),
    /// A single key that is shown when all else is that was written with it.
    Placement,
}

/// An [`Objects`] whose identifiers are names.
pub(super) struct Plain {
    /// Why a name is none of theirs.
    pub(super) check: fn(&str) -> Result<(), String>,
    pub(super) is_read: fn(&str) -> bool,
    pub(super) paths: fn(&str) -> Vec<String>,
    pub(super) show: fn(&mut ViewBuilder, &str, Found),
    pub(super) shown: fn(&ClusterView) -> BTreeSet<String>,
    subjects: fn(&ClusterView) -> Vec<Subject>,
}

/// What was read of an object.
pub(super) enum Found {
    Values(Vec<Option<Value>>),
    Refused(Vec<Problem>),
}

impl Row {
    const fn always(root: &'static str, form: Form) -> Self {
        Self { root, form, needed: |_| true }
    }

    const fn key(root: &'static str, show: fn(&mut ViewBuilder, Option<&Value>)) -> Self {
        Self::always(root, Form::Key(show))
    }

    const fn objects<K: Objects>(needed: fn(&Needs) -> bool) -> Self {
        let plain = Plain {
            check: |name| id::<K>(name).map(drop),
            is_read: K::is_read,
            paths: |name| id::<K>(name).map_or_else(|_| Vec::new(), |id| K::paths(&id)),
            show: show::<K>,
            shown: |view| K::map(view).keys().map(ToString::to_string).collect(),
            subjects: |view| K::map(view).keys().cloned().map(K::subject).collect(),
        };
        Self { root: K::ROOT, form: Form::Objects(plain), needed }
    }
}

fn id<K: Objects>(name: &str) -> Result<K::Id, String> {
    let id: K::Id = name.parse().map_err(|e: <K::Id as FromStr>::Err| e.to_string())?;
    if id.to_string() == name { Ok(id) } else { Err(format!("this is written {id}")) }
}

fn show<K: Objects>(view: &mut ViewBuilder, name: &str, found: Found) {
    let Ok(id) = id::<K>(name) else { return };
    let object = match found {
        Found::Values(values) => K::decode(&id, &values),
        Found::Refused(problems) => Some(K::unreadable(&id, problems)),
    };
    view.set::<K>(id, object);
}

/// The number of a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind(usize);

impl Kind {
    /// Those that are needed.
    pub(super) fn needed(needs: &Needs) -> impl Iterator<Item = Self> {
        (0..TABLE.len()).map(Self).filter(move |kind| (kind.row().needed)(needs))
    }

    /// The one whose objects are below this key.
    pub(super) fn at(root: &str) -> Option<Self> {
        TABLE.iter().position(|row| row.root == root).map(Self)
    }

    pub(super) fn row(self) -> &'static Row {
        // A number comes from the table only.
        &TABLE[self.0]
    }

    pub(super) fn root(self) -> &'static str {
        self.row().root
    }

    /// A key below its root that is no object's.
    pub(super) fn stray(self, name: &str, why: impl Display) -> Problem {
        Problem { key: format!("{}/{name}", self.root()), what: why.to_string() }
    }

    pub(super) fn plain(self) -> Option<&'static Plain> {
        match &self.row().form {
            Form::Objects(plain) => Some(plain),
            _ => None,
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root())
    }
}

/// The subjects that a view shows of kinds that are objects and nothing more.
pub(super) fn subjects(view: &ClusterView) -> impl Iterator<Item = Subject> {
    TABLE.iter().flat_map(|row| match &row.form {
        Form::Objects(plain) => (plain.subjects)(view),
        _ => Vec::new(),
    })
}
