//! Which objects there are: names where they may have changed, and what is to be read for them.

use std::collections::BTreeSet;

use pvc_core::model::{NodeName, Problem, VmId};

use super::{
    super::{
        dirty::{Dirty, VmParts},
        kinds::{Form, Kind, Plain},
    },
    Task,
};
use crate::{StoreError, schema::vm};

impl Task {
    /// Lists names where needed; what is to be read becomes dirty, what is gone is removed.
    pub(super) async fn read_names(&mut self, dirty: &mut Dirty) -> Result<(), StoreError> {
        let kinds: Vec<Kind> = dirty.everything_in.union(&dirty.names_in).copied().collect();
        if kinds.is_empty() {
            return Ok(());
        }
        let paths: Vec<String> = kinds.iter().map(|kind| kind.root().to_owned()).collect();
        let lists = self.store.children_many(&paths).await?;
        for (kind, names) in kinds.into_iter().zip(lists) {
            let all = dirty.everything_in.contains(&kind);
            let names = names.unwrap_or_default();
            let strays = match &kind.row().form {
                Form::Nodes => self.sort_nodes(kind, &names, all, dirty),
                Form::Vms => self.sort_vms(&names, all, dirty),
                Form::Claims => self.sort_claims(kind, &names, all, dirty),
                Form::Objects(plain) => self.sort_objects((kind, plain), names, all, dirty),
                Form::Key(_) | Form::Placement => Vec::new(),
            };
            self.builder.set_strays(kind.root(), strays);
        }
        Ok(())
    }

    fn sort_objects(
        &self,
        (kind, plain): (Kind, &Plain),
        names: Vec<String>,
        all: bool,
        dirty: &mut Dirty,
    ) -> Vec<Problem> {
        let (mut strays, mut listed) = (Vec::new(), BTreeSet::new());
        for name in names {
            match (plain.check)(&name) {
                Ok(()) => drop(listed.insert(name)),
                Err(why) => strays.push(kind.stray(&name, why)),
            }
        }
        let shown = (plain.shown)(self.builder.view());
        // What is gone is found to be gone by reading it.
        for name in listed.union(&shown).filter(|name| all || listed.contains(*name) != shown.contains(*name))
        {
            dirty.object(kind, name);
        }
        strays
    }

    fn sort_vms(&mut self, names: &[String], all: bool, dirty: &mut Dirty) -> Vec<Problem> {
        let (listed, strays) = vm::ids(names);
        let known = &self.builder.view().vms;
        let stays = |id: &VmId| listed.get(id).is_some_and(|listed| listed.is_spelled_as(*id));
        let gone: Vec<VmId> = known.keys().filter(|id| !stays(id)).copied().collect();
        for id in &listed {
            if all || !known.contains_key(id) || gone.contains(id) {
                // Under the spelling that is listed.
                dirty.vms.remove(id);
                dirty.vm(*id, VmParts { xml: true });
            }
        }
        for id in gone {
            // One that is created right now is reported, and read, after this.
            self.builder.set_vm(id, None);
            dirty.claims.insert(id);
        }
        strays
    }

    fn sort_claims(&mut self, kind: Kind, names: &[String], all: bool, dirty: &mut Dirty) -> Vec<Problem> {
        let (mut strays, mut listed) = (Vec::new(), BTreeSet::new());
        for name in names {
            match vm::claimed(name) {
                Ok(id) => drop(listed.insert(id)),
                Err(why) => strays.push(kind.stray(name, why)),
            }
        }
        let view = self.builder.view();
        let claimed = view.good_vms().filter(|vm| vm.claim.version.is_some()).map(|vm| vm.id);
        let known: BTreeSet<VmId> = claimed.chain(view.orphan_claims.keys().copied()).collect();
        if all {
            dirty.claims.extend(&listed);
        }
        dirty.claims.extend(known.symmetric_difference(&listed));
        strays
    }

    fn sort_nodes(&mut self, kind: Kind, names: &[String], all: bool, dirty: &mut Dirty) -> Vec<Problem> {
        let (mut strays, mut listed) = (Vec::new(), BTreeSet::new());
        for name in names {
            match name.parse::<NodeName>() {
                Ok(name) => drop(listed.insert(name)),
                Err(why) => strays.push(kind.stray(name, why)),
            }
        }
        let known = &self.builder.view().nodes;
        let gone: Vec<NodeName> = known.keys().filter(|name| !listed.contains(name)).cloned().collect();
        for name in listed {
            if all || !known.contains_key(&name) {
                dirty.nodes.insert(name);
            }
        }
        for name in gone {
            self.keepalives.forget(&name);
            self.builder.set_node(&name, None);
        }
        strays
    }

    /// A VM in the spelling of the key that is its own. If another key of the same UUID has changed, the names tell which that is.
    pub(super) fn known(&mut self, id: VmId) -> VmId {
        match self.builder.view().vms.get_key_value(&id) {
            Some((known, _)) if !known.is_spelled_as(id) => {
                let known = *known;
                self.dirty.names_in.extend(Kind::at(vm::ROOT));
                known
            }
            _ => id,
        }
    }
}
