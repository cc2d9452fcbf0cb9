//! What is to be known of each kind of object whose keys lie directly below it. The table of all kinds is `kinds.rs`.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, sync::Arc};

use pvc_core::model::{ClusterView, Entry, Fence, Network, NodeName, Problem, Subject, Vni};

use crate::{
    Value,
    schema::{fence, network},
};

/// One such kind.
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

pub(super) struct Fences;

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

pub(super) struct Networks;

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
