//! Zones of the domain name system and their records, as the DNS aggregator's database keeps them: names in lower case, without a dot at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// One record of a zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Whose it is; the zone's name, or below it.
    pub name: String,
    /// What it says.
    pub data: Data,
}

/// What a record says, of the types that this program writes. A zone's SOA is part of its [`ZoneChange`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The zone's name server.
    Ns(String),
    /// The name of an address.
    Ptr(String),
}

impl Data {
    /// From the two columns of the database; `None`: this program has not written that.
    pub fn read(kind: &str, content: &str) -> Option<Self> {
        match kind {
            "A" => content.parse().ok().map(Self::A),
            "AAAA" => content.parse().ok().map(Self::Aaaa),
            "NS" => Some(Self::Ns(content.to_owned())),
            "PTR" => Some(Self::Ptr(content.to_owned())),
            _ => None,
        }
    }

    /// The record's type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::A(_) => "A",
            Self::Aaaa(_) => "AAAA",
            Self::Ns(_) => "NS",
            Self::Ptr(_) => "PTR",
        }
    }

    /// What it says, as text.
    pub fn content(&self) -> String {
        match self {
            Self::A(address) => address.to_string(),
            Self::Aaaa(address) => address.to_string(),
            Self::Ns(name) | Self::Ptr(name) => name.clone(),
        }
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}

/// Zones by their names, each with its records.
pub type Zones = BTreeMap<String, BTreeSet<Record>>;

/// A zone that the database has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenZone {
    /// Whether this program made it. In somebody else's nothing is written.
    pub is_ours: bool,
    /// The serial number of its SOA; `None`: it has none that can be read.
    pub serial: Option<u32>,
    /// Records that this program wrote.
    pub ours: BTreeSet<Record>,
    /// Records of somebody else, but for the SOA.
    pub others: BTreeSet<Foreign>,
}

/// A record that this program did not write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the columns of the database")]
pub struct Foreign {
    pub name: String,
    pub kind: String,
    pub content: String,
}

/// What is done to a zone, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneChange {
    /// Its name.
    pub zone: String,
    /// What becomes of the zone itself.
    pub act: ZoneAct,
    /// Records that are written.
    pub add: Vec<Record>,
    /// Records of ours that are taken away.
    pub remove: Vec<Record>,
}

/// What becomes of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneAct {
    /// It is made.
    Make(Soa),
    /// It stays, with this SOA, if its serial is still `from`.
    Keep {
        /// As it was seen.
        from: Option<u32>,
        /// Its next.
        soa: Soa,
    },
    /// It is taken away, if its serial is still this, and nobody else has a record in it.
    Drop {
        /// As it was seen.
        from: Option<u32>,
    },
}

/// The start of authority of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// The name of its first name server.
    pub server: String,
    /// Whom to ask, as a name.
    pub contact: String,
    /// Grows with each change (RFC 1982).
    pub serial: u32,
}

impl Soa {
    /// The serial number of an SOA's text.
    pub fn serial_of(content: &str) -> Option<u32> {
        content.split_ascii_whitespace().nth(2)?.parse().ok()
    }
}

/// Refresh, retry and expiry are for servers that copy the zone; the last is for how long it may be believed that a name does not exist, and a
/// guest's name appears from one moment to the next.
impl fmt::Display for Soa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} 10800 1800 86400 {TTL_S}", self.server, self.contact, self.serial)
    }
}

/// For how long a record may be believed: an address may be another's soon after its lease ends.
pub const TTL_S: i32 = 60;

/// What is done to a zone, for the log.
impl fmt::Display for ZoneChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zone, act, add, remove } = self;
        match act {
            ZoneAct::Make(_) => write!(f, "make zone {zone}"),
            ZoneAct::Keep { .. } => write!(f, "change zone {zone}"),
            ZoneAct::Drop { .. } => write!(f, "take away zone {zone}"),
        }?;
        write!(f, " ({} records more, {} less)", add.len(), remove.len())
    }
}
