//! The web page in a real browser, on a real cluster. What a person does and sees there is in the folder `page`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, thread, time::Duration};

use pvc_lab::{
    Cluster, LabOptions, PATIENCE, guest_xml,
    layout::{API_PORT, API_TOKEN, Net},
    machine::marker,
    wait_until,
};

const VM: &str = "7a7a7a7a-0000-4000-8000-000000000001";
const LOOK_EVERY: Duration = Duration::from_millis(100);
const VISIT: Duration = Duration::from_mins(14);

#[test]
fn a_person_with_a_browser_defines_starts_watches_and_migrates_a_vm() {
    let mut options = LabOptions::new("page", env!("CARGO_BIN_EXE_pvc-lab"));
    options.enable_api = true;
    let cluster = Cluster::up(options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let definition = folder.path().join("page.xml");
    let screen = "<video><model type='vga'/></video><graphics type='vnc' listen='127.0.0.1' autoport='yes'/></devices>";
    std::fs::write(&definition, guest_xml("page", VM, 96).replace("</devices>", screen)).unwrap();

    let [floating, _] = Net::Upstream.floating();
    let url = format!("http://{floating}:{API_PORT}/");
    wait_until("the page", PATIENCE, || {
        let asked = cluster.lab.exec_in_switch(&["/usr/bin/curl", "-sfo", "/dev/null", &url], PATIENCE);
        asked.is_ok_and(|answer| answer.success())
    })
    .unwrap();
    let packages = format!("PYTHONPATH={}", marker::checkout().join("target/page-test").display());
    let servers = cluster.lab.zk_connect_string();
    let mut program = vec![
        "/usr/bin/env",
        &packages,
        "/usr/bin/python3",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/main.py"),
        &url,
        API_TOKEN,
        &servers,
        definition.to_str().unwrap(),
        "node3",
    ];
    // For docs/images.
    let shots = std::env::var("PVC_PAGE_SHOTS").ok();
    program.extend(shots.as_deref());
    let seen = thread::scope(|scope| {
        let visit = scope.spawn(|| cluster.lab.exec_in_switch(&program, VISIT));
        while !visit.is_finished() {
            if let Some(node) = take(&folder.path().join("cut")) {
                cluster.node(&node).kill().unwrap();
            }
            thread::sleep(LOOK_EVERY);
        }
        visit.join().unwrap().unwrap()
    });
    assert!(seen.success(), "{}{}", seen.stdout, seen.stderr);
}

/// Whose power is to be cut, said once.
fn take(file: &Path) -> Option<String> {
    let node = std::fs::read_to_string(file).ok().filter(|node| !node.is_empty())?;
    std::fs::remove_file(file).unwrap();
    Some(node)
}
