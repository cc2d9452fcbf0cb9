//! Client networks, their rules, and the addresses in them.

use pvc_core::{
    command::network::{Settings, acl::NewRule, dhcp::NewReservation},
    model::{NetworkKind, Overlay, rule::Direction},
};
use pvc_operate::{
    Answer,
    network::{
        self, NetworkInfo, NetworkList, ShownOverlay,
        acl::{self, RuleRow},
        dhcp::{self, Addresses},
        explain::{self, NetworkExplanation},
    },
};
use regex_lite::Regex;
use serde_json::{Map, Value, json};

use super::{Call, Door, now_unix_s, whole};
use crate::{connect, failure::Failure};

impl Door {
    pub(crate) async fn networks(&self, limit: Option<&Regex>) -> Result<NetworkList, Failure> {
        let matches = |text: &str| limit.is_none_or(|limit| limit.is_match(text));
        match self {
            Self::Direct(cluster) => {
                let wanted: Option<&(dyn Fn(&str) -> bool + Sync)> = limit.is_some().then_some(&matches);
                Ok(network::list(cluster, wanted).await?)
            }
            Self::Api(api) => {
                let mut list: NetworkList = api.ask(whole(&["networks"])).await?;
                list.networks.retain(|row| matches(&row.description) || matches(&row.vni.to_string()));
                if limit.is_some() {
                    list.strays.clear();
                }
                Ok(list)
            }
        }
    }

    pub(crate) async fn network(&self, network: &str) -> Result<NetworkInfo, Failure> {
        match self {
            Self::Direct(cluster) => Ok(network::info(cluster, network).await?),
            Self::Api(api) => api.ask(Call::get(&["networks", network])).await,
        }
    }

    pub(crate) async fn explain_network(&self, network: &str) -> Result<NetworkExplanation, Failure> {
        match self {
            Self::Direct(cluster) => Ok(explain::explain(cluster, network, now_unix_s()).await?),
            Self::Api(api) => api.ask(Call::get(&["networks", network, "explanation"])).await,
        }
    }

    pub(crate) async fn add_network(
        &self,
        vni: &str,
        kind: NetworkKind,
        settings: Settings,
    ) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => {
                Ok(network::add(cluster, vni, kind, &settings, &connect::own_networks()).await?)
            }
            Self::Api(api) => {
                let mut body = sent(settings);
                // What is no number is refused there.
                body["vni"] = vni.parse::<u32>().map_or_else(|_| vni.into(), Value::from);
                body["type"] = kind.to_string().into();
                api.ask(Call::post(&["networks"]).json(&body)).await
            }
        }
    }

    pub(crate) async fn modify_network(&self, network: &str, settings: Settings) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => {
                Ok(network::modify(cluster, network, &settings, &connect::own_networks()).await?)
            }
            Self::Api(api) => api.ask(Call::patch(&["networks", network]).json(&sent(settings))).await,
        }
    }

    pub(crate) async fn remove_network(&self, network: &str) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(network::remove(cluster, network).await?),
            Self::Api(api) => api.ask(Call::delete(&["networks", network])).await,
        }
    }

    pub(crate) async fn overlay(&self) -> Result<ShownOverlay, Failure> {
        match self {
            Self::Direct(cluster) => Ok(network::overlay(cluster).await?),
            Self::Api(api) => api.ask(Call::get(&["overlay"])).await,
        }
    }

    pub(crate) async fn set_overlay(&self, overlay: Overlay) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(network::set_overlay(cluster, overlay).await?),
            Self::Api(api) => api.ask(Call::put(&["overlay"]).json(&json!({ "overlay": overlay }))).await,
        }
    }

    pub(crate) async fn rules(
        &self,
        network: &str,
        direction: Option<Direction>,
    ) -> Result<Vec<RuleRow>, Failure> {
        match self {
            Self::Direct(cluster) => Ok(acl::list(cluster, network, direction).await?),
            Self::Api(api) => {
                let mut rules: Vec<RuleRow> = api.ask(Call::get(&["networks", network, "rules"])).await?;
                rules.retain(|rule| direction.is_none_or(|wanted| wanted == rule.direction));
                Ok(rules)
            }
        }
    }

    pub(crate) async fn add_rule(&self, network: &str, new: &NewRule<'_>) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(acl::add(cluster, network, new).await?),
            Self::Api(api) => {
                let NewRule { name, direction, order, text } = new;
                let body =
                    json!({ "description": name, "direction": direction, "order": order, "rule": text });
                api.ask(Call::post(&["networks", network, "rules"]).json(&body)).await
            }
        }
    }

    pub(crate) async fn remove_rule(&self, network: &str, rule: &str) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(acl::remove(cluster, network, rule).await?),
            Self::Api(api) => api.ask(Call::delete(&["networks", network, "rules", rule])).await,
        }
    }

    pub(crate) async fn leases(&self, network: &str) -> Result<Addresses, Failure> {
        match self {
            Self::Direct(cluster) => Ok(dhcp::list(cluster, network, now_unix_s()).await?),
            Self::Api(api) => api.ask(Call::get(&["networks", network, "leases"])).await,
        }
    }

    pub(crate) async fn reserve(&self, network: &str, new: NewReservation<'_>) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(dhcp::add(cluster, network, new, now_unix_s()).await?),
            Self::Api(api) => {
                let NewReservation { mac, address, name } = new;
                let body = json!({ "mac_address": mac, "ip4_address": address, "hostname": name });
                api.ask(Call::post(&["networks", network, "leases"]).json(&body)).await
            }
        }
    }

    /// Removes a reservation, by its card, its address or its name.
    pub(crate) async fn free(&self, network: &str, reservation: &str) -> Result<Answer, Failure> {
        match self {
            Self::Direct(cluster) => Ok(dhcp::remove(cluster, network, reservation).await?),
            Self::Api(api) => api.ask(Call::delete(&["networks", network, "leases", reservation])).await,
        }
    }
}

/// The settings that are given, in the form in which the API takes them.
fn sent(settings: Settings) -> Value {
    let Settings {
        description,
        domain,
        ip4_network,
        ip4_gateway,
        dhcp4,
        dhcp4_start,
        dhcp4_end,
        ip6_network,
        ip6_gateway,
        guard,
        filter,
    } = settings;
    let object = |fields: Vec<(&str, Option<Value>)>| -> Value {
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    };
    let text = |text: Option<String>| text.map(Value::from);
    object(vec![
        ("description", text(description)),
        ("domain", text(domain)),
        ("guard", guard.map(Value::from)),
        ("filter", filter.map(Value::from)),
        (
            "ip4",
            Some(object(vec![
                ("network", text(ip4_network)),
                ("gateway", text(ip4_gateway)),
                ("dhcp_flag", dhcp4.map(Value::from)),
                ("dhcp_start", text(dhcp4_start)),
                ("dhcp_end", text(dhcp4_end)),
            ])),
        ),
        ("ip6", Some(object(vec![("network", text(ip6_network)), ("gateway", text(ip6_gateway))]))),
    ])
}
