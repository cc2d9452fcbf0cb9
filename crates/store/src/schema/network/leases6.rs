//! `/networks/<vni>/dhcp6_leases/<card>.<IAID>.<DUID>` **(ours)**, with `ipaddr`, `hostname` and `expiry` below: what DHCPv6 has given out; and `…/<card>` with `ipaddr`:
//! what a card with a name has given itself. Old clients know no such keys.

use std::{collections::BTreeMap, net::Ipv6Addr};

use pvc_core::model::{
    Mac, NodeName, Problem, Vni,
    dhcp6::{Client, Lease6},
};

use super::{
    leases::{AT_ONCE, optional, remove_below, write_below},
    path,
};
use crate::{CommitError, Store, StoreError, schema::text::Decoder};

/// The parent of a network's leases.
fn root(vni: Vni) -> String {
    format!("{}/{LEASES6}", path(vni))
}

pub(super) const LEASES6: &str = "dhcp6_leases";

const KEYS: [&str; 3] = ["ipaddr", "hostname", "expiry"];

/// Whose card a key below the leases names: what is there has the names of guests, too.
pub(super) fn holder(name: &str) -> Option<String> {
    let of_lease = || Some(name.parse::<Client>().ok()?.mac);
    Some(name.parse::<Mac>().ok().or_else(of_lease)?.to_string())
}

/// Whether a key below the leases is of what a card has given itself.
pub(super) fn is_own(name: &str) -> bool {
    name.parse::<Mac>().is_ok()
}

/// What there is of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What DHCPv6 has given out, by card.
    pub leases: Vec<Lease6>,
    /// What cards have given themselves.
    pub own: BTreeMap<Mac, Ipv6Addr>,
    /// What cannot be read.
    pub problems: Vec<Problem>,
}

/// Reads a network's.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vni: Vni) -> Result<Found, StoreError> {
    let (mut leases, mut problems) = (Vec::new(), Vec::new());
    let names = store.children(&root(vni)).await?.unwrap_or_default();
    let (mut clients, mut cards) = (Vec::new(), Vec::new());
    for name in names {
        if let Ok(mac) = name.parse::<Mac>() {
            cards.push((mac, format!("{}/{name}/ipaddr", root(vni))));
            continue;
        }
        match name.parse::<Client>() {
            Ok(client) => clients.push(client),
            Err(error) => {
                problems.push(Problem { key: format!("{}/{name}", root(vni)), what: error.to_string() });
            }
        }
    }
    let mut own = BTreeMap::new();
    for cards in cards.chunks(AT_ONCE) {
        let keys: Vec<String> = cards.iter().map(|(_, key)| key.clone()).collect();
        let values = store.get_many(&keys).await?;
        for (at, (mac, _)) in cards.iter().enumerate() {
            let mut d = Decoder::default();
            own.extend(optional(&mut d, at, &keys, &values).map(|address| (*mac, address)));
            problems.extend(d.problems);
        }
    }
    for clients in clients.chunks(AT_ONCE) {
        let keys: Vec<String> = clients
            .iter()
            .flat_map(|client| KEYS.map(|key| format!("{}/{client}/{key}", root(vni))))
            .collect();
        let values = store.get_many(&keys).await?;
        for ((client, keys), values) in clients.iter().zip(keys.chunks(3)).zip(values.chunks(3)) {
            let mut d = Decoder::default();
            let address = optional(&mut d, 0, keys, values);
            let name = optional(&mut d, 1, keys, values);
            let expires_s = optional(&mut d, 2, keys, values);
            problems.extend(d.problems);
            let lease = address.zip(expires_s).map(|(address, expires_s)| Lease6 {
                client: client.clone(),
                address,
                name,
                expires_s,
            });
            leases.extend(lease);
        }
    }
    leases.sort_by(|a, b| a.client.cmp(&b.client));
    Ok(Found { leases, own, problems })
}

/// Writes what a card has given itself, as long as that node is primary.
///
/// # Errors
/// As every write.
pub async fn write_own(
    store: &dyn Store,
    vni: Vni,
    (mac, address): (Mac, Ipv6Addr),
    primary: &NodeName,
) -> Result<(), CommitError> {
    let values = [("ipaddr", address.to_string())];
    write_below(store, vni, &root(vni), &mac.to_string(), values.into_iter(), primary).await
}

/// Removes it, if it is still this address, as long as that node is primary.
///
/// # Errors
/// As every write.
pub async fn remove_own(
    store: &dyn Store,
    vni: Vni,
    (mac, address): (Mac, Ipv6Addr),
    primary: &NodeName,
) -> Result<(), CommitError> {
    remove_below(store, &format!("{}/{mac}", root(vni)), &address.to_string(), primary).await
}

/// Writes a lease as long as that node is primary. What is there already is not written again.
pub async fn write(
    store: &dyn Store,
    vni: Vni,
    lease: &Lease6,
    primary: &NodeName,
) -> Result<(), CommitError> {
    let values = [
        lease.address.to_string(),
        lease.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        lease.expires_s.to_string(),
    ];
    write_below(store, vni, &root(vni), &lease.client.to_string(), KEYS.into_iter().zip(values), primary)
        .await
}

/// Removes a guest's lease, if it is still for this address, as long as that node is primary.
pub async fn remove(
    store: &dyn Store,
    vni: Vni,
    lease: &Lease6,
    primary: &NodeName,
) -> Result<(), CommitError> {
    let own = format!("{}/{}", root(vni), lease.client);
    remove_below(store, &own, &lease.address.to_string(), primary).await
}

#[cfg(test)]
mod tests {
    use pvc_core::model::Network;

    use super::*;
    use crate::{
        Transaction,
        memory::MemoryTree,
        schema::{self, network::guests, primary},
    };

    #[tokio::test]
    async fn a_lease_is_written_by_the_primary_read_again_and_goes_with_its_address() {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        let (vni, me): (Vni, NodeName) = ("100".parse().unwrap(), "a".parse().unwrap());
        store.commit(primary::take(&me, false)).await.unwrap();
        let lease = Lease6 {
            client: "52:54:00:00:00:01.00000007.0003000152540000".parse().unwrap(),
            address: "fd00::5".parse().unwrap(),
            name: Some("web1".parse().unwrap()),
            expires_s: 1_800_000_000,
        };
        assert!(write(&*store, vni, &lease, &me).await.is_err(), "there is no such network");
        store.commit(schema::network::define(&Network::bare(vni))).await.unwrap();
        write(&*store, vni, &lease, &me).await.unwrap();
        let before = tree.zxid();
        write(&*store, vni, &lease, &me).await.unwrap();
        assert_eq!(tree.zxid(), before, "nothing is written again");
        let other: NodeName = "b".parse().unwrap();
        let late = Lease6 { address: "fd00::6".parse().unwrap(), ..lease.clone() };
        assert!(write(&*store, vni, &late, &other).await.is_err(), "b is not primary");
        let mut txn = Transaction::default();
        txn.create("/networks/100/dhcp6_leases/rubbish", "");
        txn.create("/networks/100/dhcp6_leases/rubbish/ipaddr", "fd00::7");
        txn.create("/networks/100/dhcp6_leases/rubbish/hostname", "evil");
        store.commit(txn).await.unwrap();
        let own = (lease.client.mac, "fd00::5054:ff:fe00:1".parse().unwrap());
        write_own(&*store, vni, own, &me).await.unwrap();
        let nameless = ("52:54:00:00:00:02".parse().unwrap(), "fd00::5054:ff:fe00:2".parse().unwrap());
        write_own(&*store, vni, nameless, &me).await.unwrap();
        assert!(write_own(&*store, vni, (own.0, "fd00::9".parse().unwrap()), &other).await.is_err());
        let found = read(&*store, vni).await.unwrap();
        assert_eq!((found.leases, found.problems.len()), (vec![lease.clone()], 1));
        assert_eq!(found.own, BTreeMap::from([own, nameless]));

        // Names are the card's, in both families.
        let guests = guests::read(&*store, &[vni]).await.unwrap().remove(&vni).unwrap();
        let [(guest, until), (itself, _)] = &guests[..] else { panic!("{guests:?}") };
        assert_eq!((itself.name.as_str(), itself.address), ("web1", own.1.into()));
        assert_eq!((guest.holder.as_str(), guest.name.as_str()), ("52:54:00:00:00:01", "web1"));
        assert_eq!((guest.address.to_string().as_str(), *until), ("fd00::5", Some(1_800_000_000)));
        assert_eq!(guests::network_of("/networks/100/dhcp6_leases/x/ipaddr"), Some(vni));

        remove(&*store, vni, &late, &me).await.unwrap();
        assert_eq!(read(&*store, vni).await.unwrap().leases.len(), 1, "it is for another address");
        remove(&*store, vni, &lease, &me).await.unwrap();
        remove_own(&*store, vni, own, &me).await.unwrap();
        let found = read(&*store, vni).await.unwrap();
        assert_eq!((found.leases, found.own), (Vec::new(), BTreeMap::from([nameless])));
    }
}
