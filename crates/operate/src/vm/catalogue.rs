//! All VMs of a cluster that is watched, without asking for each: what follows from a view is made once a view.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::{
    command::find,
    model::{ClusterView, Entry, Node, NodeName, Vm, VmId},
};

use super::list::{Candidate, Filter, Running, VmRow, unknown};
use crate::{Cluster, Failure, definitions::Said, read::runners, watched::Figures};

/// What lists are made from.
pub struct Catalogue {
    cluster: Cluster,
    made: Mutex<Option<Arc<Made>>>,
}

/// What follows from a view.
struct Made {
    nodes: Arc<BTreeMap<NodeName, Arc<Node>>>,
    vms: Arc<BTreeMap<VmId, Arc<Entry<Vm>>>>,
    running: Arc<Running>,
    /// In the order of lists.
    rows: Vec<Row>,
}

/// A VM of a list.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its UUID.
    pub id: VmId,
    entry: Arc<Entry<Vm>>,
}

/// All VMs at one moment, by name and UUID; what runs and is in no tree has no name.
#[derive(Clone)]
pub struct Vms {
    catalogue: Arc<Catalogue>,
    view: Arc<ClusterView>,
    made: Arc<Made>,
}

impl Catalogue {
    /// Of this cluster, which is watched from now on. Needs a tokio runtime.
    pub fn of(cluster: &Cluster) -> Arc<Self> {
        let cluster = cluster.watched();
        Arc::new(Self { cluster, made: Mutex::default() })
    }

    /// The cluster, for who only looks.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// All VMs as they are now.
    pub async fn all(self: &Arc<Self>) -> Result<Vms, Failure> {
        let known = self.cluster.known(Figures::Any).await?;
        let view = known.ok_or_else(Failure::unwatched)?;
        let made = self.made(&view);
        Ok(Vms { catalogue: Arc::clone(self), view, made })
    }
}

impl Row {
    /// What it is called; empty: it is in no tree.
    pub fn name(&self) -> &str {
        self.vm().map_or("", |vm| vm.name.as_str())
    }

    /// What its keys say.
    pub fn vm(&self) -> Option<&Vm> {
        self.entry.good()
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate { id: self.id, name: self.name(), entry: &self.entry }
    }
}

impl Vms {
    /// All of them.
    pub fn all(&self) -> &[Row] {
        &self.made.rows
    }

    /// Those behind that one, which need not be there; a name without a UUID stands before all that are called so.
    pub fn after(&self, name: &str, id: Option<VmId>) -> &[Row] {
        let rows = self.all();
        rows.get(rows.partition_point(|row| (row.name(), Some(row.id)) <= (name, id))..).unwrap_or_default()
    }

    /// Those that are called so.
    pub fn named(&self, name: &str) -> &[Row] {
        let rows = self.after(name, None);
        rows.get(..rows.partition_point(|row| row.name() == name)).unwrap_or_default()
    }

    /// Which of them are wanted.
    pub fn matching<'f>(&'f self, filter: &'f Filter<'f>) -> Result<impl Fn(&Row) -> bool + 'f, Failure> {
        let target = filter.node.map(|node| self.node(node)).transpose()?;
        Ok(move |row: &Row| row.candidate().matches(filter, target, &self.made.running))
    }

    /// The node that is meant.
    pub fn node(&self, reference: &str) -> Result<&NodeName, Failure> {
        Ok(&find::node_in(&self.view, reference)?.name)
    }

    /// A row as it is shown, without what is in its definition.
    pub fn shown(&self, row: &Row, said: &Said) -> VmRow {
        let runners = self.made.running.get(&row.id).cloned().unwrap_or_default();
        row.candidate().row(runners, said.problem.as_deref())
    }

    /// What the definitions of these say, in their order.
    pub async fn definitions(&self, rows: &[Row], texts: bool) -> Result<Vec<Said>, Failure> {
        let known = self.catalogue.cluster.definitions_known();
        let all: Vec<Option<&Vm>> = rows.iter().map(Row::vm).collect();
        known.ok_or_else(Failure::unwatched)?.of(&*self.catalogue.cluster.store, &all, texts).await
    }
}

impl Catalogue {
    /// What follows from a view.
    fn made(&self, view: &ClusterView) -> Arc<Made> {
        let mut last = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let has_same_nodes = |made: &&Arc<Made>| Arc::ptr_eq(&made.nodes, &view.nodes);
        let has_same_vms = |made: &&Arc<Made>| Arc::ptr_eq(&made.vms, &view.vms);
        if let Some(made) = last.as_ref().filter(|made| has_same_nodes(made) && has_same_vms(made)) {
            return Arc::clone(made);
        }
        let known = last.as_ref().filter(has_same_nodes).map(|made| Arc::clone(&made.running));
        let running = known.unwrap_or_else(|| Arc::new(runners(view.all_nodes())));
        let in_tree = view.vms.iter().map(|(id, entry)| Row { id: *id, entry: Arc::clone(entry) });
        let others = unknown(|id| view.vms.contains_key(&id), &running).into_iter();
        let mut rows: Vec<Row> =
            in_tree.chain(others.map(|other| Row { id: other.id, entry: Arc::new(other.entry) })).collect();
        rows.sort_unstable_by(|a, b| a.name().cmp(b.name()).then(a.id.cmp(&b.id)));
        if let Some(definitions) = self.cluster.definitions_known() {
            definitions.forget_all_but(&view.vms);
        }
        let (nodes, vms) = (Arc::clone(&view.nodes), Arc::clone(&view.vms));
        let made = Arc::new(Made { nodes, vms, running, rows });
        *last = Some(Arc::clone(&made));
        made
    }
}
