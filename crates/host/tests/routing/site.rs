//! A router of the site, which is FRR too, learns client networks from the node that has their gateways, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pvc_core::plan::routing::{Announced, Bfd, Routing, Site, Speaker, Speaking};
use pvc_host::routing::{Frr, RoutingDaemon};
use tokio::time::sleep;

use crate::{
    frr::{Daemons, until},
    namespace::{Beside, alone, ip},
};

const ROUTERS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// What a coordinator with that number is told; networks by number and prefix.
fn routing(own: u8, networks: &[(&str, &str)]) -> Routing {
    let site = Site {
        asn: 64_999,
        routers_asn: 65_001,
        routers: ROUTERS.iter().map(|router| router.parse().unwrap()).collect(),
        bfd: true,
    };
    let prefixes = networks.iter().map(|(vni, net)| (vni.parse().unwrap(), net.parse().unwrap())).collect();
    let router = format!("10.255.1.{own}").parse().unwrap();
    Routing { speaker: Some(Speaker { router, evpn: None, site: Some(Announced { site, prefixes }) }) }
}

#[allow(clippy::disallowed_methods, reason = "what pvcd never asks FRR")]
fn vtysh(space: &str, commands: &[&str]) -> String {
    let each = commands.iter().flat_map(|command| ["-c", command]);
    let ended = Command::new("/usr/bin/vtysh").args(["-N", space]).args(each).output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{commands:?}: {said} {}", String::from_utf8_lossy(&ended.stderr));
    said
}

/// A coordinator: its address on the wire of the site, and bridges of two client networks. It is in other networks, too.
fn coordinator(number: u8) {
    ip(&format!("address add 192.0.2.1{number}/24 dev site"));
    ip(&format!("address add 2001:db8::1{number}/64 dev site nodad"));
    ip("link set site up");
    for bridge in ["vmbr100", "vmbr50", "vmbr300", "brcluster"] {
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("link set {bridge} addrgenmode none"));
        ip(&format!("link set {bridge} up"));
        // Something must be plugged in: a bridge of a node has its tunnel.
        ip(&format!("link add p{bridge} type veth peer name q{bridge}"));
        ip(&format!("link set q{bridge} up"));
        ip(&format!("link set p{bridge} up master {bridge}"));
    }
    ip(&format!("address add 10.255.1.{number}/24 dev brcluster"));
    // A network that nobody announces: another has it already.
    ip("address add 10.30.0.1/24 dev vmbr300");
    // A part of a client network, which is none.
    ip("address add 10.100.0.1/32 dev lo");
}

const GATEWAYS: [(&str, &str); 2] = [("10.100.0.1/24", "vmbr100"), ("fd00:100::1/64", "vmbr100")];

fn gateways(what: &str) {
    for (address, bridge) in GATEWAYS {
        let options = if what == "add" { " nodad valid_lft 60 preferred_lft 60" } else { "" };
        ip(&format!("address {what} {address} dev {bridge}{options}"));
    }
}

fn json(space: &str, question: &str) -> serde_json::Value {
    serde_json::from_str(&vtysh(space, &[question])).unwrap()
}

/// What the router has learnt: networks, and by which number of a coordinator.
fn learnt_by(space: &str) -> BTreeSet<(String, char)> {
    let mut all = BTreeSet::new();
    for family in ["ipv4", "ipv6"] {
        let said = json(space, &format!("show bgp {family} unicast json"));
        for (net, paths) in said["routes"].as_object().unwrap() {
            for path in paths.as_array().unwrap().iter().filter(|path| path["path"] != "") {
                assert_eq!(path["path"], "64999", "{path}");
                all.insert((net.clone(), path["peerId"].as_str().unwrap().chars().last().unwrap()));
            }
        }
    }
    all
}

/// What the kernel of a router says of its routes from now on.
#[allow(clippy::disallowed_methods, reason = "it goes on until it is ended")]
fn watch_routes(router: &Beside) -> Child {
    router.run(|| {
        Command::new("/usr/sbin/ip")
            .args(["-o", "-ts", "monitor", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    })
}

fn said(mut watching: Child) -> String {
    watching.kill().unwrap();
    String::from_utf8(watching.wait_with_output().unwrap().stdout).unwrap()
}

fn expected(networks: &[&str], by: char) -> BTreeSet<(String, char)> {
    networks.iter().map(|net| ((*net).to_owned(), by)).collect()
}

/// The router, which would like to be the way out for everybody.
fn set_up_router(space: &str) {
    let mut lines = vec![
        "configure terminal".to_owned(),
        "router bgp 65001".into(),
        "no bgp ebgp-requires-policy".into(),
    ];
    lines.push("no bgp network import-check".into());
    for number in ["1", "2"] {
        for base in ["192.0.2.1", "2001:db8::1"] {
            lines.push(format!("neighbor {base}{number} remote-as 64999"));
            lines.push(format!("neighbor {base}{number} bfd"));
            lines.push(format!("neighbor {base}{number} timers connect 1"));
        }
    }
    for (family, base, net) in
        [("ipv4", "192.0.2.1", "198.51.100.0/24"), ("ipv6", "2001:db8::1", "2001:db8:5::/48")]
    {
        lines.push(format!("address-family {family} unicast"));
        lines.push(format!("network {net}"));
        for number in ["1", "2"] {
            lines.push(format!("neighbor {base}{number} activate"));
            lines.push(format!("neighbor {base}{number} default-originate"));
            let other = if family == "ipv4" { "2001:db8::1" } else { "192.0.2.1" };
            if family == "ipv4" {
                lines.push(format!("no neighbor {other}{number} activate"));
            }
        }
        lines.push("exit-address-family".into());
    }
    vtysh(space, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

async fn has_all(frr: &Frr) -> bool {
    matches!(frr.speaking().await.unwrap(), Speaking::As { routers, .. } if routers.len() == 2 && routers.values().all(|there| *there))
}

async fn watches_all(frr: &Frr) -> bool {
    matches!(frr.bfd().await.unwrap(), Bfd::Watches(peers) if peers.len() == 2 && peers.values().all(|up| *up))
}

/// One in a namespace of its own, with all three.
async fn daemons() -> Daemons {
    let mut daemons = Daemons::start().await;
    daemons.start_bfdd().await;
    daemons
}

fn beside(place: &Beside, set_up: impl FnOnce() + Send + 'static) -> Daemons {
    place.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            set_up();
            daemons().await
        })
    })
}

#[test]
#[allow(clippy::too_many_lines, reason = "one story: sessions take seconds to begin")]
fn the_sites_router_learns_client_networks_from_who_has_their_gateways_and_nothing_else() {
    alone(async || {
        let (router, second) = (Beside::new(), Beside::new());
        ip(&format!("link add site type veth peer name one netns {}", router.thread_id));
        router.ip(&format!("link add two type veth peer name site netns {}", second.thread_id));
        let there = beside(&router, || {
            ip("link add wire type bridge");
            for address in ["192.0.2.1/24 dev wire", "2001:db8::1/64 dev wire nodad"] {
                ip(&format!("address add {address}"));
            }
            for device in ["one master wire", "two master wire", "wire"] {
                ip(&format!("link set {device} up"));
            }
        });
        let other = beside(&second, || coordinator(2));
        coordinator(1);
        let mut here = daemons().await;
        let [one, two] = [&here, &other].map(|daemons| Frr::named(&daemons.space));
        let asked = there.space.clone();
        set_up_router(&asked);

        // The first is primary.
        gateways("add");
        let networks = [("100", "10.100.0.0/24"), ("100", "fd00:100::/64")];
        one.load(&routing(1, &networks)).await.unwrap();
        two.load(&routing(2, &networks)).await.unwrap();
        until("sessions", async || has_all(&one).await && has_all(&two).await).await;
        let both = ["10.100.0.0/24", "fd00:100::/64"];
        until("the networks are learnt", async || learnt_by(&asked) == expected(&both, '1')).await;
        // The second is in the same networks by another device: they are another's, and not the way to guests.
        let elsewhere = ["10.100.0.9/24 dev brcluster", "fd00:100::9/64 dev brcluster"];
        second.run(move || {
            for address in elsewhere {
                ip(&format!("address add {address} nodad"));
            }
        });
        until("it knows them", async || {
            vtysh(&other.space, &["show ip route connected", "show ipv6 route connected"])
                .matches("0:100::/64")
                .count()
                > 0
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(learnt_by(&asked), expected(&both, '1'), "the second announces what is on another device");
        second.run(move || {
            for address in elsewhere {
                ip(&format!("address del {address}"));
            }
        });
        let way_out = ip("route show default") + &ip("-6 route show default") + &ip("route show proto bgp");
        assert_eq!(way_out, "", "nothing that the router says is taken");
        assert!(routing(1, &networks).is_so(&one.speaking().await.unwrap()));

        // A hand-over changes addresses, and no configuration. In the first seconds of a session FRR waits for more to tell.
        sleep(Duration::from_secs(3)).await;
        let watching = watch_routes(&router);
        let began = Instant::now();
        gateways("del");
        second.run(|| gateways("add"));
        until("the second announces them", async || learnt_by(&asked) == expected(&both, '2')).await;
        println!("handed over, as the router sees it: {:?}\n{}", began.elapsed(), said(watching));
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());

        // A network more, and another is left alone by that.
        let watching = watch_routes(&router);
        let more = [&[("50", "10.20.0.0/24")][..], &networks].concat();
        second.run(|| ip("address add 10.20.0.1/24 dev vmbr50"));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(learnt_by(&asked), expected(&both, '2'), "nobody has said that it is one");
        for (frr, number) in [(&one, 1), (&two, 2)] {
            frr.load(&routing(number, &more)).await.unwrap();
        }
        let three = ["10.100.0.0/24", "10.20.0.0/24", "fd00:100::/64"];
        until("the third is learnt", async || learnt_by(&asked) == expected(&three, '2')).await;
        // The router uses what it has learnt.
        until("a way to it", async || router.ip("route").contains("10.20.0.0/24 ")).await;
        let said = said(watching);
        assert!(
            said.contains("10.20.0.0/24 ") && !said.contains("10.100.0.0/24 "),
            "withdrawn meanwhile: {said}"
        );

        // One is removed: its gateway goes first.
        second.run(|| gateways("del"));
        until("one is left", async || learnt_by(&asked) == expected(&["10.20.0.0/24"], '2')).await;
        for (frr, number) in [(&one, 1), (&two, 2)] {
            frr.load(&routing(number, &[("50", "10.20.0.0/24")])).await.unwrap();
        }
        second.run(|| gateways("add"));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(learnt_by(&asked), expected(&["10.20.0.0/24"], '2'), "it is a client network no more");

        // A router that hangs is noticed by BFD.
        until("BFD", async || watches_all(&one).await && watches_all(&two).await).await;
        there.signal(Signal::SIGSTOP);
        let began = Instant::now();
        let is_missed = async |frr: &Frr| matches!(frr.speaking().await.unwrap(), Speaking::As { routers, .. } if routers.values().all(|there| !there));
        until("it is missed", async || is_missed(&one).await).await;
        let took = began.elapsed();
        println!("a router that hangs was noticed after {took:?}");
        there.signal(Signal::SIGCONT);
        // Without BFD it would be 6 s at least. On a busy machine FRR itself and who asks it are late.
        assert!(took < Duration::from_millis(5500), "{took:?}");
        until("sessions again", async || has_all(&one).await && has_all(&two).await).await;
        until("it is learnt again", async || learnt_by(&asked) == expected(&["10.20.0.0/24"], '2')).await;

        // A bgpd that has ended reads the file when it is started.
        here.kill_bgpd();
        assert!(matches!(one.speaking().await.unwrap(), Speaking::Gone(_)));
        here.start_bgpd().await;
        assert_eq!(one.speaking().await.unwrap(), Speaking::Silent);
        one.load(&routing(1, &[])).await.unwrap();
        until("sessions once more", async || has_all(&one).await).await;
        // Nobody's routers.
        two.load(&Routing::default()).await.unwrap();
        assert_eq!(two.speaking().await.unwrap(), Speaking::Silent);
        until("nothing is learnt", async || learnt_by(&asked).is_empty()).await;
        assert_eq!(two.bfd().await.unwrap(), Bfd::Watches(BTreeMap::new()));
        let known: IpAddr = ROUTERS[0].parse().unwrap();
        assert!(!vtysh(&other.space, &["show running-config"]).contains(&known.to_string()));
    });
}
