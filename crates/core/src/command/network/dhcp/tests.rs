use super::*;
use crate::model::network::{Dhcp4, Ip4};

const NOW: u64 = 1_800_000_000;

fn network() -> Network {
    let dhcp = Dhcp4 {
        enabled: true,
        start: Some("10.0.0.10".parse().unwrap()),
        end: Some("10.0.0.19".parse().unwrap()),
    };
    Network {
        kind: Some(NetworkKind::Managed),
        domain: Some("web.local".parse().unwrap()),
        ip4: Ip4 {
            network: Some("10.0.0.0/24".parse().unwrap()),
            gateway: Some("10.0.0.1".parse().unwrap()),
            dhcp,
        },
        ..Network::bare("100".parse().unwrap())
    }
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn lease(last: u8, address: &str, expires_s: u64) -> Lease {
    Lease { mac: mac(last), address: address.parse().unwrap(), name: None, expires_s, client_id: None }
}

fn reservation(last: u8, address: &str, name: &str) -> Reservation {
    Reservation { mac: mac(last), address: address.parse().unwrap(), name: name.parse().ok() }
}

fn new<'a>(mac: &'a str, address: &'a str, name: &'a str) -> NewReservation<'a> {
    NewReservation { mac, address, name: Some(name).filter(|name| !name.is_empty()) }
}

#[test]
fn refusals_say_what_would_do() {
    let there = [reservation(1, "10.0.0.5", "db")];
    let card = "52:54:00:00:00:02";
    let long = "a".repeat(64);
    for (given, todo) in [
        (new("52:54:00", "10.0.0.6", ""), "`pvc network info`"),
        (new("01:00:5e:00:00:01", "10.0.0.6", ""), "no network card's"),
        (new("ff:ff:ff:ff:ff:ff", "10.0.0.6", ""), "no network card's"),
        (new("00:00:00:00:00:00", "10.0.0.6", ""), "no network card's"),
        (new(card, "999.1.1.1", ""), "choose one in 10.0.0.0/24"),
        (new(card, "fd00::1", ""), "choose one in 10.0.0.0/24"),
        (new(card, "10.0.1.6", ""), "from 10.0.0.1 to 10.0.0.254"),
        (new(card, "10.0.0.0", ""), "from 10.0.0.1 to 10.0.0.254"),
        (new(card, "10.0.0.255", ""), "from 10.0.0.1 to 10.0.0.254"),
        (new(card, "10.0.0.1", ""), "the network's gateway"),
        (new(card, "10.0.0.5", ""), "static remove 100 52:54:00:00:00:01"),
        (new(card, "10.0.0.6", "DB"), "choose another name"),
        (new(card, "10.0.0.6", "gateway"), "the cluster's own"),
        (new(card, "10.0.0.6", "NS"), "the cluster's own"),
        (new(card, "10.0.0.6", "a b"), "such as web1"),
        (new(card, "10.0.0.6", "-a"), "such as web1"),
        (new(card, "10.0.0.6", "a-"), "such as web1"),
        (new(card, "10.0.0.6", "a.example.com"), "such as web1"),
        (new(card, "10.0.0.6", "a\u{1b}[2J"), "such as web1"),
        (new(card, "10.0.0.6", &long), "such as web1"),
    ] {
        let refusal = add(&network(), given, &there, &[], NOW).expect_err(todo).to_string();
        assert!(refusal.contains(todo), "{given:?}: {refusal}");
        assert!(!refusal.contains('\u{1b}'), "{refusal:?}");
    }
    let fine = new(card, "10.0.0.6", "");
    for (kind, net, todo) in [
        (Some(NetworkKind::Bridged), None, "reserve it there"),
        (Some(NetworkKind::Managed), None, "--ipnet"),
        (None, network().ip4.network, "/networks/100/nettype"),
    ] {
        let network = Network { kind, ip4: Ip4 { network: net, ..network().ip4 }, ..network() };
        let refusal = add(&network, fine, &[], &[], NOW).unwrap_err().to_string();
        assert!(refusal.contains(todo), "{refusal}");
    }
    let full: Vec<Reservation> = (0..u32::try_from(MOST_RESERVATIONS).unwrap())
        .map(|i| {
            let [_, a, b, c] = i.to_be_bytes();
            let mac = Mac([2, 0, 0, a, b, c]);
            Reservation { mac, address: Ipv4Addr::from(0x0b00_0000 + i), name: None }
        })
        .collect();
    assert!(add(&network(), fine, &full, &[], NOW).is_err());
}

#[test]
fn a_card_may_change_what_it_has_and_the_same_again_is_nothing() {
    let there = [reservation(1, "10.0.0.5", "db")];
    let again = add(&network(), new("52:54:00:00:00:01", "10.0.0.5", "DB.web.local"), &there, &[], NOW);
    assert_eq!(again.unwrap().change, None);
    let other = add(&network(), new("52:54:00:00:00:01", "10.0.0.6", "db"), &there, &[], NOW).unwrap();
    assert_eq!((other.change, other.notes), (Some(reservation(1, "10.0.0.6", "db")), vec![]));
}

#[test]
fn what_keeps_a_reservation_from_its_card_is_said() {
    let given = new("52:54:00:00:00:01", "10.0.0.12", "");
    let notes =
        |network: &Network, leases: &[Lease]| add(network, given, &[], leases, NOW).unwrap().notes.join("\n");
    let text = notes(&network(), &[lease(2, "10.0.0.12", NOW + 300)]);
    assert!(text.contains("52:54:00:00:00:02 has a lease of 10.0.0.12 (ends: in 5 min)"), "{text}");
    assert_eq!(notes(&network(), &[lease(2, "10.0.0.12", NOW)]), "", "it has ended");
    assert!(notes(&network(), &[lease(2, "10.0.0.12", 0)]).contains("never"));
    assert!(notes(&network(), &[lease(1, "10.0.0.13", NOW + 9)]).contains("when it asks again"));
    let mut off = network();
    off.ip4.dhcp.enabled = false;
    assert!(notes(&off, &[]).contains("--dhcp"));
}

#[test]
fn a_reservation_is_found_by_card_address_or_name() {
    let there =
        [reservation(1, "10.0.0.5", "db"), reservation(2, "10.0.0.6", "x"), reservation(3, "10.0.0.6", "X")];
    let cards = [mac(1), mac(2), mac(3), mac(4)];
    let find = |reference| find(&network(), reference, &there, &cards);
    for reference in ["52:54:00:00:00:01", "10.0.0.5", "db", "DB"] {
        assert_eq!(find(reference), Ok(mac(1)), "{reference}");
    }
    assert_eq!(find("52:54:00:00:00:04"), Ok(mac(4)), "it cannot be read, and can be removed");
    for reference in ["10.0.0.6", "x"] {
        assert!(find(reference).unwrap_err().to_string().contains("52:54:00:00:00:03"), "{reference}");
    }
    for reference in ["52:54:00:00:00:05", "10.0.0.7", "", "web"] {
        assert!(find(reference).unwrap_err().to_string().contains("static list 100"), "{reference}");
    }
}

#[test]
fn leases_and_reservations_are_one_list_and_what_is_full_is_counted() {
    let reserved = [
        reservation(1, "10.0.0.5", "db"),
        reservation(2, "10.0.0.11", "a"),
        reservation(3, "10.0.0.12", "b"),
    ];
    let leases = [
        lease(2, "10.0.0.11", NOW + 9),
        lease(3, "10.0.0.13", NOW + 9),
        lease(4, "10.0.0.14", NOW),
        lease(5, "10.0.0.200", NOW + 9),
    ];
    let all = holdings(&reserved, &leases);
    let rows: Vec<_> = all.iter().map(|h| (h.address.octets()[3], h.is_reserved, h.expires_s)).collect();
    let soon = Some(NOW + 9);
    assert_eq!(
        rows,
        [
            (5, true, None),
            (11, true, soon),
            (12, true, None),
            (13, false, soon),
            (14, false, Some(NOW)),
            (200, false, soon)
        ]
    );
    // Of ten two are reserved; one lease is another's reservation, one has ended, one is outside.
    assert_eq!(fill(&network(), &reserved, &leases, NOW), Some((1, 8)));
    let mut off = network();
    off.ip4.dhcp.enabled = false;
    assert_eq!(fill(&off, &reserved, &leases, NOW), None);
    let mut whole = network();
    whole.ip4.dhcp.start = Some("10.0.0.0".parse().unwrap());
    whole.ip4.dhcp.end = Some("10.0.0.255".parse().unwrap());
    assert_eq!(fill(&whole, &reserved, &leases, NOW), Some((2, 250)));
}

#[test]
fn ends_are_told_from_now() {
    for (ends, words) in [
        (0, "never"),
        (NOW, "over"),
        (NOW + 119, "in 119 s"),
        (NOW + 120, "in 2 min"),
        (NOW + 172_800, "in 48 h"),
    ] {
        assert_eq!(in_words(ends, NOW), words);
    }
}
