//! Messages as they are on the wire: a header of fixed places, and options of a code, a length and a value.

use std::net::Ipv4Addr;

use pvc_core::model::{
    Mac,
    dhcp::{Asks, Reply, Request, Settings},
};

const HEADER: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some clients drop what is shorter (RFC 1542, 2.1).
const SHORTEST: usize = 300;
const END: u8 = 255;

/// Codes of options (RFC 2132).
mod code {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const NAME_SERVER: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const TIME_SERVER: u8 = 42;
    pub(super) const WANTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const RENEW: u8 = 58;
    pub(super) const REBIND: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const FULL_NAME: u8 = 81;
}

/// Kinds of messages (RFC 2132, 9.6).
mod kind {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const DECLINE: u8 = 4;
    pub(super) const ACKNOWLEDGE: u8 = 5;
    pub(super) const REFUSE: u8 = 6;
    pub(super) const RELEASE: u8 = 7;
    pub(super) const INFORM: u8 = 8;
}

/// What an answer needs of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The number of the device on which it came.
    pub(super) device: u32,
    number: [u8; 4],
    flags: [u8; 2],
    /// The address that the client has and can be reached at.
    pub(super) has: Ipv4Addr,
    pub(super) mac: Mac,
    client: Vec<u8>,
}

/// Reads a message that came on that device. `None`: it is none that this server answers. What comes through a relay is not: a network is a bridge.
pub(super) fn read(packet: &[u8], device: u32) -> Option<(Request, Envelope)> {
    let four = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
    let is_request = four(0)?.starts_with(&[1, 1, 6]) && four(HEADER)? == COOKIE && four(24)? == [0; 4];
    let mac = Mac(packet.get(28..34)?.try_into().ok()?);
    if !is_request || !mac.is_a_cards() {
        return None;
    }
    let has = Ipv4Addr::from(four(12)?);
    let mut options = Options(packet.get(HEADER + COOKIE.len()..)?);
    let (mut is, mut wanted, mut server, mut name, mut client) = (None, None, None, None, &[][..]);
    for (code, value) in &mut options {
        let address = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
        match code {
            code::KIND => is = value.first().copied(),
            code::WANTED => wanted = address(),
            code::SERVER => server = address(),
            code::HOST_NAME => name = name.or_else(|| text(value)),
            code::FULL_NAME => name = full_name(value),
            code::CLIENT => client = value,
            _ => {}
        }
    }
    let asks = match is? {
        kind::DISCOVER => Asks::Discover(wanted),
        kind::REQUEST => match server {
            // Some clients name their server when they ask to keep what they have.
            Some(_) if wanted.is_none() && !has.is_unspecified() => Asks::Keep(has),
            Some(server) => Asks::Take(server, wanted?),
            None if has.is_unspecified() => Asks::Keep(wanted?),
            None => Asks::Keep(has),
        },
        kind::DECLINE => Asks::Decline(wanted?),
        kind::RELEASE => Asks::Release(has),
        kind::INFORM => Asks::Inform,
        _ => return None,
    };
    let hexadecimal: Vec<String> = client.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = Request { mac, asks, name, client_id: hexadecimal.join(":").parse().ok() };
    let envelope = Envelope {
        device,
        number: four(4)?,
        flags: packet.get(10..12)?.try_into().ok()?,
        has,
        mac,
        client: client.to_vec(),
    };
    Some((request, envelope))
}

fn text(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// RFC 4702: flags, two bytes without a meaning, the name: as text, or label by label if a flag says so.
fn full_name(value: &[u8]) -> Option<String> {
    let [flags, _, _, name @ ..] = value else { return None };
    if flags & 4 == 0 {
        return text(name);
    }
    let (mut rest, mut labels) = (name, Vec::new());
    while let [length @ 1..=63, after @ ..] = rest {
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(text(label)?);
        rest = after;
    }
    Some(labels.join("."))
}

/// Options up to the end, or to the first that is cut off.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let [code::PAD, rest @ ..] = self.0 {
            self.0 = rest;
        }
        let [code, length, rest @ ..] = self.0 else { return None };
        if *code == END {
            return None;
        }
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some((*code, value))
    }
}

/// The packet of an answer.
pub(super) fn write(to: &Envelope, reply: &Reply) -> Vec<u8> {
    let (is, address, settings) = match reply {
        Reply::Offer(address, settings) => (kind::OFFER, Some(*address), Some(settings)),
        Reply::Acknowledge(address, settings) => (kind::ACKNOWLEDGE, Some(*address), Some(settings)),
        Reply::Inform(settings) => (kind::ACKNOWLEDGE, None, Some(settings)),
        Reply::Refuse(_) => (kind::REFUSE, None, None),
    };
    let server = server_of(reply);
    let has = if is == kind::REFUSE { Ipv4Addr::UNSPECIFIED } else { to.has };
    let mut packet = [&[2, 1, 6, 0][..], &to.number, &[0, 0], &to.flags, &has.octets()].concat();
    packet.extend(address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    packet.extend([0; 8]);
    packet.extend(to.mac.0);
    packet.resize(HEADER, 0);
    packet.extend(COOKIE);
    let mut option = |code: u8, value: &[u8]| {
        if let Ok(length @ 1..) = u8::try_from(value.len()) {
            packet.extend([code, length]);
            packet.extend(value);
        }
    };
    option(code::KIND, &[is]);
    option(code::SERVER, &server.octets());
    // It is told back (RFC 6842).
    option(code::CLIENT, &to.client);
    if let Some(Settings { gateway, domain, mtu, keeps_time, lease_s }) = settings {
        if address.is_some() {
            option(code::LEASE, &lease_s.to_be_bytes());
            option(code::RENEW, &(lease_s / 2).to_be_bytes());
            option(code::REBIND, &(lease_s / 8 * 7).to_be_bytes());
        }
        option(code::MASK, &gateway.netmask().octets());
        option(code::BROADCAST, &gateway.broadcast().octets());
        option(code::ROUTER, &server.octets());
        option(code::NAME_SERVER, &server.octets());
        if *keeps_time {
            option(code::TIME_SERVER, &server.octets());
        }
        option(code::MTU, &mtu.to_be_bytes());
        option(code::DOMAIN, domain.as_deref().unwrap_or_default().as_bytes());
    }
    packet.push(END);
    packet.resize(packet.len().max(SHORTEST), 0);
    packet
}

/// The address from which an answer comes.
pub(super) fn server_of(reply: &Reply) -> Ipv4Addr {
    match reply {
        Reply::Offer(_, settings) | Reply::Acknowledge(_, settings) | Reply::Inform(settings) => {
            settings.gateway.addr()
        }
        Reply::Refuse(server) => *server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    /// A request of a client at 52:54:00:00:00:07 that has that address.
    fn packet(has: &str, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = [&[1, 1, 6, 0, 9, 8, 7, 6, 0, 0, 0x80, 0][..], &ip(has).octets(), &[0; 12]].concat();
        packet.extend([0x52, 0x54, 0, 0, 0, 7]);
        packet.resize(HEADER, 0);
        packet.extend(COOKIE);
        for (code, value) in options {
            packet.extend([*code, u8::try_from(value.len()).unwrap()]);
            packet.extend(*value);
        }
        packet.push(END);
        packet
    }

    fn asks(has: &str, options: &[(u8, &[u8])]) -> Option<Asks> {
        read(&packet(has, options), 3).map(|(request, _)| request.asks)
    }

    #[test]
    fn what_guests_ask_is_told_apart() {
        let (wanted, server) = ((50, &[10, 0, 0, 5][..]), (54, &[10, 0, 0, 1][..]));
        let kind = |is: &'static u8| (53, std::slice::from_ref(is));
        let zero = "0.0.0.0";
        assert_eq!(asks(zero, &[kind(&1)]), Some(Asks::Discover(None)));
        assert_eq!(asks(zero, &[kind(&1), wanted]), Some(Asks::Discover(Some(ip("10.0.0.5")))));
        assert_eq!(asks(zero, &[wanted, server, kind(&3)]), Some(Asks::Take(ip("10.0.0.1"), ip("10.0.0.5"))));
        assert_eq!(asks(zero, &[kind(&3), wanted]), Some(Asks::Keep(ip("10.0.0.5"))));
        assert_eq!(asks("10.0.0.9", &[kind(&3)]), Some(Asks::Keep(ip("10.0.0.9"))));
        assert_eq!(asks("10.0.0.9", &[kind(&3), server]), Some(Asks::Keep(ip("10.0.0.9"))));
        assert_eq!(asks(zero, &[kind(&4), wanted]), Some(Asks::Decline(ip("10.0.0.5"))));
        assert_eq!(asks("10.0.0.9", &[kind(&7)]), Some(Asks::Release(ip("10.0.0.9"))));
        assert_eq!(asks("10.0.0.9", &[kind(&8)]), Some(Asks::Inform));
        for not in
            [&[kind(&3)][..], &[kind(&3), server], &[kind(&4)], &[kind(&2)], &[kind(&9)], &[wanted], &[]]
        {
            assert_eq!(asks(zero, not), None, "{not:?}");
        }
    }

    #[test]
    fn a_guest_says_its_name_in_one_of_three_ways() {
        let named = |options: &[(u8, &[u8])]| {
            let (request, _) =
                read(&packet("0.0.0.0", &[&[(53, &[1][..]), (61, &[1, 0xab])], options].concat()), 3)
                    .unwrap();
            assert_eq!(request.client_id.unwrap().to_string(), "01:ab");
            request.name
        };
        let full = (81, &b"\x01\0\0web2.a"[..]);
        assert_eq!(named(&[(12, b"web1")]).as_deref(), Some("web1"));
        assert_eq!(named(&[(12, b"web1"), full]).as_deref(), Some("web2.a"));
        assert_eq!(named(&[full, (12, b"web1")]).as_deref(), Some("web2.a"));
        assert_eq!(named(&[(81, b"\x05\0\0\x04web3\x01a\0")]).as_deref(), Some("web3.a"));
        for bad in [(12, &b"\xff\xfe"[..]), (81, b"\x05\0\0\x09web3"), (81, b"\0\0")] {
            assert_eq!(named(&[bad]), None);
        }
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        let good = packet("0.0.0.0", &[(53, &[1])]);
        assert!(read(&good, 3).is_some());
        for (at, byte) in [(0, 2), (1, 6), (2, 7), (24, 10), (28, 0x53), (HEADER, 1), (241, 200)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(read(&bad, 3), None, "{at}");
        }
        for length in 0..good.len() - 1 {
            assert_eq!(read(&good[..length], 3), None);
        }
    }

    #[test]
    fn an_answer_says_all_that_a_guest_needs() {
        let (_, envelope) =
            read(&packet("0.0.0.0", &[(53, &[3]), (50, &[10, 0, 0, 5]), (61, &[7, 7])]), 3).unwrap();
        let settings = Settings {
            gateway: "10.0.0.1/24".parse().unwrap(),
            domain: Some("web.test".into()),
            mtu: 1450,
            keeps_time: true,
            lease_s: 80,
        };
        let said = write(&envelope, &Reply::Acknowledge(ip("10.0.0.5"), settings.clone()));
        assert_eq!(
            (&said[..8], &said[10..20]),
            (&[2, 1, 6, 0, 9, 8, 7, 6][..], &[0x80, 0, 0, 0, 0, 0, 10, 0, 0, 5][..])
        );
        assert_eq!(said[28..34], [0x52, 0x54, 0, 0, 0, 7]);
        let options: Vec<_> = Options(&said[HEADER + 4..]).collect();
        let expected: [(u8, &[u8]); 13] = [
            (53, &[5]),
            (54, &[10, 0, 0, 1]),
            (61, &[7, 7]),
            (51, &[0, 0, 0, 80]),
            (58, &[0, 0, 0, 40]),
            (59, &[0, 0, 0, 70]),
            (1, &[255, 255, 255, 0]),
            (28, &[10, 0, 0, 255]),
            (3, &[10, 0, 0, 1]),
            (6, &[10, 0, 0, 1]),
            (42, &[10, 0, 0, 1]),
            (26, &[5, 170]),
            (15, b"web.test"),
        ];
        assert_eq!(options, expected);
        let said =
            write(&envelope, &Reply::Acknowledge(ip("10.0.0.5"), Settings { keeps_time: false, ..settings }));
        let options: Vec<_> = Options(&said[HEADER + 4..]).collect();
        assert_eq!(options, expected.iter().filter(|(code, _)| *code != 42).copied().collect::<Vec<_>>());
        let refused = write(&envelope, &Reply::Refuse(ip("10.0.0.1")));
        let options: Vec<_> = Options(&refused[HEADER + 4..]).collect();
        assert_eq!(options, [(53, &[6][..]), (54, &[10, 0, 0, 1]), (61, &[7, 7])]);
        assert_eq!((refused.len(), &refused[16..20]), (SHORTEST, &[0; 4][..]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_a_stranger_do_harm(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            options in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        ) {
            let _ = read(&bytes, 1);
            let mut packet = packet("0.0.0.0", &[]);
            packet.truncate(HEADER + 4);
            packet.extend(options);
            if let Some((request, envelope)) = read(&packet, 1) {
                let said = write(&envelope, &Reply::Refuse(ip("10.0.0.1")));
                proptest::prop_assert!(said.len() < 600 && request.mac.is_a_cards());
            }
        }
    }
}
