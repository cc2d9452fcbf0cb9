//! The walls: who is outside sends no frames in, a guest is neither gateway nor DHCP server, rules stand on every node, and whatever
//! somebody flushes is back.
//!
//! What must not arrive is sent before something that does: what arrives first tells.

use anyhow::{Result, ensure};
use pvc_lab::{Cluster, Node, wait_until};

use super::{Port, SOON};

const PYTHON: &str = "/usr/bin/python3";
const HEARD: &str = "/run/lab-heard";

/// Notes what is sent to it, until the node ends.
const EARS: &str = "import select, socket
ears = []
for port in (68, 7777):
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(('', port))
    ears.append(ear)
with open('/run/lab-heard', 'a', buffering=1) as heard:
    while True:
        for ear in select.select(ears, [], [])[0]:
            heard.write(ear.recv(2000).decode() + '\\n')";

/// Sends a frame of network 100 in VXLAN, for the ears at 10.100.0.1.
fn frame(to: &Node, text: &str) -> String {
    format!(
        "import socket, struct
text = b'{text}'
udp = struct.pack('!HHHH', 7777, 7777, 8 + len(text), 0) + text
ip = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10, 100, 0, 77]), bytes([10, 100, 0, 1]))
total = sum(struct.unpack('!10H', ip))
total = (total & 0xffff) + (total >> 16)
ip = ip[:10] + struct.pack('!H', ~(total + (total >> 16)) & 0xffff) + ip[12:]
ethernet = b'\\xff' * 6 + bytes([0x52, 0x54, 0, 0x4a, 0, 0x77]) + b'\\x08\\x00'
vxlan = struct.pack('!II', 0x08000000, 100 << 8)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(vxlan + ethernet + ip + udp, ('{}', 4789))",
        to.address()
    )
}

impl Port {
    /// Sends a text from an address of this port's.
    fn say(&self, from: &str, from_port: u16, to: (&Self, u16), text: &str) -> Result<()> {
        let script = format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('{from}', {from_port}))
s.sendto(b'{text}', ('{}', {}))",
            to.0.address, to.1
        );
        let program = Self::python(&script);
        self.node.run(&program.iter().map(String::as_str).collect::<Vec<_>>(), SOON).map(drop)
    }

    fn listen(&self) -> Result<()> {
        let unit = ["/usr/bin/systemd-run", "-q", "--unit=lab-ears"].map(str::to_owned);
        let program: Vec<String> = unit.into_iter().chain(Self::python(EARS)).collect();
        self.node.run(&program.iter().map(String::as_str).collect::<Vec<_>>(), SOON)?;
        wait_until("the ears to be open", SOON, || {
            self.node.run(&["/usr/bin/test", "-f", HEARD], SOON).is_ok()
        })
    }

    /// Waits for a text, and answers all that was heard.
    fn heard(&self, text: &str) -> Result<String> {
        let mut heard = String::new();
        wait_until(&format!("{text:?} to arrive"), SOON, || {
            heard = self.node.run(&["/usr/bin/cat", HEARD], SOON).unwrap_or_default();
            heard.lines().any(|line| line == text)
        })?;
        Ok(heard)
    }
}

fn nft(node: &Node, arguments: &str) -> Result<String> {
    let program: Vec<&str> = std::iter::once("/usr/sbin/nft").chain(arguments.split(' ')).collect();
    node.run(&program, SOON)
}

fn wait_nft(node: &Node, list: &str, text: &str) -> Result<()> {
    wait_until(&format!("{text:?} in {list:?} of {}", node.name()), SOON, || {
        nft(node, &format!("list {list}")).is_ok_and(|listed| listed.contains(text))
    })
}

/// `here` is 10.100.0.1.
pub(super) fn hold(cluster: &Cluster, here: &Port, there: &Port) -> Result<()> {
    for node in cluster.lab.nodes() {
        wait_nft(&node, "set bridge pvc gateways4", "10.100.0.254")?;
        wait_nft(&node, "set inet pvc ends4", &there.node.address().to_string())?;
    }
    here.listen()?;
    there.ip("-n guest address add 10.100.0.254/32 dev eth0")?;
    there.say("10.100.0.254", 0, (here, 7777), "as the gateway")?;
    there.say(&there.address, 67, (here, 68), "as the DHCP server")?;
    cluster.lab.exec_in_switch(&[PYTHON, "-c", &frame(&here.node, "from an outsider")], SOON)?.ok()?;
    there.say(&there.address, 0, (here, 7777), "as a guest")?;
    here.heard("as a guest")?;
    there.node.run(&[PYTHON, "-c", &frame(&here.node, "from a node")], SOON)?;
    let heard = here.heard("from a node")?;
    ensure!(!heard.contains("gateway") && !heard.contains("DHCP") && !heard.contains("outsider"), "{heard}");
    there.ip("-n guest address del 10.100.0.254/32 dev eth0")?;

    nft(&here.node, "flush ruleset")?;
    wait_nft(&here.node, "set inet pvc ends4", &there.node.address().to_string())?;
    cluster.lab.exec_in_switch(&[PYTHON, "-c", &frame(&here.node, "from an outsider")], SOON)?.ok()?;
    there.node.run(&[PYTHON, "-c", &frame(&here.node, "after the flush")], SOON)?;
    let heard = here.heard("after the flush")?;
    ensure!(!heard.contains("outsider"), "{heard}");

    cluster.pvc(&["network", "acl", "add", "--in", "-d", "ssh", "-r", "tcp dport {22} accept", "web"])?;
    for node in cluster.lab.nodes() {
        wait_nft(&node, "chain inet pvc n100_in", "tcp dport 22 counter")?;
    }
    cluster.pvc(&["network", "acl", "remove", "web", "ssh"]).map(drop)
}
