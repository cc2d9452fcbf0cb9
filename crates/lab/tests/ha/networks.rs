//! Client networks: guests on different nodes are on one wire, whoever moves, and whatever is deleted under them.

mod evpn;
mod filter;
mod six;
mod walls;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{Cluster, Node, PATIENCE, Vm, beating_guest_xml, wait_until};

use crate::{fast_timings, on};

pub(crate) const SOON: Duration = Duration::from_mins(1);
pub(crate) const GATEWAY: &str = "10.100.0.254";
const MAC: &str = "52:54:00:4a:00:01";

/// A namespace of a node whose card is a port of the network's bridge, as a guest's is.
pub(crate) struct Port {
    node: Node,
    address: String,
}

impl Port {
    pub(crate) fn plug(node: Node, number: u8) -> Result<Self> {
        let address = format!("10.100.0.{number}");
        let port = Self { node, address };
        for command in [
            "netns add guest",
            "link add vnetlab type veth peer name eth0 netns guest",
            "link set vnetlab mtu 1450 up master vmbr100",
            "-n guest link set eth0 mtu 1450 up",
        ] {
            port.ip(command)?;
        }
        port.ip(&format!("-n guest address add {}/24 dev eth0", port.address))?;
        Ok(port)
    }

    fn unplug(&self) -> Result<()> {
        self.ip("link del vnetlab")
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let program: Vec<&str> = std::iter::once("/usr/sbin/ip").chain(arguments.split(' ')).collect();
        self.node.run(&program, SOON).map(drop)
    }

    /// The address of its card.
    fn mac(&self) -> Result<String> {
        let shown = self.node.run(&["/usr/sbin/ip", "-n", "guest", "link", "show", "eth0"], SOON)?;
        let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        mac.map(str::to_owned).context("eth0 has no address")
    }

    fn python(script: &str) -> Vec<String> {
        ["/usr/sbin/ip", "netns", "exec", "guest", "/usr/bin/python3", "-c", script].map(str::to_owned).into()
    }

    /// Asks for an address by DHCP and lets go of it without a word.
    pub(crate) fn lease(&self, name: &str) -> Result<String> {
        let mut given = None;
        let client = ["/usr/sbin/ip", "netns", "exec", "guest", "/usr/bin/busybox", "udhcpc", "-i", "eth0"];
        let how = ["-n", "-q", "-t", "3", "-T", "1", "-s", "/bin/true", "-F", name];
        wait_until(&format!("an address for {name}"), SOON, || {
            let told = self.node.exec(&[&client[..], &how].concat(), SOON);
            let told = told.map(|output| format!("{}{}", output.stdout, output.stderr)).unwrap_or_default();
            given = told.split("lease of ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
            given.is_some()
        })?;
        given.context("no address")
    }

    /// The time server that it is told of when it asks for an address.
    fn time_server(&self, name: &str) -> Result<String> {
        let script = "printf '#!/bin/sh\\necho time=$ntpsrv.\\n' > /run/lab-told && chmod 755 /run/lab-told && \
                      exec ip netns exec guest busybox udhcpc -i eth0 -n -q -t 3 -T 1 -O ntpsrv -s /run/lab-told -F $0";
        let told = self.node.run(&["/bin/sh", "-c", script, name], SOON)?;
        let told = told.rsplit("time=").next().and_then(|rest| rest.split_once(".\n"));
        told.map(|(server, _)| server.to_owned()).with_context(|| format!("nothing was told: {told:?}"))
    }

    fn wait_resolves(&self, name: &str, address: &str) -> Result<()> {
        let name = format!("{name}.web.test");
        let ask = ["/usr/sbin/ip", "netns", "exec", "guest", "/usr/bin/busybox", "nslookup", &name, GATEWAY];
        wait_until(&format!("{name} to be {address}"), SOON, || {
            self.node.exec(&ask, SOON).is_ok_and(|output| output.stdout.contains(address))
        })
    }

    /// Answers whatever is sent to it, until the node ends.
    fn answer(&self) -> Result<()> {
        let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 7))\n\
                      while True: s.sendto(*s.recvfrom(2000))";
        let unit = ["/usr/bin/systemd-run", "-q", "--unit=lab-echo"].map(str::to_owned);
        let program: Vec<String> = unit.into_iter().chain(Self::python(script)).collect();
        self.node.run(&program.iter().map(String::as_str).collect::<Vec<_>>(), SOON).map(drop)
    }

    /// Whether a packet as large as fits comes back from there.
    fn reaches(&self, other: &Self) -> bool {
        let script = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(1)\n\
             s.sendto(bytes(1422), ('{}', 7))\nassert len(s.recv(2000)) == 1422",
            other.address
        );
        let program = Self::python(&script);
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        self.node.exec(&program, SOON).is_ok_and(|output| output.success())
    }

    fn wait_reaches(&self, other: &Self, after: &str) -> Result<()> {
        wait_until(&format!("a packet to come back from {} after {after}", other.address), SOON, || {
            self.reaches(other)
        })
    }
}

/// The network `web`, VNI 100, whose guests get addresses.
pub(crate) fn add_network(cluster: &Cluster) -> Result<()> {
    let is = ["-p", "managed", "-d", "web", "-n", "web.test", "-i", "10.100.0.0/24", "-g", GATEWAY];
    let leases = ["--dhcp", "--dhcp-start", "10.100.0.100", "--dhcp-end", "10.100.0.109", "100"];
    cluster.pvc(&[&["network", "add"][..], &is, &leases].concat())?;
    wait_bridges(cluster, true)
}

fn has_bridge(node: &Node) -> bool {
    node.exec(&["/usr/sbin/ip", "link", "show", "vmbr100"], SOON).is_ok_and(|output| output.success())
}

fn wait_bridges(cluster: &Cluster, there: bool) -> Result<()> {
    for node in cluster.lab.nodes() {
        let what = format!("vmbr100 to be {} on {}", if there { "there" } else { "gone" }, node.name());
        wait_until(&what, SOON, || has_bridge(&node) == there)?;
    }
    Ok(())
}

/// Where a node is told to send frames for the VM's card; nowhere in particular if it is here. What a tunnel has learnt does not count.
fn sent_to(node: &Node) -> Option<String> {
    let entries = node.run(&["/usr/sbin/bridge", "fdb", "show", "dev", "vxlan100"], SOON).ok()?;
    let entry = entries
        .lines()
        .find(|line| line.starts_with(MAC) && line.contains(" dst ") && line.contains("permanent"))?;
    entry.split(" dst ").nth(1)?.split(' ').next().map(str::to_owned)
}

fn wait_sent_to(node: &Node, to: Option<&Node>) -> Result<()> {
    let to = to.map(|node| node.address().to_string());
    wait_until(&format!("{} to send the card's frames to {to:?}", node.name()), SOON, || sent_to(node) == to)
}

fn wait_learns(node: &Node, learns: bool) -> Result<()> {
    wait_until(&format!("the tunnel of {} to learn: {learns}", node.name()), SOON, || {
        let shown = node.run(&["/usr/sbin/ip", "-d", "link", "show", "dev", "vxlan100"], SOON);
        shown.is_ok_and(|shown| shown.contains("nolearning") != learns)
    })
}

/// Whether the node's tunnel has an entry that nobody wrote.
fn learnt(node: &Node) -> Result<bool> {
    let entries = node.run(&["/usr/sbin/bridge", "fdb", "show", "dev", "vxlan100"], SOON)?;
    Ok(entries.lines().any(|line| line.contains(" dst ") && !line.contains("permanent")))
}

fn start_vm(cluster: &Cluster, vm: &Vm) -> Result<()> {
    let card = format!(
        "<interface type='bridge'><mac address='{MAC}'/><source bridge='vmbr100'/><model type='virtio'/><rom enabled='no'/></interface></devices>"
    );
    let xml = beating_guest_xml(&vm.name, &vm.uuid, 96).replace("</devices>", &card);
    cluster.define_and_start(vm, "node1", &xml)?;
    cluster.wait_counting("node1", vm)
}

/// The nodes that have the network's gateway.
fn gateways(cluster: &Cluster) -> Vec<String> {
    let has = |node: &Node| {
        let shown = node.exec(&["/usr/sbin/ip", "-o", "addr", "show", "dev", "vmbr100"], SOON);
        shown.is_ok_and(|shown| shown.stdout.contains(GATEWAY))
    };
    cluster.lab.nodes().into_iter().filter(has).map(|node| node.name()).collect()
}

/// A time server on that node, until it ends.
fn keep_time(node: &Node) -> Result<()> {
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 123))\n\
                  while True:\n asked, who = s.recvfrom(48)\n s.sendto(b'\\x24\\x03' + bytes(22) + asked[40:] + bytes(16), who)";
    let unit = ["/usr/bin/systemd-run", "-q", "--unit=lab-time", "/usr/bin/python3", "-c", script];
    node.run(&unit, SOON)?;
    let listens = ["/usr/bin/ss", "-Hlun", "sport = :123"];
    wait_until("a time server", SOON, || node.run(&listens, SOON).is_ok_and(|shown| shown.contains(":123")))
}

/// Guests on both nodes have the primary as their gateway, get addresses and names from it, and keep them whoever is primary.
fn serves(cluster: &Cluster, here: &Port, there: &Port) -> Result<()> {
    let first = cluster.primary()?;
    keep_time(&cluster.node(&first))?;
    let (one, two) = (here.lease("web1")?, there.lease("web2")?);
    ensure!(here.time_server("web1")? == GATEWAY, "a guest is told of the time server on the primary");
    ensure!(one != two, "{one} was given out twice");
    ensure!(gateways(cluster) == [first.clone()], "{:?} have the gateway", gateways(cluster));
    for (port, name) in [(here, "web2"), (there, "web1")] {
        port.wait_resolves(name, if name == "web1" { &one } else { &two })?;
        port.wait_resolves("gateway", GATEWAY)?;
    }
    let next = if first == "node2" { "node3" } else { "node2" };
    cluster.pvc(&["node", "primary", next])?;
    ensure!(cluster.primary_other_than(&first)? == next);
    // Nobody has asked it for an address yet: it knows them from the state tree.
    there.wait_resolves("web1", &one)?;
    // A client that forgets its lease is not given another's.
    ensure!(
        there.lease("web2")? == two && here.lease("web1")? == one,
        "an address has moved to another guest"
    );
    ensure!(gateways(cluster) == [next], "{:?} have the gateway", gateways(cluster));
    ensure!(here.time_server("web1")?.is_empty(), "the new primary has no time server");
    here.wait_resolves("web2", &two)
}

#[test]
fn guests_on_two_nodes_are_on_one_wire_whoever_moves_and_whatever_is_deleted() {
    on("ha-networks", 3, fast_timings(), |cluster| {
        let (node1, node2) = (cluster.node("node1"), cluster.node("node2"));
        add_network(cluster)?;
        let (here, there) = (Port::plug(node1.clone(), 1)?, Port::plug(node2.clone(), 2)?);
        there.answer()?;
        here.wait_reaches(&there, "the network was added")?;
        serves(cluster, &here, &there)?;
        walls::hold(cluster, &here, &there)?;

        let vm = Vm::number(1);
        start_vm(cluster, &vm)?;
        wait_sent_to(&node2, Some(&node1))?;
        ensure!(sent_to(&node1).is_none(), "it is here");
        cluster.pvc(&["vm", "migrate", "-t", "node2", &vm.name])?;
        cluster.wait_settled(&vm, "node2")?;
        wait_sent_to(&node1, Some(&node2))?;
        wait_sent_to(&node2, None)?;

        // Guests notice no change of the overlay: each node knows in one way or the other where they are.
        cluster.pvc(&["network", "overlay", "flood"])?;
        for node in [&node1, &node2] {
            wait_learns(node, true)?;
        }
        wait_sent_to(&node1, None)?;
        here.wait_reaches(&there, "tunnels have to learn")?;
        ensure!(learnt(&node1)?, "the tunnel has learnt nothing");
        cluster.pvc(&["network", "overlay", "declared"])?;
        wait_learns(&node1, false)?;
        wait_sent_to(&node1, Some(&node2))?;
        wait_until("what was learnt to be forgotten", SOON, || learnt(&node1).is_ok_and(|learnt| !learnt))?;
        here.wait_reaches(&there, "tunnels no longer learn")?;
        evpn::holds(cluster, &here, &there, &vm)?;

        here.ip("link del vxlan100")?;
        here.wait_reaches(&there, "somebody deleted the tunnel")?;
        wait_sent_to(&node1, Some(&node2))?;
        node1.kill_service("pvcd")?;
        ensure!(here.reaches(&there), "guests need no daemon");
        cluster.wait_node("node1", "daemon_state", "run")?;

        let refused = cluster.pvc(&["network", "remove", "-y", "web"]);
        ensure!(refused.is_err_and(|e| format!("{e:?}").contains(&vm.name)), "a VM is in it");
        cluster.pvc(&["vm", "undefine", "-y", "--wait", &PATIENCE.as_secs().to_string(), &vm.name])?;
        wait_sent_to(&node1, None)?;
        // Its keys go; what no definition names is in it still.
        cluster.pvc(&["network", "remove", "-y", "web"])?;
        std::thread::sleep(Duration::from_secs(3));
        ensure!(has_bridge(&node1) && has_bridge(&node2), "a bridge was removed under a guest");
        ensure!(here.reaches(&there), "a network was cut under its guests");
        here.unplug()?;
        there.unplug()?;
        wait_bridges(cluster, false)
    });
}
