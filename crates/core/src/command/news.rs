//! What has become of the cluster between two views, in words for people: one line a change, no line for a figure.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::node::step_words;
use crate::model::{ClusterView, Entry, Fence, Node, NodeName, Vm, VmId};

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A node, or its fence.
    Node,
    /// A VM.
    Vm,
    /// A client network.
    Network,
    /// The cluster as a whole.
    Cluster,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What it is about.
    pub kind: Kind,
    /// Which of them: a VM's UUID, else its name; empty of the cluster.
    pub id: String,
    /// What it is called; empty of the cluster.
    pub name: String,
    /// `daemon: run → dead`.
    pub what: String,
}

/// All changes: the cluster's first, then nodes, VMs and networks.
pub fn between(before: &ClusterView, now: &ClusterView) -> Vec<News> {
    let mut all = All::default();
    all.cluster(before, now);
    all.nodes(before, now);
    all.vms(before, now);
    let names =
        |view: &ClusterView| -> BTreeSet<String> { view.networks.keys().map(ToString::to_string).collect() };
    let (had, has) = (names(before), names(now));
    let there = has.difference(&had).map(|name| (name, "is there"));
    for (name, what) in there.chain(had.difference(&has).map(|name| (name, "is gone"))) {
        all.say(Kind::Network, name, what);
    }
    all.0
}

fn change<T: PartialEq + Display>(key: &str, was: &T, is: &T) -> Option<String> {
    (was != is).then(|| format!("{key}: {was} → {is}"))
}

#[derive(Default)]
struct All(Vec<News>);

impl All {
    /// Of what its name tells from all others.
    fn say(&mut self, kind: Kind, name: impl Display, what: impl Into<String>) {
        let name = name.to_string();
        self.0.push(News { kind, id: name.clone(), name, what: what.into() });
    }

    fn say_vm(&mut self, id: VmId, name: impl Display, what: impl Into<String>) {
        let (id, name) = (id.to_string(), name.to_string());
        self.0.push(News { kind: Kind::Vm, id, name, what: what.into() });
    }

    fn changed<T: PartialEq + Display>(&mut self, kind: Kind, name: &str, key: &str, was: &T, is: &T) {
        self.0.extend(change(key, was, is).map(|what| News {
            kind,
            id: name.to_owned(),
            name: name.to_owned(),
            what,
        }));
    }

    fn vm_changed<T: PartialEq + Display>(&mut self, vm: &Vm, key: &str, was: &T, is: &T) {
        if let Some(what) = change(key, was, is) {
            self.say_vm(vm.id, &vm.name, what);
        }
    }

    fn cluster(&mut self, before: &ClusterView, now: &ClusterView) {
        let nobody = |holder: Option<&NodeName>| holder.map_or("nobody", NodeName::as_str).to_owned();
        let holder = |view: &ClusterView| nobody(view.primary_holder.as_ref());
        self.changed(Kind::Cluster, "", "primary", &holder(before), &holder(now));
        let desired = |view: &ClusterView| nobody(view.primary_node.value.as_ref());
        self.changed(Kind::Cluster, "", "primary desired", &desired(before), &desired(now));
        let switch = |view: &ClusterView| if view.maintenance { "on" } else { "off" };
        self.changed(Kind::Cluster, "", "maintenance", &switch(before), &switch(now));
    }

    fn nodes(&mut self, before: &ClusterView, now: &ClusterView) {
        for name in before.nodes.keys().chain(now.nodes.keys()).collect::<BTreeSet<_>>() {
            match (before.nodes.get(name), now.nodes.get(name)) {
                (None, Some(_)) => self.say(Kind::Node, name, "is in the cluster"),
                (Some(_), None) => self.say(Kind::Node, name, "was removed from the cluster"),
                (Some(was), Some(is)) if !Arc::ptr_eq(was, is) => self.node(was, is, now),
                _ => {}
            }
            self.fence(name, before.fences.get(name), now.fences.get(name));
        }
    }

    fn node(&mut self, was: &Node, is: &Node, now: &ClusterView) {
        let name = is.name.as_str();
        self.changed(Kind::Node, name, "daemon", &was.daemon_state.value, &is.daemon_state.value);
        self.changed(Kind::Node, name, "router", &was.router_state.value, &is.router_state.value);
        self.changed(Kind::Node, name, "VMs", &was.domain_state.value, &is.domain_state.value);
        let able = |node: &Node| match &node.report.cannot_start {
            Some(why) => format!("can start no VMs: {why}"),
            None => "can start VMs".to_owned(),
        };
        if able(was) != able(is) {
            self.say(Kind::Node, name, able(is));
        }
        let running = |node: &Node| -> BTreeSet<VmId> { node.report.running.iter().copied().collect() };
        let (had, has) = (running(was), running(is));
        for id in has.difference(&had) {
            self.say_vm(*id, vm_name(now, *id), format!("{name} says that it runs there"));
        }
        for id in had.difference(&has) {
            self.say_vm(*id, vm_name(now, *id), format!("{name} says that it does not run there any more"));
        }
    }

    fn fence(&mut self, node: &NodeName, was: Option<&Entry<Fence>>, is: Option<&Entry<Fence>>) {
        let told = |entry: Option<&Entry<Fence>>| match entry {
            None => None,
            Some(Entry::Bad(_)) => Some("its fence cannot be read".to_owned()),
            Some(Entry::Good(fence)) => {
                let by =
                    fence.fencer.as_ref().map_or("nobody works on it now".into(), |by| format!("by {by}"));
                Some(format!("is being fenced, {by}: {}", step_words(&fence.job)))
            }
        };
        match (told(was), told(is)) {
            (was, is) if was == is => {}
            (_, Some(is)) => self.say(Kind::Node, node, is),
            (_, None) => self.say(Kind::Node, node, "its fence is over"),
        }
    }

    fn vms(&mut self, before: &ClusterView, now: &ClusterView) {
        if Arc::ptr_eq(&before.vms, &now.vms) {
            return;
        }
        let (had, has): (&BTreeMap<_, _>, &BTreeMap<_, _>) = (&before.vms, &now.vms);
        for id in had.keys().chain(has.keys()).collect::<BTreeSet<_>>() {
            match (had.get(id), has.get(id)) {
                (None, Some(_)) => self.say_vm(*id, vm_name(now, *id), "is defined"),
                (Some(_), None) => self.say_vm(*id, vm_name(before, *id), "is undefined"),
                (Some(was), Some(is)) if !Arc::ptr_eq(was, is) => match (&**was, &**is) {
                    (Entry::Good(was), Entry::Good(is)) => self.vm(was, is),
                    (Entry::Good(was), Entry::Bad(_)) => {
                        self.say_vm(*id, &was.name, "its keys cannot be read");
                    }
                    (Entry::Bad(_), Entry::Good(is)) => {
                        self.say_vm(*id, &is.name, "its keys can be read again");
                    }
                    (Entry::Bad(_), Entry::Bad(_)) => {}
                },
                _ => {}
            }
        }
    }

    fn vm(&mut self, was: &Vm, is: &Vm) {
        self.vm_changed(is, "name", &was.name, &is.name);
        self.vm_changed(is, "desired", &was.state.value, &is.state.value);
        self.vm_changed(is, "node", &was.node.value, &is.node.value);
        let claim = |vm: &Vm| match vm.claim.value.to_string() {
            nobody if nobody.is_empty() => "nobody".to_owned(),
            claim => claim,
        };
        self.vm_changed(is, "claimed by", &claim(was), &claim(is));
        if was.xml_version != is.xml_version {
            self.say_vm(is.id, &is.name, "its definition was written");
        }
        let reason = &is.failed_reason.value;
        if *reason != was.failed_reason.value && !reason.is_empty() {
            self.say_vm(is.id, &is.name, format!("says: {reason}"));
        }
    }
}

fn vm_name(view: &ClusterView, id: VmId) -> String {
    view.vm(id).map_or_else(|| id.to_string(), |vm| vm.name.to_string())
}
