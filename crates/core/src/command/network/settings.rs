//! What an operator gives as text, made into what it means.

use std::{fmt::Display, net::Ipv6Addr, str::FromStr};

use super::Refusal;
use crate::{
    model::{Network, NetworkKind},
    text::is_plain,
};

/// The longest description, in characters.
pub(super) const LONGEST: usize = 128;

/// Settings of a network as they were given; `None`: not given. Empty, or `none`: there shall be none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub struct Settings {
    pub description: Option<String>,
    pub domain: Option<String>,
    pub ip4_network: Option<String>,
    pub ip4_gateway: Option<String>,
    pub dhcp4: Option<bool>,
    pub dhcp4_start: Option<String>,
    pub dhcp4_end: Option<String>,
    pub ip6_network: Option<String>,
    pub ip6_gateway: Option<String>,
    pub guard: Option<bool>,
    pub filter: Option<bool>,
}

impl Settings {
    /// Puts what was given into the network.
    pub(super) fn apply(&self, network: &mut Network, what: &str) -> Result<(), Refusal> {
        if let Some(description) = &self.description {
            network.description = self::description(description).map_err(|why| {
                Refusal::refused(what, why, format!("give it one of 1 to {LONGEST} printable characters"))
            })?;
        }
        set(&mut network.domain, self.domain.as_ref(), what, "such as clients.example.com")?;
        set(&mut network.ip4.network, self.ip4_network.as_ref(), what, "such as 10.100.0.0/24")?;
        set(&mut network.ip4.gateway, self.ip4_gateway.as_ref(), what, "such as 10.100.0.1")?;
        set(&mut network.ip4.dhcp.start, self.dhcp4_start.as_ref(), what, "such as 10.100.0.100")?;
        set(&mut network.ip4.dhcp.end, self.dhcp4_end.as_ref(), what, "such as 10.100.0.199")?;
        set(&mut network.ip6.network, self.ip6_network.as_ref(), what, "such as fd00:100::/64")?;
        set(&mut network.ip6.gateway, self.ip6_gateway.as_ref(), what, "such as fd00:100::1")?;
        network.ip4.dhcp.enabled = self.dhcp4.unwrap_or(network.ip4.dhcp.enabled);
        network.guard = self.guard.or(network.guard);
        network.filter = self.filter.unwrap_or(network.filter);
        if self.ip6_network.is_some() {
            // As old clients do.
            network.ip6.dhcp_enabled = network.ip6.network.is_some();
            if self.ip6_gateway.is_none() {
                let first = network.ip6.network.map(|net| u128::from(net.network()).saturating_add(1));
                network.ip6.gateway = first.map(Ipv6Addr::from);
            }
        }
        Ok(())
    }

    /// What a new network gets that was not given.
    pub(super) fn complete(&self, network: &mut Network) {
        if self.domain.is_none() && network.kind == Some(NetworkKind::Managed) {
            let label = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            let name: String = network.description.chars().map(label).take(50).collect();
            network.domain = format!("{}.local", name.trim_matches('-')).parse().ok();
        }
    }
}

fn set<T: FromStr<Err: Display>>(
    setting: &mut Option<T>,
    given: Option<&String>,
    what: &str,
    example: &str,
) -> Result<(), Refusal> {
    let Some(text) = given.map(|text| text.trim()) else { return Ok(()) };
    *setting = match text {
        "" | "none" | "None" => None,
        text => {
            let parsed = text.parse().map_err(|e: T::Err| format!("{text:?}: {e}"));
            Some(parsed.map_err(|why| Refusal::refused(what, why, format!("give it {example}, or none")))?)
        }
    };
    Ok(())
}

fn description(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (length, plain) = (text.chars().count(), text.chars().all(is_plain));
    match length {
        0 => Err("it has no description".into()),
        1..=LONGEST if plain => Ok(text.to_owned()),
        1..=LONGEST => Err(format!("the description {text:?} has characters that cannot be printed")),
        _ => Err(format!("the description has {length} characters")),
    }
}
