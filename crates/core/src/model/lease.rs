//! An address that DHCP has given to a guest for a time. All of it comes from strangers: from guests' packets, or from the state tree, which old clients
//! write.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use super::{HostName, Mac, name::NameError};

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The card that has it.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// What the guest calls itself.
    pub name: Option<HostName>,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
    /// By what else than its card the guest is known.
    pub client_id: Option<ClientId>,
}

/// An address that one card always gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The card.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// The name that the guest has, whatever it says.
    pub name: Option<HostName>,
}

/// A DHCP client's identifier (RFC 2132, option 61): up to 255 bytes, as hexadecimal pairs with colons between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientId(String);

impl FromStr for ClientId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        let fine = text.len() < 255 * 3 && text.split(':').all(pair);
        fine.then(|| Self(text.to_owned()))
            .ok_or_else(|| error("client identifier", text, "pairs such as 01:52:54"))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn error(what: &'static str, found: &str, allowed: &'static str) -> NameError {
    NameError { what, found: found.chars().take(80).collect(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_say_of_themselves_is_bounded() {
        assert!("01:52:54:00:ab:CD:0f".parse::<ClientId>().is_ok());
        let long = vec!["ff"; 256].join(":");
        for bad in ["", "*", "1", "01:", "01:5", "01:5g", "01 02", "01:02\n", long.as_str()] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad:?}");
        }
    }
}
