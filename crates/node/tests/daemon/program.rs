//! The program itself, with signals, a service manager's socket and a real ZooKeeper.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    ptrace,
    wait::{WaitPidFlag, waitpid},
};
use pvc_store::{
    Store as _,
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Settings, yaml};

/// Longer than anything takes on the slowest machine.
const DEADLINE: Duration = Duration::from_mins(1);

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new(coordinator: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sample = Settings { node: "node1", coordinator, hypervisor: false, keepalive_interval_s: 1 };
        fs::write(dir.path().join("pvcd.yaml"), yaml(dir.path(), &sample)).unwrap();
        Self { dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvcd"));
        command.env("PVCD_CONFIG_FILE", self.dir.path().join("pvcd.yaml"));
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    /// Has the daemon tell figures on that address.
    fn tells_figures_on(&self, address: SocketAddr) {
        let path = self.dir.path().join("pvcd.yaml");
        let with = format!("      metrics:\n        listen: \"{address}\"\n      logging:\n");
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("      logging:\n", &with)).unwrap();
    }

    /// Starts the daemon, with a service manager that expects a sign of life every second.
    fn start(&self) -> Daemon {
        let path = self.dir.path().join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let (sender, notes) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = socket.recv(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..n]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Daemon { child, notes }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log/pvcd.log")).unwrap_or_default()
    }

    fn until_logged(&self, text: &str) {
        let began = Instant::now();
        while !self.log().contains(text) {
            assert!(began.elapsed() < DEADLINE, "{text:?} is not in the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Daemon {
    child: Child,
    notes: mpsc::Receiver<String>,
}

impl Daemon {
    /// Waits until the service manager is told this.
    fn until_notified(&self, note: &str) {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.notes.recv_timeout(left) {
                Ok(told) if told == note => return,
                Ok(_) => {}
                Err(error) => panic!("the service manager was not told {note}: {error}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns how it was and how long it took.
    fn ends(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < DEADLINE, "the daemon does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(zookeeper: &ZooKeeperProcess, path: &str) -> Option<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = ZooKeeperStore::start(Options::new(zookeeper.connect_string()));
        let value = store.get(path).await.unwrap();
        store.close().await;
        value.map(|v| String::from_utf8(v.data).unwrap())
    })
}

#[test]
fn the_service_manager_hears_of_start_life_and_stop() {
    let zookeeper = ZooKeeperProcess::start();
    let machine = Machine::new(&zookeeper.connect_string());
    let daemon = machine.start();
    daemon.until_notified("READY=1");
    assert_eq!(key(&zookeeper, "/nodes/node1/daemonstate").as_deref(), Some("run"), "ready means it runs");
    daemon.until_notified("WATCHDOG=1");
    zookeeper.pause();
    machine.until_logged("the keepalive could not be written");
    while daemon.notes.try_recv().is_ok() {}
    for _ in 0..6 {
        // ZooKeeper's absence is no reason to kill a daemon.
        daemon.until_notified("WATCHDOG=1");
    }
    zookeeper.resume();
    machine.until_logged("keepalives are written again");
    daemon.signal(Signal::TERM);
    daemon.until_notified("STOPPING=1");
    let (status, took) = daemon.ends();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    assert_eq!(key(&zookeeper, "/nodes/node1/daemonstate").as_deref(), Some("stop"));
    let log = machine.log();
    assert_eq!(log.matches("could not be written").count(), 1, "an outage is said once:\n{log}");
    assert!(!log.contains("Passw0rd"));
}

/// A thread that does not go on, as one that is busy with something else, while the process' other threads do.
struct Held(nix::unistd::Pid);

impl Held {
    /// The main thread, where the reconcilers run; while it waits for something to do. In the middle of something it may hold a lock that
    /// nobody holds for long, such as the log's.
    fn main_thread_of(daemon: &Daemon) -> Self {
        let main = nix::unistd::Pid::from_raw(daemon.child.id().cast_signed());
        let waits = || {
            let stat = fs::read_to_string(format!("/proc/{main}/task/{main}/stat")).unwrap();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
        };
        let began = Instant::now();
        let mut seen_waiting = 0;
        while seen_waiting < 20 {
            assert!(began.elapsed() < DEADLINE, "it is never idle");
            thread::sleep(Duration::from_millis(5));
            seen_waiting = if waits() { seen_waiting + 1 } else { 0 };
        }
        ptrace::seize(main, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(main).unwrap();
        waitpid(main, Some(WaitPidFlag::__WALL)).unwrap();
        Self(main)
    }

    fn let_go(self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

#[test]
fn a_main_thread_that_is_held_for_longer_than_a_session_costs_neither_keepalives_nor_the_session() {
    let zookeeper = ZooKeeperProcess::start();
    let machine = Machine::new(&zookeeper.connect_string());
    let daemon = machine.start();
    daemon.until_notified("READY=1");
    let speaks = || key(&zookeeper, "/nodes/node1/keepalive").unwrap();
    let held = Held::main_thread_of(&daemon);
    while daemon.notes.try_recv().is_ok() {}
    let began = Instant::now();
    // Its session is one of ten seconds.
    while began.elapsed() < Duration::from_secs(13) {
        let before = speaks();
        thread::sleep(Duration::from_millis(2500));
        assert_ne!(speaks(), before, "no keepalive for 2.5 s:\n{}", machine.log());
        daemon.until_notified("WATCHDOG=1");
    }
    machine.until_logged("the daemon's other work is held up for 5 s: keepalives go on");
    held.let_go();
    machine.until_logged("the daemon's other work goes on");
    daemon.signal(Signal::TERM);
    assert!(daemon.ends().0.success());
    let log = machine.log();
    assert!(!log.contains("session has ended") && !log.contains("could not be written"), "{log}");
}

/// The answer to one request, head and all.
fn asked(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn figures_are_told_to_whoever_asks_on_loopback() {
    let zookeeper = ZooKeeperProcess::start();
    let machine = Machine::new(&zookeeper.connect_string());
    // Somebody else has the address at first: the daemon runs without figures until it is free.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    machine.tells_figures_on(address);
    let daemon = machine.start();
    daemon.until_notified("READY=1");
    machine.until_logged("no figures for Prometheus until that is possible");
    drop(other);
    machine.until_logged("figures for Prometheus are told on");

    let began = Instant::now();
    let answer = loop {
        let answer = asked(address, "GET /metrics");
        // What was written a moment ago may not be in the mirror yet.
        if answer.contains("\npvcd_cluster_nodes{state=\"run\"} 1\n") {
            break answer;
        }
        assert!(began.elapsed() < DEADLINE, "{answer}");
        thread::sleep(Duration::from_millis(20));
    };
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\npvcd_store_session{state=\"healthy\"} 1\n"), "{answer}");
    assert!(answer.contains("# TYPE pvcd_keepalive_seconds histogram"), "{answer}");
    let count = |answer: &str| -> u64 {
        let line = answer.lines().find_map(|line| line.strip_prefix("pvcd_keepalive_seconds_count "));
        line.unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
    };
    let first = count(&answer);
    while count(&asked(address, "GET /metrics")) <= first {
        assert!(began.elapsed() < DEADLINE, "keepalives are not counted");
        thread::sleep(Duration::from_millis(50));
    }
    // Who says nothing, half a question, or one without taking the answer keeps nobody out, and is hung up on.
    let slow: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
            let said = ["", "GET /metr", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n"][n % 3];
            stream.write_all(said.as_bytes()).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert!(asked(address, "GET /metrics").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    for mut stream in slow {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // Reset, or ended, perhaps with an answer that says why.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(began.elapsed() < Duration::from_secs(30), "the last was let go after {:?}", began.elapsed());
    assert!(asked(address, "GET /").starts_with("HTTP/1.1 404 "));
    assert!(asked(address, "POST /metrics").starts_with("HTTP/1.1 405 "));
    assert!(!answer.contains("Passw0rd"));
    daemon.signal(Signal::TERM);
    assert!(daemon.ends().0.success());
}

#[test]
fn a_killed_daemon_starts_again_at_once() {
    let zookeeper = ZooKeeperProcess::start();
    let machine = Machine::new(&zookeeper.connect_string());
    let daemon = machine.start();
    daemon.until_notified("READY=1");
    daemon.signal(Signal::KILL);
    assert!(!daemon.ends().0.success());
    let began = Instant::now();
    let daemon = machine.start();
    daemon.until_notified("READY=1");
    // The old session lives for ten seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "the restart took {:?}", began.elapsed());
    let second = machine.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(text.contains("runs as node1 on this machine: stop it first"), "{text}");
    daemon.signal(Signal::INT);
    assert!(daemon.ends().0.success());
}

#[test]
fn hang_up_opens_the_log_file_anew() {
    let zookeeper = ZooKeeperProcess::start();
    let machine = Machine::new(&zookeeper.connect_string());
    let daemon = machine.start();
    daemon.until_notified("READY=1");
    // Lines are written by a thread of their own, and a new file is opened before those that wait.
    machine.until_logged(" I runs, ");
    let log = machine.dir.path().join("log");
    fs::rename(log.join("pvcd.log"), log.join("pvcd.log.1")).unwrap();
    daemon.signal(Signal::HUP);
    machine.until_logged("SIGHUP: the log file was opened anew");
    let old = fs::read_to_string(log.join("pvcd.log.1")).unwrap();
    assert!(old.contains(" I runs, ") && !old.contains("SIGHUP"), "{old}");
    daemon.signal(Signal::QUIT);
    assert!(daemon.ends().0.success());
}

#[test]
fn a_server_that_is_down_is_said_once_and_a_second_signal_ends_the_daemon_at_once() {
    // Nobody listens on a port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let machine = Machine::new(&format!("127.0.0.1:{port}"));
    let daemon = machine.start();
    machine.until_logged("the start waits for ZooKeeper");
    thread::sleep(Duration::from_secs(3));
    let log = machine.log();
    assert_eq!(log.lines().filter(|l| l.contains(&port.to_string())).count(), 1, "{log}");
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::INT);
    let (_, took) = daemon.ends();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

#[test]
fn check_config_needs_nothing_and_exits_with_0_or_1() {
    let machine = Machine::new("node1");
    let check = |command: &mut Command| -> Output { command.arg("--check-config").output().unwrap() };
    let output = check(&mut machine.command());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let broken = machine.dir.path().join("broken.yaml");
    fs::write(&broken, "pvc:\n  node: [\n").unwrap();
    let output = machine.command().arg("--check-config").arg(&broken).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = check(machine.command().env("PVCD_CONFIG_FILE", Path::new("/nonexistent")));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = machine.command().env("PVCD_CONFIG_FILE", &broken).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "nor does it start with it, and systemd shall not try again");
    assert!(String::from_utf8_lossy(&output.stderr).contains("broken.yaml"), "{output:?}");
}
