//! Who is shut out, one row a case; and over a Ceph of a few lines, that it ends and is safe at every point.

use proptest::{collection::btree_set, prelude::*};

use super::*;
use crate::model::ceph::VmClients;

const NOW: u64 = 1_800_000_000;

fn client(host: u8, nonce: u32) -> ClientAddress {
    format!("10.0.0.{host}:0/{nonce}").parse().unwrap()
}

fn image(number: u8) -> ImageName {
    format!("vms/{number}").parse().unwrap()
}

fn users(watchers: &[ClientAddress], holders: &[ClientAddress]) -> Users {
    let lock = |address: &ClientAddress| Lock {
        client: format!("client.{address}"),
        cookie: "auto 1".to_owned(),
        address: *address,
    };
    Users { watchers: watchers.to_vec(), locks: holders.iter().map(lock).collect() }
}

/// One image, of which the dead node's client is 1/1, another of the dead host's 1/2, and one elsewhere 2/1.
fn shut_out(
    recorded: &[ClientAddress],
    spared: &[ClientAddress],
    unrecorded: Unrecorded,
) -> Vec<ClientAddress> {
    let all = [client(1, 1), client(1, 2), client(2, 1)];
    let request = Request {
        recorded: recorded.iter().copied().collect(),
        spared: spared.iter().copied().collect(),
        images: [(image(1), unrecorded)].into(),
    };
    let facts = Facts {
        request: &request,
        users: &[(image(1), users(&all, &all[..1]))].into(),
        blocklisted: &BTreeMap::new(),
        now_unix_s: NOW,
    };
    match plan(&facts) {
        Step::Blocklist(clients) | Step::Done(clients) => clients.into_iter().collect(),
        Step::BreakLocks(_) => panic!("a lock is broken before its holder is shut out"),
    }
}

#[test]
fn the_table_of_who_is_shut_out_holds() {
    let (recorded, same_host, elsewhere) = (client(1, 1), client(1, 2), client(2, 1));
    let on = |hosts: &[u8]| Unrecorded::On(hosts.iter().map(|host| client(*host, 1).host.ip()).collect());
    for (known, spared, unrecorded, expected) in [
        (vec![recorded], vec![], on(&[]), vec![recorded]),
        (vec![recorded], vec![], on(&[1]), vec![recorded, same_host]),
        (vec![recorded], vec![], Unrecorded::All, vec![recorded, same_host, elsewhere]),
        // The other side of a migration.
        (vec![recorded], vec![elsewhere], Unrecorded::All, vec![recorded, same_host]),
        // Nothing is recorded: it died between its start and the record.
        (vec![], vec![], on(&[]), vec![]),
        (vec![], vec![], on(&[1]), vec![recorded, same_host]),
        (vec![], vec![same_host], on(&[1, 2]), vec![recorded, elsewhere]),
        (vec![], vec![elsewhere], Unrecorded::All, vec![recorded, same_host]),
        // Whoever may write is not shut out, whatever else is recorded of that address.
        (vec![recorded], vec![recorded], on(&[]), vec![]),
    ] {
        assert_eq!(
            shut_out(&known, &spared, unrecorded.clone()),
            expected,
            "{known:?} {spared:?} {unrecorded:?}"
        );
    }
}

#[test]
fn an_entry_of_an_hour_is_none() {
    let request = Request { recorded: [client(1, 1)].into(), ..Request::default() };
    for (until, done) in [(NOW + 3600, false), (NOW + LEAST_S - 1, false), (NOW + LEAST_S, true)] {
        let facts = Facts {
            request: &request,
            users: &BTreeMap::new(),
            blocklisted: &[(client(1, 1), until)].into(),
            now_unix_s: NOW,
        };
        assert_eq!(matches!(plan(&facts), Step::Done(_)), done, "{until}");
    }
}

fn vm_id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn record(n: u8, node: &str, clients: &[ClientAddress], images: &[u8]) -> Recorded {
    let clients = VmClients {
        clients: clients.iter().copied().collect(),
        images: images.iter().copied().map(image).collect(),
        boot: None,
    };
    Recorded { vm: vm_id(n), node: node.parse().unwrap(), clients, version: 0 }
}

fn claimed(by: &str, images: &[u8]) -> Claimed {
    Claimed { by: by.parse().unwrap(), images: images.iter().copied().map(image).collect() }
}

#[test]
fn of_a_dead_node_all_is_shut_out_that_only_it_may_have_and_who_lives_is_spared() {
    let records = [
        record(1, "x", &[client(1, 1)], &[1, 9]),
        record(2, "t", &[client(2, 1)], &[2]),
        // It has left x, whose record of it is not removed yet.
        record(3, "x", &[client(1, 3), client(2, 3)], &[3]),
        record(3, "t", &[client(2, 3)], &[3]),
    ];
    let claimed = [
        claimed("x", &[1, 5]),
        claimed("t x", &[2]),
        // It was sending this one, which has not executed at t.
        claimed("x t", &[4]),
        // Two VMs have the same image, on two nodes.
        claimed("s", &[5, 6]),
    ];
    let dead: NodeName = "x".parse().unwrap();
    let request = of_dead_node(&dead, None, &claimed, &records);
    assert_eq!(request.recorded, [client(1, 1), client(1, 3)].into());
    assert_eq!(request.spared, [client(2, 1), client(2, 3)].into());
    let host = client(1, 1).host.ip();
    let (all, there) = (Unrecorded::All, Unrecorded::On([host].into()));
    let images = [(1, &all), (2, &there), (3, &there), (4, &all), (5, &there), (9, &there)];
    assert_eq!(request.images, images.map(|(n, who)| (image(n), who.clone())).into());

    // Nothing is recorded of it.
    let of = |published| of_dead_node(&dead, published, &claimed, &records[1..2]).images;
    let images = |there: Unrecorded| [(1, all.clone()), (2, there.clone()), (4, all.clone()), (5, there)];
    assert_eq!(of(Some(host)), images(there).map(|(n, who)| (image(n), who)).into());
    let nobody = images(Unrecorded::On(BTreeSet::new()));
    assert_eq!(of(None), nobody.map(|(n, who)| (image(n), who)).into(), "t and s live, and would be hit");
}

#[test]
fn of_what_has_ended_all_is_shut_out_that_is_not_another_vms() {
    let records = [
        record(1, "x", &[client(1, 1), client(1, 2)], &[1, 2]),
        record(1, "t", &[client(2, 1)], &[1]),
        // It has the second image open, too, on the same node.
        record(2, "x", &[client(1, 2), client(1, 3)], &[2]),
    ];
    let ended = of_ended_instances(vm_id(1), &records);
    assert_eq!(ended.recorded, [client(1, 1), client(2, 1)].into(), "wherever it was");
    assert_eq!(ended.images, [(image(1), nobody()), (image(2), nobody())].into());
    assert!(ended.spared.contains(&client(1, 2)));
    assert!(of_ended_instances(vm_id(4), &records).is_empty());
}

#[test]
fn what_cannot_be_an_image_is_told_and_what_nobody_writes_to_is_left_out() {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(images(&list("vms/1,/,vms/2@old,vms/a/b")), ([image(1)].into(), vec!["vms/a/b"]));
}

fn a_client() -> impl Strategy<Value = ClientAddress> {
    (1..4u8, 1..4u32).prop_map(|(host, nonce)| client(host, nonce))
}

proptest! {
    /// Whatever is recorded, used and shut out already: it ends; no lock is taken from one that may still write; at the end nobody who
    /// is to be shut out may write or holds a lock, and nobody was shut out who is spared.
    #[test]
    fn it_ends_and_is_safe_at_every_point(
        recorded in btree_set(a_client(), 0..4),
        spared in btree_set(a_client(), 0..4),
        unrecorded in prop::sample::select(vec![nobody(), Unrecorded::On([client(1, 1).host.ip()].into()), Unrecorded::All]),
        watchers in btree_set(a_client(), 0..4),
        holders in btree_set(a_client(), 0..3),
        already in btree_set((a_client(), prop::sample::select(vec![NOW + 3600, NOW + 2 * LEAST_S])), 0..3),
        // Breaking a lock leaves an entry of an hour, as often as this.
        shortens in 0..3usize,
    ) {
        let request =
            Request { recorded: recorded.clone(), spared: spared.clone(), images: [(image(1), unrecorded)].into() };
        let list = |set: &BTreeSet<ClientAddress>| set.iter().copied().collect::<Vec<_>>();
        let mut used: BTreeMap<ImageName, Users> = [(image(1), users(&list(&watchers), &list(&holders)))].into();
        let mut blocklisted: BTreeMap<ClientAddress, u64> = already.into_iter().collect();
        let before = blocklisted.clone();
        let mut shortens = shortens;
        for _ in 0..8 {
            let facts = Facts { request: &request, users: &used, blocklisted: &blocklisted, now_unix_s: NOW };
            match plan(&facts) {
                Step::Blocklist(clients) => {
                    for client in clients {
                        prop_assert!(!spared.contains(&client));
                        blocklisted.insert(client, NOW + 2 * LEAST_S);
                        for users in used.values_mut() {
                            users.watchers.retain(|watcher| *watcher != client);
                        }
                    }
                }
                Step::BreakLocks(locks) => for (image, lock) in locks {
                    prop_assert!(blocklisted[&lock.address] >= NOW + LEAST_S);
                    used.get_mut(&image).unwrap().locks.retain(|held| *held != lock);
                    if shortens > 0 {
                        shortens -= 1;
                        blocklisted.insert(lock.address, NOW + 3600);
                    }
                },
                Step::Done(clients) => {
                    prop_assert!(recorded.difference(&spared).all(|client| clients.contains(client)));
                    for client in &clients {
                        prop_assert!(blocklisted[client] >= NOW + LEAST_S);
                        prop_assert!(!used[&image(1)].addresses().any(|user| user == *client && !before.contains_key(client)));
                    }
                    prop_assert!(used[&image(1)].locks.iter().all(|lock| !clients.contains(&lock.address)));
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it does not end");
    }
}

#[test]
fn of_a_vm_that_is_off_all_is_shut_out_that_is_recorded_or_silent_and_not_another_vms() {
    let lock = |address| Lock { client: "client.1".into(), cookie: "auto 1".into(), address };
    let [recorded, silent, heard, other] = [1, 2, 3, 4].map(|n| client(1, n));
    let image = |name: &str| -> ImageName { format!("vms/{name}").parse().unwrap() };
    let users: BTreeMap<ImageName, Users> = [
        (image("silent"), Users { watchers: vec![], locks: vec![lock(silent)] }),
        (image("heard"), Users { watchers: vec![heard], locks: vec![lock(heard)] }),
        (image("other"), Users { watchers: vec![], locks: vec![lock(other)] }),
    ]
    .into();
    let [vm, another] = [1, 2].map(|n| format!("11111111-0000-4000-8000-00000000000{n}").parse().unwrap());
    let record = |vm, client| Recorded {
        vm,
        node: "x".parse().unwrap(),
        clients: VmClients { clients: [client].into(), ..VmClients::default() },
        version: 0,
    };
    let request = of_vm_that_is_off(vm, &users, &[record(vm, recorded), record(another, other)]);
    assert_eq!(request.recorded, [recorded, silent].into());
    assert_eq!(request.images.into_keys().collect::<Vec<_>>(), [image("silent")]);
}
