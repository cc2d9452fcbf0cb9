//! Which objects must be read again.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{NodeName, VmId};

use super::kinds::{Form, Kind};
use crate::schema;

/// Which part of a VM must be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct VmParts {
    pub(super) xml: bool,
}

/// A merged set of reported changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// All of it: after a gap.
    pub(super) everything_in: BTreeSet<Kind>,
    /// The list of names: one appeared or vanished that is no object's.
    pub(super) names_in: BTreeSet<Kind>,
    pub(super) nodes: BTreeSet<NodeName>,
    pub(super) vms: BTreeMap<VmId, VmParts>,
    /// Claims: each is read together with its VM, in the spelling of the VM's key.
    pub(super) claims: BTreeSet<VmId>,
    /// One of the single keys.
    pub(super) single: bool,
    /// Of kinds that are objects and nothing more: by name.
    pub(super) objects: BTreeMap<Kind, BTreeSet<String>>,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn everything(&mut self, kind: Kind) {
        match kind.row().form {
            Form::Nodes | Form::Vms | Form::Claims | Form::Objects(_) => {
                self.everything_in.insert(kind);
            }
            Form::Key(_) | Form::Placement => {}
        }
        // The placement counts again when nothing can have been missed any more.
        self.single = true;
    }

    /// Adds what else has become dirty.
    pub(super) fn merge(&mut self, other: Self) {
        self.everything_in.extend(other.everything_in);
        self.names_in.extend(other.names_in);
        self.nodes.extend(other.nodes);
        for (id, parts) in other.vms {
            self.vm(id, parts);
        }
        self.claims.extend(other.claims);
        self.single |= other.single;
        for (kind, names) in other.objects {
            self.objects.entry(kind).or_default().extend(names);
        }
    }

    /// A key was reported to have changed, appeared or vanished.
    pub(super) fn key(&mut self, kind: Kind, path: &str) {
        let below = path.strip_prefix(kind.root()).unwrap_or_default();
        let mut parts = below.split('/').skip(1);
        let (name, key, deeper) = (parts.next(), parts.next(), parts.next());
        match (&kind.row().form, name, key, deeper) {
            (Form::Key(_) | Form::Placement, _, None, _) => self.single = true,
            // Locks and whatever else anybody keeps below our keys.
            (Form::Key(_) | Form::Placement, ..) | (_, _, _, Some(_)) => {}
            (_, None, ..) => drop(self.names_in.insert(kind)),
            (form, Some(name), key, None) => {
                let known = match form {
                    Form::Nodes => self.node_key(name, key),
                    Form::Vms => self.vm_key(name, key),
                    Form::Claims => self.claim_key(name, key),
                    Form::Objects(plain) if (plain.check)(name).is_ok() => {
                        if key.is_none_or(plain.is_read) {
                            self.object(kind, name);
                        }
                        true
                    }
                    _ => false,
                };
                if !known && key.is_none() {
                    self.names_in.insert(kind);
                }
            }
        }
    }

    pub(super) fn object(&mut self, kind: Kind, name: &str) {
        self.objects.entry(kind).or_default().insert(name.to_owned());
    }

    /// Whether there is a node of that name, as far as names go.
    fn node_key(&mut self, name: &str, key: Option<&str>) -> bool {
        let Ok(name) = name.parse() else { return false };
        if key.is_none_or(schema::node::is_read) {
            self.nodes.insert(name);
        }
        true
    }

    /// As [`Self::node_key`].
    fn vm_key(&mut self, name: &str, key: Option<&str>) -> bool {
        let Ok(id) = VmId::of_key(name) else { return false };
        let xml = key == Some("xml");
        if xml || key.is_none_or(schema::vm::is_read) {
            self.vm(id, VmParts { xml });
        }
        true
    }

    /// As [`Self::node_key`].
    fn claim_key(&mut self, name: &str, key: Option<&str>) -> bool {
        let Ok(id) = schema::vm::claimed(name) else { return false };
        if key.is_none() {
            self.claims.insert(id);
        }
        true
    }

    pub(super) fn vm(&mut self, id: VmId, parts: VmParts) {
        if self.vms.get_key_value(&id).is_some_and(|(other, _)| !other.is_spelled_as(id)) {
            // Two keys of one UUID: the names tell which is the VM's.
            self.names_in.extend(Kind::at(schema::vm::ROOT));
        }
        self.vms.entry(id).or_default().xml |= parts.xml;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{fence, network, node, vm};

    const VM: &str = "11111111-0000-4000-8000-000000000001";

    fn after(root: &str, path: &str) -> Dirty {
        let mut dirty = Dirty::default();
        dirty.key(Kind::at(root).unwrap(), path);
        dirty
    }

    #[test]
    fn console_logs_locks_and_unknown_keys_cause_no_read() {
        for key in ["consolelog", "abc__lock__0000000001", "state/x", "xml/y/z"] {
            assert!(after(vm::ROOT, &format!("/domains/{VM}/{key}")).is_empty(), "{key}");
        }
        for key in ["ipmipassword", "nonsense", "keepalive/x"] {
            assert!(after(node::ROOT, &format!("/nodes/node1/{key}")).is_empty(), "{key}");
        }
        assert!(after(network::ROOT, "/networks/100/dhcp4_leases").is_empty());
    }

    #[test]
    fn a_definition_is_looked_at_only_when_it_changes() {
        let id: VmId = VM.parse().unwrap();
        assert!(!after(vm::ROOT, &format!("/domains/{VM}/state")).vms[&id].xml);
        assert!(after(vm::ROOT, &format!("/domains/{VM}/xml")).vms[&id].xml);
        let mut both = after(vm::ROOT, &format!("/domains/{VM}/xml"));
        both.key(Kind::at(vm::ROOT).unwrap(), &format!("/domains/{VM}/state"));
        assert!(both.vms[&id].xml, "merging forgets nothing");
    }

    #[test]
    fn a_key_of_an_object_has_that_object_read_and_no_other() {
        let fences = Kind::at(fence::ROOT).unwrap();
        for path in ["/pvc/fence/node1", "/pvc/fence/node1/fencer"] {
            let only = Dirty { objects: [(fences, ["node1".to_owned()].into())].into(), ..Dirty::default() };
            assert_eq!(after(fence::ROOT, path), only, "{path}");
        }
        for path in ["/pvc/fence/node1/other", "/pvc/fence/node1/fencer/x", "/pvc/fence/a b/fencer"] {
            assert!(after(fence::ROOT, path).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_claim_that_changes_is_its_vms_matter() {
        let id: VmId = VM.parse().unwrap();
        assert!(after(vm::CLAIM_ROOT, &format!("/pvc/claim/{VM}")).claims.contains(&id));
        assert!(after(vm::CLAIM_ROOT, &format!("/pvc/claim/{VM}/foreign")).is_empty());
    }

    #[test]
    fn names_that_are_no_objects_cause_the_names_to_be_listed() {
        for (root, path) in [
            (vm::ROOT, "/domains/rubbish"),
            (vm::ROOT, "/domains"),
            (vm::CLAIM_ROOT, "/pvc/claim/rubbish"),
            (vm::CLAIM_ROOT, "/pvc/claim"),
            (node::ROOT, "/nodes/a b"),
            (node::ROOT, "/nodes"),
            (fence::ROOT, "/pvc/fence/a b"),
            (fence::ROOT, "/pvc/fence"),
        ] {
            assert_eq!(after(root, path).names_in, BTreeSet::from([Kind::at(root).unwrap()]), "{path}");
        }
        assert!(after(vm::ROOT, "/domains/rubbish/state").is_empty());
    }
}
