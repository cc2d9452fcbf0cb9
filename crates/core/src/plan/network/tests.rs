use proptest::prelude::*;

use super::*;
use crate::{
    model::link::{Assigned, Route},
    plan::Next,
};

fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn forever(text: &str) -> Assigned {
    Assigned { cidr: cidr(text), lifetime_s: None }
}

fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: false,
        is_bridge: false,
        master: None,
        addresses: vec![],
    }
}

/// The manual's example: all three networks on ens4.
fn desired() -> Desired {
    let wanted =
        |address: Option<&str>| Wanted { device: "ens4".into(), mtu: 1500, address: address.map(cidr) };
    Desired {
        upstream: wanted(None),
        cluster: wanted(Some("10.255.0.1/24")),
        storage: wanted(Some("10.254.0.1/24")),
        gateway: Some("1.1.1.1".parse().unwrap()),
        routes: true,
    }
}

fn machine(links: Vec<Link>, desired: &Desired) -> HostNetwork {
    let sysctls = desired.sysctls().into_iter().map(|path| (path, "0".to_owned())).collect();
    HostNetwork { links, routes: vec![], sysctls }
}

/// What a kernel does with a change.
fn apply(seen: &mut HostNetwork, change: &LinkChange) {
    let find = |seen: &mut HostNetwork, name: &str| seen.links.iter().position(|l| l.name == name).unwrap();
    match change {
        LinkChange::AddBridge { name, mac } => {
            seen.links.push(Link { mac: *mac, is_bridge: true, ..link(name) });
        }
        LinkChange::SetMtu { device, mtu } => {
            let i = find(seen, device);
            seen.links[i].mtu = *mtu;
        }
        LinkChange::SetUp { device } => {
            let i = find(seen, device);
            seen.links[i].up = true;
        }
        LinkChange::Enslave { device, bridge } => {
            let i = find(seen, device);
            seen.links[i].master = Some(bridge.clone());
        }
        LinkChange::SetAddress { device, cidr, lifetime_s } => {
            let i = find(seen, device);
            seen.links[i].addresses.retain(|a| a.cidr != *cidr);
            seen.links[i].addresses.push(Assigned { cidr: *cidr, lifetime_s: *lifetime_s });
        }
        LinkChange::RemoveAddress { device, cidr } => {
            let i = find(seen, device);
            seen.links[i].addresses.retain(|a| a.cidr != *cidr);
        }
        LinkChange::MoveRoutes { from, to } => {
            seen.routes.iter_mut().filter(|r| r.device == *from).for_each(|r| r.device.clone_from(to));
        }
        LinkChange::AddDefaultRoute { via, device } => {
            let route = Route { destination: None, gateway: Some(*via), device: device.clone(), ours: true };
            seen.routes.push(route);
        }
        LinkChange::RemoveDefaultRoute { via, device } => seen.routes.retain(|r| {
            !(r.ours && r.destination.is_none() && r.gateway == Some(*via) && r.device == *device)
        }),
        LinkChange::SetSysctl { path, value } => {
            seen.sysctls.insert(path.clone(), value.clone());
        }
    }
}

/// All steps until nothing is left to do.
fn settle(desired: &Desired, seen: &mut HostNetwork) -> Vec<LinkChange> {
    let mut done = Vec::new();
    loop {
        let plan = plan(desired, seen);
        match plan.next {
            Next::Settled => return done,
            Next::Wait(_) => panic!("{}", plan.why),
            Next::Do(batch) => {
                for (change, _) in batch {
                    apply(seen, &change);
                    done.push(change);
                }
            }
        }
        assert!(done.len() < 60, "it does not settle: {done:#?}");
    }
}

fn refused(desired: &Desired, seen: &HostNetwork) -> String {
    let plan = plan(desired, seen);
    assert_eq!(plan.next, Next::Wait(None));
    plan.why
}

#[test]
fn two_hundred_networks_on_the_device_take_as_many_looks_as_one() {
    let desired = desired();
    let looks = |count: u8| {
        let addresses = (0..count).map(|n| forever(&format!("10.1.{n}.1/24"))).collect();
        let mut seen = machine(vec![Link { up: true, addresses, ..link("ens4") }], &desired);
        let mut looks = 0;
        while let Next::Do(batch) = plan(&desired, &seen).next {
            looks += 1;
            for (change, _) in &batch {
                apply(&mut seen, change);
            }
        }
        assert!(seen.link("ens4").unwrap().addresses.is_empty());
        assert_eq!(seen.link("brcluster").unwrap().addresses.len(), usize::from(count) + 2);
        looks
    };
    assert_eq!(looks(200), looks(1));
    assert!(looks(200) < 12);
}

#[test]
fn all_three_networks_on_one_device_share_the_bridge() {
    let desired = desired();
    let mut seen = machine(vec![link("lo"), link("ens4")], &desired);
    settle(&desired, &mut seen);
    let (device, bridge) = (seen.link("ens4").unwrap(), seen.link("brcluster").unwrap());
    assert_eq!(device.master.as_deref(), Some("brcluster"));
    assert_eq!(bridge.mac, device.mac);
    assert!(device.up && bridge.up && device.addresses.is_empty());
    assert!(bridge.has(cidr("10.255.0.1/24")) && bridge.has(cidr("10.254.0.1/24")));
    assert_eq!(seen.routes, [], "without an address upstream its gateway is out of reach");
    assert_eq!(seen.sysctls["net/ipv4/ip_forward"], "1");
    assert_eq!(settle(&desired, &mut seen), [], "once is enough");
}

#[test]
fn an_address_on_the_cluster_device_answers_all_the_time_while_it_moves() {
    let desired = desired();
    let ens4 =
        Link { up: true, addresses: vec![forever("10.255.0.1/24"), forever("fe80::1/64")], ..link("ens4") };
    let mut seen = machine(vec![ens4], &desired);
    let by_hand = Route {
        destination: None,
        gateway: Some("10.255.0.200".parse().unwrap()),
        device: "ens4".into(),
        ours: false,
    };
    seen.routes.push(by_hand.clone());
    let mut batch = Batch::new();
    loop {
        if batch.is_empty() {
            let Next::Do(next) = plan(&desired, &seen).next else { break };
            batch = next;
        }
        let (change, _) = batch.remove(0);
        apply(&mut seen, &change);
        let (device, bridge) = (seen.link("ens4").unwrap(), seen.link("brcluster"));
        let on_bridge = bridge.is_some_and(|b| b.up && b.has(cidr("10.255.0.1/24")));
        match &device.master {
            None => assert!(device.has(cidr("10.255.0.1/24")), "after {change}"),
            Some(_) => assert!(on_bridge, "after {change}"),
        }
        if matches!(change, LinkChange::RemoveAddress { .. }) {
            assert_eq!(
                seen.routes[0].device, "brcluster",
                "removing a device's last address removes its routes"
            );
        }
    }
    assert_eq!(seen.link("ens4").unwrap().addresses, [forever("fe80::1/64")]);
    assert_eq!(seen.routes, [Route { device: "brcluster".into(), ..by_hand }]);
}

#[test]
fn a_missing_device_is_named_with_those_there_are() {
    let desired = desired();
    let seen = machine(vec![link("lo"), link("eth0"), link("eth1")], &desired);
    let why = refused(&desired, &seen);
    assert!(why.contains("upstream network's device ens4 does not exist"), "{why}");
    assert!(why.ends_with("devices there are: eth0, eth1"), "{why}");
}

#[test]
fn a_device_in_somebody_elses_bridge_is_left_there() {
    let desired = desired();
    for (device, expected) in [
        (Link { master: Some("br0".into()), ..link("ens4") }, "is a port of br0"),
        (Link { is_bridge: true, ..link("ens4") }, "is a bridge"),
    ] {
        let why = refused(&desired, &machine(vec![device], &desired));
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn the_default_route_is_added_where_the_gateway_can_be_reached_and_never_doubled() {
    let mut desired = desired();
    desired.upstream = Wanted { device: "ens3".into(), mtu: 1500, address: Some(cidr("1.1.1.5/24")) };
    let links = || vec![link("ens3"), link("ens4")];
    let mut seen = machine(links(), &desired);
    settle(&desired, &mut seen);
    assert_eq!(seen.routes.len(), 1);
    assert_eq!((seen.routes[0].device.as_str(), seen.routes[0].ours), ("ens3", true));

    let mut seen = machine(links(), &desired);
    let by_hand = Route {
        destination: None,
        gateway: Some("9.9.9.9".parse().unwrap()),
        device: "ens3".into(),
        ours: false,
    };
    seen.routes.push(by_hand.clone());
    settle(&desired, &mut seen);
    assert_eq!(seen.routes, [by_hand]);
}

#[test]
fn our_default_route_goes_with_the_floating_address_that_reached_the_gateway() {
    let desired = desired();
    let mut seen = machine(vec![link("ens4")], &desired);
    settle(&desired, &mut seen);
    let floating = Assigned { cidr: cidr("1.1.1.10/24"), lifetime_s: Some(8) };
    let i = seen.links.iter().position(|l| l.name == "brcluster").unwrap();
    seen.links[i].addresses.push(floating);
    settle(&desired, &mut seen);
    assert_eq!(seen.routes.len(), 1);
    seen.links[i].addresses.retain(|a| *a != floating);
    settle(&desired, &mut seen);
    assert_eq!(seen.routes, []);
}

#[test]
fn a_hypervisor_does_not_become_a_router() {
    let desired = Desired { routes: false, ..desired() };
    let mut seen = machine(vec![link("ens4")], &desired);
    settle(&desired, &mut seen);
    assert_eq!(seen.sysctls["net/ipv4/ip_forward"], "0");
    assert_eq!(seen.sysctls["net/ipv6/conf/all/forwarding"], "0");
}

#[test]
fn a_router_still_learns_its_own_way_out_and_strict_filters_are_loosened() {
    let desired = desired();
    let mut seen = machine(vec![link("ens4")], &desired);
    seen.sysctls.insert("net/ipv6/conf/brcluster/accept_ra".into(), "1".into());
    seen.sysctls.insert("net/ipv4/conf/all/rp_filter".into(), "1".into());
    let done = settle(&desired, &mut seen);
    let position = |path: &str| {
        done.iter().position(|c| matches!(c, LinkChange::SetSysctl { path: p, .. } if p == path)).unwrap()
    };
    assert!(position("net/ipv6/conf/brcluster/accept_ra") < position("net/ipv6/conf/all/forwarding"));
    assert_eq!(seen.sysctls["net/ipv4/conf/brcluster/rp_filter"], "2");
    assert_eq!(
        seen.sysctls["net/ipv4/conf/all/rp_filter"], "1",
        "the machine's other devices are not our business"
    );
}

fn any_address() -> impl Strategy<Value = Assigned> {
    let addresses =
        ["10.255.0.1/24", "10.255.0.9/24", "10.254.0.1/24", "192.0.2.7/28", "fe80::9/64", "fd00::9/64"];
    (prop::sample::select(addresses.to_vec()), prop::option::of(1_u32..100))
        .prop_map(|(a, lifetime_s)| Assigned { lifetime_s, ..forever(a) })
}

fn any_link(name: &'static str, bridge: bool) -> impl Strategy<Value = Link> {
    (any::<bool>(), any::<bool>(), 1400_u32..1600, prop::collection::btree_set(any_address(), 0..4)).prop_map(
        move |(up, port, mtu, addresses)| Link {
            mtu,
            up,
            is_bridge: bridge,
            master: (port && !bridge && name == "ens4").then(|| CLUSTER_BRIDGE.to_owned()),
            addresses: {
                let mut addresses: Vec<Assigned> = addresses.into_iter().collect();
                addresses.dedup_by_key(|a| a.cidr);
                addresses
            },
            ..link(name)
        },
    )
}

proptest! {
    /// Whatever state a crash, an operator or an earlier version left: it ends as desired, and nobody's address is lost.
    #[test]
    fn every_starting_point_settles_and_loses_no_address(
        ens3 in any_link("ens3", false),
        ens4 in any_link("ens4", false),
        bridge in any_link("brcluster", true),
        upstream_apart in any::<bool>(),
        routes in any::<bool>(),
        way_out in any::<bool>(),
    ) {
        let mut desired = Desired { routes, ..desired() };
        if upstream_apart {
            desired.upstream = Wanted { device: "ens3".into(), mtu: 1500, address: Some(cidr("1.1.1.5/24")) };
        }
        let mut seen = machine(vec![ens3, ens4, bridge], &desired);
        if way_out {
            let gateway = Some("10.255.0.200".parse().unwrap());
            seen.routes.push(Route { destination: None, gateway, device: "ens4".into(), ours: false });
        }
        let before: Vec<IpNet> = seen.links.iter().flat_map(|l| l.addresses.iter().map(|a| a.cidr)).collect();
        settle(&desired, &mut seen);
        for cidr in before {
            prop_assert!(seen.links.iter().any(|l| l.has(cidr)), "{cidr} is lost");
        }
        let bridge = seen.link("brcluster").unwrap();
        prop_assert!(bridge.has(cidr("10.255.0.1/24")) && bridge.has(cidr("10.254.0.1/24")));
        let defaults = seen.routes.iter().filter(|r| r.destination.is_none()).count();
        prop_assert_eq!(defaults, usize::from(way_out || upstream_apart));
    }
}
