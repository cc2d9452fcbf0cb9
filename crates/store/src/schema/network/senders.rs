//! `/networks/<vni>/{dhcp4_reservations,dhcp4_leases}/<mac>/ipaddr`: from which addresses a card may send, where that is filtered.
//!
//! A lease counts for as long as it is written, whatever its end: the primary removes those that are over, and without one nobody else gets the address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use pvc_core::{
    model::{Mac, Vni},
    plan::{dns::MOST, firewall::Senders},
};

use super::{
    guests::{LEASES, RESERVATIONS},
    path,
};
use crate::{Store, StoreError, schema::text::present};

/// Bounds a request.
const AT_ONCE: usize = 500;

/// Reads the cards of networks, and their addresses. What cannot be read is left out.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Senders>, StoreError> {
    let parents: Vec<(Vni, String)> = vnis
        .iter()
        .flat_map(|vni| [RESERVATIONS, LEASES].map(|kind| (*vni, format!("{}/{kind}", path(*vni)))))
        .collect();
    let mut keys = Vec::new();
    for some in parents.chunks(AT_ONCE) {
        let paths: Vec<String> = some.iter().map(|(_, path)| path.clone()).collect();
        for ((vni, parent), names) in some.iter().zip(store.children_many(&paths).await?) {
            let mut names: Vec<String> = names.into_iter().flatten().collect();
            names.sort_unstable();
            names.truncate(MOST);
            let cards = names.into_iter().filter_map(|name| Some((name.parse::<Mac>().ok()?, name)));
            keys.extend(cards.map(|(card, name)| (*vni, card, format!("{parent}/{name}/ipaddr"))));
        }
    }
    let mut senders: BTreeMap<Vni, Senders> = vnis.iter().map(|vni| (*vni, Senders::new())).collect();
    for some in keys.chunks(AT_ONCE) {
        let paths: Vec<String> = some.iter().map(|(.., path)| path.clone()).collect();
        for ((vni, card, _), value) in some.iter().zip(store.get_many(&paths).await?) {
            let text = value.as_ref().and_then(|value| std::str::from_utf8(&value.data).ok());
            if let Some(address) = text.and_then(present).and_then(|text| text.parse::<Ipv4Addr>().ok()) {
                let of: &mut BTreeSet<Ipv4Addr> = senders.entry(*vni).or_default().entry(*card).or_default();
                of.insert(address);
            }
        }
    }
    Ok(senders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Transaction, memory::MemoryTree};

    #[tokio::test]
    async fn leases_and_reservations_of_a_card_are_read_and_rubbish_is_left_out() {
        let store = MemoryTree::new().client();
        let mut txn = Transaction::default();
        for (key, value) in [
            ("/networks", ""),
            ("/networks/100", "web"),
            ("/networks/100/dhcp4_leases", ""),
            ("/networks/100/dhcp4_leases/52:54:00:00:00:01", ""),
            ("/networks/100/dhcp4_leases/52:54:00:00:00:01/ipaddr", "10.0.0.5"),
            ("/networks/100/dhcp4_leases/52:54:00:00:00:02", ""),
            ("/networks/100/dhcp4_leases/52:54:00:00:00:02/ipaddr", "999.1.1.1"),
            ("/networks/100/dhcp4_leases/rubbish", ""),
            ("/networks/100/dhcp4_leases/rubbish/ipaddr", "10.0.0.6"),
            ("/networks/100/dhcp4_reservations", ""),
            ("/networks/100/dhcp4_reservations/52:54:00:00:00:0A", "static"),
            ("/networks/100/dhcp4_reservations/52:54:00:00:00:0A/ipaddr", "10.0.0.7"),
            ("/networks/100/dhcp4_reservations/52:54:00:00:00:01", "static"),
            ("/networks/100/dhcp4_reservations/52:54:00:00:00:01/ipaddr", "10.0.0.8"),
        ] {
            txn.create(key, value);
        }
        store.commit(txn).await.unwrap();
        let vni: Vni = "100".parse().unwrap();
        let read = read(&*store, &[vni, "200".parse().unwrap()]).await.unwrap();
        let shown: Vec<String> =
            read[&vni].iter().map(|(card, addresses)| format!("{card} {addresses:?}")).collect();
        assert_eq!(shown, ["52:54:00:00:00:01 {10.0.0.5, 10.0.0.8}", "52:54:00:00:00:0a {10.0.0.7}"]);
        assert_eq!(read.len(), 2, "also the network that has none");
    }
}
