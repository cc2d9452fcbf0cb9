//! Coordinators' reconcilers on a paused clock: hand-overs, cuts, kills, and machines that refuse.

mod addresses;
mod gateways;
mod world;

use pvc_core::model::{DaemonState, link::Assigned};
use pvc_host::services::UnitState;
use pvc_store::Store;
use tokio::time::sleep;

use super::*;
use world::{API, STEP, World, cidr, cluster, cluster_ip, floating_ips};

#[tokio::test(start_paused = true)]
async fn the_first_coordinator_becomes_primary_and_the_desired_state_says_so() {
    let world = World::running(3).await;
    let announced = world.machines[0].links.announced();
    let first = announced[0].0;
    for floating in floating_ips() {
        let its = announced.iter().filter(|(_, _, address)| *address == floating.cidr.addr());
        let times: Vec<u128> = its.map(|(at, ..)| (*at - first).as_millis()).collect();
        assert!(times.starts_with(&[0, 100, 1000]), "{floating:?}: {times:?}");
    }
    world.pass(Duration::from_secs(5)).await;
    for n in [1, 2] {
        assert_eq!(world.router_state(n), "secondary");
        assert!(world.machines[n].links.announced().is_empty());
        assert_eq!(world.machines[n].services.unit(API), UnitState::Inactive);
    }
    assert_eq!(world.get("/pvc/explain/primary"), None, "nothing to explain");
}

#[tokio::test(start_paused = true)]
async fn a_swarm_of_devices_has_no_coordinator_list_them_all_for_each() {
    let world = World::running(2).await;
    world.pass(Duration::from_secs(5)).await;
    let looks = || [0, 1].map(|n: usize| world.machines[n].links.looks());
    let before = looks();
    for _ in 0..400 {
        for machine in &world.machines {
            machine.links.by_hand(|_| ());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let after = looks();
    for n in [0, 1] {
        let looks = after[n] - before[n];
        // Two seconds, ten times each.
        assert!((10..60).contains(&looks), "{looks}");
    }
}

#[test]
fn each_networks_floating_addresses_are_where_its_addresses_are() {
    let sample = include_str!("../../../../../packaging/pvcd.yaml");
    let with_ipv6 = sample.replace("#network6", "network6").replace("#floating_ip6", "floating_ip6");
    let report = pvc_config::check(&with_ipv6, "pvcd.yaml");
    let floating = floating(&report.config.expect("the sample is valid"));
    let text: Vec<String> = floating.iter().map(|f| format!("{} {}", f.device, f.cidr)).collect();
    let all = ["1.1.1.10/24", "2001:db8::10/64", "10.255.0.254/24", "10.254.0.254/24"];
    assert_eq!(text, all.map(|cidr| format!("brcluster {cidr}")), "one device carries all three networks");
}

#[tokio::test(start_paused = true)]
async fn a_client_hands_over_by_writing_a_name() {
    let world = World::running(3).await;
    world.ask_for("c").await;
    world.until("a has dropped them", |w| !w.holds(0)).await;
    let gap = world.until("c has them", |w| w.holds(2)).await;
    assert!(gap < Duration::from_millis(50), "{gap:?}");
    world.until("c is primary", |w| w.is_primary(2)).await;
    assert_eq!(world.router_state(0), "secondary");
    assert_eq!(world.machines[0].services.unit(API), UnitState::Inactive);
    world.ask_for("a").await;
    world.until("a is primary again", |w| w.is_primary(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_lets_the_primary_step_down_by_writing_none() {
    let world = World::running(2).await;
    world.ask_for("none").await;
    let took = world.until("b is primary", |w| w.is_primary(1)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.pass(Duration::from_secs(30)).await;
    assert!(world.is_primary(1), "and stays it");
}

#[tokio::test(start_paused = true)]
async fn a_desired_state_for_nobody_else_is_answered_by_who_is_primary() {
    for desired in ["none", "x", "b"] {
        let world = World::running(2).await;
        world.declare(1, DaemonState::Stop).await;
        world.ask_for(desired).await;
        world.pass(Duration::from_millis(500)).await;
        assert!(world.holds(0), "{desired}: nothing is given up for nobody");
        world.until("a is primary by desired state, too", |w| w.is_primary(0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_desired_state_for_a_coordinator_that_does_not_react_does_not_leave_the_cluster_without() {
    let mut world = World::running(3).await;
    world.kill(1);
    world.ask_for("b").await;
    world.until("a hands over", |w| !w.holds(0)).await;
    let gap = world.until("somebody is primary", |w| w.is_primary(0) || w.is_primary(2)).await;
    assert!(gap < Duration::from_secs(7), "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_cut_off_drops_its_addresses_before_another_can_have_them() {
    let world = World::running(2).await;
    let cut = Instant::now();
    world.machines[0].store.suspend();
    world.until("a drops", |w| !w.holds(0)).await;
    let dropped = cut.elapsed();
    assert!(dropped <= Duration::from_millis(6700) && dropped > Duration::from_secs(4), "{dropped:?}");
    world.pass(Duration::from_secs(10).saturating_sub(dropped)).await;
    world.machines[0].store.expire();
    let took = world.until("b is primary", |w| w.is_primary(1)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.machines[0].store.resume();
    world.until("a knows", |w| w.router_state(0) == "secondary").await;
    world.pass(Duration::from_secs(20)).await;
    assert!(world.is_primary(1));
    assert_eq!(world.machines[0].services.unit(API), UnitState::Inactive);
}

#[tokio::test(start_paused = true)]
async fn a_short_loss_of_connection_moves_nothing() {
    let world = World::running(2).await;
    world.machines[0].store.suspend();
    world.pass(Duration::from_secs(4)).await;
    assert!(world.holds(0));
    world.machines[0].store.resume();
    world.pass(Duration::from_secs(20)).await;
    assert!(world.is_primary(0));
}

#[tokio::test(start_paused = true)]
async fn addresses_dropped_for_silence_come_back_with_the_same_session() {
    let world = World::running(2).await;
    world.machines[0].store.suspend();
    world.pass(Duration::from_secs(8)).await;
    assert!(!world.holds(0));
    world.machines[0].store.resume();
    let took = world.until("a is back", |w| w.is_primary(0)).await;
    // A write, and another one that shows that the leader has heard of the first.
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn reads_that_are_answered_keep_no_address() {
    let world = World::running(2).await;
    let orphaned = Instant::now();
    // As a server that has lost its leader.
    world.machines[0].store.orphan(true);
    world.until("a drops", |w| !w.holds(0)).await;
    assert!(orphaned.elapsed() <= Duration::from_millis(6700), "{:?}", orphaned.elapsed());
    assert!(
        world.machines[0].store.get("/pvc/primary").await.unwrap().is_some(),
        "and what is read is answered"
    );
    world.machines[0].store.orphan(false);
    let took = world.until("a is back", |w| w.is_primary(0)).await;
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_grants_is_what_the_addresses_live_from() {
    for granted_s in [5, 6, 10, 15, 30] {
        let mut world = World::new(2).await;
        for machine in &world.machines {
            machine.store.grant(Duration::from_secs(granted_s));
        }
        world.start(0);
        world.until("a is primary", |w| w.is_primary(0)).await;
        for _ in 0..240 {
            world.pass(Duration::from_millis(250)).await;
            assert!(world.holds(0), "in an ordinary life, with {granted_s} s");
        }
        let cut = Instant::now();
        world.machines[0].store.suspend();
        world.until("a drops", |w| !w.holds(0)).await;
        assert!(
            cut.elapsed() < Duration::from_secs(granted_s) * 7 / 10,
            "{granted_s} s: {:?}",
            cut.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn another_server_that_grants_less_is_heeded_at_once() {
    let world = World::running(2).await;
    world.machines[0].store.suspend();
    world.pass(Duration::from_secs(3)).await;
    world.machines[0].store.grant(Duration::from_secs(5));
    world.machines[0].store.orphan(true);
    world.machines[0].store.resume();
    world.pass(Duration::from_millis(500)).await;
    assert!(!world.holds(0), "3.3 s have passed since any write, and nobody knows when the session ends");
}

#[tokio::test(start_paused = true)]
async fn a_killed_primarys_addresses_are_gone_before_its_session_ends() {
    let mut world = World::running(2).await;
    world.kill(0);
    world.pass(Duration::from_secs(9)).await;
    assert!(!world.holds(0), "the kernel has ended them");
    world.pass(Duration::from_secs(1)).await;
    world.machines[0].store.expire();
    let took = world.until("b is primary", |w| w.is_primary(1)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_killed_primary_that_is_restarted_at_once_keeps_everything() {
    let mut world = World::running(2).await;
    world.kill(0);
    world.pass(Duration::from_secs(1)).await;
    let old = world.restart(0).await;
    for _ in 0..1000 {
        world.pass(STEP).await;
        assert!(world.holds(0), "not for a moment");
    }
    drop(old);
    world.pass(Duration::from_secs(20)).await;
    assert!(world.is_primary(0), "the end of the old session ends nothing");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_primary_that_is_not_desired_any_more_gives_way() {
    let mut world = World::running(2).await;
    world.kill(0);
    world.ask_for("b").await;
    let _old = world.restart(0).await;
    let took = world.until("b is primary", |w| w.is_primary(1)).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_stops_hands_over_first() {
    let mut world = World::running(2).await;
    let primary = world.machines[0].primary.take().unwrap();
    let stopping = pvc_process::spawn(primary.stop(Duration::from_secs(3)));
    world.declare(0, DaemonState::Shutdown).await;
    let took = world.until("b is primary", |w| w.is_primary(1)).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    stopping.await.unwrap();
    assert_eq!(world.router_state(0), "secondary");
}

#[tokio::test(start_paused = true)]
async fn stale_addresses_are_found_and_dropped() {
    let world = World::running(2).await;
    let stale = Assigned { cidr: cidr("10.255.0.254"), lifetime_s: None };
    world.machines[1].links.by_hand(|network| {
        network.links.iter_mut().find(|l| l.name == "ens3").unwrap().addresses.push(stale);
    });
    let began = Instant::now();
    while world.holds(1) {
        sleep(STEP).await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "on the wrong device, for ever, and on the wrong node"
        );
    }
    world.pass(Duration::from_secs(5)).await;
    assert!(world.is_primary(0));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_somebody_removes_comes_back_and_is_announced() {
    let world = World::running(2).await;
    world.pass(Duration::from_secs(5)).await;
    let before = world.machines[0].links.announced().len();
    world.machines[0].links.by_hand(|network| network.links.iter_mut().for_each(|l| l.addresses.clear()));
    let took = world.until("they are back", |w| w.is_primary(0)).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(world.machines[0].links.announced().len() > before);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_holds_up_no_hand_over() {
    let world = World::running(2).await;
    world.machines[0].services.hang(API, true);
    world.machines[1].services.hang(API, true);
    world.ask_for("b").await;
    let took = world.until("b has the addresses", |w| w.holds(1)).await;
    assert!(took < Duration::from_millis(2500), "{took:?}");
    world.until("it is shown", |w| w.get("/pvc/explain/primary").is_some_and(|e| e.contains("API"))).await;
    assert_eq!(world.router_state(1), "primary");
    world.machines[1].services.hang(API, false);
    world.until("b is primary in full", |w| w.is_primary(1)).await;
    world.until("nothing to explain", |w| w.get("/pvc/explain/primary").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_that_ends_is_explained_and_started_again_less_and_less_often() {
    let world = World::running(1).await;
    let is_explained = |w: &World| w.get("/pvc/explain/primary").is_some_and(|e| e.contains("has failed"));
    let starts =
        |w: &World| w.machines[0].services.history().iter().filter(|h| h.starts_with("start")).count();
    let mut between = Vec::new();
    for n in 2..8 {
        world.machines[0].services.end(API, UnitState::Failed);
        world.until("it is explained", is_explained).await;
        between.push(world.until("it is started", |w| starts(w) == n).await);
    }
    assert!(between[0] < Duration::from_secs(6), "{between:?}");
    assert!(between[5] > Duration::from_secs(50) && between[5] < Duration::from_secs(70), "{between:?}");
    world.until("nothing to explain", |w| w.is_primary(0) && w.get("/pvc/explain/primary").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn addresses_that_cannot_be_removed_are_waited_for_until_the_kernel_ends_them() {
    let world = World::running(2).await;
    world.machines[0].links.refuse("remove-address", true);
    world.ask_for("b").await;
    let took = world.until("b has the addresses", |w| w.holds(1)).await;
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(10), "{took:?}");
    world.until("b is primary", |w| w.is_primary(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_cannot_be_added_keeps_nothing_else_from_being_primary() {
    let world = World::running(2).await;
    world.machines[1].links.by_hand(|network| network.links.retain(|l| l.name != "ens3"));
    world.ask_for("b").await;
    world
        .until("b is primary with what it can have", |w| {
            w.machines[1].links.has(cluster_ip())
                && w.get("/primary_node").as_deref() == Some("b")
                && w.router_state(1) == "primary"
                && w.machines[1].services.unit(API) == UnitState::Active
        })
        .await;
    world.until("it is shown", |w| w.get("/pvc/explain/primary").is_some_and(|e| e.contains("ens3"))).await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_conflicts_end_with_one_primary() {
    let world = World::running(3).await;
    for (round, desired) in ["b", "none", "c", "a", "none", "b"].into_iter().enumerate() {
        for machine in &world.machines {
            machine.store.lose_answers(u32::try_from(round % 3).unwrap());
        }
        world.ask_for(desired).await;
        world.until("somebody is primary", |w| (0..3).any(|n| w.is_primary(n))).await;
        world.pass(Duration::from_secs(12)).await;
        assert!((0..3).any(|n| world.is_primary(n)), "after {desired}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_managed_networks_there_is_a_primary_without_addresses() {
    let mut world = World::new(1).await;
    let machine = &mut world.machines[0];
    let store = Arc::clone(&machine.store) as Arc<dyn Store>;
    machine.primary = Some(Primary::start(Dependencies {
        cluster: cluster(machine, store),
        links: None,
        floating: floating_ips(),
        own_networks: Vec::new(),
        services: vec![],
    }));
    world
        .until("it is primary", |w| {
            w.router_state(0) == "primary" && w.get("/primary_node").as_deref() == Some("a")
        })
        .await;
}
