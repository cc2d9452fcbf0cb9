//! Reading what is dirty, in as few requests as possible and in an order that never shows what is decided without what it was decided from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pvc_core::model::{DaemonState, Entry, Node, NodeName, Vm, VmId};

use super::{
    super::{
        dirty::{Dirty, VmParts},
        kinds::{Form, Found, Kind},
        refused,
    },
    Task,
};
use crate::{
    Stat, StoreError,
    schema::{fence, node, vm},
};

/// Objects per read: bounds memory at the first listing.
const OBJECTS_AT_ONCE: usize = 128;

/// What was read of an object, and is not shown yet.
struct Read {
    kind: Kind,
    name: String,
    found: Found,
}

impl Task {
    /// Reads what is dirty, and what becomes so meanwhile, which is added.
    pub(super) async fn read(&mut self, dirty: &mut Dirty) -> Result<(), StoreError> {
        if !std::mem::take(&mut dirty.single) {
            return self.read_all(dirty.clone()).await;
        }
        let outcome = self.read_with_single(dirty).await;
        dirty.single |= outcome.is_err();
        outcome
    }

    /// The keys that stand for themselves are asked for together with the objects: what a primary waits for, who takes over, is both.
    async fn read_with_single(&mut self, dirty: &mut Dirty) -> Result<(), StoreError> {
        let single = |kind: &Kind| matches!(kind.row().form, Form::Key(_) | Form::Placement);
        let kinds: Vec<Kind> = self.watches.iter().map(|(kind, _)| *kind).filter(single).collect();
        let paths: Vec<String> = kinds.iter().map(|kind| kind.root().to_owned()).collect();
        let store = Arc::clone(&self.store);
        let (values, objects) = tokio::join!(store.get_many(&paths), self.read_all(dirty.clone()));
        let values = values?;
        objects?;
        // The view must not show a placement without the VMs that were placed: their events are here by now. What was read beside the placement
        // and changed before it is read again.
        self.store.show_events().await;
        self.note_all();
        let mut meanwhile = std::mem::take(&mut self.dirty);
        // Read in the next round: a writer that is faster than a round must not keep the view from being published.
        self.dirty.single = std::mem::take(&mut meanwhile.single);
        dirty.merge(meanwhile.clone());
        self.read_all(meanwhile).await?;
        for (kind, value) in kinds.into_iter().zip(&values) {
            match &kind.row().form {
                Form::Key(show) => show(&mut self.builder, value.as_ref()),
                _ if self.all_reported() => {
                    self.builder.set_placement(value.as_ref().map(|value| value.version));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn read_all(&mut self, mut dirty: Dirty) -> Result<(), StoreError> {
        let shown: Vec<NodeName> = self.builder.view().fences.keys().cloned().collect();
        self.read_names(&mut dirty).await?;
        // What a list does not have any more is gone already, and so may be its node's death.
        dirty.nodes.extend(shown.into_iter().filter(|name| !self.builder.view().fences.contains_key(name)));
        let fences = Kind::at(fence::ROOT).and_then(|kind| dirty.objects.remove(&kind)).unwrap_or_default();
        if !fences.is_empty() {
            // A fence is about a keepalive. Shown beside an older one it would look as if its node had spoken since.
            self.store.show_events().await;
            self.note_all();
            dirty.nodes.extend(self.keepalives.unread().iter().cloned());
        }
        // Each is read with its node.
        dirty.nodes.extend(fences.iter().filter_map(|name| name.parse().ok()));
        let objects = self.read_plain(std::mem::take(&mut dirty.objects)).await?;
        for id in std::mem::take(&mut dirty.claims) {
            dirty.vms.entry(id).or_default();
        }
        let vms: Vec<(VmId, VmParts)> = std::mem::take(&mut dirty.vms).into_iter().collect();
        let vms: Vec<(VmId, VmParts)> = vms.into_iter().map(|(id, parts)| (self.known(id), parts)).collect();
        let nodes: Vec<NodeName> = std::mem::take(&mut dirty.nodes).into_iter().collect();
        // The usual few of both together: one request.
        let (mut nodes, mut vms) = (nodes.chunks(OBJECTS_AT_ONCE), vms.chunks(OBJECTS_AT_ONCE));
        loop {
            let (some_nodes, some_vms) = (nodes.next().unwrap_or_default(), vms.next().unwrap_or_default());
            if some_nodes.is_empty() && some_vms.is_empty() {
                break;
            }
            self.read_objects(some_nodes, some_vms).await?;
        }
        for Read { kind, name, found } in objects {
            if let Some(plain) = kind.plain() {
                (plain.show)(&mut self.builder, &name, found);
            }
        }
        Ok(())
    }

    /// Reads objects of kinds that are nothing more. They are shown later: with what they are about.
    async fn read_plain(
        &mut self,
        objects: BTreeMap<Kind, BTreeSet<String>>,
    ) -> Result<Vec<Read>, StoreError> {
        let keys = |kind: Kind, name: &str| kind.plain().map_or_else(Vec::new, |plain| (plain.paths)(name));
        let named =
            objects.into_iter().flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)));
        let all: Vec<_> = named.map(|(kind, name)| (kind, keys(kind, &name), name)).collect();
        let mut read = Vec::new();
        for some in all.chunks(OBJECTS_AT_ONCE) {
            let paths: Vec<String> = some.iter().flat_map(|(_, paths, _)| paths).cloned().collect();
            let mut values = match self.store.get_many(&paths).await {
                Ok(values) => values.into_iter(),
                Err(StoreError::Refused { .. }) => {
                    for (kind, paths, name) in some {
                        let found = self.read_one(*kind, name, paths).await?;
                        read.push(Read { kind: *kind, name: name.clone(), found });
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (kind, paths, name) in some {
                let found = Found::Values(values.by_ref().take(paths.len()).collect());
                read.push(Read { kind: *kind, name: name.clone(), found });
            }
        }
        Ok(read)
    }

    async fn read_one(&mut self, kind: Kind, name: &str, paths: &[String]) -> Result<Found, StoreError> {
        let values = self.store.get_many(paths).await;
        let outcome = values.as_ref().map(drop).map_err(Clone::clone);
        Ok(match refused::keys(&*self.store, outcome, paths.iter().cloned()).await? {
            Some(problems) => {
                self.refused.object(kind, name);
                Found::Refused(problems)
            }
            None => Found::Values(values?),
        })
    }

    async fn read_objects(&mut self, nodes: &[NodeName], vms: &[(VmId, VmParts)]) -> Result<(), StoreError> {
        let unread: Vec<&NodeName> = nodes.iter().filter(|name| self.keepalives.reads(name)).collect();
        let before: Vec<Option<i32>> = nodes.iter().map(|name| self.keepalive_version(name)).collect();
        let mut outcome = self.read_objects_now(nodes, vms).await;
        for name in nodes {
            if outcome.is_ok() {
                outcome = self.confirm(name).await;
            }
        }
        if outcome.is_err() {
            for name in unread {
                self.keepalives.is_unread(name.clone());
            }
            return outcome;
        }
        for (name, before) in nodes.iter().zip(before) {
            if self.builder.view().node(name).is_none() {
                self.keepalives.forget(name);
                continue;
            }
            // Of this one no event has told.
            if before.is_some() && !unread.contains(&name) && self.keepalive_version(name) != before {
                self.keepalives.heard(name.clone());
            }
        }
        Ok(())
    }

    fn keepalive_version(&self, name: &NodeName) -> Option<i32> {
        self.builder.view().node(name)?.keepalive_version
    }

    /// A key that the store refuses to show costs its object, and nobody else.
    async fn read_objects_now(
        &mut self,
        nodes: &[NodeName],
        vms: &[(VmId, VmParts)],
    ) -> Result<(), StoreError> {
        let together = self.read_together(nodes, vms).await;
        if !matches!(together, Err(StoreError::Refused { .. })) {
            return together;
        }
        for name in nodes {
            match self.read_together(std::slice::from_ref(name), &[]).await {
                Err(StoreError::Refused { .. }) => {
                    self.refused.node(name);
                    self.read_node_key_by_key(name).await?;
                }
                outcome => outcome?,
            }
        }
        for (id, parts) in vms {
            let outcome = self.read_together(&[], &[(*id, *parts)]).await;
            if let Some(problems) = refused::keys(&*self.store, outcome, vm::paths(*id)).await? {
                self.refused.vm(*id);
                let vm = vm::read_key_by_key(&*self.store, *id).await?;
                self.builder.set_orphan_claim(*id, vm.is_none().then_some(Entry::Bad(problems)));
                self.builder.set_vm(*id, vm.map(Entry::Good));
            }
        }
        Ok(())
    }

    async fn read_node_key_by_key(&mut self, name: &NodeName) -> Result<(), StoreError> {
        let node = node::read_key_by_key(&*self.store, name).await?;
        let fence = self.read_fence(name).await?;
        self.show_node(name, node, fence);
        Ok(())
    }

    async fn read_fence(&self, node: &NodeName) -> Result<Found, StoreError> {
        let paths = fence::paths(node);
        let values = self.store.get_many(&paths).await;
        let outcome = values.as_ref().map(drop).map_err(Clone::clone);
        Ok(match refused::keys(&*self.store, outcome, paths).await? {
            Some(problems) => Found::Refused(problems),
            None => Found::Values(values?),
        })
    }

    /// A node that is dead and has no fence is proven dead. What does not fit into one request was not read at one moment: so its fence is looked for once
    /// more, and its state after that.
    async fn confirm(&mut self, name: &NodeName) -> Result<(), StoreError> {
        let view = self.builder.view();
        let dead = view.node(name).filter(|node| node.daemon_state.value == DaemonState::Dead);
        let Some(seen) =
            dead.filter(|_| !view.fences.contains_key(name)).map(|node| node.daemon_state.version)
        else {
            return Ok(());
        };
        let fence = self.read_fence(name).await?;
        let state = self.store.get(&node::state_path(name)).await?;
        if state.map(|state| state.version) != seen {
            return Err(StoreError::Unavailable(format!("node {name} changes while it is read")));
        }
        self.show_fence(name, fence);
        Ok(())
    }

    fn show_node(&mut self, name: &NodeName, node: Option<Node>, fence: Found) {
        self.builder.set_node(name, node);
        self.show_fence(name, fence);
    }

    fn show_fence(&mut self, node: &NodeName, fence: Found) {
        if let Some(plain) = Kind::at(fence::ROOT).and_then(Kind::plain) {
            (plain.show)(&mut self.builder, node.as_str(), fence);
        }
    }

    async fn read_together(&mut self, nodes: &[NodeName], vms: &[(VmId, VmParts)]) -> Result<(), StoreError> {
        let node_paths =
            nodes.iter().flat_map(|name| node::paths(name).into_iter().chain(fence::paths(name)));
        let paths: Vec<String> = node_paths.chain(vms.iter().flat_map(|(id, _)| vm::paths(*id))).collect();
        // The version of a definition is kept from the last reading unless it may have changed.
        let kept = |id: VmId| self.builder.view().vm(id).map(|vm| vm.xml_version);
        let looked_at: Vec<VmId> =
            vms.iter().filter(|(id, parts)| parts.xml || kept(*id).is_none()).map(|(id, _)| *id).collect();
        let xml_paths: Vec<String> = looked_at.iter().map(|id| vm::xml_path(*id)).collect();
        let (values, stats) = tokio::try_join!(self.store.get_many(&paths), self.stats(&xml_paths))?;

        let mut values = values.as_slice();
        for name in nodes {
            let (own, rest) = values.split_at(node::READ_KEYS.min(values.len()));
            let (fence, rest) = rest.split_at(fence::READ_KEYS.min(rest.len()));
            values = rest;
            self.show_node(name, node::decode(name, own), Found::Values(fence.to_vec()));
        }
        for (id, _) in vms {
            let (own, rest) = values.split_at(vm::READ_KEYS.min(values.len()));
            values = rest;
            let xml = match looked_at.binary_search(id) {
                Ok(i) => stats.get(i).copied().flatten(),
                Err(_) => self.builder.view().vm(*id).and_then(xml_stat),
            };
            let entry: Option<Entry<Vm>> = vm::decode(*id, own, xml);
            if entry.is_none() && self.builder.has_strays(vm::ROOT) {
                // A key that spells the same UUID in another way is the VM's from now on.
                self.dirty.names_in.extend(Kind::at(vm::ROOT));
            }
            let orphan = if entry.is_none() { vm::decode_claim(*id, own) } else { None };
            self.builder.set_vm(*id, entry);
            self.builder.set_orphan_claim(*id, orphan);
        }
        Ok(())
    }

    async fn stats(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.store.stat_many(paths).await
    }
}

/// What was known of a definition when it was looked at last.
fn xml_stat(vm: &Vm) -> Option<Stat> {
    Some(Stat { version: vm.xml_version?, mzxid: vm.xml_zxid?, children: 0 })
}
