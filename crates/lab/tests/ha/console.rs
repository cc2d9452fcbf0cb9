//! What is typed on a guest's console, and what its system answers; and a person at a terminal who types there by `pvc vm console`.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{
    Cluster, Output, PATIENCE, Vm,
    guest::READY_LINE,
    guest_xml,
    layout::{API_PORT, API_TOKEN, Net},
    wait_until,
};

use crate::{api, fast_timings, on, on_lab, options};

const SOON: Duration = Duration::from_mins(1);

/// Types a command on a console, and prints what is answered; exits with its code, or fails after two minutes. What is typed is printed, too: so what the
/// command's end says is not what was typed.
const TYPIST: &str = "import os, re, select, sys, time
console = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
os.write(console, (sys.argv[2] + '; echo LAB-ENDED $?\\n').encode())
seen, until = b'', time.monotonic() + 120
while time.monotonic() < until:
    if select.select([console], [], [], 1)[0]:
        seen += os.read(console, 4096)
    ended = re.search(rb'LAB-ENDED (\\d+)', seen)
    if ended:
        print(seen.decode(errors='replace'))
        sys.exit(int(ended[1]))
sys.exit('nothing ended: %r' % seen)";

/// See there.
const TERMINAL: &str = include_str!("terminal.py");

/// The lab's guest, with that card in place of its own.
pub(crate) fn definition(vm: &Vm, card: &str) -> Result<String> {
    let xml = guest_xml(&vm.name, &vm.uuid, 96);
    let (before, rest) = xml.split_once("<interface ").context("the guest has a card")?;
    let (_, after) = rest.split_once("</interface>").context("the guest has a card")?;
    // A boot program for the network is nothing that this guest waits for.
    let card = card.replace("</interface>", "<rom enabled='no'/></interface>");
    Ok(format!("{before}{card}{after}"))
}

/// Waits until the guest's system says that it has an address that begins so.
pub(crate) fn wait_address(cluster: &Cluster, vm: &Vm, begins: &str) -> Result<()> {
    let node = cluster.node(&cluster.home(vm)?);
    let has_address = |console: &str| {
        let said = console.lines().filter_map(|line| line.strip_prefix("LABGUEST address "));
        said.into_iter().any(|address| address.starts_with(begins))
    };
    wait_until(&format!("an address of {}", vm.name), PATIENCE, || has_address(&node.guest_console(&vm.name)))
        .with_context(|| node.guest_console(&vm.name))
}

/// Types a line on the guest's console. What it printed, and how it ended.
pub(crate) fn type_on(cluster: &Cluster, vm: &Vm, what: &str) -> Result<Output> {
    let node = cluster.node(&cluster.home(vm)?);
    let console = node.run(&["/usr/bin/virsh", "-q", "ttyconsole", &vm.name], SOON)?;
    node.exec(&["/usr/bin/python3", "-c", TYPIST, console.trim(), what], PATIENCE)
}

/// On a third node: neither where the guest is nor where it goes.
#[test]
fn a_console_is_found_on_any_node_and_goes_on_after_the_guest_has_moved() {
    on("ha-console", 3, fast_timings(), |cluster| {
        let vm = Vm::number(1);
        cluster.define_and_start(&vm, "node1", &guest_xml(&vm.name, &vm.uuid, 96))?;
        let (home, person) = (cluster.node("node1"), cluster.node("node3"));
        wait_until("the guest's system", PATIENCE, || home.guest_console(&vm.name).contains(READY_LINE))?;
        let typed = ["/usr/bin/python3", "-", &vm.name, "node1", "node2"];
        let seen = person.exec_with_input(&typed, TERMINAL.as_bytes(), 3 * PATIENCE)?.ok()?;
        println!("{seen}");
        ensure!(cluster.processes.where_is(&vm.uuid) == ["node2"], "nothing was done to the guest");
        Ok(())
    });
}

/// The head of an answer, and what the frames behind it hold.
fn unframed(answer: &[u8]) -> String {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let (mut text, mut rest) = (answer[..end].to_vec(), &answer[end..]);
    // What the service sends is not masked.
    while let [_, length, behind @ ..] = rest {
        let (length, behind) = match (length, behind) {
            (126, [a, b, behind @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), behind),
            (126.., _) => break,
            (short, behind) => (usize::from(*short), behind),
        };
        text.extend(&behind[..length.min(behind.len())]);
        rest = &behind[length.min(behind.len())..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Types a line on a console through a WebSocket of the API, and reads until this is printed: everything that was printed and said.
fn type_over_api(to: IpAddr, vm: &Vm, line: &str, until: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, API_PORT), SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    let head = format!("Host: lab\r\nX-Api-Key: {API_TOKEN}\r\n{upgrade}");
    write!(stream, "GET /api/v2/vms/{}/console HTTP/1.1\r\n{head}\r\n\r\n", vm.name)?;
    // One frame of bytes, masked with zeroes.
    let length = u8::try_from(line.len())?;
    ensure!(length < 126, "a short line");
    let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0];
    frame.extend(line.as_bytes());
    stream.write_all(&frame)?;
    let mut seen = Vec::new();
    let began = Instant::now();
    loop {
        let text = unframed(&seen);
        if text.contains(until) {
            return Ok(text);
        }
        ensure!(began.elapsed() < SOON, "{until:?} was not printed, but {text:?}");
        let mut some = [0; 4096];
        let bytes = stream.read(&mut some).with_context(|| text.clone())?;
        ensure!(bytes > 0, "it was closed: {text:?}");
        seen.extend(&some[..bytes]);
    }
}

/// In the sandbox of its unit, as a user that owns nothing: at the primary, of a guest on another node. Then a person with `pvc` does all that is done on a node, and the primary
/// is handed over.
#[test]
fn the_api_reaches_a_console_on_another_node_without_privileges() {
    let mut options = options("ha-console-api").timings(fast_timings());
    options.enable_api = true;
    on_lab(options, |cluster| {
        let [floating, _] = Net::Upstream.floating();
        api::ask_patiently(cluster, floating, "GET /api/v1/node")?;
        let primary = cluster.primary()?;
        let mut others = ["node1", "node2", "node3"].into_iter().filter(|node| *node != primary);
        let (node, to) = (others.next().context("one")?, others.next().context("two")?);
        let vm = Vm::number(1);
        cluster.define_and_start(&vm, node, &guest_xml(&vm.name, &vm.uuid, 96))?;
        let home = cluster.node(node);
        wait_until("the guest's system", PATIENCE, || home.guest_console(&vm.name).contains(READY_LINE))?;
        let talk = || type_over_api(floating, &vm, "\necho sum=$((20 + 22))\n", "sum=42");
        let seen = cluster.lab.in_switch_network(talk)??;
        ensure!(
            seen.starts_with("HTTP/1.1 101") && seen.contains(&format!("VM {} on {node}", vm.name)),
            "{seen}"
        );
        wait_until("the audit to have it", PATIENCE, || {
            cluster.pvc(&["audit", "list"]).is_ok_and(|audit| audit.contains("a console was closed"))
        })?;
        let url = format!("http://{}", SocketAddr::new(floating, API_PORT));
        let typed = ["/usr/bin/python3", "-", &vm.name, node, to, &url, API_TOKEN, node];
        let seen = home.exec_with_input(&typed, TERMINAL.as_bytes(), 4 * PATIENCE)?.ok()?;
        println!("{seen}");
        ensure!(cluster.processes.where_is(&vm.uuid) == [to], "nothing was done to the guest");
        let audit = cluster.pvc(&["audit", "list"])?;
        for said in ["a console is taken by force", "the client closed it", "the service ends", "is off"] {
            ensure!(audit.contains(said), "{said}: {audit}");
        }
        Ok(())
    });
}
