use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn mac(number: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, number])
}

fn reserved(number: u8, address: &str, name: Option<&str>) -> Reservation {
    Reservation { mac: mac(number), address: ip(address), name: name.map(|name| name.parse().unwrap()) }
}

fn pool_of(reserved: &[Reservation], domain: Option<&str>) -> Pool {
    let range = (ip("10.0.0.10"), ip("10.0.0.13"));
    Pool::new("10.0.0.1/24".parse().unwrap(), range, reserved.to_vec(), domain.map(str::to_owned))
}

fn pool() -> Pool {
    pool_of(&[reserved(9, "10.0.0.12", None)], Some("a.test"))
}

fn request(number: u8, asks: Asks) -> Request {
    Request { mac: mac(number), asks, name: None, client_id: None }
}

fn lease(number: u8, address: &str, expires_s: u64) -> Lease {
    Lease { mac: mac(number), address: ip(address), name: None, expires_s, client_id: None }
}

/// Asks and takes what is offered; the address.
fn gets(book: &mut Book, number: u8) -> Option<Ipv4Addr> {
    let Answer::Offer(offered) = book.answer(&pool(), &request(number, Asks::Discover(None)), NOW) else {
        return None;
    };
    let take = request(number, Asks::Take(ip("10.0.0.1"), offered));
    let Answer::Give(lease) = book.answer(&pool(), &take, NOW) else { panic!("what is offered is given") };
    assert_eq!((lease.address, lease.expires_s), (offered, NOW + LEASE_S));
    book.note(lease);
    Some(offered)
}

#[test]
fn each_card_has_an_address_of_its_own_until_there_are_none() {
    let mut book = Book::default();
    let given: Vec<_> = (1..=4).map(|number| gets(&mut book, number)).collect();
    let distinct: BTreeSet<_> = given.iter().flatten().collect();
    assert_eq!(distinct.len(), 3, "one of four is reserved: {given:?}");
    assert_eq!(given[3], None);
    assert_eq!(book.answer(&pool(), &request(5, Asks::Discover(None)), NOW), Answer::Full);
    assert_eq!(gets(&mut book, 9), Some(ip("10.0.0.12")));
    assert_eq!(book.answer(&pool(), &request(5, Asks::Discover(None)), NOW + LEASE_S - 1), Answer::Full);
    let over = NOW + LEASE_S + GRACE_S;
    assert_eq!(book.ended(over - 1), None);
    assert_eq!(book.answer(&pool(), &request(5, Asks::Discover(None)), over - 1), Answer::Full);
    let later = book.answer(&pool(), &request(5, Asks::Discover(None)), over);
    assert!(matches!(later, Answer::Offer(_)), "a lease that is over is nobody's");
    assert!(book.ended(over).is_some());
}

#[test]
fn who_asks_again_keeps_its_address_and_is_written_again_when_it_matters() {
    let mut book = Book::new([lease(1, "10.0.0.11", NOW + LEASE_S)]);
    let keep = request(1, Asks::Keep(ip("10.0.0.11")));
    assert_eq!(
        book.answer(&pool(), &keep, NOW),
        Answer::Give(lease(1, "10.0.0.11", NOW + LEASE_S)),
        "as it is"
    );
    let later = NOW + LEASE_S / 2;
    assert_eq!(book.answer(&pool(), &keep, later), Answer::Give(lease(1, "10.0.0.11", later + LEASE_S)));
    for (said, is) in
        [("Web1", Some("web1")), ("web1.a.test.", Some("web1")), ("web1.evil", None), ("a b", None)]
    {
        let renamed = Request { name: Some(said.to_owned()), ..keep.clone() };
        let name = match book.answer(&pool(), &renamed, NOW) {
            Answer::Give(lease) => lease.name.map(|name| name.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(name.as_deref(), is);
    }
    let discover = request(1, Asks::Discover(Some(ip("10.0.0.13"))));
    assert_eq!(book.answer(&pool(), &discover, NOW), Answer::Offer(ip("10.0.0.11")));
}

#[test]
fn what_belongs_to_another_is_refused() {
    let mut book = Book::new([lease(1, "10.0.0.11", NOW + 60), lease(2, "10.0.0.77", 0)]);
    for (number, address) in [
        (3, "10.0.0.11"),
        (3, "10.0.0.12"),
        (3, "10.0.0.1"),
        (3, "10.0.0.255"),
        (3, "10.0.0.99"),
        (3, "10.9.0.10"),
        // Outside the range since that was changed.
        (2, "10.0.0.77"),
        (9, "10.0.0.10"),
    ] {
        let keep = request(number, Asks::Keep(ip(address)));
        assert_eq!(book.answer(&pool(), &keep, NOW), Answer::Refuse, "{number} {address}");
    }
    let keep = request(3, Asks::Keep(ip("10.0.0.13")));
    assert!(matches!(book.answer(&pool(), &keep, NOW), Answer::Give(_)), "it is free");
}

#[test]
fn an_offer_is_held_and_another_servers_is_none_of_ours() {
    let mut book = Book::default();
    let Answer::Offer(first) = book.answer(&pool(), &request(1, Asks::Discover(None)), NOW) else { panic!() };
    let wants = request(2, Asks::Discover(Some(first)));
    assert_ne!(book.answer(&pool(), &wants, NOW), Answer::Offer(first));
    let elsewhere = request(1, Asks::Take(ip("10.0.0.2"), first));
    assert_eq!(book.answer(&pool(), &elsewhere, NOW), Answer::Nothing);
    let wants = request(3, Asks::Discover(Some(first)));
    assert_eq!(book.answer(&pool(), &wants, NOW), Answer::Offer(first));
    assert_eq!(book.answer(&pool(), &request(4, Asks::Inform), NOW), Answer::Inform);
}

#[test]
fn what_is_released_is_free_and_what_is_declined_rests() {
    let mut book = Book::new([lease(1, "10.0.0.11", NOW + LEASE_S)]);
    for asks in [Asks::Release(ip("10.0.0.11")), Asks::Decline(ip("10.0.0.11"))] {
        assert_eq!(book.answer(&pool(), &request(2, asks), NOW), Answer::Nothing, "it is not its own");
    }
    let decline = request(1, Asks::Decline(ip("10.0.0.11")));
    assert_eq!(book.answer(&pool(), &decline, NOW), Answer::Forget(ip("10.0.0.11")));
    book.forget(mac(1));
    let wants = request(2, Asks::Keep(ip("10.0.0.11")));
    assert_eq!(book.answer(&pool(), &wants, NOW), Answer::Refuse);
    assert!(matches!(book.answer(&pool(), &wants, NOW + DECLINED_S), Answer::Give(_)));
}

#[test]
fn what_is_reserved_for_a_card_and_anothers_still_leaves_it_an_address() {
    let mut book = Book::new([lease(1, "10.0.0.12", NOW + 60)]);
    let Some(meanwhile) = gets(&mut book, 9) else { panic!("it has none") };
    assert_ne!(meanwhile, ip("10.0.0.12"));
    let keep = request(1, Asks::Keep(ip("10.0.0.12")));
    assert_eq!(book.answer(&pool(), &keep, NOW), Answer::Refuse, "it is reserved for another");
    let keep = request(9, Asks::Keep(meanwhile));
    assert_eq!(book.answer(&pool(), &keep, NOW + 60 + GRACE_S), Answer::Refuse, "what is reserved is free");
}

#[test]
fn what_a_stranger_gives_back_is_not_his_at_once_and_a_name_is_the_first_ones() {
    let named = Lease { name: Some("db".parse().unwrap()), ..lease(1, "10.0.0.11", NOW + LEASE_S) };
    let mut book = Book::new([named]);
    let thief = Request { name: Some("DB".to_owned()), ..request(2, Asks::Keep(ip("10.0.0.13"))) };
    assert!(matches!(book.answer(&pool(), &thief, NOW), Answer::Give(Lease { name: None, .. })));
    let release = request(1, Asks::Release(ip("10.0.0.11")));
    assert_eq!(book.answer(&pool(), &release, NOW), Answer::Forget(ip("10.0.0.11")));
    book.forget(mac(1));
    let wants = request(2, Asks::Keep(ip("10.0.0.11")));
    assert_eq!(book.answer(&pool(), &wants, NOW + RELEASED_S - 1), Answer::Refuse);
    assert!(matches!(book.answer(&pool(), &wants, NOW + RELEASED_S), Answer::Give(_)));
}

#[test]
fn a_name_is_one_guests() {
    let named = |number, address, name: &str| Lease {
        name: Some(name.parse().unwrap()),
        ..lease(number, address, NOW + 1)
    };
    let db = [reserved(9, "10.0.0.12", Some("db"))];
    let book = Book::new([
        named(1, "10.0.0.10", "Web"),
        named(2, "10.0.0.11", "web"),
        named(3, "10.0.0.13", "db"),
        named(4, "10.0.0.77", "gateway"),
        lease(5, "10.0.0.78", NOW + 1),
    ]);
    let text = "10.0.0.12 db.a.test db\n10.0.0.10 web.a.test web\n";
    assert_eq!(hosts(&pool_of(&db, Some("a.test")), &book, NOW), text);
    assert_eq!(hosts(&pool_of(&db, None), &book, NOW + 1), "10.0.0.12 db\n", "names end with their leases");
    assert_eq!((book.next_name_end(NOW), book.next_name_end(NOW + 1)), (Some(NOW + 1), None));
    let names: Vec<&str> = book.names(NOW).map(|(_, name)| name.as_str()).collect();
    assert_eq!((names, book.names(NOW + 1).count()), (vec!["web", "web", "db", "gateway"], 0));
    let mut again = Book::new(book.leases().cloned());
    assert!(!again.note(lease(5, "10.0.0.78", NOW + 1)), "it is known");
    assert!(again.note(lease(5, "10.0.0.78", NOW + 2)) && again.note(lease(5, "10.0.0.79", NOW + 2)));
    assert_eq!((book.next_end(), Book::default().next_end()), (Some(NOW + 1 + GRACE_S), None));
}

#[test]
fn what_is_reserved_twice_or_nowhere_is_the_first_ones_or_nobodys() {
    let twice = [
        reserved(1, "10.0.0.11", None),
        reserved(2, "10.0.0.11", None),
        reserved(3, "10.0.0.1", None),
        reserved(4, "10.1.0.9", None),
    ];
    let pool = pool_of(&twice, None);
    let mut book = Book::default();
    let mut offered = |number| book.answer(&pool, &request(number, Asks::Discover(None)), NOW);
    assert_eq!(offered(1), Answer::Offer(ip("10.0.0.11")));
    for number in 2..=4 {
        assert!(
            matches!(offered(number), Answer::Offer(address) if pool.contains(address) && address != ip("10.0.0.11"))
        );
    }
}

#[test]
fn a_guest_that_pretends_to_be_thousands_fills_no_more_than_a_networks_share() {
    let range = (ip("10.0.0.2"), ip("10.0.255.254"));
    let pool = Pool::new("10.0.0.1/16".parse().unwrap(), range, [], None);
    let pretended = (0..u32::try_from(MOST_LEASES).unwrap()).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        let address = Ipv4Addr::from(u32::from(ip("10.0.1.0")) + number);
        Lease { mac: Mac([2, 0, 0, a, b, c]), address, name: None, expires_s: NOW + 9, client_id: None }
    });
    let mut book = Book::new(pretended);
    assert_eq!(book.answer(&pool, &request(1, Asks::Discover(None)), NOW), Answer::Full);
    let (known, has) = (Mac([2, 0, 0, 0, 0, 7]), ip("10.0.1.7"));
    let again = Request { mac: known, ..request(1, Asks::Discover(None)) };
    assert_eq!(book.answer(&pool, &again, NOW), Answer::Offer(has));
}

fn asks() -> impl Strategy<Value = Asks> {
    let address = || (0u8..20).prop_map(|last| Ipv4Addr::new(10, 0, 0, last));
    let server = (1u8..3).prop_map(|last| Ipv4Addr::new(10, 0, 0, last));
    prop_oneof![
        proptest::option::of(address()).prop_map(Asks::Discover),
        (server, address()).prop_map(|(server, address)| Asks::Take(server, address)),
        address().prop_map(Asks::Keep),
        address().prop_map(Asks::Decline),
        address().prop_map(Asks::Release),
    ]
}

proptest! {
    /// Primaries come and go, each with what was written, which is all that guests were told of.
    #[test]
    fn no_address_has_two_cards(
        steps in proptest::collection::vec((0u8..8, asks(), any::<bool>(), 0u64..40_000), 1..80),
    ) {
        let (mut book, mut now) = (Book::default(), NOW);
        let mut written = BTreeMap::<Mac, Lease>::new();
        let mut told = BTreeMap::<Ipv4Addr, (Mac, u64)>::new();
        for (number, asks, another_primary, later) in steps {
            now += later;
            if another_primary {
                book = Book::new(written.values().cloned());
            }
            match book.answer(&pool(), &request(number, asks), now) {
                Answer::Give(lease) => {
                    let before = told.insert(lease.address, (lease.mac, lease.expires_s));
                    prop_assert!(before.is_none_or(|(mac, until)| mac == lease.mac || until <= now));
                    prop_assert!(pool().is_a_guests(lease.address));
                    written.retain(|_, other| other.address != lease.address);
                    written.insert(lease.mac, lease.clone());
                    book.note(lease);
                }
                Answer::Forget(address) => {
                    written.remove(&mac(number));
                    told.remove(&address);
                    book.forget(mac(number));
                }
                _ => {}
            }
        }
    }
}
