//! How long lists of many VMs take over a real ZooKeeper, and what the service has in memory then: printed, not judged. By hand, of a thousand or more:
//! `PVC_VMS=10000 cargo nextest run --release -p pvc-api --run-ignored only --no-capture lists_of_many_vms`; `PVC_API` is another program than the one that
//! was built, to compare.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use pvc_core::model::VmChange;
use pvc_store::{
    Store,
    schema::{root, vm},
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};

use crate::{support::definition, zookeeper::Program};

/// So often each list is asked for, unless that takes too long.
const ASKED: usize = 200;
const NO_LONGER_THAN: Duration = Duration::from_secs(40);

#[test]
#[ignore = "a measurement, by hand"]
fn lists_of_many_vms_are_measured() {
    let number = |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let vms: u32 = number("PVC_VMS", 1000);
    let zookeeper = ZooKeeperProcess::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = ZooKeeperStore::start(Options::new(zookeeper.connect_string()));
        root::init(&*store).await.unwrap();
        for n in 0..vms {
            define(&*store, n).await;
        }
    });
    drop(runtime);
    let program = Program::start(&zookeeper.connect_string(), std::env::var("PVC_API").ok().as_deref());
    eprintln!("{vms} VMs; at its start {}", program.memory());
    let mut paths =
        vec!["/api/v2/vms", "/api/v2/vms?count=50", "/api/v2/nodes", "/api/v2/vms/vm0007", "/api/v2/status"];
    if vms <= 2000 {
        paths.push("/api/v1/vm");
    }
    for path in paths {
        let (mut times, mut bytes, began) = (Vec::new(), 0, Instant::now());
        while times.len() < ASKED && began.elapsed() < NO_LONGER_THAN {
            let asked = Instant::now();
            let answer = program.ask("GET", path, "");
            times.push(asked.elapsed());
            assert!(answer.status == 200 || answer.status == 504, "{path}: {}", answer.head);
            bytes = answer.body.len();
        }
        let first = times[0];
        times.sort_unstable();
        let n = times.len();
        eprintln!(
            "{path}: {bytes} bytes, {n} times: first {first:?}, median {:?}, p99 {:?}, worst {:?}; {}",
            times[n / 2],
            times[n * 99 / 100],
            times[n - 1],
            program.memory()
        );
    }
}

async fn define(store: &dyn Store, n: u32) {
    let (name, uuid) = (format!("vm{n:04}"), format!("11111111-0000-4000-8000-{n:012x}"));
    let mut xml = definition(&name, 1).replace(&pvc_operate::testing::id(1).to_string(), &uuid);
    // Real definitions have some 7.5 kB.
    while xml.len() < 7500 {
        let _ = write!(xml, "<!-- a device with an address of its own takes about this much text -->");
    }
    let (id, name, node) = (uuid.parse().unwrap(), name.parse().unwrap(), "hv1".parse().unwrap());
    let change = VmChange::Define { id, name, node, xml, rbd_images: Vec::new() };
    vm::apply(store, &change).await.unwrap();
}
