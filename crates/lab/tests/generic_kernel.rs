//! What needs a kernel with features that a machine of continuous integration may not have: Debian's, emulated. Needs no root.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::{path::Path, time::Duration};

use pvc_lab::Emulated;

/// Bridges and VLANs, in an order that respects what depends on what.
const MODULES: [&str; 7] = ["llc", "stp", "bridge", "garp", "mrp", "8021q", "veth"];

#[test]
fn bridged_networks_are_made_and_mended_by_a_kernel_with_802_1q() {
    let built = Path::new(env!("CARGO_BIN_EXE_pvc-lab")).parent().unwrap();
    let program = built.join("examples/bridged_networks");
    let tools = ["/usr/sbin/ip", "/usr/sbin/bridge"];
    let machine = Emulated { program: &program, modules: &MODULES, tools: &tools };
    let console = machine.run(Duration::from_mins(3)).unwrap();
    println!("{console}");
    assert!(console.contains("bridged networks: all is well"), "{console}");
    assert!(console.contains("MACHINE ended with 0") && !console.contains("MACHINE has no"), "{console}");
}
