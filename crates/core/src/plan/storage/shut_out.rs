//! Who is shut out of the storage, and for whom that may end; and who holds which lock.
//!
//! A client whose entry is lifted goes on writing where it stopped, if its process still lives. So an entry is lifted only after a proof: the machine on which
//! that process was has booted since, as its own daemon says. That a BMC said so is no proof: it may lie.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Facts,
    Standing::{self, Done, Impossible, Lift},
};
use crate::{
    model::{
        ClusterView, NodeName,
        ceph::{ClientAddress, ImageName, Recorded, ShutOut, Users, Whose},
        found::{Holder, LockRow, Rows, ShutOutRow},
        storage_command::Only,
    },
    plan::storage_fence::LEAST_S,
    sabotage::{self, Bug},
};

/// So many are lifted in one step.
const AT_ONCE: usize = 32;

/// What is known of those who are shut out.
#[derive(Debug, Default)]
pub struct ShutOuts {
    /// All of them for which pvcd has seen to that, whoever they are: nobody else shuts anybody out for years.
    pub all: BTreeMap<ClientAddress, Entry>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Until when, in seconds since 1970.
    pub until_unix_s: u64,
    /// Whose it was, if that was noted.
    pub noted: Option<ShutOut>,
    /// Why it is to stay so.
    pub stays: Option<String>,
}

impl ShutOuts {
    /// From Ceph's own list, what was noted and what the nodes say of themselves.
    pub fn new(
        view: &ClusterView,
        blocklisted: &BTreeMap<ClientAddress, u64>,
        notes: &BTreeMap<ClientAddress, ShutOut>,
        now_unix_s: u64,
    ) -> Self {
        let ours = blocklisted.iter().filter(|(client, until)| {
            notes.contains_key(*client) || **until >= now_unix_s.saturating_add(LEAST_S)
        });
        let all = ours.map(|(client, until)| {
            let noted = notes.get(client).cloned();
            let stays = stays(view, noted.as_ref());
            (*client, Entry { until_unix_s: *until, noted, stays })
        });
        Self { all: all.collect() }
    }

    /// As rows, of one node if one is named.
    pub fn rows(&self, view: &ClusterView, of: &Only<NodeName>) -> Rows<ShutOutRow> {
        let node = |entry: &Entry| entry.noted.as_ref().map(|noted| noted.node.clone());
        let wanted = self.all.iter().filter(|(_, entry)| of.wants(node(entry).as_ref()));
        let rows = wanted.map(|(client, entry)| ShutOutRow {
            client: client.to_string(),
            until_unix_s: entry.until_unix_s,
            whose: entry.noted.as_ref().map(|noted| whose(view, noted.whose)),
            node: node(entry).map(|node| node.to_string()),
            stays: entry.stays.clone(),
        });
        Rows::first_of(rows.collect(), Vec::new())
    }
}

/// Why a client is not let in again; `None`: nothing is left of it.
fn stays(view: &ClusterView, noted: Option<&ShutOut>) -> Option<String> {
    let Some(ShutOut { node, boot, .. }) = noted else {
        return Some("whose process it is was not noted".to_owned());
    };
    let Some(boot) = boot else {
        return Some(format!("in which boot of {node} its process was is not known"));
    };
    match view.node(node).map(|node| &node.boot) {
        None => Some(format!("there is no node {node} that could say whether its machine has booted since")),
        Some(Some(now)) if now != boot || sabotage::commits(Bug::LiftEarly) => None,
        Some(Some(_)) => Some(format!("{node} has not booted since: its process may live on there")),
        Some(None) => Some(format!("{node} does not say in which boot it is")),
    }
}

/// Lets in again whose process is proven dead: one client, or all such.
pub(super) fn lift(which: &Only<ClientAddress>, facts: &Facts, begun: bool) -> Standing {
    let all = &facts.shut_out.all;
    match which {
        Only::One(client) => match all.get(client) {
            None if begun => Done(Vec::new()),
            None => {
                Impossible(format!("{client} is not shut out by pvcd: `pvc storage fence list` shows who is"))
            }
            Some(Entry { stays: Some(why), .. }) => Impossible(format!("{client} stays shut out: {why}")),
            Some(_) => Lift([*client].into()),
        },
        Only::All => {
            let dead = all.iter().filter(|(_, entry)| entry.stays.is_none());
            let dead: BTreeSet<ClientAddress> = dead.map(|(client, _)| *client).take(AT_ONCE).collect();
            if dead.is_empty() { Done(Vec::new()) } else { Lift(dead) }
        }
    }
}

/// The locks of images, with their holders.
pub fn locks(
    view: &ClusterView,
    images: &BTreeMap<ImageName, Result<Users, String>>,
    records: &[Recorded],
    (blocklisted, notes): (&BTreeMap<ClientAddress, u64>, &BTreeMap<ClientAddress, ShutOut>),
) -> Rows<LockRow> {
    let (mut rows, mut unknown) = (Vec::new(), Vec::new());
    for (image, users) in images {
        let users = match users {
            Ok(users) => users,
            Err(why) => {
                unknown.push(format!("{image}: {why}"));
                continue;
            }
        };
        for lock in &users.locks {
            let client = &lock.address;
            let holder = if blocklisted.contains_key(client) {
                Holder::ShutOut
            } else if users.watchers.contains(client) {
                Holder::Heard
            } else {
                Holder::Silent
            };
            let recorded = records.iter().find(|record| record.clients.clients.contains(client));
            let recorded = recorded.map(|record| (Whose::Vm(record.vm), &record.node));
            let noted = || notes.get(client).map(|noted| (noted.whose, &noted.node));
            let held_by = recorded.or_else(noted);
            rows.push(LockRow {
                image: image.to_string(),
                client: client.to_string(),
                name: lock.client.clone(),
                holder,
                whose: held_by.map(|(by, _)| whose(view, by)),
                node: held_by.map(|(_, node)| node.to_string()),
            });
        }
    }
    // Stale ones first: they are what is looked for.
    rows.sort_by_key(|row| row.holder == Holder::Heard);
    Rows::first_of(rows, unknown)
}

/// The name of a VM, or the number of a task.
fn whose(view: &ClusterView, whose: Whose) -> String {
    match whose {
        Whose::Vm(vm) => view.vm(vm).map_or_else(|| vm.to_string(), |vm| vm.name.to_string()),
        Whose::Task(id) => format!("task {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::testing::{name, node, view},
        model::ceph::{Lock, VmClients},
    };

    const CLIENT: &str = "10.0.0.1:0/7";

    fn client() -> ClientAddress {
        CLIENT.parse().unwrap()
    }

    fn noted(boot: Option<&str>) -> ShutOut {
        let vm = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        ShutOut { whose: Whose::Vm(vm), node: name("a"), boot: boot.map(str::to_owned) }
    }

    fn entry(note: Option<ShutOut>, boot: Option<&str>) -> Entry {
        let mut a = node("a");
        a.boot = boot.map(str::to_owned);
        let notes = note.into_iter().map(|note| (client(), note)).collect();
        let all = ShutOuts::new(&view(&[a], &[]), &[(client(), LEAST_S)].into(), &notes, 0);
        all.all[&client()].clone()
    }

    #[test]
    fn a_client_is_let_in_only_if_its_machine_has_booted_since() {
        for (note, boot, stays) in [
            (Some(noted(Some("first"))), Some("second"), None),
            (Some(noted(Some("first"))), Some("first"), Some("has not booted since")),
            (Some(noted(Some("first"))), None, Some("does not say in which boot")),
            (Some(noted(None)), Some("second"), Some("is not known")),
            (
                Some(ShutOut { node: name("gone"), ..noted(Some("first")) }),
                Some("second"),
                Some("there is no node gone"),
            ),
            (None, Some("second"), Some("was not noted")),
        ] {
            let entry = entry(note, boot);
            let said = entry.stays.clone().unwrap_or_default();
            assert!(stays.map_or(entry.stays.is_none(), |stays| said.contains(stays)), "{said}");
            let facts = Facts { shut_out: ShutOuts { all: [(client(), entry)].into() }, ..Facts::default() };
            for which in [Only::One(client()), Only::All] {
                assert_eq!(matches!(lift(&which, &facts, true), Lift(_)), stays.is_none(), "{which}");
            }
        }
    }

    #[test]
    fn who_is_not_shut_out_by_us_is_nobody_to_be_let_in() {
        // An hour is what others' entries last.
        let others = ShutOuts::new(&ClusterView::default(), &[(client(), 3600)].into(), &BTreeMap::new(), 0);
        assert!(others.all.is_empty());
        let facts = Facts { shut_out: others, ..Facts::default() };
        assert!(matches!(lift(&Only::One(client()), &facts, false), Impossible(_)));
        assert!(matches!(lift(&Only::One(client()), &facts, true), Done(_)), "it was let in before");
    }

    #[test]
    fn stale_locks_come_first_with_whose_they_are() {
        let lock = |n: u8| -> Lock {
            let address = format!("10.0.0.1:0/{n}").parse().unwrap();
            Lock { client: format!("client.{n}"), cookie: "auto 1".into(), address }
        };
        let of = |n: u8, heard: bool| Users {
            watchers: heard.then(|| lock(n).address).into_iter().collect(),
            locks: vec![lock(n)],
        };
        let images = [
            ("p/a", Ok(of(1, true))),
            ("p/b", Ok(of(2, false))),
            ("p/c", Ok(of(3, true))),
            ("p/d", Err("late".into())),
        ];
        let images = images.into_iter().map(|(name, users)| (name.parse().unwrap(), users)).collect();
        let clients = VmClients { clients: [lock(2).address].into(), ..VmClients::default() };
        let vm = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        let records = [Recorded { vm, node: name("a"), clients, version: 0 }];
        let blocklisted = [(lock(3).address, LEAST_S)].into();
        let notes = [(lock(3).address, ShutOut { whose: Whose::Task(7), ..noted(None) })].into();
        let found = locks(&ClusterView::default(), &images, &records, (&blocklisted, &notes));
        let said: Vec<_> =
            found.rows.iter().map(|row| (row.image.as_str(), row.holder, row.node.as_deref())).collect();
        let expected = [
            ("p/b", Holder::Silent, Some("a")),
            ("p/c", Holder::ShutOut, Some("a")),
            ("p/a", Holder::Heard, None),
        ];
        assert_eq!(said, expected);
        assert_eq!(found.rows[1].whose.as_deref(), Some("task 7"));
        assert_eq!(found.unknown, ["p/d: late"]);
    }
}
