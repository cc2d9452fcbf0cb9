//! The table of kinds: what a mirror watches, and what becomes of it in the view.
//!
//! To mirror one more kind of object, such as OSDs, pools or tasks:
//!
//! 1. give `ClusterView` a map of them and [`Subject`] a word for one;
//! 2. write an [`Objects`] in `objects.rs`: root, identifier, keys, decoding, map, subject. The text of its keys is `schema`'s;
//! 3. add a row to [`TABLE`]: `Row::objects::<Pools>(|needs| needs.pools)`.
//!
//! The rest is common to all: an event names the object that is read again, with all its keys in one request (of many objects at once in several, which are as many moments); names
//! that are no object's are strays; what the store refuses to show is shown as unreadable and looked at again; only who needs a
//! kind watches it. Keys deeper than `<root>/<object>/<key>` cause no read: they are another kind's.
//!
//! Nodes and VMs are rows too, but more than rows (the figures of keepalives; spellings of a UUID, claims, definitions that are not
//! loaded): `task` reads them itself. A fence is read with its node: a node that is dead and has no fence is proven dead.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    str::FromStr,
};

use pvc_core::model::{ClusterView, Overlay, Problem, Subject};

use super::{
    Needs,
    objects::{Fences, Networks, Objects},
    view_builder::ViewBuilder,
};
use crate::{
    Value,
    schema::{maintenance, node, overlay, placement, primary, vm},
};

/// All kinds.
static TABLE: [Row; 10] = [
    Row::always(node::ROOT, Form::Nodes),
    Row { needed: |needs| !needs.no_vms, ..Row::always(vm::ROOT, Form::Vms) },
    Row { needed: |needs| !needs.no_vms, ..Row::always(vm::CLAIM_ROOT, Form::Claims) },
    Row::key(primary::PRIMARY_NODE, ViewBuilder::set_primary),
    Row::objects::<Networks>(|needs| needs.networks),
    Row::key(primary::HOLDER, ViewBuilder::set_holder),
    Row::objects::<Fences>(|_| true),
    Row::key(maintenance::MAINTENANCE, ViewBuilder::set_maintenance),
    Row { needed: |needs| needs.networks, ..Row::key(overlay::OVERLAY, ViewBuilder::set_overlay) },
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

/// All subjects of a view.
pub(super) fn subjects(view: &ClusterView) -> impl Iterator<Item = Subject> {
    let nodes = view.nodes.keys().cloned().map(Subject::Node);
    let vms = view.vms.keys().chain(view.orphan_claims.keys()).copied().map(Subject::Vm);
    let plain = TABLE.iter().flat_map(|row| match &row.form {
        Form::Objects(plain) => (plain.subjects)(view),
        _ => Vec::new(),
    });
    let primary = view.primary_node.value.is_some() || view.primary_holder.is_some();
    let cluster = (view.maintenance || view.overlay != Overlay::default()).then_some(Subject::Cluster);
    nodes.chain(vms).chain(plain).chain(primary.then_some(Subject::Primary)).chain(cluster)
}
