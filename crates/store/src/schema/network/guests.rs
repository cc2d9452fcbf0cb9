//! `/networks/<vni>/{dhcp4_reservations,dhcp4_leases,dhcp6_leases}/<who>/{ipaddr,hostname,expiry}`: the guests of a network that have names.
//!
//! Anything may be in there: guests choose their names, and old clients write without looking. What has no address is left out.

use std::{collections::BTreeMap, net::IpAddr};

use pvc_core::{
    model::Vni,
    plan::dns::{MOST, Named},
};

use super::{
    leases6::{self, LEASES6},
    path,
};
use crate::{Store, StoreError, Value, schema::text::present};

pub(super) const RESERVATIONS: &str = "dhcp4_reservations";
pub(super) const LEASES: &str = "dhcp4_leases";

/// Bounds a request.
const AT_ONCE: usize = 200;

/// A guest that was read, and until when its lease lasts, in seconds of Unix time; `None`: for ever.
pub type Leased = (Named, Option<u64>);

/// The network whose guests a key is about.
pub fn network_of(key: &str) -> Option<Vni> {
    super::network_of(key, &[RESERVATIONS, LEASES, LEASES6])
}

/// Reads the guests of networks.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Vec<Leased>>, StoreError> {
    let parents: Vec<(Vni, &str)> =
        vnis.iter().flat_map(|vni| [RESERVATIONS, LEASES, LEASES6].map(|kind| (*vni, kind))).collect();
    let mut places = Vec::new();
    for some in parents.chunks(AT_ONCE) {
        let paths: Vec<String> = some.iter().map(|(vni, kind)| format!("{}/{kind}", path(*vni))).collect();
        for ((vni, kind), names) in some.iter().zip(store.children_many(&paths).await?) {
            let mut names: Vec<String> = names.into_iter().flatten().collect();
            names.sort_unstable();
            names.truncate(MOST);
            places.extend(names.into_iter().map(|holder| (*vni, *kind, holder)));
        }
    }
    let mut guests: BTreeMap<Vni, Vec<Leased>> = vnis.iter().map(|vni| (*vni, Vec::new())).collect();
    let mut own = Vec::new();
    for some in places.chunks(AT_ONCE) {
        let keys = |(vni, kind, holder): &(Vni, &str, String)| {
            ["ipaddr", "hostname", "expiry"].map(|key| format!("{}/{kind}/{holder}/{key}", path(*vni)))
        };
        let values = store.get_many(&some.iter().flat_map(keys).collect::<Vec<_>>()).await?;
        for ((vni, kind, holder), values) in some.iter().zip(values.chunks(3)) {
            if *kind == LEASES6 && leases6::is_own(holder) {
                let address =
                    word(values.first().and_then(Option::as_ref)).and_then(|text| text.parse().ok());
                own.extend(address.map(|address: IpAddr| (*vni, holder.to_ascii_lowercase(), address)));
                continue;
            }
            // A guest has its name in both families: it is who has the card.
            let holder = if *kind == LEASES6 { leases6::holder(holder) } else { Some(holder.clone()) };
            let guest = holder.and_then(|holder| decode(*vni, *kind == RESERVATIONS, &holder, values));
            guests.entry(*vni).or_default().extend(guest);
        }
    }
    for (vni, holder, address) in own {
        let of_network = guests.entry(vni).or_default();
        let same = of_network.iter().filter(|(guest, _)| guest.holder == holder);
        // For as long as the card has a name.
        let named = same.max_by_key(|(guest, until)| (guest.is_reserved, until.unwrap_or(u64::MAX)));
        let itself = named.map(|(guest, until)| (Named { address, ..guest.clone() }, *until));
        of_network.extend(itself);
    }
    Ok(guests)
}

fn decode(vni: Vni, is_reserved: bool, holder: &str, values: &[Option<Value>]) -> Option<Leased> {
    let [address, name, expiry] = values else { return None };
    let address: IpAddr = word(address.as_ref())?.parse().ok()?;
    let name = word(name.as_ref())?;
    // Old clients write 0 for a lease that does not end.
    let expiry =
        word(expiry.as_ref()).and_then(|text| text.parse().ok()).filter(|at| *at > 0 && !is_reserved);
    Some((Named { vni, holder: holder.to_ascii_lowercase(), name, address, is_reserved }, expiry))
}

/// A value that says something.
fn word(value: Option<&Value>) -> Option<String> {
    present(std::str::from_utf8(&value?.data).ok()?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Transaction, memory::MemoryTree};

    #[tokio::test]
    async fn guests_are_read_and_rubbish_is_left_out() {
        let store = MemoryTree::new().client();
        let mut txn = Transaction::default();
        for (key, value) in [
            ("", ""),
            ("/100", "web"),
            ("/100/dhcp4_leases", ""),
            ("/100/dhcp4_leases/52:54:00:00:00:0A", ""),
            ("/100/dhcp4_leases/52:54:00:00:00:0A/ipaddr", "10.100.0.7"),
            ("/100/dhcp4_leases/52:54:00:00:00:0A/hostname", "db"),
            ("/100/dhcp4_leases/52:54:00:00:00:0A/expiry", "1800000000"),
            ("/100/dhcp4_leases/rubbish", ""),
            ("/100/dhcp4_leases/rubbish/ipaddr", "999.1.1.1"),
            ("/100/dhcp4_leases/rubbish/hostname", "x"),
            ("/100/dhcp4_leases/nameless", ""),
            ("/100/dhcp4_leases/nameless/ipaddr", "10.100.0.8"),
            ("/100/dhcp4_leases/nameless/hostname", "None"),
            ("/100/dhcp4_reservations", ""),
            ("/100/dhcp4_reservations/52:54:00:00:00:0b", "static"),
            ("/100/dhcp4_reservations/52:54:00:00:00:0b/ipaddr", "10.100.0.9"),
            ("/100/dhcp4_reservations/52:54:00:00:00:0b/hostname", "mail"),
        ] {
            txn.create(format!("{}{key}", super::super::ROOT), value);
        }
        store.commit(txn).await.unwrap();
        let vnis: Vec<Vni> = ["100", "200"].iter().map(|vni| vni.parse().unwrap()).collect();
        let guests = read(&*store, &vnis).await.unwrap();
        let told: Vec<String> = guests[&vnis[0]]
            .iter()
            .map(|(g, until)| format!("{} {} {} {} {until:?}", g.holder, g.name, g.address, g.is_reserved))
            .collect();
        assert_eq!(
            told,
            [
                "52:54:00:00:00:0b mail 10.100.0.9 true None",
                "52:54:00:00:00:0a db 10.100.0.7 false Some(1800000000)"
            ]
        );
        assert!(guests[&vnis[1]].is_empty());
    }

    #[test]
    fn keys_of_guests_are_known() {
        assert!(network_of("/networks/100/dhcp4_leases/52:54:00:00:00:0a/ipaddr").is_some());
        for other in ["/networks/100/domain", "/networks/none/dhcp4_leases/x", "/networks/100"] {
            assert_eq!(network_of(other), None, "{other}");
        }
    }
}
