//! What DHCP gives out in a network: who has which address, and changes of reservations.

use std::collections::BTreeMap;

use pvc_core::{
    command::network::{
        self as command,
        dhcp::{Holding, NewReservation},
    },
    model::{Mac, Problem, dhcp6::Lease6},
};
use pvc_store::schema::network::{leases, leases6, reservations};
use serde::{Deserialize, Serialize};

use super::{guests, read};
use crate::{
    Answer, Cluster, Failure,
    write::{ATTEMPTS, Tries},
};

/// Who has which address, with the words of the API.
#[derive(Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// Over IPv4, by address.
    pub leases: Vec<LeaseRow>,
    /// Over IPv6, by card. Addresses that guests make themselves are not among them.
    pub leases6: Vec<LeaseRow6>,
    /// `None`: the network gives out nothing.
    pub pool: Option<Fill>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// An address that somebody has.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseRow {
    pub ip4_address: String,
    pub hostname: Option<String>,
    pub mac_address: String,
    /// The VM whose definition names the card; `None`: none does.
    pub vm: Option<String>,
    /// `static` for what is reserved, or when the lease ends, in seconds since 1970; 0 is never.
    pub timestamp: String,
    /// When the lease ends, in words; `None`: there is no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    pub is_reserved: bool,
}

/// An IPv6 address that somebody has.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseRow6 {
    pub ip6_address: String,
    pub hostname: Option<String>,
    pub mac_address: String,
    /// Who the guest says it is.
    pub duid: String,
    /// As in [`LeaseRow`].
    pub vm: Option<String>,
    /// When the lease ends, in seconds since 1970.
    pub timestamp: String,
    /// The same in words.
    pub ends: String,
}

/// How full the range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    pub given: u64,
    /// The addresses of the range that are not reserved.
    pub size: u64,
}

/// Shows who has which address; `now_s` is the time, in seconds since 1970.
pub async fn list(cluster: &Cluster, reference: &str, now_s: u64) -> Result<Addresses, Failure> {
    let (all, _) = super::all(cluster).await?;
    let network = command::find(&all, reference)?;
    let seen = reservations::read(&*cluster.store, network.vni).await?;
    let (leases, problems) = leases::read(&*cluster.store, network.vni).await?;
    let six = leases6::read(&*cluster.store, network.vni).await?;
    let guests = guests(cluster, network.vni).await?;
    let owners = guests.into_iter().filter_map(|guest| Some((guest.mac.parse().ok()?, guest.name)));
    let owners: BTreeMap<Mac, String> = owners.collect();
    let row = |holding: Holding| LeaseRow {
        ip4_address: holding.address.to_string(),
        hostname: holding.name.map(|name| name.to_string()),
        mac_address: holding.mac.to_string(),
        vm: owners.get(&holding.mac).cloned(),
        timestamp: match holding.expires_s {
            Some(expires_s) if !holding.is_reserved => expires_s.to_string(),
            _ => "static".to_owned(),
        },
        ends: holding.expires_s.map(|expires_s| command::dhcp::in_words(expires_s, now_s)),
        is_reserved: holding.is_reserved,
    };
    let row6 = |lease: Lease6| LeaseRow6 {
        ip6_address: lease.address.to_string(),
        hostname: lease.name.map(|name| name.to_string()),
        mac_address: lease.client.mac.to_string(),
        duid: lease.client.duid.to_string(),
        vm: owners.get(&lease.client.mac).cloned(),
        timestamp: lease.expires_s.to_string(),
        ends: command::dhcp::in_words(lease.expires_s, now_s),
    };
    let fill = command::dhcp::fill(network, &seen.reserved, &leases, now_s);
    Ok(Addresses {
        leases: command::dhcp::holdings(&seen.reserved, &leases).into_iter().map(row).collect(),
        leases6: six.leases.into_iter().map(row6).collect(),
        pool: fill.map(|(given, size)| Fill { given, size }),
        problems: seen
            .problems
            .iter()
            .chain(&problems)
            .chain(&six.problems)
            .map(Problem::to_string)
            .collect(),
    })
}

/// Reserves an address, in place of what is reserved for the card; `now_s` as for [`list`].
pub async fn add(
    cluster: &Cluster,
    reference: &str,
    new: NewReservation<'_>,
    now_s: u64,
) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (_, all) = read(cluster).await?;
        let network = command::find(&all, reference)?;
        let seen = reservations::read(&*cluster.store, network.vni).await?;
        let (leases, _) = leases::read(&*cluster.store, network.vni).await?;
        let accepted = command::dhcp::add(network, new, &seen.reserved, &leases, now_s)?;
        let Some(reservation) = &accepted.change else {
            let message = format!("{} is reserved in network {}", new.address, network.vni);
            return Ok(Answer { message, notes: accepted.notes });
        };
        if tries.wrote(reservations::put(&*cluster.store, &seen, reservation).await)? {
            let message = format!(
                "{} is reserved for {} in network {}",
                reservation.address, reservation.mac, network.vni
            );
            return Ok(Answer { message, notes: accepted.notes });
        }
    }
}

/// Removes a reservation.
pub async fn remove(cluster: &Cluster, reference: &str, reservation: &str) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let (_, all) = read(cluster).await?;
        let network = command::find(&all, reference)?;
        let seen = reservations::read(&*cluster.store, network.vni).await?;
        let card = command::dhcp::find(network, reservation, &seen.reserved, &seen.cards())?;
        if tries.wrote(reservations::remove(&*cluster.store, &seen, card).await)? {
            let message = format!("nothing is reserved for {card} in network {} any more", network.vni);
            return Ok(Answer::new(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_core::{
        command::network::Settings,
        model::{Lease, NetworkKind},
    };
    use pvc_store::{
        Op, Transaction,
        schema::{primary, vm},
    };

    use super::*;
    use crate::testing::{Fake, id, name};

    const NOW: u64 = 1_800_000_000;

    #[tokio::test]
    async fn addresses_are_reserved_shown_with_their_vm_and_freed() {
        let fake = Fake::with(&["hv1"]).await;
        let cluster = &fake.cluster;
        let given = |text: &str| Some(text.to_owned());
        let settings = Settings {
            description: given("web"),
            ip4_network: given("10.0.0.0/24"),
            ip4_gateway: given("10.0.0.1"),
            dhcp4: Some(true),
            dhcp4_start: given("10.0.0.10"),
            dhcp4_end: given("10.0.0.19"),
            ..Settings::default()
        };
        super::super::add(cluster, "100", NetworkKind::Managed, &settings, &[]).await.unwrap();
        fake.define(1, "web1", "hv1").await;
        let mac = "52:54:00:00:00:0a";
        let card = "<domain><devices><interface type='bridge'><mac address='52:54:00:00:00:0A'/><source bridge='vmbr100'/></interface></devices></domain>";
        let mut txn = Transaction::default();
        txn.ops.push(Op::Set { path: vm::xml_path(id(1)), data: card.into(), version: None });
        cluster.store.commit(txn).await.unwrap();
        let lease = Lease {
            mac: "52:54:00:00:00:0b".parse().unwrap(),
            address: "10.0.0.12".parse().unwrap(),
            name: None,
            expires_s: NOW + 9000,
            client_id: None,
        };
        cluster.store.commit(primary::take(&name("hv1"), false)).await.unwrap();
        leases::write(&*cluster.store, "100".parse().unwrap(), &lease, &name("hv1")).await.unwrap();

        let six = Lease6 {
            client: format!("{mac}.00000007.000300015254").parse().unwrap(),
            address: "fd00::7".parse().unwrap(),
            name: Some("web1".parse().unwrap()),
            expires_s: NOW + 9000,
        };
        leases6::write(&*cluster.store, "100".parse().unwrap(), &six, &name("hv1")).await.unwrap();

        let new = |address| NewReservation { mac, address, name: Some("db") };
        let done = add(cluster, "web", new("10.0.0.11"), NOW).await.unwrap();
        assert_eq!(done.message, "10.0.0.11 is reserved for 52:54:00:00:00:0a in network 100");
        let again = add(cluster, "web", new("10.0.0.11"), NOW).await.unwrap();
        assert_eq!(again.notes, ["it is so already"]);
        assert!(!add(cluster, "web", new("10.0.0.12"), NOW).await.unwrap().notes.is_empty(), "it is leased");
        add(cluster, "web", new("10.0.0.13"), NOW).await.unwrap();
        let shown = list(cluster, "web", NOW).await.unwrap();
        let rows: Vec<_> = shown
            .leases
            .iter()
            .map(|row| (row.ip4_address.as_str(), row.vm.as_deref(), row.timestamp.as_str()))
            .collect();
        assert_eq!(rows, [("10.0.0.12", None, "1800009000"), ("10.0.0.13", Some("web1"), "static")]);
        assert_eq!(shown.leases[0].ends.as_deref(), Some("in 2 h"));
        let [six] = &shown.leases6[..] else { panic!("{shown:?}") };
        let row = (six.ip6_address.as_str(), six.hostname.as_deref(), six.vm.as_deref(), six.ends.as_str());
        assert_eq!(row, ("fd00::7", Some("web1"), Some("web1"), "in 2 h"));
        assert_eq!(shown.pool, Some(Fill { given: 1, size: 9 }));
        remove(cluster, "web", "db").await.unwrap();
        let refusal = remove(cluster, "web", mac).await.unwrap_err().to_string();
        assert!(refusal.contains("no reservation"), "{refusal}");
        assert_eq!(list(cluster, "web", NOW).await.unwrap().leases.len(), 1);
    }
}
