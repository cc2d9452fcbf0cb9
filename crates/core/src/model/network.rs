//! A client network as the state tree describes it.

use std::{
    fmt,
    net::IpAddr,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{entry::Problem, name::NameError};

/// A network's number: its VXLAN identifier, or the VLAN of a bridged network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The largest: 24 bits (RFC 7348).
    pub const MAX: u32 = 0x00ff_ffff;

    /// The largest of a bridged network: 0 and 4095 are reserved (IEEE 802.1Q).
    pub const MAX_VLAN: u32 = 4094;

    /// The number itself.
    pub fn number(self) -> u32 {
        self.0
    }

    /// As a VLAN's number, if it can be one.
    pub fn vlan(self) -> Option<u16> {
        u16::try_from(self.0).ok().filter(|id| u32::from(*id) <= Self::MAX_VLAN)
    }

    /// The bridge that the network's guests are ports of.
    pub fn bridge(self) -> String {
        format!("{BRIDGE}{self}")
    }

    /// The network whose bridge is called so.
    pub fn of_bridge(device: &str) -> Option<Self> {
        device.strip_prefix(BRIDGE)?.parse().ok()
    }
}

/// The link-local address that every IPv6 gateway has besides its own.
pub const LINK_GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The addresses of a link, which each card has one of, whatever its network is.
pub const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// What the names of networks' bridges begin with: old definitions of VMs name them.
const BRIDGE: &str = "vmbr";

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = NameError;

    fn try_from(number: u32) -> Result<Self, NameError> {
        number.to_string().parse()
    }
}

impl FromStr for Vni {
    type Err = NameError;

    /// Accepts the one decimal spelling that leads back to its key: no sign, no leading zero.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(number) if (1..=Self::MAX).contains(&number) && number.to_string() == text => Ok(Self(number)),
            _ => Err(error("network number", text, "a number from 1 to 16777215")),
        }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether a network card may have it: a group's address (broadcast, multicast) and zeros are nobody's.
    pub fn is_a_cards(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// What the bridges of a node with this address in the cluster network have: the same in all client networks, another one on every
    /// node, and of a range that no guest may send from.
    pub fn of_gateway(node: IpAddr) -> Self {
        let bits = match node {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            // The nodes of one network differ in a few bits, which do not cancel each other out.
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                bits ^ bits >> 32 ^ bits >> 64 ^ bits >> 96
            }
        };
        let [.., a, b, c, d] = bits.to_be_bytes();
        let [first, second] = Self::OF_GATEWAYS;
        Self([first, second, a, b, c, d])
    }

    /// The address that a card makes for itself in a network of 64 bits (RFC 4291, appendix A).
    pub fn own_address(self, net: Ipv6Net) -> Ipv6Addr {
        let mut end = [0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        let (maker, card) = self.0.split_at(3);
        end[..3].copy_from_slice(maker);
        end[5..].copy_from_slice(card);
        end[0] ^= 2;
        let end = u64::from_be_bytes(end);
        Ipv6Addr::from(u128::from(net.trunc().addr()) | u128::from(end))
    }

    /// The first bytes of all gateways' addresses: locally administered.
    pub const OF_GATEWAYS: [u8; 2] = [0x0a, 0x70];

    /// Whether it is in the gateways' range.
    pub fn is_a_gateways(self) -> bool {
        self.0.starts_with(&Self::OF_GATEWAYS)
    }
}

impl FromStr for Mac {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || error("hardware address", text, "six bytes such as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

/// A domain name: labels of letters, digits, `-` and `_`, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct DomainName(String);

impl TryFrom<String> for DomainName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                && !l.starts_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(error("domain name", text, "labels of letters, digits, '-' and '_', separated by dots"))
    }
}

/// Who provides addresses and a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// This cluster.
    Managed,
    /// Somebody outside: the network is only bridged.
    Bridged,
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Managed => "managed",
            Self::Bridged => "bridged",
        })
    }
}

impl FromStr for NetworkKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "managed" => Ok(Self::Managed),
            "bridged" => Ok(Self::Bridged),
            _ => Err(error("network type", text, "managed or bridged")),
        }
    }
}

/// The IPv4 side of a managed network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub struct Ip4 {
    pub network: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    pub dhcp: Dhcp4,
}

/// The addresses that DHCP gives out to machines that nothing is reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dhcp4 {
    /// Whether DHCP is served.
    pub enabled: bool,
    /// First address.
    pub start: Option<Ipv4Addr>,
    /// Last address.
    pub end: Option<Ipv4Addr>,
}

/// What carries frames between nodes in managed networks: one for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// Nodes write where frames go, from the definitions and claims of VMs. Tunnels learn nothing.
    #[default]
    Declared,
    /// Frames go to every node until a tunnel has learnt from an answer where their card is.
    Flood,
    /// The nodes' routing daemons tell each other where cards are; until they have, frames go to every node. Tunnels learn nothing.
    Evpn,
}

impl Overlay {
    /// Each, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Declared, Self::Flood, Self::Evpn];

    /// The word in the state tree.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Flood => "flood",
            Self::Evpn => "evpn",
        }
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Overlay {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|overlay| overlay.as_str() == text);
        found.ok_or_else(|| error("overlay", text, "declared, flood or evpn"))
    }
}

/// The IPv6 side of a managed network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub struct Ip6 {
    pub network: Option<Ipv6Net>,
    pub gateway: Option<Ipv6Addr>,
    pub dhcp_enabled: bool,
}

/// One client network as read from the state tree, key by key. What cannot be read of it is absent here and named in `problems`: it says
/// nothing against the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The key below `/networks`.
    pub vni: Vni,
    /// The value of that key, on one line.
    pub description: String,
    /// `nettype`. `None`: it cannot be read, or its key is not there (yet, or any more). Then nothing is made of the network, and nothing
    /// of what there is of it is taken away.
    pub kind: Option<NetworkKind>,
    /// `domain`.
    pub domain: Option<DomainName>,
    /// `ip4_network`, `ip4_gateway`, `dhcp4_…`.
    pub ip4: Ip4,
    /// `ip6_network`, `ip6_gateway`, `dhcp6_flag`.
    pub ip6: Ip6,
    /// `guard`: whether its guests' ports are guarded; `None`: as [`Self::is_guarded`] says.
    pub guard: Option<bool>,
    /// `filter`: whether a guest sends only from its card's address, and from those that it was given; see [`Self::is_filtered`].
    pub filter: bool,
    /// What is wrong with its keys.
    pub problems: Vec<Problem>,
}

impl Network {
    /// A network of which nothing is known but its number.
    pub fn bare(vni: Vni) -> Self {
        Self {
            vni,
            description: String::new(),
            kind: None,
            domain: None,
            ip4: Ip4::default(),
            ip6: Ip6::default(),
            guard: None,
            filter: false,
            problems: Vec::new(),
        }
    }

    /// Whether a guest is kept from being its gateway, its DHCP server or a router: unless it is said, only where nobody outside the cluster is
    /// all that.
    pub fn is_guarded(&self) -> bool {
        self.is_filtered() || self.guard.unwrap_or(self.kind != Some(NetworkKind::Bridged))
    }

    /// Whether a guest sends only from the address of its definition's card, and from addresses that are leased to or reserved for that. Only
    /// where this cluster gives out addresses.
    pub fn is_filtered(&self) -> bool {
        self.filter && self.kind == Some(NetworkKind::Managed)
    }

    /// The networks of addresses that it is made of.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        let (ip4, ip6) = (self.ip4.network.map(IpNet::from), self.ip6.network.map(IpNet::from));
        ip4.into_iter().chain(ip6)
    }
}

fn error(what: &'static str, found: &str, allowed: &'static str) -> NameError {
    NameError { what, found: found.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_numbers_have_one_spelling() {
        assert_eq!("100".parse::<Vni>().unwrap().number(), 100);
        for bad in ["0", "", "+1", "0100", "16777216", "1 ", "none"] {
            assert!(bad.parse::<Vni>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bridge_and_its_network_name_each_other() {
        let vni: Vni = "16777215".parse().unwrap();
        assert_eq!((vni.bridge().as_str(), Vni::of_bridge("vmbr16777215")), ("vmbr16777215", Some(vni)));
        assert!(vni.bridge().len() <= 15, "the kernel's limit");
        for other in ["vmbr", "vmbr0", "vmbr0100", "brcluster", "vmbr100.5"] {
            assert_eq!(Vni::of_bridge(other), None, "{other}");
        }
        assert_eq!(
            ("4094".parse::<Vni>().unwrap().vlan(), "4095".parse::<Vni>().unwrap().vlan()),
            (Some(4094), None)
        );
    }

    #[test]
    fn addresses_are_read_and_rubbish_is_refused() {
        assert_eq!("52:54:00:AB:cd:0f".parse::<Mac>().unwrap().to_string(), "52:54:00:ab:cd:0f");
        for bad in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:0f:01", "+2:54:00:ab:cd:0f", "5:54:00:ab:cd:0f"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "a..b", "a b", "-a", "a\n", "a;b"] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }
}
