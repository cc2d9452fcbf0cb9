//! Addresses and names of guests: how soon a guest that got an address has a name, how a rack of guests gets them all at once, and what is
//! missed when the primary coordinator hands over.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use pvc_lab::{
    Clients, Cluster, Given, Node, PATIENCE, Probe, Rack, Resolver, given_twice, layout::Net, not_recorded,
    wait_until,
};

use super::{in_lab_with, intervals, milliseconds, seconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

const NETWORKS: u32 = 10;
const FIRST: u32 = 100;
const OF_EACH: u8 = 30;
const LEASES: u32 = 200;
const PROBE_EVERY: Duration = Duration::from_millis(1);
const ASK_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab_with(arguments, "bench-names", intervals(1, 3), pvc_lab::LabOptions::with_database, |cluster| {
        let node = cluster.node("node3");
        let rack = prepare(cluster, &node)?;
        let mut rows = leases(cluster, &node)?;
        rows.extend(hand_over(arguments, cluster, &node)?);
        rows.extend(storms(arguments, cluster, &rack)?);
        Ok(rows)
    })
}

fn server() -> IpAddr {
    let [server, _] = Net::Upstream.floating();
    server
}

/// Networks, and a rack of guests on a node.
fn prepare(cluster: &Cluster, node: &Node) -> Result<Rack> {
    for number in 0..NETWORKS {
        let (vni, net) = (FIRST + number, format!("10.{}", FIRST + number));
        let add = format!(
            "network add -p managed -d net{number} -n net{number}.test -i {net}.0.0/22 -g {net}.0.1 --dhcp --dhcp-start {net}.0.10 --dhcp-end {net}.3.250 {vni}"
        );
        cluster.pvc(&add.split(' ').collect::<Vec<_>>())?;
    }
    let networks: Vec<u32> = (FIRST..FIRST + NETWORKS).collect();
    let rack = Rack::build(node, &networks, PATIENCE)?;
    // Who probes the gateway is a guest with an address.
    rack.ip(&format!("-n {} address add 10.{FIRST}.0.5/22 dev c{FIRST}", rack.namespace()), PATIENCE)?;
    let mut resolver = Resolver::new(&cluster.lab, server())?;
    for number in 0..NETWORKS {
        wait_until(&format!("the gateway of net{number} to have a name"), PATIENCE, || {
            resolver
                .ask(&format!("gateway.net{number}.test"), ASK_WITHIN)
                .is_ok_and(|address| address.is_some())
        })?;
    }
    Ok(rack)
}

/// One guest after the other.
fn leases(cluster: &Cluster, node: &Node) -> Result<Vec<Row>> {
    let mut resolver = Resolver::new(&cluster.lab, server())?;
    let mut resolved = Vec::new();
    // The first fills caches.
    for number in 0..=LEASES {
        let mut clients = Clients::on(node, "rack", "c100")?;
        clients.add(&format!("one{number}"), number);
        let given = clients.ask(PATIENCE)?.pop().context("no address")?;
        resolves(&mut resolver, &given, "net0")?;
        resolved.push(given.at.elapsed());
    }
    let row = Row::new(
        "a guest hears its address → its name resolves at the floating address",
        "ms",
        milliseconds(&resolved[1..]),
    );
    Ok(vec![row.target(Some(Target::AtMost(10.0)))])
}

fn resolves(resolver: &mut Resolver, given: &Given, domain: &str) -> Result<()> {
    let name = format!("{}.{domain}.test", given.name);
    let began = Instant::now();
    while resolver.ask(&name, ASK_WITHIN)? != Some(given.address) {
        ensure!(began.elapsed() < PATIENCE, "{name} does not become {}", given.address);
    }
    Ok(())
}

fn hand_over(arguments: &Arguments, cluster: &Cluster, node: &Node) -> Result<Vec<Row>> {
    let (mut gateway, mut guests, mut names, mut own) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first fills caches.
    for _ in 0..=arguments.repeat {
        let now = cluster.primary()?;
        let next = if now == "node1" { "node2" } else { "node1" };
        let gateways = Probe::start_on(node, "rack", "10.100.0.1".parse()?, PROBE_EVERY)?;
        let guest = Probe::of_name(&cluster.lab, server(), "one1.net0.test", PROBE_EVERY)?;
        let name = Probe::of_name(&cluster.lab, server(), "gateway.net9.test", PROBE_EVERY)?;
        let servers = Probe::start(&cluster.lab, server(), PROBE_EVERY)?;
        cluster.pvc(&["node", "primary", next])?;
        cluster.primary_other_than(&now)?;
        thread::sleep(Duration::from_secs(1));
        let probes =
            [(&mut gateway, gateways), (&mut guests, guest), (&mut names, name), (&mut own, servers)];
        for (gaps, probe) in probes {
            gaps.push(probe.finish()?.silence);
        }
    }
    let row = |what: &str, gaps: &[Duration]| {
        Row::new(what, "ms", milliseconds(gaps.get(1..).unwrap_or_default()))
            .target(Some(Target::AtMost(25.0)))
    };
    Ok(vec![
        row("hand-over of the primary with 10 client networks: a gateway away", &gateway),
        row("… a guest's name at the floating address away", &guests),
        row("… a gateway's name at the floating address away", &names),
        row("… the floating address itself away, meanwhile", &own),
    ])
}

/// Racks of guests whose power comes back, one after the other; the primary's is cut in the middle of the last.
fn storms(arguments: &Arguments, cluster: &Cluster, rack: &Rack) -> Result<Vec<Row>> {
    let (mut given, mut resolved) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for batch in 0..u8::try_from(arguments.repeat.min(5))? {
        let began = Instant::now();
        let seen = rack.ask(batch, OF_EACH, PATIENCE, || Ok(()))?;
        given.push(last(&seen, began));
        let mut resolver = Resolver::new(&cluster.lab, server())?;
        for (vni, given) in &seen {
            resolves(&mut resolver, given, &format!("net{}", vni - FIRST))?;
        }
        resolved.push(began.elapsed());
        all.extend(seen);
    }
    let missing = not_recorded(&cluster.lab, &all)?;
    ensure!(missing.is_empty(), "not in the state tree: {missing:?}");
    let (primary, began) = (cluster.primary()?, Instant::now());
    let seen = rack.ask(9, OF_EACH, PATIENCE, || {
        thread::sleep(Duration::from_millis(300));
        cluster.node(&primary).kill()
    })?;
    let addresses = last(&seen, began);
    cluster.primary_other_than(&primary)?;
    let unknown = not_recorded(&cluster.lab, &seen)?.len();
    all.extend(seen);
    let twice = given_twice(&all);
    let guests = NETWORKS * u32::from(OF_EACH);
    Ok(vec![
        Row::new(
            format!("{guests} guests in {NETWORKS} networks at once: all have addresses"),
            "s",
            seconds(&given),
        )
        .target(Some(Target::AtMost(3.0))),
        Row::new("… all names resolve", "s", seconds(&resolved)).target(Some(Target::AtMost(3.0))),
        Row::new("… the primary is killed after 0.3 s: all have addresses", "s", seconds(&[addresses])),
        Row::new("… addresses given to two guests", "", vec![f64::from(u32::try_from(twice)?)])
            .target(Some(Target::AtMost(0.0))),
        Row::new(
            "… leases that the next primary does not know",
            "",
            vec![f64::from(u32::try_from(unknown)?)],
        )
        .target(Some(Target::AtMost(0.0))),
    ])
}

/// When the last of them had an address.
fn last(given: &[(u32, Given)], began: Instant) -> Duration {
    given.iter().map(|(_, given)| given.at - began).max().unwrap_or_default()
}
