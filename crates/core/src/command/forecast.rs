//! What would become of VMs if a node were flushed, or died, and where a VM could go. Asks the plans that would decide it, on a copy of the
//! view; for people: nothing is decided from it, and by the time it happens the cluster may be another.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Claim, ClusterView, DomainState, Entry, Moment, Node, NodeName, Vm, VmId, VmState},
    plan::{
        flush,
        placement::{ClusterCapacity, Selector, Sizes, Unfit},
        recover,
    },
};

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The cluster.
    pub view: &'a ClusterView,
    /// How large the VMs are.
    pub sizes: &'a Sizes,
    /// VMs that could not be started from their definitions, and what is wrong with those.
    pub damaged: &'a BTreeMap<VmId, String>,
    /// Nodes that say they work and whose daemons have no session.
    pub silent: &'a BTreeSet<NodeName>,
    /// How a node is chosen.
    pub selector: Selector,
}

/// What would become of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It goes on executing all the way.
    Migrates,
    /// It would be started there.
    Starts,
    /// It would be shut down until the node takes VMs again.
    ShutDown,
    /// It would stay where it is.
    Stays,
    /// It would be down: nobody could start it.
    Down,
}

/// One VM of a forecast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Which.
    pub id: VmId,
    /// What it is called.
    pub name: String,
    /// Its memory, MiB; `None` if nobody can read its definition.
    pub memory_mib: Option<u64>,
    /// What would become of it.
    pub fate: Fate,
    /// Where it would be.
    pub node: Option<NodeName>,
    /// Why, where that is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What a node says to a VM that asks for a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which node.
    pub node: NodeName,
    /// Memory that is not spoken for, MiB.
    pub free_mib: u64,
    /// Whether it would be chosen.
    pub chosen: bool,
    /// Why it cannot take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

impl Facts<'_> {
    fn expected(&self, id: VmId, fate: Fate, node: Option<NodeName>, why: String) -> Expected {
        Expected {
            id,
            name: self.view.vm(id).map_or_else(|| id.to_string(), |vm| vm.name.to_string()),
            memory_mib: self.sizes.get(&id).map(|size| size.memory_mib),
            fate,
            node,
            why,
        }
    }
}

/// What a flush of a node would do, in the order in which it would.
pub fn of_flush(facts: &Facts<'_>, node: &Node) -> Vec<Expected> {
    let name = &node.name;
    let mut world = World::of(facts.view, node);
    let mut attempts = flush::Attempts::default();
    attempts.desired_is(DomainState::Flush);
    let (mut now, mut all) = (Moment::default(), Vec::new());
    // Each VM is sent or shut down once; between two of them room may be waited for.
    for _ in 0..=3 * facts.view.vms.len() {
        let plan = flush::plan(&flush::Facts {
            me: name,
            view: &world.view,
            view_is_current: true,
            running: Some(&world.running),
            sizes: facts.sizes,
            unusable: facts.damaged,
            silent: facts.silent,
            selector: facts.selector,
            limits: flush::Limits { outgoing: usize::MAX, incoming: usize::MAX },
            unable: None,
            attempts: &attempts,
            now,
        });
        attempts.noticed(&plan.left);
        attempts.no_capacity(&plan.no_capacity, now);
        match plan.next {
            flush::Next::Do(flush::Step::Send { vm, to, .. }) => {
                all.push(facts.expected(vm, Fate::Migrates, Some(to.clone()), String::new()));
                world.runs_on(vm, &to);
            }
            flush::Next::Do(flush::Step::ShutDown { vm, reason }) => {
                all.push(facts.expected(vm, Fate::ShutDown, None, reason));
                world.is_off(vm);
            }
            flush::Next::Wait(Some(until)) if until > now => now = until,
            flush::Next::Do(flush::Step::Answer(_)) | flush::Next::Wait(_) | flush::Next::Settled => {
                let stays = plan
                    .progress
                    .stuck
                    .into_iter()
                    .filter_map(|stuck| Some((stuck.vm.parse().ok()?, stuck.reason)));
                all.extend(stays.map(|(vm, why)| facts.expected(vm, Fate::Stays, Some(name.clone()), why)));
                break;
            }
            flush::Next::Do(_) => break,
        }
    }
    all
}

/// What the death of a node would do, once it is proven: with `failed_fence` or `successful_fence` `migrate`, and the node shut out of the storage.
pub fn of_death(facts: &Facts<'_>, name: &NodeName) -> Vec<Expected> {
    let orders = recover::orders(name, facts.view, facts.sizes, recover::Action::Migrate, |_| true);
    let mut capacity = ClusterCapacity::count(facts.view, facts.sizes, facts.silent);
    let excluded = |node: &NodeName| (node == name).then_some(Unfit::Excluded);
    let order = |order: recover::Order| {
        let (id, damaged) = (order.id, facts.damaged.get(&order.id));
        match order.what {
            recover::What::Release => None,
            recover::What::Assign(node) => Some(facts.expected(id, Fate::Starts, Some(node), order.why)),
            recover::What::Place => {
                let size = facts.sizes.get(&id).copied().unwrap_or_default();
                match (damaged, capacity.choose(id, size, facts.selector, excluded)) {
                    (Some(why), _) => {
                        let why = format!("it could not be started from its definition: {why}");
                        Some(facts.expected(id, Fate::Down, None, why))
                    }
                    (None, Ok(to)) => {
                        capacity.reserve(&to, id, size);
                        Some(facts.expected(id, Fate::Starts, Some(to), String::new()))
                    }
                    (None, Err(none)) => Some(facts.expected(id, Fate::Down, None, none.to_string())),
                }
            }
        }
    };
    orders.into_iter().filter_map(order).collect()
}

/// What each node says to a VM that is to run somewhere else than it does.
pub fn of_vm(facts: &Facts<'_>, vm: &Vm) -> Vec<Place> {
    let capacity = ClusterCapacity::count(facts.view, facts.sizes, facts.silent);
    let size = facts.sizes.get(&vm.id).copied().unwrap_or_default();
    let here = |node: &NodeName| *node == vm.node.value || vm.claim.value.names(node);
    let excluded = |node: &NodeName| here(node).then_some(Unfit::Excluded);
    let chosen = capacity.choose(vm.id, size, facts.selector, excluded);
    let place = |node: &Node| {
        let admits = match excluded(&node.name) {
            Some(unfit) => Err(unfit),
            None => capacity.admits(&node.name, vm.id, size),
        };
        Place {
            node: node.name.clone(),
            free_mib: capacity.free_mib(&node.name),
            chosen: chosen.as_ref().is_ok_and(|chosen| *chosen == node.name),
            unfit: admits.err().map(|unfit| unfit.to_string()),
        }
    };
    facts.view.all_nodes().map(place).collect()
}

/// The cluster as it would be.
struct World {
    view: ClusterView,
    node: NodeName,
    running: BTreeSet<VmId>,
}

impl World {
    /// A node is to be emptied, and does its part.
    fn of(view: &ClusterView, node: &Node) -> Self {
        let claimed = view.good_vms().filter(|vm| vm.claim.value.names(&node.name)).map(|vm| vm.id);
        let running = node.report.running.iter().copied().chain(claimed).collect();
        let mut world = Self { view: view.clone(), node: node.name.clone(), running };
        world.change_node(|node| node.domain_state.value = DomainState::Flush);
        world
    }

    fn change_node(&mut self, change: impl FnOnce(&mut Node)) {
        let nodes = Arc::make_mut(&mut self.view.nodes);
        if let Some(node) = nodes.get_mut(&self.node) {
            change(Arc::make_mut(node));
        }
    }

    fn change_vm(&mut self, id: VmId, change: impl FnOnce(&mut Vm)) {
        let vms = Arc::make_mut(&mut self.view.vms);
        if let Some(Entry::Good(vm)) = vms.get_mut(&id).map(Arc::make_mut) {
            change(vm);
        }
    }

    fn runs_on(&mut self, id: VmId, to: &NodeName) {
        self.change_vm(id, |vm| {
            vm.node.value = to.clone();
            vm.claim.value = Claim::only(to);
            vm.state.value = VmState::Start;
        });
        self.is_gone(id);
    }

    fn is_off(&mut self, id: VmId) {
        self.change_vm(id, |vm| {
            vm.claim.value = Claim::default();
            vm.state.value = VmState::Stop;
        });
        self.is_gone(id);
    }

    fn is_gone(&mut self, id: VmId) {
        self.running.remove(&id);
        self.change_node(|node| node.report.running.retain(|other| *other != id));
    }
}
