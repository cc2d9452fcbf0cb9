//! `/networks/<vni>/{dhcp4_reservations,dhcp4_leases}/<mac>/{ipaddr,hostname,expiry}`: the guests of a network that have names.
//!
//! Anything may be in there: guests choose their names, and old clients write without looking. What has no address is left out.

use std::{collections::BTreeMap, net::IpAddr};

use pvc_core::{
    model::Vni,
    plan::dns::{MOST, Named},
};

use super::path;
use crate::{Store, StoreError, Value, schema::text::present};

const RESERVATIONS: &str = "dhcp4_reservations";
const LEASES: &str = "dhcp4_leases";

/// Bounds a request.
const AT_ONCE: usize = 200;

/// A guest that was read, and until when its lease lasts, in seconds of Unix time; `None`: for ever.
pub type Leased = (Named, Option<u64>);

/// The network whose guests a key is about.
pub fn network_of(key: &str) -> Option<Vni> {
    super::network_of(key, &[RESERVATIONS, LEASES])
}

/// Reads the guests of networks.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Vec<Leased>>, StoreError> {
    let parents: Vec<(Vni, &str)> =
        vnis.iter().flat_map(|vni| [RESERVATIONS, LEASES].map(|kind| (*vni, kind))).collect();
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
    for some in places.chunks(AT_ONCE) {
        let keys = |(vni, kind, holder): &(Vni, &str, String)| {
            ["ipaddr", "hostname", "expiry"].map(|key| format!("{}/{kind}/{holder}/{key}", path(*vni)))
        };
        let values = store.get_many(&some.iter().flat_map(keys).collect::<Vec<_>>()).await?;
        for ((vni, kind, holder), values) in some.iter().zip(values.chunks(3)) {
            guests.entry(*vni).or_default().extend(decode(*vni, *kind == RESERVATIONS, holder, values));
        }
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
