//! What guests are told over IPv6.

use std::net::Ipv6Addr;

use pvc_core::model::{
    Network,
    dhcp6::{Asks6, Duid, Reply6, Request6},
};
use pvc_host::dhcp::{Asked6, Asker};

use super::*;

/// Network 5 with IPv6 beside IPv4.
fn dual() -> Network {
    let mut network = network(5);
    network.ip6.network = Some("fd00:5::/64".parse().unwrap());
    network.ip6.gateway = Some("fd00:5::1".parse().unwrap());
    network.ip6.dhcp_enabled = true;
    network
}

fn asks(number: u8, asks: Asks6, name: &str, has: &[Ipv6Addr]) -> Request6 {
    let is_named = matches!(asks, Asks6::Take | Asks6::Keep | Asks6::Decline | Asks6::Release);
    Request6 {
        mac: Mac([0x52, 0x54, 0, 0, 0, number]),
        client: Duid::new(&[0, 3, 0, 1, number]),
        server: is_named.then(|| Duid::of_gateway("fd00:5::1".parse().unwrap())),
        asks,
        wants: vec![(7, has.to_vec())],
        name: Some(name.to_owned()),
    }
}

fn given(reply: &Reply6) -> Option<Ipv6Addr> {
    Some(reply.granted.first()?.address?.0)
}

/// The addresses of leases that are written, by card.
fn leased6(world: &NetworkWorld) -> BTreeMap<String, String> {
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    let all = world.tree.dump();
    let address = |(key, value): (&String, &Vec<u8>)| {
        let client = key.strip_prefix("/networks/5/dhcp6_leases/")?.strip_suffix("/ipaddr")?;
        Some((client.split('.').next()?.to_owned(), text(value)))
    };
    all.iter().filter_map(address).collect()
}

impl Coordinator {
    /// Asks until there is an answer, as guests do.
    async fn ask6(&self, request: &Request6) -> Reply6 {
        let before = self.port.answers6().len();
        let work = async {
            while self.port.answers6().len() == before {
                self.port.ask6("vmbr5", Asked6::Dhcp(request.clone(), [1, 2, 3]));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        assert!(timeout(Duration::from_secs(30), work).await.is_ok(), "nothing is answered to {request:?}");
        self.port.answers6().swap_remove(before)
    }

    async fn gives6(&self, number: u8, name: &str) -> Ipv6Addr {
        let offer = self.ask6(&asks(number, Asks6::Discover, name, &[])).await;
        assert!(offer.is_offer);
        let told = self.ask6(&asks(number, Asks6::Take, name, &[])).await;
        assert_eq!(given(&told), given(&offer));
        given(&told).unwrap()
    }
}

async fn world() -> NetworkWorld {
    let world = NetworkWorld::new().await;
    world.define(&dual()).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_guest_keeps_its_address_and_its_server_whoever_is_primary() {
    let world = world().await;
    let (a, b) = (Coordinator::new(&world, "a").await, Coordinator::new(&world, "b").await);
    a.becomes_primary().await;
    let web1 = a.gives6(1, "web1").await;
    assert_eq!(leased6(&world)["52:54:00:00:00:01"], web1.to_string());
    a.names(&format!("{web1} web1.web.local web1\n")).await;
    a.is_primary_no_more().await;
    b.becomes_primary().await;
    b.names(&format!("{web1} web1.web.local web1\n")).await;
    // It asks its own server, which another node is now.
    let kept = b.ask6(&asks(1, Asks6::Keep, "web1", &[web1])).await;
    assert_eq!(given(&kept), Some(web1));
    // The one before gives out no more, whatever it had heard.
    let before = a.port.answers6().len();
    a.port.ask6("vmbr5", Asked6::Dhcp(asks(2, Asks6::Take, "web2", &[]), [1, 2, 3]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((a.port.answers6().len(), leased6(&world).len()), (before, 1));
    b.ask6(&asks(1, Asks6::Release, "", &[web1])).await;
    assert!(leased6(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_guests_name_is_its_own_in_both_families_and_nobody_elses() {
    let world = world().await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    let (four, six) = (a.gives(1, "web1").await, a.gives6(1, "web1").await);
    a.names(&format!("{four} web1.web.local web1\n{six} web1.web.local web1\n")).await;
    a.gives6(2, "web1").await;
    let log = a.gives6(3, "log").await;
    a.gives(4, "log").await;
    let expected =
        format!("{four} web1.web.local web1\n{six} web1.web.local web1\n{log} log.web.local log\n");
    a.names(&expected).await;
    // What an operator has reserved for a card is its guest's name over IPv6, whatever it says.
    let reserved = "/networks/5/dhcp4_reservations/52:54:00:00:00:05";
    let keys = [("", "static"), ("/ipaddr", "10.5.0.9"), ("/hostname", "db")];
    let keys = keys.map(|(key, value)| (format!("{reserved}{key}"), value));
    world.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    a.names(&format!("10.5.0.9 db.web.local db\n{expected}")).await;
    let db = a.gives6(5, "evil").await;
    a.names(&format!("10.5.0.9 db.web.local db\n{expected}{db} db.web.local db\n")).await;
}

#[tokio::test(start_paused = true)]
async fn the_router_is_told_to_all_at_first_often_and_to_who_asks_at_once() {
    let world = world().await;
    let a = Coordinator::new(&world, "a").await;
    assert!(a.port.advertised().is_empty());
    a.becomes_primary().await;
    is_so("all are told", || !a.port.advertised().is_empty()).await;
    let (to, said) = a.port.advertised().swap_remove(0);
    assert_eq!((to, said.prefix.to_string()), (all(), "fd00:5::/64".to_owned()));
    let count = || a.port.advertised().len();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let first = count();
    assert!((3..=5).contains(&first), "{first}");
    tokio::time::sleep(Duration::from_mins(9)).await;
    assert_eq!(count(), first);
    a.port.ask6("vmbr5", Asked6::Router);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (to, _) = a.port.advertised().pop().unwrap();
    assert!(count() == first + 1 && to.address.is_some());

    let mut four = dual();
    four.ip6.dhcp_enabled = false;
    world.modify(&four).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.port.ask6("vmbr5", Asked6::Router);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(count(), first + 1, "it gives out nothing over IPv6 any more");
}

fn all() -> Asker {
    Asker { device: "vmbr5".into(), address: None }
}

#[tokio::test(start_paused = true)]
async fn a_network_without_ipv4_is_served() {
    let world = NetworkWorld::new().await;
    let mut six = dual();
    six.ip4 = pvc_core::model::network::Ip4::default();
    world.define(&six).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    let web1 = a.gives6(1, "web1").await;
    a.names(&format!("{web1} web1.web.local web1\n")).await;
    let before = a.port.answers().len();
    a.port.ask("vmbr5", &request(1, Asks::Discover(None), "web1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(a.port.answers().len(), before);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_guest_makes_for_itself_has_its_name_for_as_long_as_it_has_one() {
    let world = world().await;
    let (a, b) = (Coordinator::new(&world, "a").await, Coordinator::new(&world, "b").await);
    a.becomes_primary().await;
    is_so("all are told of the router", || !a.port.advertised().is_empty()).await;
    let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    let own: Ipv6Addr = "fd00:5::5054:ff:fe00:1".parse().unwrap();
    let written = || world.tree.dump().get("/networks/5/dhcp6_leases/52:54:00:00:00:01/ipaddr").cloned();
    a.port.ask6("vmbr5", Asked6::Has(mac, own));
    a.port
        .ask6("vmbr5", Asked6::Has(Mac([0x52, 0x54, 0, 0, 0, 9]), "fd00:5::5054:ff:fe00:9".parse().unwrap()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(written(), None, "nobody knows who it is");
    let web1 = a.gives(1, "web1").await;
    let names = format!("{web1} web1.web.local web1\n{own} web1.web.local web1\n");
    a.names(&names).await;
    assert_eq!(written().as_deref(), Some(own.to_string().as_bytes()));
    a.is_primary_no_more().await;
    b.becomes_primary().await;
    b.names(&names).await;
    // One that had its address before there was a primary to hear it is looked for.
    let web2 = b.gives(2, "web2").await;
    let address = Some("fd00:5::5054:ff:fe00:2".parse().unwrap());
    is_so("it is looked for", || b.port.looked_for().iter().any(|whom| whom.address == address)).await;
    b.port.ask("vmbr5", &request(1, Asks::Release(web1), ""));
    is_so("it has no name", || written().is_none()).await;
    b.names(&format!("{web2} web2.web.local web2\n")).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_a_guests_name_without_dhcp_over_ipv4_too() {
    let world = NetworkWorld::new().await;
    let mut six = dual();
    six.ip4.dhcp.enabled = false;
    world.define(&six).await;
    let reserved = "/networks/5/dhcp4_reservations/52:54:00:00:00:05";
    let keys = [("", "static"), ("/ipaddr", "10.5.0.9"), ("/hostname", "db")];
    let keys = keys.map(|(key, value)| (format!("{reserved}{key}"), value));
    world.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    a.gives6(1, "db").await;
    let db = a.gives6(5, "evil").await;
    a.names(&format!("{db} db.web.local db\n")).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_guest_makes_for_itself_never_has_the_name_of_another_card() {
    let world = world().await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    is_so("all are told of the router", || !a.port.advertised().is_empty()).await;
    let web1 = a.gives6(1, "web1").await;
    let own: Ipv6Addr = "fd00:5::5054:ff:fe00:1".parse().unwrap();
    a.port.ask6("vmbr5", Asked6::Has(Mac([0x52, 0x54, 0, 0, 0, 1]), own));
    a.names(&format!("{web1} web1.web.local web1\n{own} web1.web.local web1\n")).await;
    // An operator gives the name to another card.
    let reserved = "/networks/5/dhcp4_reservations/52:54:00:00:00:05";
    let keys = [("", "static"), ("/ipaddr", "10.5.0.9"), ("/hostname", "web1")];
    let keys = keys.map(|(key, value)| (format!("{reserved}{key}"), value));
    world.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    a.names("10.5.0.9 web1.web.local web1\n").await;
}
