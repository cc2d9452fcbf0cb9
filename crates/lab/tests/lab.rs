//! The lab itself: it comes up, its faults are real, and it leaves nothing behind. Needs root, as the lab does.
//! Runs no pvcd: what the daemon does in a lab is tested elsewhere.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use pvc_lab::{
    Behaviour, Lab, LabOptions, Node, Peer, Traffic, guest, guest_xml, layout::Layout,
    machine::cgroup::Cgroup, machine::marker, program, wait_until,
};

const SOON: Duration = Duration::from_mins(1);
const UUID: &str = "11111111-0000-4000-8000-000000000001";

fn options(name: &str, nodes: u8) -> LabOptions {
    LabOptions::new(name, env!("CARGO_BIN_EXE_pvc-lab")).nodes(nodes).without_daemon()
}

fn up(name: &str, nodes: u8) -> Lab {
    Lab::up(options(name, nodes)).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Starts a guest on `node` and waits until its system runs.
fn start_guest(node: &Node, name: &str) {
    node.write_file("/root/guest.xml", guest_xml(name, UUID, 96).as_bytes()).unwrap();
    node.run(&["/usr/bin/virsh", "-q", "create", "/root/guest.xml"], SOON).unwrap();
    wait_for_console(node, name, guest::READY_LINE);
}

fn wait_for_console(node: &Node, name: &str, line: &str) {
    let path = format!("/var/log/libvirt/{name}.log");
    wait_until(&format!("{line:?} on {name}'s console"), SOON, || {
        node.read_file(&path).is_ok_and(|text| text.contains(line))
    })
    .unwrap();
}

fn running(node: &Node) -> Vec<String> {
    let list = node.run(&["/usr/bin/virsh", "-q", "list", "--name"], SOON).unwrap();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Whether `from` can open a TCP connection to libvirtd on `to`.
fn connects(from: &Node, to: &Node) -> bool {
    let connect = format!("exec 3<>/dev/tcp/{}/16509", to.address());
    from.exec(&["/bin/timeout", "1", "/bin/bash", "-c", &connect], SOON).unwrap().success()
}

#[test]
fn nodes_come_up_with_services_of_their_own_and_run_guests() {
    let lab = up("t-services", 3);
    let ask = |program: &[&str]| -> BTreeSet<String> {
        lab.nodes().iter().map(|node| node.run(program, SOON).unwrap()).collect()
    };
    assert_eq!(ask(&["/bin/hostname"]), ["node1\n", "node2\n", "node3\n"].map(str::to_owned).into());
    assert_eq!(ask(&["/bin/cat", "/proc/sys/kernel/random/boot_id"]).len(), 3);
    let uuids = ask(&["/usr/bin/virsh", "capabilities"]);
    assert!(
        uuids.iter().any(|text| text.contains("00000000-0000-4000-8000-000000000002")),
        "libvirt's host UUIDs"
    );
    let modes: Vec<_> = lab.nodes().iter().map(|node| lab.zookeeper_mode(node.number()).unwrap()).collect();
    assert_eq!(modes.iter().filter(|mode| *mode == "leader").count(), 1, "{modes:?}");
    assert_eq!(modes.iter().filter(|mode| *mode == "follower").count(), 2, "{modes:?}");
    let failed =
        lab.node("node1").run(&["/bin/systemctl", "--failed", "--no-legend", "--plain"], SOON).unwrap();
    assert_eq!(failed, "", "failed units");

    let node = lab.node("node2");
    start_guest(&node, "guest");
    wait_for_console(&node, "guest", "LABGUEST address 10.252.0.");
    node.run(&["/usr/bin/virsh", "-q", "shutdown", "guest"], SOON).unwrap();
    wait_until("the guest to obey its power button", SOON, || running(&node).is_empty()).unwrap();
    wait_for_console(&node, "guest", "LABGUEST power button");
}

#[test]
fn a_power_cut_kills_everything_at_once_and_the_disk_survives() {
    let lab = up("t-power", 1);
    let node = lab.node("node1");
    start_guest(&node, "guest");
    node.write_file("/var/lib/kept", b"still here").unwrap();
    let before = node.boot_id().unwrap();
    let cgroup = Cgroup::top(&lab.layout().cgroup()).unwrap().child("node1");

    node.kill().unwrap();
    assert!(!cgroup.populated(), "something outlived the power cut");
    assert!(!node.machine().unwrap().on);
    assert!(node.exec(&["/bin/true"], SOON).is_ok_and(|seen| !seen.success()), "a dead node ran a program");
    node.kill().unwrap();

    node.start().unwrap();
    node.wait_libvirt(SOON).unwrap();
    assert_ne!(node.boot_id().unwrap(), before);
    assert_eq!(node.read_file("/var/lib/kept").unwrap(), "still here");
    assert_eq!(running(&node), Vec::<String>::new());
}

#[test]
fn the_bmc_switches_its_node_and_answers_while_it_is_dead_or_frozen() {
    let lab = up("t-bmc", 1);
    let node = lab.node("node1");
    let ipmi = |arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        node.ipmi(&arguments, SOON).unwrap().ok().unwrap().trim().to_owned()
    };
    let mut boots = BTreeSet::from([node.boot_id().unwrap()]);
    let mut booted_anew = |why: &str| {
        node.wait_libvirt(SOON).unwrap();
        assert!(boots.insert(node.boot_id().unwrap()), "no new boot after {why}");
    };

    assert_eq!(ipmi("chassis power status"), "Chassis Power is on");
    ipmi("chassis power reset");
    booted_anew("a reset");
    ipmi("chassis power off");
    assert_eq!(ipmi("chassis power status"), "Chassis Power is off");
    assert!(!node.machine().unwrap().on);
    ipmi("chassis power reset");
    assert_eq!(ipmi("chassis power status"), "Chassis Power is off", "a reset does not switch on");
    ipmi("chassis power on");
    booted_anew("power on");

    node.pause().unwrap();
    ipmi("chassis power reset");
    booted_anew("the reset of a frozen node");
    ipmi("chassis power soft");
    wait_until("the node to shut down", SOON, || !node.machine().unwrap().on).unwrap();
    node.start().unwrap();
    booted_anew("a clean shutdown");
    // The program may die with the node: only what follows counts. What is run meanwhile does not delay the end.
    let _ = node.exec(&["/bin/systemctl", "reboot"], SOON);
    wait_until("the node to come back by itself", SOON, || {
        node.boot_id().is_ok_and(|id| !boots.contains(&id))
    })
    .unwrap();

    node.cut_bmc().unwrap();
    assert!(!node.ipmi(&["chassis", "power", "status"], SOON).unwrap().success());
    node.heal_bmc().unwrap();
    assert_eq!(ipmi("chassis power status"), "Chassis Power is on");
}

#[test]
fn a_bmc_is_slow_lies_or_is_idle_when_it_is_told_to() {
    let lab = up("t-moods", 1);
    let node = lab.node("node1");
    let ipmi = |arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        node.ipmi(&arguments, SOON).unwrap()
    };
    let says = || ipmi("chassis power status").ok().unwrap().trim().to_owned();
    let boot = node.boot_id().unwrap();

    node.set_bmc(Behaviour::Liar).unwrap();
    assert_eq!(says(), "Chassis Power is off");
    ipmi("chassis power off").ok().unwrap();
    node.set_bmc(Behaviour::Idle).unwrap();
    for accepted in ["chassis power off", "chassis power reset"] {
        ipmi(accepted).ok().unwrap();
    }
    node.set_bmc(Behaviour::OnlyResets).unwrap();
    let refusal = ipmi("chassis power off");
    assert!(!refusal.success() && refusal.stderr.contains("Power Control to Down/Off failed"), "{refusal}");
    ipmi("chassis power reset").ok().unwrap();
    assert_eq!(says(), "Chassis Power is on");
    assert_eq!(node.boot_id().unwrap(), boot, "a BMC that only says so switched");

    node.set_bmc(Behaviour::Slow { ms: 2000 }).unwrap();
    let asked = std::time::Instant::now();
    assert_eq!(says(), "Chassis Power is on");
    assert!(asked.elapsed() > Duration::from_secs(2), "it answered after {:?}", asked.elapsed());
    node.set_bmc(Behaviour::Honest).unwrap();
    ipmi("chassis power off").ok().unwrap();
    assert!(!node.machine().unwrap().on);
}

#[test]
fn zookeepers_frames_are_dropped_apart_from_all_others() {
    let lab = up("t-drops", 3);
    let (one, three) = (lab.node("node1"), lab.node("node3"));
    let reaches = |from: &Node, to: &str, port: u16| {
        let connect = format!("exec 3<>/dev/tcp/{to}/{port}");
        let program = ["/usr/bin/timeout", "1", "/bin/bash", "-c", connect.as_str()];
        from.exec(&program, SOON).is_ok_and(|seen| seen.success())
    };
    let (zookeeper, libvirt) = (2181, 16509);
    assert!(reaches(&one, "node3", zookeeper) && reaches(&one, "node3", libvirt));

    lab.drop_some(&one, Peer::Node(3), Traffic::ZooKeeper).unwrap();
    assert!(!reaches(&one, "node3", zookeeper) && !reaches(&three, "node1", zookeeper), "it was reached");
    assert!(reaches(&one, "node3", libvirt), "more than ZooKeeper was dropped");
    assert!(reaches(&one, "node2", zookeeper), "others suffer");
    lab.undrop().unwrap();

    lab.drop_some(&one, Peer::Node(3), Traffic::AllButZooKeeper).unwrap();
    assert!(!reaches(&one, "node3", libvirt) && !reaches(&three, "node1", libvirt), "it was reached");
    assert!(reaches(&one, "node3", zookeeper), "ZooKeeper was dropped");
    lab.undrop().unwrap();

    let asks_a_bmc = |from: &Node| {
        let ask = "exec ipmitool -I lanplus -C 3 -N 1 -R 1 -H bmc2 -U admin -P labpass chassis power status";
        from.exec(&["/bin/sh", "-c", ask], SOON).is_ok_and(|seen| seen.success())
    };
    lab.drop_some(&one, Peer::Bmcs, Traffic::All).unwrap();
    assert!(!asks_a_bmc(&one), "it was reached");
    wait_until("another node's question to be answered", SOON, || asks_a_bmc(&three)).unwrap();
    assert!(reaches(&one, "node2", libvirt));
    lab.undrop().unwrap();
    wait_until("the BMC to be back", SOON, || asks_a_bmc(&one)).unwrap();
}

#[test]
fn paused_cut_and_dropped_nodes_are_away_until_they_are_back() {
    let lab = up("t-faults", 3);
    let (one, two, three) = (lab.node("node1"), lab.node("node2"), lab.node("node3"));
    let boots = [&one, &two, &three].map(|node| node.boot_id().unwrap());

    two.pause().unwrap();
    assert!(two.machine().unwrap().paused);
    let virsh = ["/usr/bin/virsh", "-q", "-c", "qemu+tcp://node2/system", "list"];
    assert!(one.exec(&virsh, Duration::from_secs(2)).is_err(), "a paused node answered");
    two.resume().unwrap();
    one.run(&virsh, SOON).unwrap();

    let carrier = |node: &Node| node.run(&["/sbin/ip", "-o", "link", "show", "eth0"], SOON).unwrap();
    two.cut().unwrap();
    assert!(!connects(&one, &two) && !connects(&two, &three), "a cut cable carried a connection");
    assert!(carrier(&two).contains("NO-CARRIER"), "the node does not see that its cable is pulled");
    two.reset().unwrap();
    two.wait_libvirt(SOON).unwrap();
    assert!(!connects(&one, &two), "a power cycle mended the cable");
    two.heal().unwrap();
    wait_until("the healed cable", SOON, || connects(&one, &two)).unwrap();

    lab.drop_frames(&one, Some(&three)).unwrap();
    assert!(!connects(&one, &three) && !connects(&three, &one), "a dropped pair connected");
    assert!(connects(&one, &two) && connects(&two, &three), "others must not suffer");
    lab.drop_frames(&two, None).unwrap();
    assert!(!connects(&one, &two), "a silent node connected");
    assert!(!carrier(&two).contains("NO-CARRIER"), "a silent node must not notice");
    lab.undrop().unwrap();
    wait_until("the way back", SOON, || connects(&one, &three) && connects(&one, &two)).unwrap();

    assert_eq!(one.boot_id().unwrap(), boots[0]);
    assert_ne!(two.boot_id().unwrap(), boots[1]);
    assert_eq!(three.boot_id().unwrap(), boots[2]);
}

/// What a lab could leave behind, taken while it is up.
struct Traces {
    layout: Layout,
    processes: BTreeSet<Process>,
}

/// A process number and when it started: together they are never used twice. (Namespaces' numbers are.)
type Process = (i32, String);

impl Traces {
    fn of(lab: &Lab) -> Self {
        let cgroup = Cgroup::top(&lab.layout().cgroup()).unwrap();
        let processes: BTreeSet<_> = processes_below(cgroup.path()).into_iter().filter_map(process).collect();
        assert!(processes.len() > 10, "only {processes:?}: nothing would be proved");
        Self { layout: lab.layout().clone(), processes }
    }

    fn assert_gone(&self) {
        let left: Vec<_> =
            self.processes.iter().filter(|seen| process(seen.0).as_ref() == Some(seen)).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
        assert!(!Cgroup::top(&self.layout.cgroup()).unwrap().exists(), "a cgroup is left");
        assert!(!self.layout.state().exists(), "the lab's folder is left");
        // A namespace without processes lives only by a mount of it, so these two lines stand for namespaces as well.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.layout.state().to_string_lossy().into_owned();
        assert!(!mounts.contains(&state) && !mounts.contains("nsfs"), "mounts are left:\n{mounts}");
        let links = program::run("/sbin/ip", ["-o", "link"], SOON).unwrap();
        assert!(!links.contains("n1-cluster") && !links.contains("bmc1"), "links are left:\n{links}");
    }
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Counted from behind the name, which may hold anything.
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    // Zombies hold nothing any more; they wait for this machine's init to notice.
    let alive = fields.first().is_some_and(|state| *state != "Z");
    alive.then_some((pid, (*fields.get(19)?).to_owned()))
}

fn processes_below(cgroup: &Path) -> Vec<i32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<_> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(processes_below(&entry.path()));
        }
    }
    found
}

fn kill_9(pid: i32) {
    program::run("/bin/kill", ["-9", &pid.to_string()], SOON).unwrap();
}

#[test]
fn a_lab_that_is_taken_down_leaves_nothing() {
    let lab = up("t-down", 2);
    start_guest(&lab.node("node1"), "guest");
    let traces = Traces::of(&lab);
    lab.down().unwrap();
    traces.assert_gone();
}

#[test]
fn a_lab_whose_capsule_was_killed_leaves_nothing_after_the_next_up_or_down() {
    let layout = Layout::new("t-crash".parse().unwrap());
    let cgroup = Cgroup::top(&layout.cgroup()).unwrap();
    let capsule = cgroup.child("capsule");
    let init = || capsule.init().unwrap();
    let named = |name: &str| {
        let is_it =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        capsule.processes().into_iter().find(|pid| is_it(pid) && *pid != init()).unwrap()
    };
    let stages: [&dyn Fn() -> i32; 3] = [&init, &|| named("unshare"), &|| named("pvc-lab")];
    let mut traces = Vec::new();
    for stage in stages {
        let lab = up("t-crash", 1);
        if traces.is_empty() {
            start_guest(&lab.node("node1"), "guest");
        }
        traces.push(Traces::of(&lab));
        kill_9(stage());
        wait_until("everything to die with the capsule", SOON, || !cgroup.populated()).unwrap();
        assert!(lab.node("node1").machine().is_err(), "a dead capsule answered");
        // As after a crash of the whole harness: nobody takes it down.
        std::mem::forget(lab);
    }
    assert!(marker::release(&layout).unwrap());
    traces.iter().for_each(Traces::assert_gone);
    assert!(!marker::release(&layout).unwrap(), "there was something left to take down");
}

/// Plays the owner in the next test when this variable is set.
const OWNER: &str = "PVC_LAB_TEST_OWNER";

#[test]
fn a_lab_of_a_test_does_not_outlive_its_owner() {
    if std::env::var_os(OWNER).is_some() {
        let _lab = up("t-owner", 1);
        println!("up");
        loop {
            std::thread::park();
        }
    }
    let cgroup = Cgroup::top("pvc-lab-t-owner").unwrap();
    let mut owner = program::command(std::env::current_exe().unwrap())
        .args(["--exact", "a_lab_of_a_test_does_not_outlive_its_owner", "--nocapture"])
        .env(OWNER, "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let init = || cgroup.child("node1").child("payload").child("init.scope").init();
    wait_until("the owner's node", SOON, || init().is_some()).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let died = wait_until("the lab to die with its owner", SOON, || !cgroup.populated());
    marker::release(&Layout::new("t-owner".parse().unwrap())).unwrap();
    died.unwrap();
}

#[test]
fn what_the_lab_did_not_make_is_refused_and_left_alone() {
    let up = |name: &str| Lab::up(options(name, 1)).err().map(|e| format!("{e:#}"));
    let ours = up_named_folder("t-foreign");
    let refusal = up("t-foreign").expect("a foreign folder was taken");
    assert!(refusal.contains("was not made by the lab"), "{refusal}");
    assert!(marker::release(&Layout::new("t-foreign".parse().unwrap())).is_err());
    assert_eq!(fs::read_to_string(ours.join("precious")).unwrap(), "mine");
    fs::remove_dir_all(&ours).unwrap();

    let cgroup = Cgroup::top("pvc-lab-t-foreign").unwrap();
    cgroup.create().unwrap();
    let refusal = up("t-foreign").expect("a foreign cgroup was taken");
    assert!(refusal.contains("is not this lab's"), "{refusal}");
    assert!(cgroup.exists());
    cgroup.remove().unwrap();
}

/// A folder where a lab's would be, with something of somebody else in it.
fn up_named_folder(name: &str) -> PathBuf {
    let layout = Layout::new(name.parse().unwrap());
    // Makes the folder of all labs in passing.
    marker::release(&layout).unwrap();
    // Another lab's end may remove the common folder in between.
    wait_until("the folder", SOON, || fs::create_dir_all(layout.state()).is_ok()).unwrap();
    fs::write(layout.state().join("precious"), "mine").unwrap();
    layout.state().to_owned()
}

#[test]
fn labs_that_come_and_go_at_the_same_time_do_not_take_the_ground_from_under_each_other() {
    let come_and_go = |name: &str| {
        let layout = Layout::new(name.parse().unwrap());
        for _ in 0..100 {
            marker::take(&layout, &options(name, 1)).unwrap();
            assert!(marker::release(&layout).unwrap());
        }
    };
    std::thread::scope(|scope| {
        for name in ["t-ground-a", "t-ground-b", "t-ground-c"] {
            scope.spawn(move || come_and_go(name));
        }
    });
}

#[test]
fn a_second_lab_of_the_same_name_is_refused_while_the_first_lives() {
    let lab = up("t-twice", 1);
    let refusal = Lab::up(options("t-twice", 1)).err().expect("two labs of one name");
    assert!(format!("{refusal:#}").contains("is up"), "{refusal:#}");
    lab.node("node1").run(&["/bin/true"], SOON).unwrap();
}

#[test]
fn two_labs_run_side_by_side_with_the_same_addresses() {
    let (a, b) = (up("t-side-a", 1), up("t-side-b", 1));
    let mark = |lab: &Lab, text: &str| lab.node("node1").write_file("/root/mark", text.as_bytes()).unwrap();
    mark(&a, "a");
    mark(&b, "b");
    assert_eq!(a.node("node1").read_file("/root/mark").unwrap(), "a");
    assert_eq!(a.zookeeper_mode(a.node("node1").number()).unwrap(), "standalone");
    a.down().unwrap();
    assert_eq!(b.node("node1").read_file("/root/mark").unwrap(), "b");
}

#[test]
fn the_logs_of_a_lab_are_there_to_read_also_of_a_dead_node() {
    let lab = up("t-logs", 1);
    let node = lab.node("node1");
    node.run(&["/usr/bin/logger", "a word in the journal"], SOON).unwrap();
    node.run(&["/bin/journalctl", "--sync"], SOON).unwrap();
    let folder = lab.collect_logs();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert!(
        read("zookeeper").contains("/zookeeper") || read("zookeeper").contains("keys"),
        "{}",
        read("zookeeper")
    );
    node.kill().unwrap();
    lab.collect_logs();
    assert!(read("node1.journal").contains("a word in the journal"));
    assert!(read("node1.console").contains("power on, life 1"));
    assert!(read("zookeeper").contains("no ZooKeeper server serves"));
}
