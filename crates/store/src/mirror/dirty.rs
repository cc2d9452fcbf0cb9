//! Which objects must be read again.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{NodeName, VmId};

use crate::schema;

/// The subtrees that are watched, each by a watch of its own: others (`/ceph`, `/cmd` …) are nobody's business here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    Nodes,
    Vms,
    Claims,
    Primary,
    Networks,
    Holder,
    Fences,
    Maintenance,
    Placement,
}

/// How many there are.
pub(super) const ROOTS: usize = 9;

impl Root {
    pub(super) const ALL: [Self; ROOTS] = [
        Self::Nodes,
        Self::Vms,
        Self::Claims,
        Self::Primary,
        Self::Networks,
        Self::Holder,
        Self::Fences,
        Self::Maintenance,
        Self::Placement,
    ];

    /// Those that are a single key each, or whose children are only counted: read together, in this order.
    pub(super) const SINGLE: [Self; 5] =
        [Self::Primary, Self::Networks, Self::Holder, Self::Maintenance, Self::Placement];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Nodes => schema::node::ROOT,
            Self::Vms => schema::vm::ROOT,
            Self::Claims => schema::vm::CLAIM_ROOT,
            Self::Primary => schema::root::PRIMARY_NODE,
            Self::Networks => schema::root::NETWORKS,
            Self::Holder => schema::primary::HOLDER,
            Self::Fences => schema::fence::ROOT,
            Self::Maintenance => schema::maintenance::MAINTENANCE,
            Self::Placement => schema::placement::PLACEMENT,
        }
    }
}

/// Which part of a VM must be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct VmParts {
    pub(super) xml: bool,
}

/// A merged set of reported changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// All of it: after a gap.
    pub(super) everything_in: BTreeSet<Root>,
    /// The list of names: one appeared or vanished that is no object's.
    pub(super) names_in: BTreeSet<Root>,
    pub(super) nodes: BTreeSet<NodeName>,
    pub(super) vms: BTreeMap<VmId, VmParts>,
    /// Claims: each is read together with its VM, in the spelling of the VM's key.
    pub(super) claims: BTreeSet<VmId>,
    /// One of the single keys.
    pub(super) single: bool,
    /// Fences: they are few, so all of them.
    pub(super) fences: bool,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn everything(&mut self, root: Root) {
        match root {
            Root::Nodes | Root::Vms | Root::Claims => drop(self.everything_in.insert(root)),
            Root::Fences => self.fences = true,
            Root::Primary | Root::Networks | Root::Holder | Root::Maintenance | Root::Placement => {}
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
        self.fences |= other.fences;
    }

    /// A key was reported to have changed, appeared or vanished.
    pub(super) fn key(&mut self, root: Root, path: &str) {
        let below = path.strip_prefix(root.path()).unwrap_or_default();
        let mut parts = below.split('/').skip(1);
        let (name, key, deeper) = (parts.next(), parts.next(), parts.next());
        match (root, name, key, deeper) {
            (Root::Primary | Root::Holder | Root::Maintenance | Root::Placement, None, ..) => {
                self.single = true;
            }
            // Only the number of networks is mirrored.
            (Root::Networks, _, None, _) => self.single = true,
            (Root::Fences, _, None, _) => self.fences = true,
            (Root::Fences, _, Some(key), None) if schema::fence::is_read(key) => self.fences = true,
            (Root::Nodes | Root::Vms | Root::Claims, None, ..) => drop(self.names_in.insert(root)),
            (Root::Nodes, Some(name), key, None) => self.node_key(name, key),
            (Root::Vms, Some(name), key, None) => self.vm_key(name, key),
            (Root::Claims, Some(name), None, _) => match schema::vm::claimed(name) {
                Ok(id) => drop(self.claims.insert(id)),
                Err(_) => drop(self.names_in.insert(root)),
            },
            // Locks and whatever else anybody keeps below our keys.
            _ => {}
        }
    }

    fn node_key(&mut self, name: &str, key: Option<&str>) {
        match (name.parse(), key) {
            (Ok(name), None) => drop(self.nodes.insert(name)),
            (Ok(name), Some(key)) if schema::node::is_read(key) => drop(self.nodes.insert(name)),
            (Err(_), None) => drop(self.names_in.insert(Root::Nodes)),
            _ => {}
        }
    }

    fn vm_key(&mut self, name: &str, key: Option<&str>) {
        match (VmId::of_key(name), key) {
            (Ok(id), Some("xml")) => self.vm(id, VmParts { xml: true }),
            (Ok(id), None) => self.vm(id, VmParts::default()),
            (Ok(id), Some(key)) if schema::vm::is_read(key) => self.vm(id, VmParts::default()),
            (Err(_), None) => drop(self.names_in.insert(Root::Vms)),
            _ => {}
        }
    }

    pub(super) fn vm(&mut self, id: VmId, parts: VmParts) {
        if self.vms.get_key_value(&id).is_some_and(|(other, _)| !other.is_spelled_as(id)) {
            // Two keys of one UUID: the names tell which is the VM's.
            self.names_in.insert(Root::Vms);
        }
        self.vms.entry(id).or_default().xml |= parts.xml;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "11111111-0000-4000-8000-000000000001";

    fn after(root: Root, path: &str) -> Dirty {
        let mut dirty = Dirty::default();
        dirty.key(root, path);
        dirty
    }

    #[test]
    fn console_logs_locks_and_unknown_keys_cause_no_read() {
        for key in ["consolelog", "abc__lock__0000000001", "state/x", "xml/y/z"] {
            assert!(after(Root::Vms, &format!("/domains/{VM}/{key}")).is_empty(), "{key}");
        }
        for key in ["ipmipassword", "nonsense", "keepalive/x"] {
            assert!(after(Root::Nodes, &format!("/nodes/node1/{key}")).is_empty(), "{key}");
        }
        assert!(after(Root::Networks, "/networks/100/dhcp4_leases").is_empty());
    }

    #[test]
    fn a_definition_is_looked_at_only_when_it_changes() {
        let id: VmId = VM.parse().unwrap();
        assert!(!after(Root::Vms, &format!("/domains/{VM}/state")).vms[&id].xml);
        assert!(after(Root::Vms, &format!("/domains/{VM}/xml")).vms[&id].xml);
        let mut both = after(Root::Vms, &format!("/domains/{VM}/xml"));
        both.key(Root::Vms, &format!("/domains/{VM}/state"));
        assert!(both.vms[&id].xml, "merging forgets nothing");
    }

    #[test]
    fn a_claim_that_changes_is_its_vms_matter() {
        let id: VmId = VM.parse().unwrap();
        assert!(after(Root::Claims, &format!("/pvc/claim/{VM}")).claims.contains(&id));
        assert!(after(Root::Claims, &format!("/pvc/claim/{VM}/foreign")).is_empty());
    }

    #[test]
    fn names_that_are_no_objects_cause_the_names_to_be_listed() {
        for (root, path) in [
            (Root::Vms, "/domains/rubbish"),
            (Root::Vms, "/domains"),
            (Root::Claims, "/pvc/claim/rubbish"),
            (Root::Claims, "/pvc/claim"),
            (Root::Nodes, "/nodes/a b"),
            (Root::Nodes, "/nodes"),
        ] {
            assert_eq!(after(root, path).names_in, BTreeSet::from([root]), "{path}");
        }
        assert!(after(Root::Vms, "/domains/rubbish/state").is_empty());
    }
}
