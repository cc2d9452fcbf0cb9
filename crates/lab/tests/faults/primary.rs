//! The primary coordinator moves, or dies: its addresses are on one node at most, and soon on one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pvc_lab::{
    Node, PATIENCE, Probe, Rack, Scenario, Traffic, given_twice, layout::Net, not_recorded, play, wait_until,
};

use crate::{SOON, default, fast, load::under_load, network::drop_from_others};

fn probes(s: &Scenario) -> Result<Vec<Probe>> {
    let interval = Duration::from_millis(5);
    let floating = [Net::Cluster, Net::Upstream].into_iter().flat_map(Net::floating);
    floating.map(|address| Probe::start(&s.cluster.lab, address, interval)).collect()
}

/// The longest time that any of the addresses did not answer.
fn longest_silence(probes: Vec<Probe>) -> Result<Duration> {
    let reaches = probes.into_iter().map(Probe::finish).collect::<Result<Vec<_>>>()?;
    Ok(reaches.into_iter().map(|reach| reach.silence).max().unwrap_or_default())
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_primary_that_is_bounced_ten_times_under_load_takes_its_addresses_along_each_time() {
    play(default("f-bounce", 3), |s| {
        let busy = s.start_vms([1, 2], "node3")?;
        let mut gaps = Vec::new();
        under_load(s, &busy, 0x5eed_0005, || {
            for round in 0..10 {
                let now = s.cluster.primary()?;
                let next = if now == "node1" { "node2" } else { "node1" };
                let watching = probes(s)?;
                s.fault(&format!("{next} is to be primary ({} of 10)", round + 1), || {
                    s.cluster.pvc(&["node", "primary", next]).map(drop)
                })?;
                ensure!(s.cluster.primary()? == next);
                gaps.push(longest_silence(watching)?);
            }
            Ok(())
        })?;
        s.note(format!("the addresses did not answer for {gaps:?}"));
        let longest = gaps.into_iter().max().unwrap_or_default();
        // The figure is in docs/benchmarks.md; a machine that is busy is allowed more.
        s.recovered("an address", longest, Duration::from_secs(3))
    });
}

#[test]
fn the_addresses_of_a_primary_that_dies_move_once_it_is_proven_dead() {
    play(fast("f-primary-dies", 3), |s| {
        let first = s.cluster.primary()?;
        let node = s.victim(&first);
        let watching = probes(s)?;
        s.fault(&format!("{first}, the primary, loses its power"), || node.kill())?;
        s.cluster.primary_other_than(&first)?;
        s.recovered("the addresses", longest_silence(watching)?, SOON)
    });
}

#[test]
fn guests_that_ask_for_addresses_while_the_primary_dies_get_one_each_and_the_next_one_knows_all() {
    play(fast("f-primary-rack", 3), |s| {
        for vni in [100, 101] {
            let add = format!(
                "network add -p managed -d net{vni} -i 10.{vni}.0.0/24 -g 10.{vni}.0.1 --dhcp --dhcp-start 10.{vni}.0.2 --dhcp-end 10.{vni}.0.254 {vni}"
            );
            s.cluster.pvc(&add.split(' ').collect::<Vec<_>>())?;
        }
        let first = s.cluster.primary()?;
        let stays = if first == "node3" { "node2" } else { "node3" };
        let rack = Rack::build(&s.node(stays), &[100, 101], PATIENCE)?;
        let mut given = rack.ask(0, 40, PATIENCE, || Ok(()))?;
        let node = s.victim(&first);
        given.extend(rack.ask(1, 80, PATIENCE, || {
            s.fault(
                &format!("{first}, the primary, loses its power while 160 guests ask for addresses"),
                || node.kill(),
            )
            .map(drop)
        })?);
        s.cluster.primary_other_than(&first)?;
        let (twice, unknown) = (given_twice(&given), not_recorded(&s.cluster.lab, &given)?);
        ensure!(twice == 0, "{twice} addresses were given to two guests");
        ensure!(unknown.is_empty(), "nobody knows of the leases of {unknown:?}");
        Ok(())
    });
}

#[test]
#[ignore = "the whole menu: cargo xtask faults"]
fn a_primary_that_is_fenced_although_it_lives_on_in_the_dark_drops_its_addresses_first() {
    play(fast("f-primary-cut", 3), |s| {
        let first = s.cluster.primary()?;
        let node = s.victim(&first);
        let watching = probes(s)?;
        s.fault(&format!("{first}, the primary, is cut off from the other nodes' ZooKeepers"), || {
            let others = s.cluster.lab.nodes().into_iter().filter(|other| other.name() != first);
            others.into_iter().try_for_each(|other| {
                let peer = pvc_lab::Peer::Node(other.number().get());
                s.cluster.lab.drop_some(&node, peer, pvc_lab::Traffic::ZooKeeper)
            })
        })?;
        s.cluster.primary_other_than(&first)?;
        s.recovered("the addresses", longest_silence(watching)?, SOON)
    });
}

#[test]
fn a_primary_that_is_cut_off_from_zookeeper_drops_its_addresses_before_the_next_one_takes_them() {
    let mut never_fence = fast("f-primary-lives", 3);
    never_fence.timings.fence_intervals = 0;
    play(never_fence, |s| {
        let first = s.cluster.primary()?;
        let node = s.node(&first);
        let watching = probes(s)?;
        s.fault(&format!("{first}, the primary, is cut off from the other nodes"), || {
            let others = s.cluster.lab.nodes().into_iter().filter(|other| other.name() != first);
            others.into_iter().try_for_each(|other| s.cluster.lab.drop_frames(&node, Some(&other)))
        })?;
        let next = s.cluster.primary_other_than(&first)?;
        s.recovered("the addresses", longest_silence(watching)?, SOON)?;
        s.cluster.lab.undrop()?;
        s.cluster.wait_node(&first, "coordinator_state", "secondary")?;
        ensure!(s.cluster.primary()? == next);
        Ok(())
    });
}

/// Whether the node's ZooKeeper follows, and its daemon is that one's client.
fn lives_with_its_own_follower(s: &Scenario, node: &Node) -> Result<bool> {
    let servers = node.run(&["/bin/ss", "-Htnp", "state", "established", "dport = :2181"], PATIENCE)?;
    let mut of_daemon = servers.lines().filter(|line| line.contains("\"pvcd\"")).peekable();
    let own = format!("{}:2181", node.address());
    let attached = of_daemon.peek().is_some() && of_daemon.all(|line| line.contains(&own));
    Ok(attached && s.cluster.lab.zookeeper_mode(node.number())? == "follower")
}

/// A primary that lives with its own follower. Daemons choose by chance: they are started again until one has chosen so.
fn primary_with_its_own_follower(s: &Scenario) -> Result<Node> {
    for _ in 0..10 {
        for node in s.cluster.lab.nodes() {
            if s.cluster.lab.zookeeper_mode(node.number())? != "follower" {
                continue;
            }
            if lives_with_its_own_follower(s, &node)? {
                let name = node.name();
                if s.cluster.primary()? != name {
                    s.pvc(&["node", "primary", &name])?;
                }
                ensure!(s.cluster.primary()? == name);
                return Ok(node);
            }
            node.run(&["/bin/systemctl", "restart", "pvcd"], PATIENCE)?;
            s.cluster.wait_node(&node.name(), "daemon_state", "run")?;
        }
    }
    None.context("no daemon has chosen its own node's server")
}

#[test]
fn a_primary_whose_server_has_lost_its_leader_drops_its_addresses_although_it_can_read() {
    let mut never_fence = fast("f-primary-orphan", 3);
    never_fence.timings.fence_intervals = 0;
    play(never_fence, |s| {
        let node = primary_with_its_own_follower(s)?;
        let first = node.name();
        let watching = probes(s)?;
        let what = format!("{first}, the primary, has a ZooKeeper server that does not reach its leader");
        let cut = s.fault(&what, || drop_from_others(s, &node, Traffic::ZooKeeper))?;
        let follows = || s.cluster.lab.zookeeper_mode(node.number()).is_ok_and(|mode| mode == "follower");
        let has_one =
            || [Net::Cluster, Net::Upstream].iter().any(|net| s.cluster.holders(*net).contains(&first));
        let mut served = Duration::ZERO;
        wait_until("the addresses to be dropped", PATIENCE, || {
            if follows() {
                served = cut.elapsed();
            }
            !has_one()
        })?;
        let dropped = cut.elapsed();
        s.note(format!(
            "{first} dropped the addresses after {dropped:.1?}; its server answered for {served:.1?}"
        ));
        // Four seconds, in the lab: syncLimit.
        ensure!(served >= Duration::from_secs(1), "nothing was answered that could have kept addresses");
        // Two thirds of a session of ten seconds, and not of one that begins with the last answer.
        ensure!(dropped <= Duration::from_secs(8), "the addresses lived from what was read: {dropped:?}");
        let next = s.cluster.primary_other_than(&first)?;
        s.recovered("the addresses", longest_silence(watching)?, SOON)?;
        s.cluster.lab.undrop()?;
        let back = Instant::now();
        s.cluster.wait_node(&first, "coordinator_state", "secondary")?;
        s.note(format!(
            "{first} is secondary {:.1} s after its server is back",
            back.elapsed().as_secs_f64()
        ));
        ensure!(s.cluster.primary()? == next);
        Ok(())
    });
}
