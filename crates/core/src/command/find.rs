//! Which VM or node an operator means. Names are not unique by nature (nothing in the state tree forbids two VMs of one
//! name, nor that one is called as another's UUID), so an ambiguous one is refused, never guessed.

use std::collections::BTreeMap;

use super::Refusal;
use crate::model::{ClusterView, Entry, NameError, Node, NodeName, VmId};

/// The names of all VMs, also of those whose other keys are unreadable. Where `/domains/<uuid>` holds nothing that can be a name, the UUID
/// is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster(BTreeMap<VmId, String>);

impl FromIterator<(VmId, String)> for Roster {
    fn from_iter<I: IntoIterator<Item = (VmId, String)>>(vms: I) -> Self {
        Self(vms.into_iter().collect())
    }
}

impl Roster {
    /// The names in a view. An unreadable VM can only be referred to by its UUID.
    pub fn of(view: &ClusterView) -> Self {
        let name = |entry: &Entry<_>| {
            entry.good().map(|vm: &crate::model::Vm| vm.name.to_string()).unwrap_or_default()
        };
        view.vms.iter().map(|(&id, entry)| (id, name(entry))).collect()
    }

    /// The name of a VM.
    pub fn name(&self, id: VmId) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    /// All VMs, by UUID.
    pub fn iter(&self) -> impl Iterator<Item = (VmId, &str)> {
        self.0.iter().map(|(&id, name)| (id, name.as_str()))
    }

    /// The VM that `reference`, a name or a UUID, means. What is written exactly so goes before other spellings of a UUID.
    pub fn find(&self, reference: &str) -> Result<VmId, Refusal> {
        let as_id: Option<VmId> = reference.parse().ok();
        let exactly = |id: VmId, name: &str| name == reference || id.to_string() == reference;
        let meant: Vec<VmId> =
            self.iter().filter(|(id, name)| exactly(*id, name)).map(|(id, _)| id).collect();
        match meant[..] {
            [id] => Ok(id),
            // In the spelling of its key, which is not that of the reference.
            [] => match as_id.and_then(|id| self.0.get_key_value(&id)) {
                Some((id, _)) => Ok(*id),
                None => Err(self.unknown(reference, as_id.is_some())),
            },
            _ => {
                let others: Vec<_> = meant.iter().map(|&id| self.another_word(id, reference)).collect();
                Err(Refusal::refused(
                    format!("{reference:?} is ambiguous"),
                    format!("{} VMs have this name or UUID", others.len()),
                    format!("use one of these: {}", others.join(", ")),
                ))
            }
        }
    }

    /// What means this VM only, other than that.
    fn another_word(&self, id: VmId, reference: &str) -> String {
        let text = id.to_string();
        if text != reference {
            return text;
        }
        // Another VM has its UUID for a name.
        let name = self.name(id).unwrap_or_default();
        let is_unique = self.iter().filter(|(_, other)| *other == name).count() == 1;
        if is_unique && !name.is_empty() { name.to_owned() } else { text.to_uppercase() }
    }

    fn unknown(&self, reference: &str, is_uuid: bool) -> Refusal {
        let near = if is_uuid { Vec::new() } else { nearest(reference, self.iter().map(|(_, name)| name)) };
        let kind = if is_uuid { "UUID" } else { "name" };
        let todo = suggestion(&near, "`pvc vm list` shows all VMs");
        Refusal::not_found(format!("there is no VM {reference:?}"), format!("no VM has this {kind}"), todo)
    }
}

/// The node that `reference` means.
pub fn node<'a>(nodes: impl Iterator<Item = &'a Node> + Clone, reference: &str) -> Result<&'a Node, Refusal> {
    let wanted = reference.parse::<NodeName>();
    let found = wanted.ok().and_then(|name| nodes.clone().find(|node| node.name == name));
    found.ok_or_else(|| {
        let near = nearest(reference, nodes.map(|node| node.name.as_str()));
        let todo = suggestion(&near, "`pvc node list` shows all nodes");
        Refusal::not_found(format!("there is no node {reference:?}"), "no node has this name", todo)
    })
}

/// The node of a view that `reference` means.
pub fn node_in<'a>(view: &'a ClusterView, reference: &str) -> Result<&'a Node, Refusal> {
    node(view.all_nodes(), reference)
}

/// A reference as a node's name, whether or not there is one.
pub fn name(reference: &str) -> Result<NodeName, Refusal> {
    let what = || format!("there is no node {reference:?}");
    reference
        .parse()
        .map_err(|e: NameError| Refusal::not_found(what(), e.to_string(), "`pvc node list` shows all nodes"))
}

fn suggestion(near: &[&str], otherwise: &str) -> String {
    if near.is_empty() { otherwise.to_owned() } else { format!("did you mean {}?", near.join(" or ")) }
}

/// At most three names that one might have meant, the nearest first.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    /// No name is longer; a longer word is nobody's slip of the finger.
    const LONGEST: usize = 128;
    if wanted.is_empty() || wanted.len() > LONGEST {
        return Vec::new();
    }
    let (limit, lower) = (1 + wanted.chars().count() / 4, wanted.to_lowercase());
    let mut near: Vec<(usize, &str)> = names
        .filter(|name| !name.is_empty() && name.len() <= LONGEST)
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|&(distance, name)| distance <= limit && distance < name.len())
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{RefusalKind, testing};

    fn roster() -> Roster {
        [(1, "web1"), (2, "web2"), (3, "mail"), (4, "twin"), (5, "twin"), (6, "not a name!")]
            .into_iter()
            .map(|(n, name)| (testing::id(n), name.to_owned()))
            .collect()
    }

    #[test]
    fn a_vm_is_found_by_name_and_by_uuid_also_if_its_name_is_broken() {
        assert_eq!(roster().find("mail"), Ok(testing::id(3)));
        assert_eq!(roster().find(&testing::id(3).to_string().to_uppercase()), Ok(testing::id(3)));
        assert_eq!(roster().find(&testing::id(6).to_string()), Ok(testing::id(6)));
    }

    #[test]
    fn an_unknown_vm_is_answered_with_the_nearest_names() {
        let refusal = roster().find("Web3").unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.todo.as_str()),
            (RefusalKind::NotFound, "did you mean web1 or web2?")
        );
        let refusal = roster().find("something-else").unwrap_err();
        assert_eq!(refusal.todo, "`pvc vm list` shows all VMs");
        assert_eq!(roster().find(&testing::id(9).to_string()).unwrap_err().why, "no VM has this UUID");
        assert_eq!(roster().find("").unwrap_err().kind, RefusalKind::NotFound);
    }

    #[test]
    fn an_ambiguous_name_is_refused_with_the_uuids() {
        let refusal = roster().find("twin").unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Refused);
        assert!(refusal.todo.contains(&testing::id(4).to_string()), "{refusal}");
        assert!(refusal.todo.contains(&testing::id(5).to_string()), "{refusal}");
    }

    #[test]
    fn a_name_that_is_another_vms_uuid_is_ambiguous_and_each_has_a_word_that_is_not() {
        let all = "abcdef00-0000-4000-8000-000000000001".parse::<VmId>().unwrap();
        let (uuid, upper) = (all.to_string(), all.to_string().to_uppercase());
        let is =
            |vms: &[(VmId, &str)]| vms.iter().map(|(id, name)| (*id, (*name).to_owned())).collect::<Roster>();
        let confused = is(&[(all, "mail"), (testing::id(7), &uuid)]);
        let refusal = confused.find(&uuid).unwrap_err();
        assert_eq!(refusal.todo, format!("use one of these: {}, mail", testing::id(7)));
        assert_eq!(confused.find("mail"), Ok(all));
        assert_eq!(confused.find(&testing::id(7).to_string()), Ok(testing::id(7)));
        let nameless = is(&[(all, "twin"), (testing::id(7), &uuid), (testing::id(8), "twin")]);
        assert!(nameless.find(&uuid).unwrap_err().todo.ends_with(&upper));
        assert_eq!(nameless.find(&upper), Ok(all));
        // Exactly so written is a name; the UUID is spelt otherwise.
        assert_eq!(is(&[(all, "mail"), (testing::id(7), &upper)]).find(&upper), Ok(testing::id(7)));
    }

    #[test]
    fn an_unknown_node_is_answered_with_the_nearest_names() {
        let nodes = [testing::node("hv1"), testing::node("hv2")];
        assert_eq!(node(nodes.iter(), "hv2").unwrap().name.as_str(), "hv2");
        assert_eq!(node(nodes.iter(), "hv3").unwrap_err().todo, "did you mean hv1 or hv2?");
        assert_eq!(node(nodes.iter(), "../x").unwrap_err().kind, RefusalKind::NotFound);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, d) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("web1", "wbe1", 2), ("é", "e", 1)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (d, d), "{a} {b}");
        }
    }
}
