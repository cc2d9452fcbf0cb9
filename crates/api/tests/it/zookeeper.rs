//! The same service over a real ZooKeeper server, as the program that is shipped.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use pvc_store::{
    schema::root,
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};

use crate::support::{Answer, TOKEN, definition, encoded, parse};

/// The program, and where it listens.
pub(crate) struct Program {
    child: Child,
    address: String,
    _config: tempfile::NamedTempFile,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts the one that was built, or another, without its log.
    pub(crate) fn start(zookeeper: &str, program: Option<&str>) -> Self {
        Self::with_log(zookeeper, program).0
    }

    /// The same, and what it logs after it has begun to listen.
    fn with_log(zookeeper: &str, program: Option<&str>) -> (Self, impl Iterator<Item = String> + use<>) {
        let (mut command, file) = command(&config(zookeeper), program);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = log.find(|line| line.contains("http://")).unwrap();
        let address = first.rsplit("http://").next().unwrap().trim().to_owned();
        (Self { child, address, _config: file }, log)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, form: &str) -> Answer {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nX-Api-Key: {TOKEN}\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        parse(&std::io::read_to_string(stream).unwrap())
    }

    /// What it has in memory, and had at most.
    pub(crate) fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
        lines.map(|line| line.replace('\t', " ")).collect::<Vec<_>>().join(", ")
    }
}

#[allow(clippy::disallowed_methods, reason = "the program under test")]
fn command(config: &str, program: Option<&str>) -> (Command, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    let mut command = Command::new(program.unwrap_or(env!("CARGO_BIN_EXE_pvc-api")));
    command.env("PVC_CONFIG_FILE", file.path());
    (command, file)
}

fn config(zookeeper: &str) -> String {
    format!(
        "pvc:\n  coordinators: [\"{zookeeper}\"]\n  api:\n    listen_address: 127.0.0.1\n    listen_port: {}\n    \
         authentication:\n      enabled: True\n      tokens:\n        - description: tests\n          token: {TOKEN}\n",
        free_port()
    )
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_program_serves_a_real_cluster_and_logs_who_changed_what_without_the_token() {
    let zookeeper = ZooKeeperProcess::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = {
        let _inside = runtime.enter();
        ZooKeeperStore::start(Options::new(zookeeper.connect_string()))
    };
    let (program, mut log) = Program::with_log(&zookeeper.connect_string(), None);
    let ask = |method: &str, path: &str, form: &str| program.ask(method, &format!("/api/v1{path}"), form);

    let answer = ask("GET", "/node", "");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("prepare it with `pvc init`"), "{answer:?}");
    runtime.block_on(root::init(&*store)).unwrap();
    assert_eq!(ask("GET", "/vm", "").status, 404);
    let defined = ask("POST", "/vm", &format!("xml={}", encoded(&definition("web1", 1))));
    assert_eq!(defined.status, 400, "{defined:?}");
    assert!(defined.body.contains("node"), "there is none: {defined:?}");
    let line = log.find(|line| line.contains("POST")).unwrap();
    for part in ["POST /api/v1/vm from 127.0.0.1:", "by \"tests\": 400"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains(TOKEN), "{line}");
}

#[test]
fn a_configuration_that_is_refused_is_explained_without_its_token() {
    let text = config("127.0.0.1:1").replace("127.0.0.1\n", "nowhere\n");
    let (mut command, _file) = command(&text, None);
    let output = command.arg("--check-config").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("api.listen_address is not an IP address"), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
}
