//! A real client and a real kernel are told by the real port what router and which addresses there are. Needs Debian's isc-dhcp-client.

use std::{fs, net::Ipv6Addr, process::Command, sync::Arc, time::Duration};

use pvc_core::{
    model::{Mac, dhcp6::Advertisement},
    plan::dhcp6::{Book6, Pool6},
};
use pvc_host::dhcp::{Asked6, Asker, Dhcp6Exchange, DhcpPort as _, Kernel};
use tokio::time::{sleep, timeout};

use crate::namespace::{Beside, alone, ip};

const NOW: u64 = 1_800_000_000;

/// A guest beside a bridge of this namespace, which has the gateway's addresses.
fn plugged() -> Arc<Beside> {
    let guest = Arc::new(Beside::new());
    ip("link add vmbr100 type bridge");
    ip("link set vmbr100 up");
    ip("address add fe80::1/64 dev vmbr100 nodad");
    ip("address add fd00:100::1/64 dev vmbr100 nodad");
    ip(&format!(
        "link add vnet1 type veth peer name eth0 address 52:54:00:00:00:07 netns {}",
        guest.thread_id
    ));
    ip("link set vnet1 master vmbr100 up");
    guest.ip("link set lo up");
    guest
}

fn network() -> (Pool6, Advertisement) {
    let gateway: ipnet::Ipv6Net = "fd00:100::1/64".parse().unwrap();
    let domain = Some("web.test".to_owned());
    let prefix = gateway.trunc();
    let advertisement = Advertisement { prefix, resolver: gateway.addr(), domain: domain.clone(), mtu: 1450 };
    (Pool6::new(gateway, domain).unwrap(), advertisement)
}

/// The address that the guest's card makes for itself.
fn own() -> (Mac, Ipv6Addr) {
    ("52:54:00:00:00:07".parse().unwrap(), "fd00:100::5054:ff:fe00:7".parse().unwrap())
}

/// Hears that the guest has its own address, within 10 s.
async fn wait_heard(exchange: &dyn Dhcp6Exchange) {
    let heard = async { while exchange.receive().await.unwrap().0 != Asked6::Has(own().0, own().1) {} };
    timeout(Duration::from_secs(10), heard).await.expect("it is not heard");
}

/// Answers what guests ask, for ever.
async fn serve(exchange: &dyn Dhcp6Exchange, book: &mut Book6) {
    let (pool, advertisement) = network();
    loop {
        let (asked, asker) = exchange.receive().await.unwrap();
        assert_eq!(asker.device, "vmbr100");
        match asked {
            Asked6::Router => exchange.advertise(&asker, &advertisement).unwrap(),
            Asked6::Has(mac, address) => assert_eq!((mac, address), own()),
            Asked6::Dhcp(request, number) => {
                assert_eq!(request.mac.to_string(), "52:54:00:00:00:07");
                let Some(answer) = book.answer(&pool, &request, |_| false, NOW) else { continue };
                for lease in answer.give {
                    book.note(lease);
                }
                answer.forget.iter().for_each(|lease| book.forget(&lease.client));
                exchange.answer(&asker, number, &answer.reply);
            }
        }
    }
}

/// Does something in the guest's namespace while it is served, for at most 30 s.
async fn served<T: Send + 'static>(
    guest: &Arc<Beside>,
    exchange: &dyn Dhcp6Exchange,
    book: &mut Book6,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let guest = Arc::clone(guest);
    let work = tokio::task::spawn_blocking(move || guest.run(work));
    tokio::select! {
        done = timeout(Duration::from_secs(30), work) => done.expect("it takes too long").unwrap(),
        () = serve(exchange, book) => unreachable!(),
    }
}

/// Waits until the guest's card has something to show.
fn wait_shown(arguments: &'static str, part: &str) {
    for _ in 0..200 {
        if ip(arguments).contains(part) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no {part} in: {}", ip(arguments));
}

#[test]
fn a_guest_that_comes_up_is_told_of_the_router_and_makes_its_own_address() {
    alone(async || {
        let (guest, exchange, mut book) = (plugged(), Kernel.open6().unwrap(), Book6::default());
        served(&guest, &*exchange, &mut book, || {
            // Asks by itself.
            ip("link set eth0 up");
            wait_shown("-6 route show default", "via fe80::1 dev eth0");
            wait_shown("-6 address show dev eth0", "fd00:100::5054:ff:fe00:7/64");
            wait_shown("-6 route show fd00:100::/64", "dev eth0");
            wait_shown("-6 route show default", "pref high");
        })
        .await;
        // Nor does it wait to be asked, if another gateway speaks for all.
        guest.ip("link set eth0 down");
        let all = Asker { device: "vmbr100".into(), address: None };
        guest.ip("link set eth0 up");
        let (said, guest) = (network().1, Arc::clone(&guest));
        let told = tokio::task::spawn_blocking(move || {
            guest.run(|| wait_shown("-6 route show default", "via fe80::1 dev eth0"));
        });
        while !told.is_finished() {
            exchange.advertise(&all, &said).unwrap();
            sleep(Duration::from_millis(200)).await;
        }
        told.await.unwrap();
        // It asks whether anybody has the address that it makes; later it answers who looks for it.
        wait_heard(&*exchange).await;
        ip("neigh flush dev vmbr100");
        exchange.look_for(&Asker { device: "vmbr100".into(), address: Some(own().1) });
        wait_heard(&*exchange).await;
        let gone = Asker { device: "vmbr9".into(), address: None };
        assert!(exchange.advertise(&gone, &said).is_err(), "there is no such bridge");
    });
}

#[test]
fn a_real_client_gets_an_address_keeps_it_and_gives_it_back() {
    alone(async || {
        let (guest, exchange, mut book) = (plugged(), Kernel.open6().unwrap(), Book6::default());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("conf"), "timeout 20;\nsend fqdn.fqdn \"web1\";\n").unwrap();
        guest.ip("link set eth0 up");
        guest.run(|| wait_shown("-6 address show dev eth0 scope link -tentative", "fe80::"));
        let (conf, leases, pid) = (at("conf"), at("leases"), at("pid"));
        let client = |how: &'static str| {
            let (conf, leases, pid) = (conf.clone(), leases.clone(), pid.clone());
            move || {
                #[allow(clippy::disallowed_methods, reason = "a guest's program")]
                let output = Command::new("/sbin/dhclient")
                    .args(["-6", how, "-v", "-cf", &conf, "-lf", &leases, "-pf", &pid, "-sf", "/bin/true"])
                    .arg("eth0")
                    .output()
                    .expect("this test needs Debian's isc-dhcp-client");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{said}");
                said
            }
        };
        served(&guest, &*exchange, &mut book, client("-1")).await;
        let lease = book.leases().next().expect("nothing was leased").clone();
        let written = fs::read_to_string(&leases).unwrap();
        assert!(written.contains(&format!("iaaddr {}", lease.address)), "{written}");
        for told in ["dhcp6.name-servers fd00:100::1", "dhcp6.domain-search \"web.test.\"", "max-life 86400"]
        {
            assert!(written.contains(told), "no {told} in {written}");
        }
        assert_eq!(lease.name.map(|name| name.to_string()).as_deref(), Some("web1"));
        served(&guest, &*exchange, &mut book, client("-r")).await;
        // It does not always wait for an answer.
        let _ = timeout(Duration::from_secs(2), serve(&*exchange, &mut book)).await;
        assert_eq!(book.leases().count(), 0, "it was given back");
    });
}
