//! Client networks.

use axum::extract::State;
use pvc_core::{
    command::network::Settings,
    model::{NetworkKind, network::DomainName},
};
use pvc_operate::network::{self as command, NetworkRow};
use serde::Serialize;

use super::{exactly_or_nearly, no_such, or_none};
use crate::{
    api::Shared,
    ask::Ask,
    limit::Limit,
    reply::{Failed, Outcome, done, list as answer_list},
};

/// A network, with the words of the old API: all of them texts, `None` for what is absent.
#[derive(Serialize)]
struct Row {
    vni: String,
    description: String,
    #[serde(rename = "type")]
    kind: String,
    domain: String,
    ip6: Ip6,
    ip4: Ip4,
}

#[derive(Serialize)]
struct Ip6 {
    network: String,
    gateway: String,
    dhcp_flag: &'static str,
}

#[derive(Serialize)]
struct Ip4 {
    network: String,
    gateway: String,
    dhcp_flag: &'static str,
    dhcp_start: String,
    dhcp_end: String,
}

fn word(flag: bool) -> &'static str {
    if flag { "True" } else { "False" }
}

impl From<NetworkRow> for Row {
    fn from(row: NetworkRow) -> Self {
        let NetworkRow { ip4, ip6, .. } = row;
        Self {
            vni: row.vni.to_string(),
            description: row.description,
            kind: or_none(row.kind),
            domain: or_none(row.domain.as_ref().map(DomainName::as_str)),
            ip6: Ip6 {
                network: or_none(ip6.network),
                gateway: or_none(ip6.gateway),
                dhcp_flag: word(ip6.dhcp_flag),
            },
            ip4: Ip4 {
                network: or_none(ip4.network),
                gateway: or_none(ip4.gateway),
                dhcp_flag: word(ip4.dhcp_flag),
                dhcp_start: or_none(ip4.dhcp_start),
                dhcp_end: or_none(ip4.dhcp_end),
            },
        }
    }
}

async fn rows(api: &Shared, limit: &Limit) -> Result<Vec<Row>, Failed> {
    let wants = |name: &str| limit.wants(name);
    Ok(command::list(api.seen(), Some(&wants)).await?.networks.into_iter().map(Row::from).collect())
}

/// All that are wanted.
pub(crate) async fn list(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    answer_list(&rows(&api, &limit).await?, "no network is called so")
}

/// One, by its number or description.
pub(crate) async fn item(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = ask.part("network");
    let limit = Limit::parse(Some(wanted)).ok();
    let near = |name: &str| limit.as_ref().is_some_and(|limit| limit.wants(name));
    let names = |row: &Row| vec![row.vni.clone(), row.description.clone()];
    let found = exactly_or_nearly(rows(&api, &Limit::default()).await?, wanted, names, near);
    answer_list(&found, "there is no such network")
}

/// Defines one. What the cluster's own networks are is not known here.
pub(crate) async fn add(State(api): State<Shared>, ask: Ask) -> Outcome {
    let required = |name: &'static str| ask.given(name).ok_or(Failed::MissingOfNetwork(name));
    let (vni, _, kind) = (required("vni")?, required("description")?, required("nettype")?);
    let kind: NetworkKind = kind.parse().map_err(|_| no_such("nettype", kind, "managed or bridged"))?;
    done(command::add(&api.cluster, vni, kind, &settings(&ask)?, &[]).await?)
}

/// Changes one: what is sent, and an empty value takes a setting away.
pub(crate) async fn modify(State(api): State<Shared>, ask: Ask) -> Outcome {
    done(command::modify(&api.cluster, ask.part("network"), &settings(&ask)?, &[]).await?)
}

/// Removes one.
pub(crate) async fn remove(State(api): State<Shared>, ask: Ask) -> Outcome {
    done(command::remove(&api.cluster, ask.part("network")).await?)
}

fn settings(ask: &Ask) -> Result<Settings, Failed> {
    let sent = |name: &str| ask.sent(name).map(str::to_owned);
    Ok(Settings {
        description: sent("description"),
        domain: sent("domain"),
        ip4_network: sent("ip4_network"),
        ip4_gateway: sent("ip4_gateway"),
        dhcp4: switch(ask, "dhcp4")?,
        dhcp4_start: sent("dhcp4_start"),
        dhcp4_end: sent("dhcp4_end"),
        ip6_network: sent("ip6_network"),
        ip6_gateway: sent("ip6_gateway"),
        guard: None,
        filter: None,
    })
}

/// Unlike a flag it can be turned off, which the old server could not.
fn switch(ask: &Ask, name: &str) -> Result<Option<bool>, Failed> {
    let Some(text) = ask.given(name) else { return Ok(None) };
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(Some(true)),
        "false" | "no" | "off" | "0" => Ok(Some(false)),
        _ => Err(no_such(name, text, "True or False")),
    }
}
