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
struct Program {
    child: Child,
    address: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "the program under test")]
fn command(config: &str) -> (Command, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvc-api"));
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

fn ask(program: &Program, method: &str, path: &str, form: &str) -> Answer {
    let mut stream = std::net::TcpStream::connect(&program.address).unwrap();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nX-Api-Key: {TOKEN}\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    parse(&std::io::read_to_string(stream).unwrap())
}

#[test]
fn the_program_serves_a_real_cluster_and_logs_who_changed_what_without_the_token() {
    let zookeeper = ZooKeeperProcess::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = {
        let _inside = runtime.enter();
        ZooKeeperStore::start(Options::new(zookeeper.connect_string()))
    };
    let (mut command, _file) = command(&config(&zookeeper.connect_string()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = log.find(|line| line.contains("http://")).unwrap();
    let address = first.rsplit("http://").next().unwrap().trim().to_owned();
    let program = Program { child, address };

    let answer = ask(&program, "GET", "/node", "");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("prepare it with `pvc init`"), "{answer:?}");
    runtime.block_on(root::init(&*store)).unwrap();
    assert_eq!(ask(&program, "GET", "/vm", "").status, 404);
    let defined = ask(&program, "POST", "/vm", &format!("xml={}", encoded(&definition("web1", 1))));
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
    let (mut command, _file) = command(&text);
    let output = command.arg("--check-config").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("api.listen_address is not an IP address"), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
}
