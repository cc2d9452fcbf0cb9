//! What `pvc vm list` costs with many VMs: requests are counted, times only printed (docs/benchmarks.md has a release build's).

mod support;

use std::{fmt::Write as _, time::Instant};

use pvc_core::model::VmChange;
use pvc_store::schema::vm;
use support::{Cluster, definition, id};

const VMS: u16 = 1000;

#[test]
fn a_thousand_vms_are_listed_in_a_few_requests() {
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
