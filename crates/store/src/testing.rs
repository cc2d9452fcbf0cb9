//! A real ZooKeeper for tests and benchmarks: one server of our own on loopback, and a network to it that can be cut.
//!
//! Never touches a server that it did not start. Panics instead of returning errors: a test without its service has failed.

#![allow(
    clippy::disallowed_methods,
    reason = "the one place outside pvc-host that starts a program: tests' ZooKeeper"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test whose service is missing must fail")]

mod proxy;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use self::proxy::Proxy;

/// Generous: a JVM on a busy machine.
const START_WITHIN: Duration = Duration::from_mins(1);

/// A ZooKeeper server of this process, on a free port of 127.0.0.1, its data in a temporary directory. Dropping it ends it.
///
/// Its tick is 100 ms, so that sessions of 200 ms and more are granted.
#[derive(Debug)]
pub struct ZooKeeperProcess {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
}

impl ZooKeeperProcess {
    /// Starts a server and returns when it serves. Needs Debian's packages `zookeeper` (its library only) and a Java runtime.
    pub fn start() -> Self {
        let directory =
            tempfile::Builder::new().prefix("pvc-zookeeper-").tempdir().expect("a temporary directory");
        // Between finding the port free and the server's binding it, somebody else may take it: then try another.
        let mut server = Self { directory, port: 0, child: None };
        for _ in 0..5 {
            server.port = free_port();
            server.configure();
            if server.spawn() {
                return server;
            }
        }
        panic!("ZooKeeper does not start: {}", server.log());
    }

    /// `127.0.0.1:<port>`.
    pub fn connect_string(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as a crash would. Its data stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already dead is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the server again on the same port and data.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.spawn(), "ZooKeeper does not start again: {}", self.log());
    }

    /// Stops the server's execution (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks by a four-letter word, such as `mntr` or `srst`.
    pub fn ask(&self, word: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        let pid = Pid::from_child(child);
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    fn configure(&self) {
        let data = self.directory.path().join("data");
        fs::create_dir_all(&data).expect("the data directory");
        let text = format!(
            "tickTime=100\nmaxSessionTimeout=60000\nmaxClientCnxns=0\nclientPort={}\n\
             clientPortAddress=127.0.0.1\ndataDir={}\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            self.port,
            data.display()
        );
        fs::write(self.directory.path().join("zoo.cfg"), text).expect("the configuration");
    }

    /// Starts the server; false if it ended before it served.
    fn spawn(&mut self) -> bool {
        const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];
        for jar in JARS {
            assert!(
                Path::new(jar).exists(),
                "{jar} is missing: apt-get install zookeeper default-jre-headless"
            );
        }
        let log = fs::File::create(self.directory.path().join("log")).expect("the log file");
        let errors = log.try_clone().expect("the log file");
        let child = Command::new("/usr/bin/java")
            .args([
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Djava.net.preferIPv4Stack=true",
            ])
            // Tests do not survive a power cut of the machine; their data need not either.
            .args(["-Dzookeeper.forceSync=no", "-cp", &JARS.join(":")])
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .arg(self.directory.path().join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("java is missing: apt-get install default-jre-headless");
        self.child = Some(child);
        let started = Instant::now();
        while started.elapsed() < START_WITHIN {
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|s| s.is_some()));
            if ended {
                return false;
            }
            if self.ask("srvr").is_ok_and(|answer| answer.contains("Mode:")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stop();
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for ZooKeeperProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
