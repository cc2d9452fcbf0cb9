//! DHCPv6 packets as no client makes them.

use std::collections::BTreeMap;

use pvc_core::{
    model::{HostName, Mac},
    plan::{
        dhcp6::{Book6, LEASE6_S, Pool6, hosts},
        guest_names::Names,
    },
};
use pvc_host::dhcp::{Asked6, DhcpPort as _, fake::FakePort};

use super::{is_label, words::Words};

/// Options that are understood, and some that are not.
const CODES: [u16; 10] = [1, 2, 3, 5, 6, 13, 14, 25, 39, 65535];

fn option(packet: &mut Vec<u8>, words: &mut Words, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap();
    packet.extend(code.to_be_bytes());
    packet.extend(if words.chance(12) { [words.byte() % 2, words.byte()] } else { length.to_be_bytes() });
    packet.extend(value);
}

/// A want of a few numbers, with addresses in the network and beside it.
fn want(words: &mut Words) -> Vec<u8> {
    let mut value = vec![0, 0, 0, words.byte() % 3];
    value.extend([0; 8]);
    for _ in 0..words.below(3) {
        let mut address = vec![0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, words.byte()];
        address.extend([0; 8]);
        option(&mut value, words, 5, &address);
    }
    value
}

fn packet(words: &mut Words) -> Vec<u8> {
    const ASK: [u8; 8] = [1, 3, 3, 3, 5, 6, 8, 9];
    let kind = if words.chance(4) { words.byte() % 14 } else { ASK[words.below(ASK.len())] };
    let mut packet = vec![kind, 1, 2, 3];
    let id = [0, 3, 0, words.byte() % 4];
    option(&mut packet, words, 1, &id);
    if matches!(kind, 3 | 5 | 8 | 9) || words.chance(8) {
        let gateway = [0, 4, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        option(&mut packet, words, 2, &gateway);
    }
    let value = want(words);
    option(&mut packet, words, 3, &value);
    for _ in 0..words.below(6) {
        let code = CODES[words.below(CODES.len())];
        let text = words.text();
        let value = match code {
            3 => want(words),
            39 => {
                let label = &text.as_bytes()[..text.len().min(63)];
                [&[0, u8::try_from(label.len()).unwrap()][..], label, &[0]].concat()
            }
            _ => text.into_bytes(),
        };
        option(&mut packet, words, code, &value[..value.len().min(300)]);
    }
    for _ in 0..words.below(3) * words.below(3) {
        let at = words.below(packet.len());
        packet[at] = words.byte();
    }
    if words.chance(10) {
        packet.truncate(words.below(packet.len() + 1));
    }
    packet
}

pub(super) async fn are_harmless(count: usize) {
    let pool = Pool6::new("fd00:100::1/64".parse().unwrap(), Some("net100.example".into())).unwrap();
    let (mut words, port, mut book) = (Words::new(6), FakePort::default(), Book6::default());
    let exchange = port.open6().unwrap();
    let (mut heard, mut given) = (0, 0);
    let is_db = |name: &HostName| name.as_str() == "db";
    for n in 0..u64::try_from(count).unwrap() {
        let now_s = 1_700_000_000 + n / 100 * (LEASE6_S + 7200);
        let mac = Mac([0x52, 0x54, 0, 0, words.byte() % 2, words.byte() % 32]);
        if !port.send6("vmbr100", mac, &packet(&mut words)) {
            continue;
        }
        let (Asked6::Dhcp(request, number), asker) = exchange.receive().await.unwrap() else { panic!() };
        heard += 1;
        let Some(answer) = book.answer(&pool, &request, is_db, now_s) else { continue };
        // It fits into a packet, whatever was asked.
        exchange.answer(&asker, number, &answer.reply);
        for lease in answer.give {
            let client = &lease.client;
            assert!(client.mac == mac && pool.gateway.contains(&lease.address), "{lease:?}");
            assert_eq!(client.to_string().parse().as_ref(), Ok(client));
            assert!(lease.name.as_ref().is_none_or(|name| is_label(name.as_str())), "{lease:?}");
            let of_others = book.leases().filter(|other| other.client != lease.client);
            let lasting: BTreeMap<_, _> =
                of_others.filter(|other| other.expires_s > now_s).map(|l| (l.address, &l.client)).collect();
            assert!(!lasting.contains_key(&lease.address), "{lease:?}");
            book.note(lease);
            given += 1;
        }
        for lease in answer.forget {
            assert_eq!(lease.client.mac, mac, "nobody gives back another's");
            book.forget(&lease.client);
        }
        if n % 100 == 0 {
            while let Some(over) = book.ended(now_s).cloned() {
                book.forget(&over.client);
            }
            for line in hosts(&pool, &book, &Names::new(book.names(now_s)), now_s).lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let [address, full, name] = words[..] else { panic!("{line:?}") };
                assert!(address.starts_with("fd00:100:") && is_label(name), "{line:?}");
                assert_eq!(full, format!("{name}.net100.example"));
            }
        }
    }
    assert!(heard > count / 10 && given > count / 100, "{heard} of {count} were requests, {given} addresses");
}
