//! The plan of a node's networks on a real kernel: while the cluster network's device becomes a port of the bridge, a connection
//! over its address goes on.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pvc_core::plan::{
    Next,
    network::{Desired, Wanted, plan},
};
use pvc_host::links::{Links, Netlink};

use crate::{
    contract::cidr,
    namespace::{Beside, alone, ip},
};

/// All three networks on eth0, as in the manual's example.
fn desired() -> Desired {
    let wanted = |own: Option<&str>| Wanted { device: "eth0".into(), mtu: 1500, address: own.map(cidr) };
    Desired {
        upstream: wanted(None),
        cluster: wanted(Some("10.255.0.1/24")),
        storage: wanted(Some("10.254.0.1/24")),
        gateway: Some("1.1.1.1".parse().unwrap()),
        routes: true,
    }
}

async fn settle(links: &dyn Links, desired: &Desired) -> Vec<String> {
    let mut done = Vec::new();
    loop {
        let plan = plan(desired, &links.observe(&desired.sysctls()).await.unwrap());
        match plan.next {
            Next::Settled => return done,
            Next::Wait(_) => panic!("{}", plan.why),
            Next::Do(batch) => {
                for (change, _) in batch {
                    links.apply(&change).await.unwrap();
                    done.push(change.to_string());
                }
            }
        }
        assert!(done.len() < 50, "{done:#?}");
    }
}

/// Answers every byte with the same.
fn echo() {
    let listener = TcpListener::bind("10.255.0.9:7").unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    });
}

/// Sends a byte each millisecond until told to end; the longest wait for an answer.
fn probe(ready: &AtomicBool, end: &AtomicBool) -> Duration {
    let mut stream = TcpStream::connect("10.255.0.9:7").unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut longest = Duration::ZERO;
    while !end.load(Ordering::Relaxed) {
        let sent = Instant::now();
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).expect("the connection is cut");
        longest = longest.max(sent.elapsed());
        ready.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    longest
}

#[test]
fn a_connection_over_the_cluster_devices_address_survives_its_move_to_the_bridge() {
    alone(async || {
        let other = Beside::new();
        ip(&format!("link add eth0 type veth peer name eth0 netns {}", other.thread_id));
        other.ip("link set eth0 up");
        other.ip("address add 10.255.0.9/24 dev eth0");
        other.run(echo);
        // As an operator, or the installer, has set it up.
        ip("link set eth0 up");
        ip("address add 10.255.0.1/24 dev eth0");
        ip("route add default via 10.255.0.200");
        let (ready, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let prober = thread::spawn({
            let (ready, end) = (Arc::clone(&ready), Arc::clone(&end));
            move || probe(&ready, &end)
        });
        while !ready.load(Ordering::Relaxed) {
            assert!(!prober.is_finished(), "the probe does not get through");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let links = Netlink::start().unwrap();
        let done = settle(&*links, &desired()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        end.store(true, Ordering::Relaxed);
        let longest = prober.join().unwrap();
        println!("the longest wait for an answer: {longest:?}");
        assert!(longest < Duration::from_secs(2), "{longest:?}; {done:#?}");

        let seen = links.observe(&desired().sysctls()).await.unwrap();
        let bridge = seen.link("brcluster").unwrap();
        assert!(bridge.has(cidr("10.255.0.1/24")) && bridge.has(cidr("10.254.0.1/24")));
        assert_eq!(
            seen.link("eth0").unwrap().addresses.iter().filter(|a| a.cidr.addr().is_ipv4()).count(),
            0
        );
        assert_eq!(ip("route show default").trim(), "default via 10.255.0.200 dev brcluster");
        assert_eq!(seen.sysctls["net/ipv4/ip_forward"], "1");
        assert_eq!(settle(&*links, &desired()).await, [""; 0], "once is enough");
    });
}

#[test]
fn what_is_removed_by_hand_comes_back_and_a_floating_address_takes_no_other_along() {
    alone(async || {
        ip("link add eth0 type veth peer name peer0");
        ip("link set peer0 up");
        let links = Netlink::start().unwrap();
        settle(&*links, &desired()).await;
        ip("link set eth0 nomaster");
        ip("address flush dev brcluster");
        ip("address add 10.255.0.254/24 dev brcluster valid_lft 1 preferred_lft 1");
        let done = settle(&*links, &desired()).await;
        assert!(!done.is_empty());
        let addresses = async || {
            let seen = links.observe(&[]).await.unwrap();
            let all = seen.link("brcluster").unwrap().addresses.clone();
            let mut v4: Vec<_> = all.into_iter().map(|a| a.cidr).filter(|c| c.addr().is_ipv4()).collect();
            v4.sort();
            v4
        };
        assert_eq!(addresses().await.len(), 3);
        // The floating address was there first: the node's own is its secondary, and must survive it.
        let began = Instant::now();
        while addresses().await.len() > 2 {
            assert!(began.elapsed() < Duration::from_secs(5), "its lifetime does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(addresses().await, [cidr("10.254.0.1/24"), cidr("10.255.0.1/24")]);
        assert_eq!(settle(&*links, &desired()).await, [""; 0]);
    });
}
