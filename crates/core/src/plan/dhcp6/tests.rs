use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn pool(gateway: &str) -> Pool6 {
    Pool6::new(gateway.parse().unwrap(), Some("web.test".into())).unwrap()
}

fn request(number: u8, asks: Asks6, wants: &[(u32, &[&str])]) -> Request6 {
    let server = Duid::of_gateway("fd00:100::1".parse().unwrap());
    let is_named = matches!(asks, Asks6::Take | Asks6::Keep | Asks6::Decline | Asks6::Release);
    Request6 {
        mac: Mac([0x52, 0x54, 0, 0, 0, number]),
        client: Duid::new(&[0, 3, 0, 1, number]),
        server: is_named.then_some(server),
        asks,
        wants: wants.iter().map(|(n, a)| (*n, a.iter().map(|a| a.parse().unwrap()).collect())).collect(),
        name: Some(format!("web{number}")),
    }
}

/// Answers and does what is to be done.
fn ask(book: &mut Book6, pool: &Pool6, request: &Request6, now_s: u64) -> Option<Reply6> {
    let answer = book.answer(pool, request, |name| name.as_str() == "db", now_s)?;
    for lease in answer.give {
        book.note(lease);
    }
    for lease in answer.forget {
        book.forget(&lease.client);
    }
    Some(answer.reply)
}

fn given(reply: &Reply6) -> Vec<Ipv6Addr> {
    reply.granted.iter().filter_map(|granted| Some(granted.address?.0)).collect()
}

fn takes(book: &mut Book6, pool: &Pool6, number: u8, now_s: u64) -> Ipv6Addr {
    let reply = ask(book, pool, &request(number, Asks6::Take, &[(7, &[])]), now_s).unwrap();
    given(&reply)[0]
}

#[test]
fn a_guest_gets_what_it_was_offered_whoever_is_primary_and_its_lease_is_written() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let offer = book.answer(&pool, &request(1, Asks6::Discover, &[(7, &[])]), |_| false, NOW).unwrap();
    assert!(offer.reply.is_offer && offer.give.is_empty());
    let (address, left) = offer.reply.granted[0].address.unwrap();
    assert_eq!(u64::from(left), LEASE6_S);
    assert!(address.segments()[..5] == [0xfd00, 0x100, 0, 0, 0], "{address}");
    let answer = book.answer(&pool, &request(1, Asks6::Take, &[(7, &[])]), |_| false, NOW).unwrap();
    let [lease] = &answer.give[..] else { panic!("{answer:?}") };
    assert_eq!((lease.address, lease.name.as_ref().unwrap().as_str()), (address, "web1"));
    assert_eq!(lease.expires_s, NOW + LEASE6_S);
    assert_eq!(answer.reply.resolver.to_string(), "fd00:100::1");
    // The next primary knows nothing of the offer, and says the same.
    assert_eq!(takes(&mut Book6::default(), &pool, 1, NOW), address);
    book.note(lease.clone());
    let again = book.answer(&pool, &request(1, Asks6::Keep, &[(7, &[])]), |_| false, NOW + 60).unwrap();
    assert_eq!(again.give, std::slice::from_ref(lease), "what lasts is not written anew");
    let later = book.answer(&pool, &request(1, Asks6::Keep, &[(7, &[])]), |_| false, NOW + 40_000).unwrap();
    assert_eq!(later.give[0].expires_s, NOW + 40_000 + LEASE6_S);
}

#[test]
fn no_two_guests_have_one_address_and_all_of_a_small_network_are_given() {
    let (pool, mut book) = (pool("fd00:100::1/125"), Book6::default());
    let all: BTreeSet<Ipv6Addr> = (1..=6).map(|number| takes(&mut book, &pool, number, NOW)).collect();
    assert_eq!(all.len(), 6, "eight less the network's and the gateway's");
    assert!(!all.contains(&pool.gateway.addr()));
    let full = ask(&mut book, &pool, &request(7, Asks6::Take, &[(7, &[])]), NOW).unwrap();
    assert_eq!((given(&full), full.granted[0].status), (vec![], Some(Status::NoAddresses)));
    // What has ended is another's after an hour.
    let full = ask(&mut book, &pool, &request(7, Asks6::Take, &[(7, &[])]), NOW + LEASE6_S + 3599).unwrap();
    assert!(given(&full).is_empty());
    let free = ask(&mut book, &pool, &request(7, Asks6::Take, &[(7, &[])]), NOW + LEASE6_S + 3600).unwrap();
    assert_eq!(given(&free).len(), 1);
}

#[test]
fn clones_of_a_disk_are_told_apart_by_their_cards_and_a_card_has_a_few_addresses() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let mut clone = request(2, Asks6::Take, &[(7, &[])]);
    clone.client = request(1, Asks6::Take, &[]).client;
    let first = takes(&mut book, &pool, 1, NOW);
    assert_ne!(given(&ask(&mut book, &pool, &clone, NOW).unwrap()), [first]);
    let wants: Vec<(u32, &[&str])> = (0..4).map(|n| (n, &[][..])).collect();
    for number in 1..=9 {
        let mut one = request(9, Asks6::Take, &wants);
        one.client = Duid::new(&[0, 2, number]);
        let given = given(&ask(&mut book, &pool, &one, NOW + u64::from(number)).unwrap());
        let of_card = || book.leases().filter(|lease| lease.client.mac == one.mac);
        assert_eq!((given.len(), of_card().count()), (4, MOST_OF_A_CARD.min(4 * usize::from(number))));
        assert!(given.iter().all(|address| of_card().any(|lease| lease.address == *address)));
    }
}

#[test]
fn who_says_that_it_has_what_it_has_not_is_told() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let has = takes(&mut book, &pool, 1, NOW);
    let text = has.to_string();
    let keep = request(1, Asks6::KeepFromAny, &[(7, &[&text, "2001:db8::1"])]);
    let reply = ask(&mut book, &pool, &keep, NOW).unwrap();
    assert_eq!(
        (given(&reply), &reply.granted[0].not[..]),
        (vec![has], &["2001:db8::1".parse().unwrap()][..])
    );
    let confirm = |address: &str| {
        let asked = request(1, Asks6::Confirm, &[(7, &[address])]);
        Book6::default().answer(&pool, &asked, |_| false, NOW).unwrap().reply.status
    };
    assert_eq!((confirm(&text), confirm("2001:db8::1")), (Some(Status::Success), Some(Status::NotOnLink)));
    let nothing = request(1, Asks6::Confirm, &[(7, &[])]);
    assert_eq!(book.answer(&pool, &nothing, |_| false, NOW), None);
}

#[test]
fn what_is_given_back_is_free_what_is_declined_rests_and_nobody_gives_anothers() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let has = takes(&mut book, &pool, 1, NOW);
    let text = has.to_string();
    let other = request(2, Asks6::Release, &[(7, &[&text])]);
    let reply = ask(&mut book, &pool, &other, NOW).unwrap();
    assert_eq!(reply.granted[0].status, Some(Status::NoBinding));
    assert_eq!(book.leases().count(), 1);
    let reply = ask(&mut book, &pool, &request(1, Asks6::Release, &[(7, &[&text])]), NOW).unwrap();
    assert_eq!((reply.status, book.leases().count()), (Some(Status::Success), 0));
    assert_eq!(takes(&mut book, &pool, 1, NOW), has);
    ask(&mut book, &pool, &request(1, Asks6::Decline, &[(7, &[&text])]), NOW).unwrap();
    let next = takes(&mut book, &pool, 1, NOW);
    assert_ne!(next, has);
    assert_eq!(takes(&mut book, &pool, 1, NOW + 3600), next, "it keeps what it has");
}

#[test]
fn a_name_is_one_guests_and_what_is_no_name_is_left_out() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let mut named = |number: u8, name: &str| {
        let request = Request6 { name: Some(name.into()), ..request(number, Asks6::Take, &[(7, &[])]) };
        ask(&mut book, &pool, &request, NOW).unwrap();
        book.leases()
            .find(|lease| lease.client.mac == request.mac)
            .unwrap()
            .name
            .clone()
            .map(|n| n.to_string())
    };
    assert_eq!(named(1, "mail.web.test").as_deref(), Some("mail"));
    assert_eq!(
        (named(2, "MAIL"), named(3, "db"), named(4, "a b"), named(5, "x.other")),
        (None, None, None, None)
    );
    assert_eq!(named(1, "mail").as_deref(), Some("mail"));
    named(6, "wpad");
    named(7, "log");
    let address = |number: u8| {
        let lease = book.leases().find(|lease| lease.client.mac.0[5] == number).unwrap();
        lease.address
    };
    let log = (Mac([0x52, 0x54, 0, 0, 0, 99]), &"log".parse().unwrap());
    let names = Names::new([log].into_iter().chain(book.names(NOW)));
    let text = hosts(&pool, &book, &names, NOW);
    assert_eq!(text, format!("{} mail.web.test mail\n", address(1)));
    assert_eq!(hosts(&pool, &book, &names, NOW + LEASE6_S), "");
    assert_eq!(book.next_name_end(NOW), Some(NOW + LEASE6_S));
    assert_eq!((book.next_name_end(NOW + LEASE6_S), book.names(NOW + LEASE6_S).count()), (None, 0));
    let known = book.leases().next().unwrap().clone();
    let later = Lease6 { expires_s: known.expires_s + 1, ..known.clone() };
    assert_eq!(
        (Book6::new([known.clone()]).note(known.clone()), Book6::new([known]).note(later)),
        (false, true)
    );
}

#[test]
fn a_guest_that_is_another_after_a_boot_has_its_name_at_its_new_address_alone() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let before = takes(&mut book, &pool, 1, NOW);
    let mut again = request(1, Asks6::Take, &[(7, &[])]);
    again.client = Duid::new(&[0, 1, 9, 9]);
    let after = given(&ask(&mut book, &pool, &again, NOW + 60).unwrap())[0];
    assert_ne!(after, before);
    assert_eq!(book.leases().count(), 2, "nobody else gets what it had");
    assert_eq!(
        hosts(&pool, &book, &Names::new(book.names(NOW + 60)), NOW + 60),
        format!("{after} web1.web.test web1\n")
    );
}

#[test]
fn what_is_another_servers_is_not_answered() {
    let (pool, mut book) = (pool("fd00:100::1/64"), Book6::default());
    let other = Duid::new(&[0, 1, 2, 3]);
    for asks in [
        Asks6::Discover,
        Asks6::Take,
        Asks6::Keep,
        Asks6::KeepFromAny,
        Asks6::Confirm,
        Asks6::Decline,
        Asks6::Release,
        Asks6::Inform,
    ] {
        let asked = Request6 { server: other.clone(), ..request(1, asks, &[(7, &["fd00:100::9"])]) };
        assert_eq!(book.answer(&pool, &asked, |_| false, NOW), None, "{asks:?}");
        let nameless = Request6 { client: None, ..request(1, asks, &[(7, &["fd00:100::9"])]) };
        assert_eq!(book.answer(&pool, &nameless, |_| false, NOW), None, "{asks:?}");
    }
    let inform = Request6 { client: None, ..request(1, Asks6::Inform, &[]) };
    assert!(book.answer(&pool, &inform, |_| false, NOW).is_some());
    assert!(Pool6::new("fd00::1/127".parse().unwrap(), None).is_none());
}

proptest! {
    /// Primaries come and go, each with what is written and nothing else, and guests say what they like.
    #[test]
    fn no_address_is_ever_told_to_two_guests(
        steps in proptest::collection::vec((0u8..12, 0u8..7, 0u32..2, any::<bool>()), 1..120),
    ) {
        let pool = pool("fd00:100::1/124");
        let (mut book, mut now_s) = (Book6::default(), NOW);
        let mut written: BTreeMap<Client, Lease6> = BTreeMap::new();
        for (number, kind, association, is_new) in steps {
            if is_new {
                book = Book6::new(written.values().cloned());
            }
            now_s += 1 + u64::from(number) * 997;
            let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
            let has = written.values().find(|l| l.client.mac == mac).map(|l| l.address.to_string());
            let asks = [
                Asks6::Discover, Asks6::Take, Asks6::Take, Asks6::Keep,
                Asks6::KeepFromAny, Asks6::Decline, Asks6::Release,
            ][usize::from(kind)];
            let said: Vec<&str> = has.as_deref().into_iter().collect();
            let asked = request(number, asks, &[(association, &said)]);
            let Some(answer) = book.answer(&pool, &asked, |_| false, now_s) else { continue };
            for lease in answer.give {
                let others = written.values().filter(|l| l.client != lease.client && l.expires_s > now_s);
                prop_assert!(others.clone().all(|other| other.address != lease.address));
                prop_assert!(pool.is_a_guests(lease.address));
                written.insert(lease.client.clone(), lease.clone());
                book.note(lease);
            }
            for lease in answer.forget {
                prop_assert_eq!(lease.client.mac, mac);
                written.remove(&lease.client);
                book.forget(&lease.client);
            }
        }
    }
}
