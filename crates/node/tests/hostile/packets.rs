//! DHCP packets as no client makes them.

use pvc_core::{
    model::{
        Mac,
        dhcp::{Asks, Request},
    },
    plan::dhcp::{Answer, Book, LEASE_S, hosts},
};
use pvc_host::dhcp::{DhcpPort as _, fake::FakePort};

use super::{assert_hosts, is_label, pool, words::Words};

/// Longer than a lease lasts and an address rests.
const LATER_S: u64 = LEASE_S + 2 * 3600;

/// Options that are understood, and some that are not.
const CODES: [u8; 12] = [0, 12, 50, 53, 54, 61, 81, 82, 255, 1, 3, 119];

/// Header, cookie, and options of whatever kinds and lengths.
fn packet(words: &mut Words) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0];
    packet.resize(236, 0);
    let mac = [0x52, 0x54, 0, 0, words.byte() % 2, words.byte()];
    packet[28..34].copy_from_slice(&mac);
    if words.chance(3) {
        packet[12..16].copy_from_slice(&[10, 100, 0, words.byte()]);
    }
    packet.extend([99, 130, 83, 99, 53, 1, if words.chance(2) { 3 } else { 1 + words.byte() % 9 }]);
    if words.chance(2) {
        packet.extend([50, 4, 10, 100, 0, words.byte()]);
    }
    for _ in 0..words.below(8) {
        let code = CODES[words.below(CODES.len())];
        let value = match code {
            50 | 54 => vec![10, 100, 0, if code == 54 { 1 } else { words.byte() }],
            81 => [vec![words.byte() & 4, 0, 0], words.text().into_bytes()].concat(),
            _ => words.text().into_bytes(),
        };
        let value = &value[..value.len().min(255)];
        let length = u8::try_from(value.len()).unwrap();
        packet.extend([code, if words.chance(10) { words.byte() } else { length }]);
        packet.extend(value);
    }
    packet.push(255);
    for _ in 0..words.below(3) * words.below(4) {
        let at = words.below(packet.len());
        packet[at] = words.byte();
    }
    if words.chance(10) {
        packet.truncate(words.below(packet.len() + 1));
    }
    packet
}

pub(super) async fn are_harmless(count: usize) {
    let (mut words, port, pool) = (Words::new(5), FakePort::default(), pool());
    let exchange = port.open().unwrap();
    let last =
        Request { mac: Mac([0x52, 0x54, 9, 9, 9, 9]), asks: Asks::Inform, name: None, client_id: None };
    let (mut book, mut heard, mut given) = (Book::default(), 0, 0);
    for n in 0..u64::try_from(count / 100).unwrap() {
        let now_s = 1_700_000_000 + n * LATER_S;
        (0..100).for_each(|_| port.send("vmbr100", packet(&mut words)));
        port.ask("vmbr100", &last);
        loop {
            let received = exchange.receive().await.unwrap();
            if received.request == last {
                break;
            }
            heard += 1;
            if let Answer::Give(lease) = book.answer(&pool, &received.request, now_s) {
                assert!(pool.is_for_anyone(lease.address), "{lease:?}");
                assert!(lease.name.as_ref().is_none_or(|name| is_label(&name.to_string())), "{lease:?}");
                let client = lease.client_id.as_ref().map(ToString::to_string).unwrap_or_default();
                assert!(client.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'), "{lease:?}");
                book.note(lease);
                given += 1;
            }
        }
        assert_hosts(&hosts(&pool, &book, now_s), "net100.example");
    }
    assert!(
        heard > count / 10 && given > count / 100,
        "{heard} of {count} were requests, {given} got an address"
    );
}
