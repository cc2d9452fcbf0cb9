//! Messages of IPv6 as they are on the wire: a kind, a number, and options of a code, a length and a value.

use std::net::Ipv6Addr;

use pvc_core::model::{
    Mac,
    dhcp6::{Advertisement, Asks6, Duid, Granted, Reply6, Request6, Status},
};

/// So many wants of a message are answered, and so many addresses of each are looked at.
const MOST: usize = 4;

/// Codes of options (RFC 8415, section 24; RFC 3646; RFC 4704).
mod code {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const WANT: u16 = 3;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const PREFERENCE: u16 = 7;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RESOLVERS: u16 = 23;
    pub(super) const DOMAINS: u16 = 24;
    pub(super) const FULL_NAME: u16 = 39;
}

/// Reads a message by DHCPv6 of a card. `None`: it is none that this server answers. What comes through a relay is not: a network is a bridge.
pub(super) fn read(packet: &[u8], mac: Mac) -> Option<(Request6, [u8; 3])> {
    let [kind, a, b, c, options @ ..] = packet else { return None };
    let asks = match kind {
        1 => Asks6::Discover,
        3 => Asks6::Take,
        4 => Asks6::Confirm,
        5 => Asks6::Keep,
        6 => Asks6::KeepFromAny,
        8 => Asks6::Release,
        9 => Asks6::Decline,
        11 => Asks6::Inform,
        _ => return None,
    };
    if !mac.is_a_cards() {
        return None;
    }
    let (mut client, mut server, mut wants, mut name) = (None, None, Vec::<(u32, Vec<_>)>::new(), None);
    for (code, value) in Options(options) {
        match code {
            // An identifier that is none makes the whole worthless.
            code::CLIENT => client = Some(Duid::new(value)?),
            code::SERVER => server = Some(Duid::new(value)?),
            code::WANT if wants.len() < MOST => {
                let want = want(value)?;
                // One that is said twice is one.
                if wants.iter().all(|(other, _)| *other != want.0) {
                    wants.push(want);
                }
            }
            code::FULL_NAME => name = full_name(value),
            _ => {}
        }
    }
    Some((Request6 { mac, client, server, asks, wants, name }, [*a, *b, *c]))
}

/// A number, two times that are not looked at, and addresses.
fn want(value: &[u8]) -> Option<(u32, Vec<Ipv6Addr>)> {
    let (head, options) = value.split_first_chunk::<12>()?;
    let (number, _) = head.split_first_chunk::<4>()?;
    let address = |(code, value): (u16, &[u8])| {
        let (octets, _) = value.split_first_chunk::<16>()?;
        (code == code::ADDRESS).then(|| Ipv6Addr::from(*octets))
    };
    Some((u32::from_be_bytes(*number), Options(options).filter_map(address).take(MOST).collect()))
}

/// Flags and labels, the last of which is empty if it is the whole name.
fn full_name(value: &[u8]) -> Option<String> {
    let (_, mut rest) = value.split_first()?;
    let mut labels = Vec::new();
    while let [length @ 1..=63, after @ ..] = rest {
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(std::str::from_utf8(label).ok()?);
        rest = after;
    }
    (!labels.is_empty()).then(|| labels.join("."))
}

/// Options up to the end, or to the first that is cut off.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
        self.0 = rest;
        Some((u16::from_be_bytes([a, b]), value))
    }
}

fn option(packet: &mut Vec<u8>, code: u16, value: &[u8]) {
    if let Ok(length) = u16::try_from(value.len()) {
        packet.extend(code.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend(value);
    }
}

/// The packet of an answer.
pub(super) fn write(number: [u8; 3], reply: &Reply6) -> Vec<u8> {
    let [a, b, c] = number;
    let mut packet = vec![if reply.is_offer { 2 } else { 7 }, a, b, c];
    option(&mut packet, code::SERVER, reply.server.bytes());
    if let Some(client) = &reply.client {
        option(&mut packet, code::CLIENT, client.bytes());
    }
    if reply.is_offer {
        // Nobody need wait for a better one.
        option(&mut packet, code::PREFERENCE, &[255]);
    }
    if let Some(status) = reply.status {
        option(&mut packet, code::STATUS, &told(status));
    }
    for granted in &reply.granted {
        option(&mut packet, code::WANT, &grant(granted));
    }
    option(&mut packet, code::RESOLVERS, &reply.resolver.octets());
    if let Some(domain) = &reply.domain {
        option(&mut packet, code::DOMAINS, &labels(domain));
    }
    packet
}

fn told(status: Status) -> [u8; 2] {
    (status as u16).to_be_bytes()
}

fn grant(granted: &Granted) -> Vec<u8> {
    let lasts = granted.address.map_or(0, |(_, lasts)| lasts);
    let mut value = granted.association.to_be_bytes().to_vec();
    // When it asks again: its own server, then any.
    value.extend((lasts / 2).to_be_bytes());
    value.extend((lasts / 5 * 4).to_be_bytes());
    let of_others = granted.not.iter().map(|address| (*address, 0));
    for (address, lasts) in granted.address.into_iter().chain(of_others) {
        let mut of_address = address.octets().to_vec();
        // It is preferred for as long as it is valid.
        of_address.extend([lasts.to_be_bytes(), lasts.to_be_bytes()].concat());
        option(&mut value, code::ADDRESS, &of_address);
    }
    if let Some(status) = granted.status {
        option(&mut value, code::STATUS, &told(status));
    }
    value
}

/// A name as DNS has it.
fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// For how long guests go on believing what the router says, in seconds: three times as long as it says it again (RFC 4861, section 6.2.1).
const ROUTER_LASTS: u16 = 1800;

/// For how long the network's addresses are on it.
const PREFIX_LASTS: u32 = 24 * 3600;

/// The packet of a router advertisement; the kernel fills in its sum.
pub(super) fn advertisement(said: &Advertisement) -> Vec<u8> {
    /// Addresses and the rest are given out by DHCPv6, and this router is the preferred one.
    const FLAGS: u8 = 0x80 | 0x40 | 0x08;
    const ON_LINK: u8 = 0x80;
    const OWN_ADDRESSES: u8 = 0x40;
    let mut packet = vec![134, 0, 0, 0, 64, FLAGS];
    packet.extend(ROUTER_LASTS.to_be_bytes());
    packet.extend([0; 8]);
    let length = said.prefix.prefix_len();
    let flags = if length == 64 { ON_LINK | OWN_ADDRESSES } else { ON_LINK };
    packet.extend([3, 4, length, flags]);
    packet.extend([PREFIX_LASTS.to_be_bytes(), PREFIX_LASTS.to_be_bytes(), [0; 4]].concat());
    packet.extend(said.prefix.network().octets());
    packet.extend([5, 1, 0, 0]);
    packet.extend(said.mtu.to_be_bytes());
    // RFC 8106.
    let lasts = u32::from(ROUTER_LASTS).to_be_bytes();
    packet.extend([25, 3, 0, 0]);
    packet.extend(lasts);
    packet.extend(said.resolver.octets());
    if let Some(domain) = &said.domain {
        let mut name = labels(domain);
        name.resize(name.len().next_multiple_of(8), 0);
        packet.extend([31, u8::try_from(name.len() / 8 + 1).unwrap_or_default(), 0, 0]);
        packet.extend(lasts);
        packet.extend(name);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 7]);

    fn packet(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut packet = vec![kind, 9, 8, 7];
        for (code, value) in options {
            option(&mut packet, *code, value);
        }
        packet
    }

    fn want_of(number: u8, addresses: &[&str]) -> Vec<u8> {
        let mut value = vec![0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0, 0];
        for address in addresses {
            let address: Ipv6Addr = address.parse().unwrap();
            option(&mut value, 5, &[&address.octets()[..], &[0; 8]].concat());
        }
        value
    }

    #[test]
    fn what_guests_ask_is_read() {
        let options: [(u16, &[u8]); 6] = [
            (1, &[0, 3, 0, 1]),
            (2, &[0, 4, 1]),
            (6, &[0, 23]),
            (3, &want_of(42, &["fd00::5", "fd00::6"])),
            (3, &want_of(42, &[])),
            (39, b"\x01\x04web1"),
        ];
        let (request, number) = read(&packet(3, &options), MAC).unwrap();
        assert_eq!((number, request.asks, request.mac), ([9, 8, 7], Asks6::Take, MAC));
        assert_eq!((request.client, request.server), (Duid::new(&[0, 3, 0, 1]), Duid::new(&[0, 4, 1])));
        let addresses = vec!["fd00::5".parse().unwrap(), "fd00::6".parse().unwrap()];
        assert_eq!(request.wants, [(42, addresses)]);
        assert_eq!(request.name.as_deref(), Some("web1"));
        let full = read(&packet(1, &[(39, b"\0\x04web1\x01a\0")]), MAC).unwrap().0;
        assert_eq!((full.name.as_deref(), full.client), (Some("web1.a"), None));
    }

    #[test]
    fn what_is_no_request_is_not_answered_and_much_is_cut() {
        for kind in [0, 2, 7, 10, 12, 13, 200] {
            assert_eq!(read(&packet(kind, &[(1, &[0, 3, 0, 1])]), MAC), None, "{kind}");
        }
        assert_eq!(read(&packet(1, &[]), Mac([1, 0, 0, 0, 0, 0])), None, "a group's");
        for bad in [(1, &[0, 3][..]), (1, &[0; 131]), (2, &[0; 2]), (3, &[0; 11])] {
            assert_eq!(read(&packet(1, &[bad]), MAC), None, "{bad:?}");
        }
        let many: Vec<Vec<u8>> = (0..9).map(|n| want_of(n, &["fd00::5"; 9])).collect();
        let options: Vec<(u16, &[u8])> = many.iter().map(|want| (3, &want[..])).collect();
        let wants = read(&packet(1, &options), MAC).unwrap().0.wants;
        assert_eq!((wants.len(), wants[0].1.len()), (4, 4));
        for name in [&b""[..], b"\0", b"\0\x09web", b"\0\x02\xff\xfe", b"\0\xc0\x04"] {
            assert_eq!(read(&packet(1, &[(39, name)]), MAC).unwrap().0.name, None);
        }
    }

    #[test]
    fn an_answer_says_what_is_given_and_what_is_not() {
        let reply = Reply6 {
            is_offer: true,
            server: Duid::new(&[0, 4, 1]).unwrap(),
            client: Duid::new(&[0, 3, 2]),
            granted: vec![Granted {
                association: 42,
                address: Some(("fd00::5".parse().unwrap(), 1000)),
                not: vec!["fd00::6".parse().unwrap()],
                status: None,
            }],
            status: None,
            resolver: "fd00::1".parse().unwrap(),
            domain: Some("web.test".into()),
        };
        let said = write([9, 8, 7], &reply);
        assert_eq!(said[..4], [2, 9, 8, 7]);
        let options: Vec<_> = Options(&said[4..]).collect();
        assert_eq!(options[..3], [(2, &[0, 4, 1][..]), (1, &[0, 3, 2]), (7, &[255])]);
        let (code, granted) = options[3];
        assert_eq!((code, &granted[..12]), (3, &[0, 0, 0, 42, 0, 0, 1, 244, 0, 0, 3, 32][..]));
        let addresses: Vec<_> = Options(&granted[12..]).collect();
        assert_eq!((addresses[0].1[15], &addresses[0].1[16..]), (5, &[0, 0, 3, 232, 0, 0, 3, 232][..]));
        assert_eq!((addresses[1].1[15], &addresses[1].1[16..]), (6, &[0; 8][..]));
        assert_eq!(options[4].0, 23);
        assert_eq!(options[5], (24, &b"\x03web\x04test\0"[..]));
        let none =
            Granted { association: 1, address: None, not: Vec::new(), status: Some(Status::NoAddresses) };
        let said = write([0; 3], &Reply6 { is_offer: false, granted: vec![none], client: None, ..reply });
        assert_eq!(said[0], 7);
        assert!(said.windows(6).any(|part| part == [0, 13, 0, 2, 0, 2]));
    }

    #[test]
    fn a_router_says_all_that_a_guest_needs() {
        let said = Advertisement {
            prefix: "fd00:100::/64".parse().unwrap(),
            resolver: "fd00:100::1".parse().unwrap(),
            domain: Some("web.test".into()),
            mtu: 1450,
        };
        let packet = advertisement(&said);
        assert_eq!(packet[..8], [134, 0, 0, 0, 64, 0xc8, 7, 8]);
        assert_eq!(packet[16..20], [3, 4, 64, 0xc0]);
        assert_eq!(packet[48..56], [5, 1, 0, 0, 0, 0, 5, 170]);
        assert_eq!((&packet[56..58], packet.len() % 8), (&[25, 3][..], 0));
        let wide = Advertisement { prefix: "fd00:100::/56".parse().unwrap(), ..said };
        assert_eq!(advertisement(&wide)[16..20], [3, 4, 56, 0x80], "guests make no addresses of their own");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_a_stranger_do_harm(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            kind in 0u8..14,
            codes in proptest::collection::vec((0u16..45, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)), 0..12),
        ) {
            let _ = read(&bytes, MAC);
            let options: Vec<(u16, &[u8])> = codes.iter().map(|(code, value)| (*code, &value[..])).collect();
            let packet = packet(kind, &options);
            for length in [packet.len(), packet.len() / 2] {
                if let Some((request, _)) = read(&packet[..length], MAC) {
                    proptest::prop_assert!(request.wants.len() <= MOST);
                }
            }
        }
    }
}
