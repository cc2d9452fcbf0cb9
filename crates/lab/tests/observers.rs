//! The lab's observers and its watchdogs, without pvcd: what the tests of high availability rest on must itself be true.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use pvc_lab::{
    Beat, Lab, LabOptions, Node, Probe, Processes, beating_guest_xml,
    devices::addresses,
    devices::watchdog,
    observers::tree::{Follower, History},
    wait_until,
};

const SOON: Duration = Duration::from_mins(2);
const UUID: &str = "0b5e0000-0000-4000-8000-000000000001";
const MILLISECOND: Duration = Duration::from_millis(1);

fn up(name: &str, nodes: u8) -> Lab {
    let options = LabOptions::new(name, env!("CARGO_BIN_EXE_pvc-lab")).nodes(nodes).without_daemon();
    Lab::up(options).unwrap_or_else(|e| panic!("{e:?}"))
}

fn beats(node: &Node) -> Vec<Beat> {
    Beat::all(&node.guest_console("guest"))
}

#[test]
fn a_live_migration_is_one_life_of_the_guest_on_two_nodes_in_turn() {
    let lab = up("t-observers", 2);
    let (one, two) = (lab.node("node1"), lab.node("node2"));
    let processes = Processes::record(&lab).unwrap();
    one.write_file("/root/guest.xml", beating_guest_xml("guest", UUID, 96).as_bytes()).unwrap();
    one.run(&["/usr/bin/virsh", "-q", "create", "/root/guest.xml"], SOON).unwrap();
    let address = || {
        let console = one.guest_console("guest");
        let (_, rest) = console.split_once("LABGUEST address ")?;
        rest.split(['/', ' ']).next()?.parse::<IpAddr>().ok()
    };
    wait_until("the guest's address", SOON, || address().is_some() && beats(&one).len() > 5).unwrap();
    assert_eq!(processes.where_is(UUID), ["node1"]);

    let probe = Probe::start(&lab, address().unwrap(), MILLISECOND).unwrap();
    let to = "qemu+tcp://node2.cluster.lab/system";
    one.run(&["/usr/bin/virsh", "-q", "migrate", "--live", "--p2p", "guest", to], SOON).unwrap();
    wait_until("the guest to go on", SOON, || beats(&two).len() > 5).unwrap();
    let reach = probe.finish().unwrap();
    let pause = reach.silence;
    assert!(pause > 5 * MILLISECOND && pause < Duration::from_secs(10), "{reach:?}");

    wait_until("the source's process to be gone", SOON, || processes.where_is(UUID) == ["node2"]).unwrap();
    let runs = processes.of(UUID);
    assert_eq!(runs.iter().map(|run| run.node.as_str()).collect::<Vec<_>>(), ["node1", "node2"]);
    let (before, after) = (beats(&one), beats(&two));
    let (last, first) = (before.last().unwrap(), after.first().unwrap());
    assert_eq!(last.life, first.life, "the guest started over");
    assert!(first.count > last.count, "{first:?} came after {last:?}");
}

#[test]
fn a_node_that_armed_its_watchdog_is_reset_when_it_stops_feeding_it_and_not_when_it_disarmed_it() {
    let lab = up("t-watchdog", 1);
    let node = lab.node("node1");
    let boot = node.boot_id().unwrap();
    // What the daemon does with it: WDIOC_SETTIMEOUT, then bytes.
    let write = |bytes: &str| {
        let program = format!(
            "import fcntl, struct; dog = open('/dev/watchdog', 'wb', 0)\n\
             assert struct.unpack('i', fcntl.ioctl(dog, 0xC0045706, struct.pack('i', 5))) == (5,)\n\
             dog.write(b'{bytes}')"
        );
        // Closing is told with a delay, and it is open once at a time.
        wait_until("the watchdog to be free", SOON, || {
            node.exec(&["/usr/bin/python3", "-c", &program], SOON).is_ok_and(|done| done.success())
        })
        .unwrap();
    };
    write("x");
    write("V");
    let disarmed = Instant::now();
    wait_until("the time of the watchdog", SOON, || disarmed.elapsed() > Duration::from_secs(7)).unwrap();
    assert_eq!(node.boot_id().unwrap(), boot, "a disarmed watchdog reset its node");

    write("x");
    let armed = Instant::now();
    // A frozen node cannot feed it, which is what it is for.
    node.pause().unwrap();
    wait_until("a new boot", SOON, || node.boot_id().is_ok_and(|now| now != boot)).unwrap();
    assert!(armed.elapsed() > Duration::from_secs(5), "reset after {:?}", armed.elapsed());
    assert!(node.console().contains(watchdog::EXPIRED_LINE));
    // Power off disarms it.
    let boot = node.boot_id().unwrap();
    let up_again = Instant::now();
    wait_until("the time of the watchdog", SOON, || up_again.elapsed() > Duration::from_secs(7)).unwrap();
    assert_eq!(node.boot_id().unwrap(), boot, "it expired twice");
}

#[test]
fn an_address_is_on_its_node_until_it_is_taken_away_or_the_power_is_cut() {
    let lab = up("t-addresses", 1);
    let node = lab.node("node1");
    let address = "10.255.0.77";
    let before = SystemTime::now();
    let ip = |verb: &str| {
        node.run(&["/sbin/ip", "addr", verb, &format!("{address}/32"), "dev", "eth0"], SOON).unwrap();
    };
    let nodes = || lab.options().node_numbers();
    let tenures = || addresses::tenures(lab.layout(), nodes(), address.parse().unwrap());
    let wait_for = |what: &str, count: usize, ended: bool| {
        wait_until(what, SOON, || {
            let seen = tenures();
            seen.len() == count && seen.last().is_some_and(|last| last.went.is_some() == ended)
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", tenures()));
    };
    ip("add");
    wait_for("it to be noted that it came", 1, false);
    ip("del");
    wait_for("it to be noted that it went", 1, true);
    ip("add");
    wait_for("it to be noted that it came again", 2, false);
    // A frozen node's kernel still has its addresses, one without power has none.
    node.pause().unwrap();
    assert_eq!(tenures()[1].went, None);
    node.kill().unwrap();
    wait_for("the power to be noted", 2, true);
    let seen = tenures();
    assert!(before < seen[0].came && seen[0].went < Some(seen[1].came), "{seen:?}");
    assert!(seen[1].went < Some(SystemTime::now()), "{seen:?}");
    node.start().unwrap();
    node.wait_libvirt(SOON).unwrap();
    assert_eq!(tenures(), seen);
}

#[test]
fn the_history_of_the_tree_has_every_change_also_of_a_time_when_a_server_was_away() {
    let lab = up("t-tree", 3);
    // A client of another make: python3-kazoo.
    let client = |commands: &str| {
        let script = format!(
            "from kazoo.client import KazooClient\nz = KazooClient('{}')\nz.start()\n{commands}\nz.stop()\n",
            lab.zk_connect_string()
        );
        lab.exec_in_switch(&["/usr/bin/python3", "-c", &script], SOON).unwrap().ok().unwrap();
    };
    let mut follower = Follower::start(&lab).unwrap();
    client("z.create('/a', b'0')\nfor n in range(1, 100): z.set('/a', str(n).encode())");
    let seen = follower.wait_for("the last value", SOON, |path, value| {
        (path == "/a" && value == Some("99")).then_some("seen")
    });
    assert_eq!(seen.unwrap(), "seen");
    let away = lab.node("node2");
    away.kill().unwrap();
    wait_until("the others to serve", SOON, || {
        [1, 3].iter().all(|n| lab.zookeeper_mode(lab.node(&n.to_string()).number()).is_ok())
    })
    .unwrap();
    client(
        "z.create('/b', b'x', ephemeral=True)\nt = z.transaction()\nt.delete('/a')\nt.check('/b', 0)\nt.commit()",
    );
    away.start().unwrap();
    lab.wait_zookeeper(away.number()).unwrap();

    let history = History::of(&lab).unwrap();
    let values: Vec<_> = history.of_key("/a").map(|(_, value)| value.map(str::to_owned)).collect();
    let expected = (0..100).map(|n| Some(n.to_string())).chain([None]);
    assert!(values == expected.collect::<Vec<_>>(), "{values:?}");
    let ephemeral: Vec<_> = history.of_key("/b").map(|(t, value)| (t.session, value)).collect();
    assert_eq!(ephemeral.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [Some("x"), None]);
    assert_eq!(ephemeral[0].0, ephemeral[1].0, "its session took it away");
    assert!(history.transactions.windows(2).all(|pair| pair[0].zxid < pair[1].zxid));
}
