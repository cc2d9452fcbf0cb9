//! Changes of networks, of what is reserved in them, and of their rules.

use axum::extract::State;
use pvc_core::{
    command::network::{Settings, acl::NewRule, dhcp::NewReservation},
    model::{NetworkKind, Vni, rule::Direction},
};
use pvc_operate::network::{self as command, acl, dhcp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{Asked, Outcome, created, done, typed};
use crate::{api::Shared, clock::now_unix_s};

/// A text that is sent; `null` is empty, and takes the setting away. One that is not sent stays as it is.
type Sent = Option<String>;

fn sent<'de, D: Deserializer<'de>>(from: D) -> Result<Sent, D::Error> {
    Ok(Some(Option::deserialize(from)?.unwrap_or_default()))
}

/// The settings of a network, in the form in which they are shown.
#[derive(JsonSchema, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "NetworkChange")]
pub(crate) struct Change {
    description: Option<String>,
    #[serde(deserialize_with = "sent")]
    domain: Sent,
    ip4: Ip4,
    ip6: Ip6,
    /// Whether guests' ports are guarded.
    guard: Option<bool>,
    /// Whether guests send from their own addresses only.
    filter: Option<bool>,
}

#[derive(JsonSchema, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ip4 {
    #[serde(deserialize_with = "sent")]
    network: Sent,
    #[serde(deserialize_with = "sent")]
    gateway: Sent,
    /// Whether DHCP is served.
    dhcp_flag: Option<bool>,
    #[serde(deserialize_with = "sent")]
    dhcp_start: Sent,
    #[serde(deserialize_with = "sent")]
    dhcp_end: Sent,
}

/// Where there is a network, addresses are announced in it.
#[derive(JsonSchema, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ip6 {
    #[serde(deserialize_with = "sent")]
    network: Sent,
    #[serde(deserialize_with = "sent")]
    gateway: Sent,
}

impl From<Change> for Settings {
    fn from(change: Change) -> Self {
        let Change { description, domain, ip4, ip6, guard, filter } = change;
        Self {
            description,
            domain,
            ip4_network: ip4.network,
            ip4_gateway: ip4.gateway,
            dhcp4: ip4.dhcp_flag,
            dhcp4_start: ip4.dhcp_start,
            dhcp4_end: ip4.dhcp_end,
            ip6_network: ip6.network,
            ip6_gateway: ip6.gateway,
            guard,
            filter,
        }
    }
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewNetwork")]
pub(crate) struct New {
    #[schemars(with = "u32", range(min = 1, max = 16_777_215))]
    vni: Vni,
    #[serde(rename = "type")]
    kind: Kind,
    description: String,
    #[serde(default, deserialize_with = "sent")]
    domain: Sent,
    #[serde(default)]
    ip4: Ip4,
    #[serde(default)]
    ip6: Ip6,
    guard: Option<bool>,
    filter: Option<bool>,
}

#[derive(JsonSchema, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Kind {
    Managed,
    Bridged,
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Overlay")]
pub(crate) struct Carries {
    /// `declared`, `flood` or `evpn`.
    overlay: String,
}

/// Changes what carries frames between nodes.
pub(crate) async fn set_overlay(State(api): State<Shared>, asked: Asked) -> Outcome {
    let Carries { overlay } = asked.body()?;
    done(command::set_overlay(&api.cluster, typed("overlay", &overlay)?).await?)
}

/// Defines a network. What the cluster's own networks are is not known here.
pub(crate) async fn add(State(api): State<Shared>, asked: Asked) -> Outcome {
    let New { vni, kind, description, domain, ip4, ip6, guard, filter } = asked.body()?;
    let kind = match kind {
        Kind::Managed => NetworkKind::Managed,
        Kind::Bridged => NetworkKind::Bridged,
    };
    let change = Change { description: Some(description), domain, ip4, ip6, guard, filter };
    let answer = command::add(&api.cluster, &vni.to_string(), kind, &change.into(), &[]).await?;
    created(answer, &format!("/api/v2/networks/{vni}"))
}

/// Changes what is sent.
pub(crate) async fn modify(State(api): State<Shared>, asked: Asked) -> Outcome {
    let settings = asked.body::<Change>()?.into();
    done(command::modify(&api.cluster, asked.0.part("network"), &settings, &[]).await?)
}

/// Removes a network, unless a VM has a card in it.
pub(crate) async fn remove(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    done(command::remove(&api.cluster, ask.part("network")).await?)
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reservation {
    mac_address: String,
    ip4_address: String,
    hostname: Option<String>,
}

/// Reserves an address for a card.
pub(crate) async fn reserve(State(api): State<Shared>, asked: Asked) -> Outcome {
    let Reservation { mac_address, ip4_address, hostname } = asked.body()?;
    let new = NewReservation { mac: &mac_address, address: &ip4_address, name: hostname.as_deref() };
    done(dhcp::add(&api.cluster, asked.0.part("network"), new, now_unix_s()).await?)
}

/// Removes a card's reservation.
pub(crate) async fn free(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    done(dhcp::remove(&api.cluster, ask.part("network"), ask.part("mac")).await?)
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewRule")]
pub(crate) struct NewRow {
    /// What it is called.
    description: String,
    direction: Side,
    /// Its place; absent, the last.
    order: Option<u32>,
    rule: String,
}

#[derive(JsonSchema, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Side {
    In,
    Out,
}

/// Adds a rule.
pub(crate) async fn add_rule(State(api): State<Shared>, asked: Asked) -> Outcome {
    let NewRow { description, direction, order, rule } = asked.body()?;
    let direction = match direction {
        Side::In => Direction::In,
        Side::Out => Direction::Out,
    };
    let new = NewRule { name: &description, direction, order, text: &rule };
    done(acl::add(&api.cluster, asked.0.part("network"), &new).await?)
}

/// Removes a rule.
pub(crate) async fn remove_rule(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    done(acl::remove(&api.cluster, ask.part("network"), ask.part("rule")).await?)
}
