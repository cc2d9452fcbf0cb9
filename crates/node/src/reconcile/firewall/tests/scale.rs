//! What a hundred networks of twenty rules cost with the real `nft` and the real netlink, and a tree in memory. Run by hand, as it fills the
//! network namespace that it is run in.

use std::fs;

use pvc_host::{firewall::Nft, links::Netlink, run::Program};

use super::*;
use crate::reconcile::client_network::ClientNetworks;

/// The CPU time of this process and of the programs that it has run, in seconds.
fn used() -> (f64, f64) {
    let told = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> =
        told.rsplit(')').next().unwrap().split(' ').skip(2).map(|f| f.parse().unwrap_or(0.0)).collect();
    // From the state on, which is the third: its own times are 14 and 15, its programs' 16 and 17; a hundred ticks are a second.
    ((fields[10] + fields[11]) / 100.0, (fields[12] + fields[13]) / 100.0)
}

/// Waits until the kernel says so; answers how long it took, and what was used.
async fn measured(what: &str, pause: Duration, is_so: impl AsyncFn() -> bool) {
    let (began, before) = (Instant::now(), used());
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_mins(2), "waited for {what}");
        sleep(pause).await;
    }
    let (took, now) = (began.elapsed().as_secs_f64(), used());
    println!("{what}: {took:.2} s; CPU {:.2} s, of programs {:.2} s", now.0 - before.0, now.1 - before.1);
}

fn tunnels() -> usize {
    let devices = fs::read_dir("/proc/sys/net/ipv4/conf").unwrap();
    devices
        .filter(|device| device.as_ref().unwrap().file_name().to_string_lossy().starts_with("vxlan"))
        .count()
}

#[tokio::test]
#[ignore = "it measures: unshare -n cargo nextest run -p pvcd --run-ignored only what_a_hundred_networks_cost --no-capture"]
async fn what_a_hundred_networks_cost() {
    let base = NetworkWorld::new().await;
    for number in 100..200 {
        base.define(&network(number)).await;
        let rules = (1..=20).flat_map(|rule| {
            let own = format!("/networks/{number}/firewall_rules/in/rule{rule}");
            let text = format!("tcp dport {rule} accept");
            [
                (own.clone(), String::new()),
                (format!("{own}/order"), rule.to_string()),
                (format!("{own}/rule"), text),
            ]
        });
        let rules: Vec<(String, String)> = rules.collect();
        base.create(&rules.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>())
            .await;
    }
    let (firewall, bridges) = (Nft::start("/nonexistent".into()).unwrap(), Netlink::start().unwrap());
    let definitions = Arc::new(Definitions::new(base.cluster.store.clone()));
    let teller = |tenant| base.troubles.teller(tenant);
    let _walls = Walls::start(
        base.cluster.clone(),
        firewall.clone(),
        bridges.clone(),
        Arc::clone(&definitions),
        Ground::default(),
        teller("firewall"),
    );
    let nft = Program::find("nft").unwrap();
    let rules = async |of: &str| {
        let arguments: Vec<&str> = "list".split(' ').chain(of.split(' ')).collect();
        nft.run_on(&arguments, "", Duration::from_secs(5)).await.unwrap().stdout.matches(" dport ").count()
    };
    let (often, seldom) = (Duration::from_millis(5), Duration::from_millis(200));
    measured("2000 rules stand", seldom, async || rules("table inet pvc").await > 2000).await;
    let ground = pvc_core::plan::client_network::Ground {
        me: base.cluster.me.clone(),
        uplink: "eth1".into(),
        mtu: 1500,
        address: Some("10.255.1.1".parse().unwrap()),
    };
    let _networks =
        ClientNetworks::start(base.cluster.clone(), bridges.clone(), definitions, ground, teller("networks"));
    measured("100 bridges and tunnels", often, async || tunnels() == 100).await;
    measured("all is quiet", Duration::ZERO, async || {
        let before = used();
        sleep(Duration::from_secs(2)).await;
        used().0 - before.0 < 0.1
    })
    .await;
    for port in 1..=5 {
        sleep(Duration::from_secs(2)).await;
        let own = format!("/networks/150/firewall_rules/in/more{port}");
        base.create(&[
            (&own, ""),
            (&format!("{own}/order"), "99"),
            (&format!("{own}/rule"), "udp dport 9 accept"),
        ])
        .await;
        measured("one rule", often, async || rules("chain inet pvc n150_in").await == 20 + port).await;
    }
}
