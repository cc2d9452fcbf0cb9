//! `/networks/<vni>/dhcp4_leases/<mac>`, with `ipaddr`, `hostname`, `expiry` and `clientid` below: what DHCP has given out. Old clients show it.

use std::{collections::BTreeMap, str::FromStr};

use pvc_core::model::{Lease, Mac, NodeName, Problem, Reservation, Vni};

use super::path;
use crate::{
    Check, CommitError, Store, StoreError, Transaction, Value, put,
    schema::{primary, text::Decoder},
};

/// The parent of a network's leases.
pub(super) fn root(vni: Vni) -> String {
    format!("{}/dhcp4_leases", path(vni))
}

const KEYS: [&str; 4] = ["ipaddr", "hostname", "expiry", "clientid"];

/// Bounds an answer.
pub(super) const AT_ONCE: usize = 500;

pub(super) const RESERVATIONS: &str = "dhcp4_reservations";

/// How often two writers may cross before it is reported.
const ATTEMPTS: usize = 4;

/// A network's leases, by card, and what cannot be read of them.
pub async fn read(store: &dyn Store, vni: Vni) -> Result<(Vec<Lease>, Vec<Problem>), StoreError> {
    let (mut leases, mut problems) = (Vec::new(), Vec::new());
    let names = store.children(&root(vni)).await?.unwrap_or_default();
    let mut macs = Vec::new();
    for name in &names {
        match name.parse::<Mac>() {
            Ok(mac) => macs.push((name, mac)),
            Err(error) => {
                problems.push(Problem { key: format!("{}/{name}", root(vni)), what: error.to_string() });
            }
        }
    }
    for macs in macs.chunks(AT_ONCE) {
        let keys: Vec<String> =
            macs.iter().flat_map(|(name, _)| KEYS.map(|key| format!("{}/{name}/{key}", root(vni)))).collect();
        let values = store.get_many(&keys).await?;
        for (((_, mac), keys), values) in macs.iter().zip(keys.chunks(4)).zip(values.chunks(4)) {
            let mut d = Decoder::default();
            leases.extend(decode(&mut d, *mac, keys, values));
            problems.extend(d.problems);
        }
    }
    leases.sort_by_key(|lease| lease.mac);
    Ok((leases, problems))
}

fn decode(d: &mut Decoder, mac: Mac, keys: &[String], values: &[Option<Value>]) -> Option<Lease> {
    let address = optional(d, 0, keys, values)?;
    let name = optional(d, 1, keys, values);
    let expires_s = optional(d, 2, keys, values)?;
    let client_id = optional(d, 3, keys, values);
    Some(Lease { mac, address, name, expires_s, client_id })
}

/// The network whose reservations a key is about.
pub fn network_of_reservation(key: &str) -> Option<Vni> {
    super::network_of(key, &[RESERVATIONS])
}

/// The reservations of networks. What cannot be read of them is left out.
pub async fn reservations(
    store: &dyn Store,
    vnis: &[Vni],
) -> Result<BTreeMap<Vni, Vec<Reservation>>, StoreError> {
    let parents: Vec<String> = vnis.iter().map(|vni| format!("{}/{RESERVATIONS}", path(*vni))).collect();
    let mut places = Vec::new();
    for (parents, vnis) in parents.chunks(AT_ONCE).zip(vnis.chunks(AT_ONCE)) {
        for ((vni, parent), names) in vnis.iter().zip(parents).zip(store.children_many(parents).await?) {
            let named = names.into_iter().flatten().filter_map(|name| {
                let mac: Mac = name.parse().ok()?;
                Some((*vni, mac, format!("{parent}/{name}")))
            });
            places.extend(named);
        }
    }
    let mut all = BTreeMap::<Vni, Vec<Reservation>>::new();
    for places in places.chunks(AT_ONCE) {
        let keys: Vec<String> = places
            .iter()
            .flat_map(|(_, _, at)| ["ipaddr", "hostname"].map(|key| format!("{at}/{key}")))
            .collect();
        let values = store.get_many(&keys).await?;
        for (((vni, mac, _), keys), values) in places.iter().zip(keys.chunks(2)).zip(values.chunks(2)) {
            let mut d = Decoder::default();
            let (address, name) = (optional(&mut d, 0, keys, values), optional(&mut d, 1, keys, values));
            let reservation = address.map(|address| Reservation { mac: *mac, address, name });
            all.entry(*vni).or_default().extend(reservation);
        }
    }
    for reserved in all.values_mut() {
        reserved.sort_by_key(|reservation| reservation.mac);
    }
    Ok(all)
}

pub(super) fn optional<T: FromStr<Err: std::fmt::Display>>(
    d: &mut Decoder,
    at: usize,
    keys: &[String],
    values: &[Option<Value>],
) -> Option<T> {
    d.optional(keys.get(at)?, values.get(at)?.as_ref()).value
}

/// Writes a lease, whether the card had one or not, as long as that node is primary. What is there already is not written again.
pub async fn write(
    store: &dyn Store,
    vni: Vni,
    lease: &Lease,
    primary: &NodeName,
) -> Result<(), CommitError> {
    let text = |value: Option<String>| value.unwrap_or_default();
    let values = [
        lease.address.to_string(),
        text(lease.name.as_ref().map(ToString::to_string)),
        lease.expires_s.to_string(),
        text(lease.client_id.as_ref().map(ToString::to_string)),
    ];
    write_below(store, vni, &root(vni), &lease.mac.to_string(), KEYS.into_iter().zip(values), primary).await
}

/// Writes one below a network's leases of a kind, as [`write()`] does.
pub(super) async fn write_below(
    store: &dyn Store,
    vni: Vni,
    root: &str,
    holder: &str,
    values: impl Iterator<Item = (&'static str, String)>,
    primary: &NodeName,
) -> Result<(), CommitError> {
    let own = format!("{root}/{holder}");
    let mut keys = vec![(root.to_owned(), String::new()), (own.clone(), String::new())];
    keys.extend(values.map(|(key, value)| (format!("{own}/{key}"), value)));
    let names: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let there = store.get_many(&names).await.map_err(CommitError::Failed)?;
        let mut txn = Transaction::default();
        // Nothing is written below a network that is being deleted.
        txn.check(path(vni), Check::Exists);
        let unchanged = txn.ops.len() + 1;
        primary::check(&mut txn, primary);
        for (i, ((key, value), there)) in keys.iter().zip(there).enumerate() {
            match there {
                None => txn.create(key.as_str(), value.as_str()),
                Some(there) if i < 2 || there.data == value.as_bytes() => {}
                Some(there) => txn.set(key.as_str(), value.as_str(), Some(there.version)),
            }
        }
        if txn.ops.len() == unchanged {
            return Ok(());
        }
        outcome = store.commit(txn).await.map(drop);
        if !matches!(outcome, Err(CommitError::Conflict { .. })) {
            break;
        }
    }
    outcome
}

/// Removes a card's lease, if it is still for this address, as long as that node is primary.
pub async fn remove(
    store: &dyn Store,
    vni: Vni,
    lease: &Lease,
    primary: &NodeName,
) -> Result<(), CommitError> {
    remove_below(store, &format!("{}/{}", root(vni), lease.mac), &lease.address.to_string(), primary).await
}

/// Removes one, as [`remove`] does.
pub(super) async fn remove_below(
    store: &dyn Store,
    own: &str,
    address: &str,
    primary: &NodeName,
) -> Result<(), CommitError> {
    let key = format!("{own}/ipaddr");
    let Some(value) = store.get(&key).await.map_err(CommitError::Failed)? else { return Ok(()) };
    if value.data != address.as_bytes() {
        return Ok(());
    }
    let Some(found) = put::subtree(store, own).await.map_err(CommitError::Failed)? else { return Ok(()) };
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    for path in found.leaves_first {
        let version = (path == key).then_some(value.version);
        txn.delete(path, version);
    }
    store.commit(txn).await.map(drop)
}

#[cfg(test)]
mod tests {
    use pvc_core::model::Network;

    use super::*;
    use crate::{Op, memory::MemoryTree, schema};

    fn lease(mac: &str, address: &str, name: Option<&str>) -> Lease {
        Lease {
            mac: mac.parse().unwrap(),
            address: address.parse().unwrap(),
            name: name.map(|name| name.parse().unwrap()),
            expires_s: 1_800_000_000,
            client_id: None,
        }
    }

    #[tokio::test]
    async fn a_lease_is_written_as_old_clients_read_it_and_goes_with_its_address() {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        let vni: Vni = "100".parse().unwrap();
        let first = lease("52:54:00:00:00:01", "10.0.0.5", Some("web1"));
        let me: NodeName = "a".parse().unwrap();
        store.commit(primary::take(&me, false)).await.unwrap();
        assert!(write(&*store, vni, &first, &me).await.is_err(), "there is no such network");
        store.commit(schema::network::define(&Network::bare(vni))).await.unwrap();
        write(&*store, vni, &first, &me).await.unwrap();
        let below =
            |key: &str| tree.dump()[&format!("/networks/100/dhcp4_leases/52:54:00:00:00:01/{key}")].clone();
        assert_eq!(
            (below("ipaddr").as_slice(), below("hostname").as_slice()),
            (&b"10.0.0.5"[..], &b"web1"[..])
        );
        assert_eq!(
            (below("expiry").as_slice(), below("clientid").as_slice()),
            (&b"1800000000"[..], &b""[..])
        );
        let other: NodeName = "b".parse().unwrap();
        let late = write(&*store, vni, &lease("52:54:00:00:00:01", "10.0.0.9", None), &other).await;
        assert!(matches!(late, Err(CommitError::Conflict { .. })), "b is not primary: {late:?}");
        assert!(remove(&*store, vni, &first, &other).await.is_err());
        let count = || tree.dump().len();
        let (before, keys) = (tree.zxid(), count());
        write(&*store, vni, &first, &me).await.unwrap();
        assert_eq!((tree.zxid(), count()), (before, keys), "nothing is written");
        let second = Lease {
            client_id: Some("01:52".parse().unwrap()),
            ..lease("52:54:00:00:00:01", "10.0.0.6", None)
        };
        write(&*store, vni, &second, &me).await.unwrap();
        assert_eq!(read(&*store, vni).await.unwrap(), (vec![second.clone()], vec![]));
        remove(&*store, vni, &Lease { mac: second.mac, ..first }, &me).await.unwrap();
        assert_eq!(
            read(&*store, vni).await.unwrap().0,
            std::slice::from_ref(&second),
            "it has another by now"
        );
        remove(&*store, vni, &second, &me).await.unwrap();
        remove(&*store, vni, &second, &me).await.unwrap();
        assert_eq!(read(&*store, vni).await.unwrap(), (vec![], vec![]));
    }

    #[tokio::test]
    async fn what_cannot_be_read_costs_no_other_lease() {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        let vni: Vni = "100".parse().unwrap();
        store.commit(schema::network::define(&Network::bare(vni))).await.unwrap();
        let me: NodeName = "a".parse().unwrap();
        store.commit(primary::take(&me, false)).await.unwrap();
        for (mac, address) in [("52:54:00:00:00:01", "10.0.0.5"), ("52:54:00:00:00:02", "10.0.0.6")] {
            write(&*store, vni, &lease(mac, address, Some("web1")), &me).await.unwrap();
        }
        let root = "/networks/100/dhcp4_leases";
        let mut txn = Transaction::default();
        txn.set(format!("{root}/52:54:00:00:00:01/ipaddr"), "10.0.0.5\n10.0.0.6", None);
        txn.set(format!("{root}/52:54:00:00:00:02/hostname"), "web1 evil", None);
        txn.ops.push(Op::Create {
            path: format!("{root}/$(reboot)"),
            data: vec![],
            mode: crate::CreateMode::Persistent,
        });
        store.commit(txn).await.unwrap();
        let mut txn = Transaction::default();
        let reserved = "/networks/100/dhcp4_reservations";
        for (mac, address, name) in
            [("52:54:00:00:00:0A", "10.0.0.9", "db"), ("52:54:00:00:00:0b", "10.0.0.9\nx", "x")]
        {
            txn.create(format!("{reserved}/{mac}"), "static");
            txn.create(format!("{reserved}/{mac}/ipaddr"), address);
            txn.create(format!("{reserved}/{mac}/hostname"), name);
        }
        store.commit(txn).await.unwrap();
        let found = reservations(&*store, &[vni]).await.unwrap();
        let db = lease("52:54:00:00:00:0a", "10.0.0.9", Some("db"));
        assert_eq!(found[&vni], [Reservation { mac: db.mac, address: db.address, name: db.name }]);
        assert_eq!(network_of_reservation(&format!("{reserved}/52:54:00:00:00:0A/ipaddr")), Some(vni));
        let (leases, problems) = read(&*store, vni).await.unwrap();
        assert_eq!(leases, [lease("52:54:00:00:00:02", "10.0.0.6", None)]);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
