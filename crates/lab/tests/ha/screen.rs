//! What is on a guest's screen, for who is on another node, or has nothing but the API.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pvc_lab::{
    PATIENCE, Vm,
    guest::READY_LINE,
    guest_xml,
    layout::{API_PORT, API_TOKEN, Net},
    wait_until,
};

use crate::{api, fast_timings, on_lab, options};

/// See there.
const VIEWER: &str = include_str!("viewer.py");
const SOON: Duration = Duration::from_mins(1);

/// The lab's guest with a screen.
fn definition(vm: &Vm) -> String {
    let screen = "<video><model type='vga'/></video><graphics type='vnc' listen='127.0.0.1' autoport='yes' sharePolicy='force-shared'/></devices>";
    guest_xml(&vm.name, &vm.uuid, 96).replace("</devices>", screen)
}

/// On a third node: neither where the guest is nor where it goes.
#[test]
fn a_screen_is_seen_on_whatever_node_the_guest_is() {
    let mut options = options("ha-screen").timings(fast_timings());
    options.enable_api = true;
    on_lab(options, |cluster| {
        let [floating, _] = Net::Upstream.floating();
        api::ask_patiently(cluster, floating, "GET /api/v1/node")?;
        let vm = Vm::number(1);
        cluster.define_and_start(&vm, "node1", &definition(&vm))?;
        let (home, person) = (cluster.node("node1"), cluster.node("node3"));
        wait_until("the guest's system", PATIENCE, || home.guest_console(&vm.name).contains(READY_LINE))?;
        let api = format!("{floating}:{API_PORT}");
        let looks = ["/usr/bin/python3", "-", &vm.name, "node1", "node2", &api, API_TOKEN];
        let seen = person.exec_with_input(&looks, VIEWER.as_bytes(), 5 * PATIENCE)?.ok()?;
        println!("{seen}");
        let audit = cluster.pvc(&["audit", "list"])?;
        for said in ["a screen was opened: VM vm1 on node1", "a screen was opened: VM vm1 on node2"] {
            ensure!(audit.contains(said), "{said}: {audit}");
        }
        // Who is not in the cluster network is not heard, and who has no ticket sees nothing.
        let door = r"import socket, sys, time
stream = socket.create_connection((sys.argv[1], 7371), 5)
stream.settimeout(8)
try:
    stream.sendall(b'pvc-screen/1 ' + b'x' * 115)
    assert stream.recv(1) == b''
except ConnectionResetError:
    pass
stream = socket.create_connection((sys.argv[1], 7371), 5)
stream.settimeout(8)
stream.sendall(b'pvc-screen/1 %s %012d %s\n' % (sys.argv[2].encode(), time.time() + 60, b'ab' * 32))
said = b''.join(iter(lambda: stream.recv(16), b''))
assert said == b't\0\0', said";
        let heard = home.run(&["/usr/bin/ss", "-Hltn"], SOON)?;
        let mut doors = heard.split_whitespace().filter_map(|word| word.strip_suffix(":7371"));
        let at = doors.next().with_context(|| heard.clone())?;
        ensure!(doors.next().is_none() && at != "0.0.0.0", "on one address only: {heard}");
        person.run(&["/usr/bin/python3", "-c", door, at, &vm.uuid], 2 * SOON)?;
        Ok(())
    });
}
