//! The arguments of `pvc network …`.

mod dhcp;

use clap::{Args as ClapArgs, Subcommand};
use pvc_core::model::{NetworkKind, Overlay};
use regex_lite::Regex;

pub(crate) use self::dhcp::{Dhcp, Static};
use super::regex;

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Add a network. Its bridge, vmbrVNI, is on every node then.
    Add {
        /// Managed: between the nodes, in VXLAN; its number is from 1 to 16777215. Bridged: a VLAN of the cluster network's device, from 1
        /// to 4094; addresses are given by whoever is outside.
        #[arg(short = 'p', long = "type", value_parser = nettype, value_name = "TYPE")]
        kind: NetworkKind,
        #[command(flatten)]
        settings: NetworkSettings,
        /// The network's number.
        vni: String,
    },
    /// Change a network. What is not given stays; `none` removes a setting.
    Modify {
        #[command(flatten)]
        settings: NetworkSettings,
        /// Its number or description.
        network: String,
    },
    /// Remove a network. Refused while a VM has a network card in it.
    Remove {
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Its number or description.
        network: String,
    },
    /// Show one network, and who is in it.
    Info {
        /// Accepted for older scripts: all is shown.
        #[arg(short, long, hide = true)]
        long: bool,
        /// Its number or description.
        network: String,
    },
    /// Say what is wrong with a network, on which node, and what would do.
    Explain {
        /// Its number or description.
        network: String,
    },
    /// Show or change what carries frames between nodes in managed networks, for the whole cluster.
    Overlay {
        /// Declared: nodes write where guests are, as definitions and claims say. Flood: tunnels learn it from frames. Evpn: the nodes' FRR tells it.
        #[arg(value_parser = overlay)]
        overlay: Option<Overlay>,
    },
    /// Work with the rules of a network's firewall.
    #[command(subcommand)]
    Acl(Acl),
    /// See who has which address, and reserve some.
    #[command(subcommand)]
    Dhcp(Dhcp),
    /// List networks.
    List {
        /// Only networks whose number or description matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Add a rule. Its packets are those that are routed to the network's clients, or from them with --out.
    Add {
        #[command(flatten)]
        direction: AclDirection,
        /// What it is called: a word that no other rule of the network has.
        #[arg(short, long, value_name = "NAME")]
        description: String,
        /// What it says, such as 'tcp dport { 22, 80 } accept'.
        #[arg(short, long)]
        rule: String,
        /// Its place, from 0 on; those from there on move by one [default: the last].
        #[arg(short, long)]
        order: Option<u32>,
        /// The network's number or description.
        network: String,
    },
    /// Remove a rule.
    Remove {
        /// The network's number or description.
        network: String,
        /// What the rule is called.
        rule: String,
    },
    /// List rules, in the order in which they stand.
    List {
        #[command(flatten)]
        direction: AclDirection,
        /// The network's number or description.
        network: String,
        /// Only rules whose name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
}

/// Which packets a rule sees.
#[derive(Debug, ClapArgs)]
pub(crate) struct AclDirection {
    /// Of packets to the network's clients.
    #[arg(long = "in", overrides_with = "outbound")]
    pub(crate) inbound: bool,
    /// Of packets from the network's clients.
    #[arg(long = "out", overrides_with = "inbound")]
    pub(crate) outbound: bool,
}

/// Settings of a network.
#[derive(Debug, ClapArgs)]
pub(crate) struct NetworkSettings {
    /// What it is called.
    #[arg(short, long)]
    pub(crate) description: Option<String>,
    /// Its DNS domain [default: as the description, below .local].
    #[arg(short = 'n', long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
    /// Its IPv4 network, such as 10.100.0.0/24.
    #[arg(short, long, value_name = "NETWORK")]
    pub(crate) ipnet: Option<String>,
    /// Its IPv6 network, such as fd00:100::/64. Older scripts' -i6 is the same.
    #[arg(long, value_name = "NETWORK")]
    pub(crate) ipnet6: Option<String>,
    /// Its IPv4 gateway.
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<String>,
    /// Its IPv6 gateway [default: the first address of its network]. Older scripts' -g6 is the same.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway6: Option<String>,
    /// Serve DHCP for IPv4.
    #[arg(long, overrides_with = "no_dhcp")]
    pub(crate) dhcp: bool,
    /// Do not.
    #[arg(long, overrides_with = "dhcp")]
    pub(crate) no_dhcp: bool,
    #[command(flatten)]
    pub(crate) guards: Guards,
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// The first address that DHCP gives out.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dhcp_start: Option<String>,
    /// The last.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dhcp_end: Option<String>,
}

/// What guests' ports are kept from.
#[derive(Debug, ClapArgs)]
pub(crate) struct Guards {
    /// Guard guests' ports: a guest is no gateway, no DHCP server and no router [default: in managed networks].
    #[arg(long, overrides_with = "no_guard")]
    pub(crate) guard: bool,
    /// Do not.
    #[arg(long, overrides_with = "guard")]
    pub(crate) no_guard: bool,
}

/// From what guests send.
#[derive(Debug, ClapArgs)]
pub(crate) struct Filters {
    /// Take from a guest only what it sends from the card of its definition, and from addresses that are leased to or reserved for that [default: not].
    #[arg(long, overrides_with = "no_filter")]
    pub(crate) filter: bool,
    /// Do not.
    #[arg(long, overrides_with = "filter")]
    pub(crate) no_filter: bool,
}

fn nettype(text: &str) -> Result<NetworkKind, String> {
    text.parse().map_err(|e: pvc_core::model::NameError| e.allowed.to_owned())
}

fn overlay(text: &str) -> Result<Overlay, String> {
    text.parse().map_err(|e: pvc_core::model::NameError| e.allowed.to_owned())
}
