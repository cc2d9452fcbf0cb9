//! `/networks/<vni>/dhcp4_reservations/<mac>` = `static`, with `ipaddr` and `hostname` below, as operators change them.
//!
//! Each change of ours also writes the parent, so that no two of them are decided from the same view. An old client lists a reservation only if there is a
//! lease of its card, and calls it static if that lease has no `expiry`: such an entry comes and goes with the reservation, unless the card has a real lease.

use std::collections::BTreeMap;

use pvc_core::model::{Mac, Problem, Reservation, Vni};

use super::{
    leases::{self, AT_ONCE, RESERVATIONS, optional},
    path,
};
use crate::{Check, CommitError, Store, StoreError, Transaction, Value, put, schema::text::Decoder};

/// What an old client writes to a reservation's own key.
const STATIC: &str = "static";

/// A network's reservations as they were seen.
#[derive(Debug)]
pub struct Seen {
    /// By card.
    pub reserved: Vec<Reservation>,
    /// What cannot be read of them.
    pub problems: Vec<Problem>,
    vni: Vni,
    /// Of the parent.
    version: Option<i32>,
    /// The keys of each card. An old client writes hardware addresses as they were typed, so a card may have several.
    keys: BTreeMap<Mac, Vec<Key>>,
}

#[derive(Debug)]
struct Key {
    path: String,
    /// Of `ipaddr` and `hostname`.
    versions: [Option<i32>; 2],
}

impl Seen {
    /// The cards that have a reservation, readable or not.
    pub fn cards(&self) -> Vec<Mac> {
        self.keys.keys().copied().collect()
    }

    /// Fails if anybody of ours has changed a reservation since.
    fn claim(&self, txn: &mut Transaction) {
        txn.check(path(self.vni), Check::Exists);
        let parent = parent(self.vni);
        match self.version {
            Some(version) => txn.set(parent, "", Some(version)),
            None => txn.create(parent, ""),
        }
    }
}

fn parent(vni: Vni) -> String {
    format!("{}/{RESERVATIONS}", path(vni))
}

fn below(own: &str) -> [String; 2] {
    ["ipaddr", "hostname"].map(|key| format!("{own}/{key}"))
}

/// Reads the reservations of a network.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vni: Vni) -> Result<Seen, StoreError> {
    let parent = parent(vni);
    // Before what is below it: a change in between is then noticed by the version.
    let version = store.get(&parent).await?.map(|value| value.version);
    let mut seen = Seen { reserved: Vec::new(), problems: Vec::new(), vni, version, keys: BTreeMap::new() };
    let mut cards: Vec<(Mac, String)> = Vec::new();
    for name in store.children(&parent).await?.unwrap_or_default() {
        let key = format!("{parent}/{name}");
        match name.parse() {
            Ok(mac) => cards.push((mac, key)),
            Err(error) => seen.problems.push(Problem { key, what: error.to_string() }),
        }
    }
    cards.sort_unstable();
    for cards in cards.chunks(AT_ONCE) {
        let keys: Vec<String> = cards.iter().flat_map(|(_, own)| below(own)).collect();
        let values = store.get_many(&keys).await?;
        for (((mac, own), keys), values) in cards.iter().zip(keys.chunks(2)).zip(values.chunks(2)) {
            seen.note(*mac, own, keys, values);
        }
    }
    Ok(seen)
}

impl Seen {
    fn note(&mut self, mac: Mac, own: &str, keys: &[String], values: &[Option<Value>]) {
        let mut d = Decoder::default();
        let (address, name) = (optional(&mut d, 0, keys, values), optional(&mut d, 1, keys, values));
        self.problems.extend(d.problems);
        let version = |at: usize| values.get(at)?.as_ref().map(|value| value.version);
        let key = Key { path: own.to_owned(), versions: [version(0), version(1)] };
        let of_card = self.keys.entry(mac).or_default();
        // The first is the one that is served.
        if of_card.is_empty() {
            self.reserved.extend(address.map(|address| Reservation { mac, address, name }));
        }
        of_card.push(key);
    }
}

/// Writes a reservation in the place of what its card has. Fails if reservations have changed since they were seen.
///
/// # Errors
/// As every commit.
pub async fn put(store: &dyn Store, seen: &Seen, reservation: &Reservation) -> Result<(), CommitError> {
    let mut txn = Transaction::default();
    seen.claim(&mut txn);
    let name = reservation.name.as_ref().map(ToString::to_string).unwrap_or_default();
    let values = [reservation.address.to_string(), name];
    let there = seen.keys.get(&reservation.mac).map_or(&[][..], Vec::as_slice);
    match there.split_first() {
        Some((key, doubles)) => {
            write(&mut txn, &key.path, &values, key.versions);
            for double in doubles {
                delete(store, &mut txn, double).await?;
            }
        }
        None => {
            let own = format!("{}/{}", parent(seen.vni), reservation.mac);
            txn.create(own.clone(), STATIC);
            write(&mut txn, &own, &values, [None, None]);
        }
    }
    let (own, entry) = old_entry(store, seen.vni, reservation.mac).await?;
    match &entry[..] {
        [None, ..] => {
            txn.create(own.clone(), "");
            write(&mut txn, &own, &values, [None, None]);
            txn.create(format!("{own}/clientid"), "*");
        }
        [Some(_), address, name, None] => {
            let versions = [address, name].map(|value| value.as_ref().map(|value| value.version));
            write(&mut txn, &own, &values, versions);
        }
        _ => {}
    }
    store.commit(txn).await.map(drop)
}

/// Removes a card's reservation. Fails if reservations have changed since they were seen.
///
/// # Errors
/// As every commit.
pub async fn remove(store: &dyn Store, seen: &Seen, mac: Mac) -> Result<(), CommitError> {
    let mut txn = Transaction::default();
    seen.claim(&mut txn);
    for key in seen.keys.get(&mac).into_iter().flatten() {
        delete(store, &mut txn, key).await?;
    }
    let (own, entry) = old_entry(store, seen.vni, mac).await?;
    if let [Some(_), address, name, None] = &entry[..] {
        let versions = [address, name].map(|value| value.as_ref().map(|value| value.version));
        delete(store, &mut txn, &Key { path: own, versions }).await?;
    }
    store.commit(txn).await.map(drop)
}

/// The lease of a card: its own key, its address, its name, its expiry.
async fn old_entry(
    store: &dyn Store,
    vni: Vni,
    mac: Mac,
) -> Result<(String, Vec<Option<Value>>), CommitError> {
    let own = format!("{}/{mac}", leases::root(vni));
    let [address, name] = below(&own);
    let keys = [own.clone(), address, name, format!("{own}/expiry")];
    let values = store.get_many(&keys).await.map_err(CommitError::Failed)?;
    Ok((own, values))
}

fn write(txn: &mut Transaction, own: &str, values: &[String; 2], versions: [Option<i32>; 2]) {
    for ((key, value), version) in below(own).into_iter().zip(values).zip(versions) {
        match version {
            Some(version) => txn.set(key, value.as_str(), Some(version)),
            None => txn.create(key, value.as_str()),
        }
    }
}

async fn delete(store: &dyn Store, txn: &mut Transaction, key: &Key) -> Result<(), CommitError> {
    let found = put::subtree(store, &key.path).await.map_err(CommitError::Failed)?;
    for path in found.into_iter().flat_map(|found| found.leaves_first) {
        let seen = below(&key.path).iter().position(|below| *below == path);
        let version = seen.and_then(|at| key.versions.get(at).copied().flatten());
        txn.delete(path, version);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pvc_core::model::Network;

    use super::*;
    use crate::{memory::MemoryTree, schema};

    fn vni() -> Vni {
        "100".parse().unwrap()
    }

    fn reservation(mac: &str, address: &str, name: Option<&str>) -> Reservation {
        Reservation {
            mac: mac.parse().unwrap(),
            address: address.parse().unwrap(),
            name: name.map(|name| name.parse().unwrap()),
        }
    }

    async fn tree() -> (MemoryTree, std::sync::Arc<crate::memory::MemoryStore>) {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        store.commit(schema::network::define(&Network::bare(vni()))).await.unwrap();
        (tree, store)
    }

    fn text(tree: &MemoryTree, key: &str) -> Option<String> {
        tree.dump().get(&format!("/networks/100/{key}")).map(|data| String::from_utf8(data.clone()).unwrap())
    }

    #[tokio::test]
    async fn a_reservation_is_written_as_old_clients_read_it_replaced_and_removed() {
        let (tree, store) = tree().await;
        let mac = "52:54:00:00:00:0a";
        let before = read(&*store, vni()).await.unwrap();
        let first = reservation(mac, "10.0.0.5", Some("db"));
        put(&*store, &before, &first).await.unwrap();
        let (reserved, lease) = (format!("dhcp4_reservations/{mac}"), format!("dhcp4_leases/{mac}"));
        assert_eq!(text(&tree, &reserved).as_deref(), Some("static"));
        for own in [&reserved, &lease] {
            assert_eq!(text(&tree, &format!("{own}/ipaddr")).as_deref(), Some("10.0.0.5"));
            assert_eq!(text(&tree, &format!("{own}/hostname")).as_deref(), Some("db"));
        }
        assert_eq!(text(&tree, &format!("{lease}/expiry")), None);
        let late = put(&*store, &before, &reservation("52:54:00:00:00:0b", "10.0.0.5", None)).await;
        assert!(matches!(late, Err(CommitError::Conflict { .. })), "decided before the first: {late:?}");

        let seen = read(&*store, vni()).await.unwrap();
        assert_eq!(seen.reserved, [first]);
        let second = reservation(mac, "10.0.0.6", None);
        put(&*store, &seen, &second).await.unwrap();
        assert_eq!(text(&tree, &format!("{lease}/ipaddr")).as_deref(), Some("10.0.0.6"));
        assert!(remove(&*store, &seen, second.mac).await.is_err(), "it has changed since");
        let seen = read(&*store, vni()).await.unwrap();
        assert_eq!(seen.reserved, std::slice::from_ref(&second));
        remove(&*store, &seen, second.mac).await.unwrap();
        assert_eq!((text(&tree, &reserved), text(&tree, &lease)), (None, None));
    }

    #[tokio::test]
    async fn a_real_lease_stays_as_it_is_and_every_spelling_of_a_card_is_one() {
        let (tree, store) = tree().await;
        let mut txn = Transaction::default();
        let lease = "/networks/100/dhcp4_leases/52:54:00:00:00:0a";
        txn.create(lease, "");
        for (key, value) in [("ipaddr", "10.0.0.9"), ("hostname", ""), ("expiry", "1800000000")] {
            txn.create(format!("{lease}/{key}"), value);
        }
        for (name, address) in
            [("52:54:00:00:00:0A", "10.0.0.5"), ("52:54:00:00:00:0a", "10.0.0.6"), ("x", "10.0.0.7")]
        {
            let own = format!("/networks/100/dhcp4_reservations/{name}");
            txn.create(own.clone(), "static");
            txn.create(format!("{own}/ipaddr"), address);
        }
        let broken = "/networks/100/dhcp4_reservations/52:54:00:00:00:0b";
        txn.create(broken, "static");
        txn.create(format!("{broken}/ipaddr"), "999.1.1.1");
        store.commit(txn).await.unwrap();
        let seen = read(&*store, vni()).await.unwrap();
        let known: Vec<String> = seen.reserved.iter().map(|r| r.address.to_string()).collect();
        assert_eq!((known, seen.problems.len()), (vec!["10.0.0.5".to_owned()], 2), "{seen:?}");
        assert_eq!(seen.cards().len(), 2);
        put(&*store, &seen, &reservation("52:54:00:00:00:0a", "10.0.0.8", Some("db"))).await.unwrap();
        assert_eq!(text(&tree, "dhcp4_reservations/52:54:00:00:00:0A/ipaddr").as_deref(), Some("10.0.0.8"));
        assert_eq!(text(&tree, "dhcp4_reservations/52:54:00:00:00:0a"), None);
        assert_eq!(text(&tree, "dhcp4_leases/52:54:00:00:00:0a/ipaddr").as_deref(), Some("10.0.0.9"));
        let seen = read(&*store, vni()).await.unwrap();
        for mac in seen.cards() {
            remove(&*store, &read(&*store, vni()).await.unwrap(), mac).await.unwrap();
        }
        assert_eq!(read(&*store, vni()).await.unwrap().cards(), []);
        assert_eq!(text(&tree, "dhcp4_leases/52:54:00:00:00:0a/expiry").as_deref(), Some("1800000000"));
    }
}
