//! Who has which address in a network, and reservations.

use axum::extract::State;
use pvc_core::command::network::dhcp::NewReservation;
use pvc_operate::network::dhcp::{self as command, LeaseRow};
use serde::Serialize;

use crate::{
    api::Shared,
    ask::Ask,
    clock::now_unix_s,
    limit::Limit,
    reply::{Failed, Outcome, done, list as answer_list},
};

/// A lease, with the words of the old API.
#[derive(Serialize)]
struct Row {
    hostname: String,
    ip4_address: String,
    mac_address: String,
    /// `static` for what is reserved.
    timestamp: String,
}

impl From<LeaseRow> for Row {
    fn from(row: LeaseRow) -> Self {
        Self {
            hostname: row.hostname.unwrap_or_default(),
            ip4_address: row.ip4_address,
            mac_address: row.mac_address,
            timestamp: row.timestamp,
        }
    }
}

async fn rows(api: &Shared, ask: &Ask, only_reserved: bool) -> Result<Vec<Row>, Failed> {
    let leases = command::list(api.seen(), ask.part("network"), now_unix_s()).await?.leases;
    let wanted = leases.into_iter().filter(|row| row.is_reserved || !only_reserved);
    Ok(wanted.map(Row::from).collect())
}

/// All that are wanted, by name, address or card.
pub(crate) async fn list(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let mut rows = rows(&api, &ask, ask.flag("static")).await?;
    rows.retain(|row| {
        [&row.hostname, &row.ip4_address, &row.mac_address].iter().any(|name| limit.wants(name))
    });
    answer_list(&rows, "no address is given out")
}

/// That of one card.
pub(crate) async fn item(State(api): State<Shared>, ask: Ask) -> Outcome {
    let mut rows = rows(&api, &ask, false).await?;
    rows.retain(|row| row.mac_address.eq_ignore_ascii_case(ask.part("mac")));
    answer_list(&rows, "this card has no address")
}

/// Reserves an address.
pub(crate) async fn add(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (mac, address) = (ask.required("macaddress")?, ask.required("ipaddress")?);
    let new = NewReservation { mac, address, name: ask.given("hostname") };
    done(command::add(&api.cluster, ask.part("network"), new, now_unix_s()).await?)
}

/// Removes a reservation.
pub(crate) async fn remove(State(api): State<Shared>, ask: Ask) -> Outcome {
    done(command::remove(&api.cluster, ask.part("network"), ask.part("mac")).await?)
}
