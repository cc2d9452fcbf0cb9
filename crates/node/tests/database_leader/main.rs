//! Patroni itself, with two PostgreSQL servers and a ZooKeeper: the database's leader follows the primary coordinator.
//!
//! Needs the packages patroni, postgresql and zookeeper, and root, to become the user `postgres`; fails without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pvc_core::plan::database_leader::Ground;
use pvc_host::database_cluster::{DatabaseCluster, DatabaseClusterError, PORT, Patroni};
use pvc_store::testing::ZooKeeperProcess;
use pvcd::reconcile::{database_leader::DatabaseLeader, primary::PrimaryService};
use tempfile::TempDir;
use tokio::time::sleep;

/// On a machine that does much else.
const LONG: Duration = Duration::from_mins(2);

/// A Patroni with its PostgreSQL. Dropping it ends both.
struct Server {
    name: &'static str,
    address: IpAddr,
    folder: PathBuf,
    patroni: Child,
}

/// The user that PostgreSQL insists on.
fn postgres() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("this test needs PostgreSQL");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    (ids.next().unwrap(), ids.next().unwrap())
}

impl Server {
    fn start(name: &'static str, address: IpAddr, below: &TempDir, zookeeper: &str) -> Self {
        let folder = below.path().join(name);
        let (user, group) = postgres();
        for part in ["", "data", "run"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).unwrap();
            fs::set_permissions(&part, fs::Permissions::from_mode(0o700)).unwrap();
            chown(&part, Some(user), Some(group)).unwrap();
        }
        let file = folder.join("config.yml");
        fs::write(&file, settings(name, address, &folder, zookeeper)).unwrap();
        chown(&file, Some(user), Some(group)).unwrap();
        #[allow(
            clippy::disallowed_methods,
            reason = "Patroni is a service of the machine, which tests have none of"
        )]
        let mut program = Command::new("/usr/bin/setpriv");
        let patroni = program
            .args([
                "--reuid",
                &user.to_string(),
                "--regid",
                &group.to_string(),
                "--init-groups",
                "/usr/bin/patroni",
            ])
            .arg(&file)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .expect("this test needs setpriv");
        Self { name, address, folder, patroni }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.patroni.id()).unwrap()), signal).unwrap();
    }

    fn patroni(&self) -> Patroni {
        Patroni::at(&[self.address], PORT)
    }

    /// What asks for the leader on its node.
    fn service(&self) -> Arc<dyn PrimaryService> {
        let patroni = Arc::new(self.patroni());
        DatabaseLeader::start(
            Ground { me: self.name.parse().unwrap(), own: vec![self.address], port: 5432 },
            patroni,
        )
    }

    async fn leads(&self) -> bool {
        let members = self.patroni().servers().await.unwrap_or_default().members;
        members.iter().any(|member| member.leads && member.name == self.name)
    }

    /// An operator tells Patroni to change nothing by itself, or to go on.
    fn pause(&self, pause: bool) {
        let mut stream = TcpStream::connect((self.address, PORT)).unwrap();
        let body = format!("{{\"pause\": {pause}}}");
        let length = body.len();
        write!(stream, "PATCH /config HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// Whether PostgreSQL itself takes writes.
    fn takes_writes(&self) -> bool {
        #[allow(clippy::disallowed_methods, reason = "as above")]
        let mut psql = Command::new("/usr/bin/psql");
        let run = self.folder.join("run");
        let asked =
            psql.arg("--host").arg(run).args(["-U", "postgres", "-Atc", "select pg_is_in_recovery()"]);
        asked.output().unwrap().stdout == b"f\n"
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.patroni.kill();
        let _ = self.patroni.wait();
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next().and_then(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
            // Its folder goes when it has.
            for _ in 0..100 {
                if kill(Pid::from_raw(pid), None).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// YAML that is JSON.
fn settings(name: &str, address: IpAddr, folder: &std::path::Path, zookeeper: &str) -> String {
    let listen = |port: u16| format!("{address}:{port}");
    serde_json::json!({
        "scope": "pvcdns", "namespace": "/patroni/", "name": name,
        "restapi": {"listen": listen(PORT), "connect_address": listen(PORT)},
        "zookeeper": {"hosts": [zookeeper]},
        "bootstrap": {
            "dcs": {"ttl": 20, "loop_wait": 1, "retry_timeout": 3,
                "postgresql": {"use_pg_rewind": false, "use_slots": true,
                    "parameters": {"fsync": "off", "max_connections": 20, "shared_buffers": "16MB"}}},
            "initdb": [{"encoding": "UTF8"}, "no-sync"],
            "pg_hba": ["local all all trust", "host all all 127.0.0.0/8 trust", "host replication all 127.0.0.0/8 trust"],
        },
        "postgresql": {
            "listen": listen(5432), "connect_address": listen(5432),
            "data_dir": folder.join("data"), "bin_dir": "/usr/lib/postgresql/15/bin", "pgpass": folder.join("pgpass"),
            "authentication": {"replication": {"username": "replicator", "password": "x"},
                "superuser": {"username": "postgres", "password": "x"}},
            "parameters": {"unix_socket_directories": folder.join("run")},
        },
    })
    .to_string()
}

async fn until(what: &str, servers: &[Server], mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so().await {
        if began.elapsed() > LONG {
            let logs: Vec<String> =
                servers.iter().map(|s| fs::read_to_string(s.folder.join("log")).unwrap()).collect();
            panic!("never: {what}\n{}", logs.join("\n"));
        }
        sleep(Duration::from_millis(100)).await;
    }
    println!("{what}: {:.1} s", began.elapsed().as_secs_f32());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn patroni_makes_the_primarys_server_the_leader_and_holds_nobody_up() {
    let below = tempfile::tempdir().unwrap();
    fs::set_permissions(below.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let zookeeper = ZooKeeperProcess::start();
    let [high, low] = std::process::id().to_be_bytes()[2..] else { unreachable!() };
    let address = |last: u8| IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, last));
    let start = |(name, last)| Server::start(name, address(last), &below, &zookeeper.connect_string());
    let servers = [("hv1", 1), ("hv2", 2)].map(start);
    until("a leader, and one who follows", &servers, async || {
        let members = servers[0].patroni().servers().await.unwrap_or_default().members;
        members.len() == 2
            && members.iter().all(|m| m.works)
            && members.iter().filter(|m| m.leads).count() == 1
    })
    .await;

    // Who is not the leader becomes primary; then the other one does, again.
    let first = usize::from(servers[0].leads().await);
    for here in [first, 1 - first] {
        let server = &servers[here];
        let service = server.service();
        service.start().await.unwrap();
        until("the primary's leads", &servers, async || server.leads().await && server.takes_writes()).await;
        until("and that is known", &servers, async || service.check().await.is_ok()).await;
        service.stop().await.unwrap();
        until("both work", &servers, async || {
            server.patroni().servers().await.unwrap_or_default().members.iter().filter(|m| m.works).count()
                == 2
        })
        .await;
    }

    // One that is paused is let be.
    let (leader, other) = (&servers[1 - first], &servers[first]);
    leader.pause(true);
    until("it is paused", &servers, async || other.patroni().servers().await.is_ok_and(|all| all.is_paused))
        .await;
    let service = other.service();
    service.start().await.unwrap();
    until("that is said", &servers, async || {
        service.check().await.is_err_and(|why| why.contains("Patroni is paused"))
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    assert!(leader.leads().await, "it was asked for something");
    service.stop().await.unwrap();
    leader.pause(false);
    until("it goes on", &servers, async || other.patroni().servers().await.is_ok_and(|all| !all.is_paused))
        .await;

    // One who asks by what was so before is refused.
    let leader = &servers[1 - first];
    let refused = leader.patroni().lead(servers[first].name, leader.name).await.unwrap_err();
    assert!(matches!(refused, DatabaseClusterError::Refused { .. }), "{refused}");
    // One that hangs is said, and nobody has waited for it.
    servers[first].signal(Signal::SIGSTOP);
    let service = servers[first].service();
    let began = Instant::now();
    service.start().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    until("it is said that it hangs", &servers, async || {
        service.check().await.is_err_and(|why| why.contains("did not tell its members within 3 s"))
    })
    .await;
    servers[first].signal(Signal::SIGCONT);
    until("it leads when it goes on", &servers, async || servers[first].leads().await).await;
}
