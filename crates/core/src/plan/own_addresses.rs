//! The addresses that guests have made of their cards (SLAAC, EUI-64), and which of them have names.

use std::{collections::BTreeMap, net::Ipv6Addr};

use super::{
    dhcp::MOST_LEASES,
    dhcp6::{Pool6, line},
    dns::RESERVED,
    guest_names::Names,
};
use crate::model::Mac;

/// Those of one network. One has a name as soon as its card has, by a lease or a reservation.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    /// Of cards with names, as the state tree has them.
    written: BTreeMap<Mac, Ipv6Addr>,
    /// Of others.
    heard: BTreeMap<Mac, Ipv6Addr>,
}

impl OwnAddresses {
    /// With what the state tree has.
    pub fn new(written: BTreeMap<Mac, Ipv6Addr>) -> Self {
        Self { written, heard: BTreeMap::new() }
    }

    /// A card was heard to have this address. All but the one that is made of it is left out: guests choose others for a day, not to be known by them.
    pub fn hear(&mut self, pool: &Pool6, mac: Mac, address: Ipv6Addr) {
        let is_own = pool.gateway.prefix_len() == 64 && mac.own_address(pool.gateway) == address;
        let is_known = self.written.get(&mac) == Some(&address);
        if is_own && !is_known && pool.is_a_guests(address) {
            if self.heard.len() >= MOST_LEASES {
                // Who is not heard now is looked for when its lease is renewed.
                self.heard.pop_last();
            }
            self.heard.insert(mac, address);
        }
    }

    /// What is to be written of a card; `is_named` says whether it has a name.
    pub fn unwritten(&self, mac: Mac, is_named: bool) -> Option<Ipv6Addr> {
        self.heard.get(&mac).copied().filter(|_| is_named)
    }

    /// Takes note that it is written.
    pub fn note(&mut self, mac: Mac, address: Ipv6Addr) {
        self.heard.remove(&mac);
        self.written.insert(mac, address);
    }

    /// What is written of a card.
    pub fn of(&self, mac: Mac) -> Option<Ipv6Addr> {
        self.written.get(&mac).copied()
    }

    /// Takes note that it is written no more.
    pub fn forget(&mut self, mac: Mac) {
        self.heard.extend(self.written.remove_entry(&mac));
    }

    /// The guests' names, as `/etc/hosts` would have them.
    pub fn hosts(&self, pool: &Pool6, names: &Names<'_>) -> String {
        let mut text = String::new();
        for (mac, address) in self.written.iter().filter(|(_, address)| pool.is_a_guests(**address)) {
            if let Some(name) = names.of(*mac).filter(|name| !RESERVED.contains(&name.as_str())) {
                line(&mut text, pool, *address, name);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HostName;

    #[test]
    fn an_address_that_a_card_makes_for_itself_has_its_guests_name_and_no_other_address_has() {
        let pool = Pool6::new("fd00:100::1/64".parse().unwrap(), Some("web.test".into())).unwrap();
        let (pool, mut own) = (pool, OwnAddresses::default());
        let mac: Mac = "52:54:00:ab:cd:ef".parse().unwrap();
        let address: Ipv6Addr = "fd00:100::5054:ff:feab:cdef".parse().unwrap();
        for other in [
            "fd00:100::5054:ff:feab:cdee",
            "fe80::5054:ff:feab:cdef",
            "fd00:100::1",
            "2001:db8::5054:ff:feab:cdef",
        ] {
            own.hear(&pool, mac, other.parse().unwrap());
        }
        assert_eq!(own.unwritten(mac, true), None);
        own.hear(&pool, mac, address);
        assert_eq!((own.unwritten(mac, false), own.unwritten(mac, true)), (None, Some(address)));
        own.note(mac, address);
        own.hear(&pool, mac, address);
        assert_eq!((own.unwritten(mac, true), own.of(mac)), (None, Some(address)));
        let [web1, wpad]: [HostName; 2] = ["web1", "wpad"].map(|name| name.parse().unwrap());
        let named = |all: &[(Mac, &HostName)]| own.hosts(&pool, &Names::new(all.iter().copied()));
        assert_eq!(named(&[(mac, &web1)]), format!("{address} web1.web.test web1\n"));
        let another = Mac([0x52, 0x54, 0, 0, 0, 9]);
        assert_eq!(named(&[(another, &web1), (mac, &web1)]), "", "the name is another card's");
        assert_eq!((named(&[(mac, &wpad)]), named(&[])), (String::new(), String::new()));
        own.forget(mac);
        assert_eq!((own.of(mac), own.unwritten(mac, true)), (None, Some(address)));
        let mut wide = OwnAddresses::default();
        let pool = Pool6::new("fd00:100::1/56".parse().unwrap(), None).unwrap();
        wide.hear(&pool, mac, address);
        assert_eq!(wide.unwritten(mac, true), None, "guests make none there");
    }
}
