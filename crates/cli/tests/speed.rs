//! What lists, the status and a placement cost with many VMs: requests are counted, times only printed (docs/benchmarks.md has a
//! release build's).

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fmt::Write as _, time::Instant};

use pvc_core::model::{Entry, NodeReport, VmChange, VmKey, VmSet, VmState};
use pvc_store::schema::{node, vm};
use support::{Cluster, definition, id};

const VMS: u16 = 1000;

/// A thousand VMs that are off.
fn cluster() -> Cluster {
    let cluster = Cluster::with_nodes(&["hv1", "hv2", "hv3"]);
    for number in 0..VMS {
        let name = format!("vm{number:04}");
        // Real definitions have some 7.5 kB.
        let mut xml = definition(&name, number);
        while xml.len() < 7500 {
            let _ = write!(xml, "<!-- a device with an address of its own takes about this much text -->");
        }
        let change = VmChange::Define {
            id: id(number),
            name: name.parse().unwrap(),
            node: "hv1".parse().unwrap(),
            xml,
            rbd_images: Vec::new(),
        };
        cluster.runtime.block_on(vm::apply(&*cluster.store, &change)).unwrap();
    }
    cluster
}

#[test]
fn a_thousand_vms_are_listed_surveyed_and_placed_in_a_few_requests() {
    let cluster = cluster();
    lists(&cluster);
    status_and_placement(&cluster);
}

fn lists(cluster: &Cluster) {
    for args in [&["vm", "list"][..], &["vm", "list", "--long"], &["vm", "list", "--format", "json"]] {
        let before = cluster.packets();
        let mut times: Vec<_> = (0..5)
            .map(|_| {
                let began = Instant::now();
                let text = cluster.ok(args);
                assert!(text.contains("vm0999"));
                began.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("{args:?}: median {:?}, best {:?}, worst {:?}", times[2], times[0], times[4]);
        let requests = (cluster.packets() - before) / 5;
        assert!(requests <= 40, "{args:?} took {requests} requests for {VMS} VMs");
    }
}

/// With all of them running.
fn status_and_placement(cluster: &Cluster) {
    let room = NodeReport { mem_total_mib: 1_000_000, ..NodeReport::default() };
    cluster.ready(&["hv1", "hv2", "hv3"]);
    cluster.runtime.block_on(async {
        let store = &*cluster.store;
        for number in 0..VMS {
            let Some(Entry::Good(vm)) = vm::read(store, id(number)).await.unwrap() else { panic!() };
            let claim = VmSet::Claim("hv1".parse().unwrap());
            let start = VmChange::update(&vm, &[VmKey::State], vec![VmSet::State(VmState::Start), claim]);
            vm::apply(store, &start).await.unwrap();
        }
        let running = NodeReport { running: (0..VMS).map(id).collect(), ..room.clone() };
        for (name, report) in [("hv1", &running), ("hv2", &room), ("hv3", &room)] {
            store.commit(node::report(&name.parse().unwrap(), report, None)).await.unwrap();
        }
    });
    let began = Instant::now();
    let text = cluster.ok(&["status"]);
    eprintln!("status: {:?}", began.elapsed());
    assert!(text.contains("1000 of 1000 run as asked"), "{text}");
    // Placing counts what is spoken for: it reads a thousand definitions.
    let before = cluster.packets();
    let mut times: Vec<_> = (0..3)
        .map(|number| {
            let began = Instant::now();
            cluster.ok(&["vm", "migrate", "--no-wait", &format!("vm000{number}")]);
            began.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("vm migrate: median {:?}, best {:?}, worst {:?}", times[1], times[0], times[2]);
    let requests = (cluster.packets() - before) / 3;
    // The mirror asks for each definition's version, in one go: ZooKeeper has no request for many of them.
    let requests = requests.saturating_sub(u64::from(VMS));
    assert!(requests <= 100, "a placement took {requests} requests for {VMS} VMs");
}
