//! A real PowerDNS over the real database: what is written is answered.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pvc_host::{
    testing::postgres::{NAMES, PostgresProcess},
    zones::{Address, pdns},
};

use crate::contract::{database, guest, network, serve};

const PORT: u16 = 5300;

/// A server on a loopback address of its own. It ends with this.
struct Pdns {
    folder: PathBuf,
    child: Child,
    at: IpAddr,
}

impl Pdns {
    /// Starts one and waits until it answers.
    #[allow(clippy::disallowed_methods, reason = "the test plays the supervisor")]
    fn start(database: &PostgresProcess) -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let at = IpAddr::from([127, 53, high, low.clamp(1, 254)]);
        let folder = std::env::temp_dir().join(format!("pvc-pdns-{}", std::process::id())).join("pdns");
        let (user, name, password) = NAMES;
        let address = Address { host: database.folder().to_str().unwrap(), port: 5432, name, user, password };
        // The second is not this machine's, as a floating address on a coordinator that is not primary.
        let listen = [at, "192.0.2.53".parse().unwrap()];
        let settings = pdns::settings(&address, &listen, PORT, &folder).unwrap();
        assert!(pdns::write(&folder, &settings).unwrap());
        assert!(!pdns::write(&folder, &settings).unwrap(), "it is as it was");
        let child = Command::new("/usr/bin/setpriv")
            .args(["--reuid=pdns", "--regid=pdns", "--clear-groups", "--pdeathsig=KILL", "--"])
            .arg(format!("/usr/sbin/{}", pdns::PROGRAM))
            .arg(format!("--config-dir={}", folder.display()))
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("log")).unwrap())
            .stderr(fs::File::create(folder.join("errors")).unwrap())
            .spawn()
            .unwrap();
        let this = Self { folder, child, at };
        let deadline = Instant::now() + Duration::from_mins(1);
        while this.ask("anything.example", 1).is_none() {
            assert!(Instant::now() < deadline, "PowerDNS does not answer: {}", this.log());
            thread::sleep(Duration::from_millis(20));
        }
        this
    }

    fn log(&self) -> String {
        ["log", "errors"].map(|name| fs::read_to_string(self.folder.join(name)).unwrap_or_default()).concat()
    }

    /// The code of an answer and its records' bytes; `None`: there is no answer.
    fn ask(&self, name: &str, kind: u16) -> Option<(u8, Vec<u8>)> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.connect(SocketAddr::new(self.at, PORT)).unwrap();
        let mut question = vec![0x11, 0x22, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.bytes());
        }
        question.push(0);
        question.extend(kind.to_be_bytes());
        question.extend([0, 1]);
        socket.send(&question).ok()?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).ok()?;
        Some((answer[3] & 15, answer[question.len().min(length)..length].to_vec()))
    }

    /// Whether the name has this address, and no other.
    fn has(&self, name: &str, address: Ipv4Addr) -> bool {
        self.ask(name, 1).is_some_and(|(code, records)| {
            code == 0 && records.ends_with(&address.octets()) && records.len() == 16
        })
    }
}

impl Drop for Pdns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.folder.parent().unwrap());
    }
}

const OK: u8 = 0;
const SERVFAIL: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

#[tokio::test]
async fn a_name_is_answered_as_soon_as_it_is_written_and_again_after_the_database_was_away() {
    let mut server = PostgresProcess::start().unwrap();
    let database = database(&server);
    serve(&database, &[network()], &[]).await;
    let pdns = Pdns::start(&server);
    assert!(pdns.has("ns.web.local", Ipv4Addr::new(10, 100, 0, 1)), "{}", pdns.log());
    assert_eq!(pdns.ask("late.web.local", 1).unwrap().0, NO_SUCH_NAME);

    let mut guests = Vec::new();
    let mut took = Vec::new();
    for number in 0..200u8 {
        let (name, address) = (format!("guest{number}"), Ipv4Addr::new(10, 100, 1, number));
        guests.push(guest(&name, &address.to_string()));
        let began = Instant::now();
        let seen = pvc_host::zones::ZoneDatabase::observe(&database).await.unwrap();
        for change in pvc_core::plan::dns::plan(&[network()], &guests, &seen).changes {
            pvc_host::zones::ZoneDatabase::apply(&database, &change).await.unwrap();
        }
        assert!(pdns.has(&format!("{name}.web.local"), address), "{name}: at the first question");
        took.push(began.elapsed());
    }
    took.sort();
    println!("from a lease to its answer: median {:?}, worst {:?} of {}", took[100], took[199], took.len());
    assert_eq!(pdns.ask("7.1.100.10.in-addr.arpa", 12).unwrap().0, OK);

    server.kill();
    assert_eq!(pdns.ask("guest7.web.local", 1).unwrap().0, SERVFAIL);
    server.launch().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !pdns.has("guest7.web.local", Ipv4Addr::new(10, 100, 1, 7)) {
        assert!(Instant::now() < deadline, "PowerDNS has not found its database again: {}", pdns.log());
        thread::sleep(Duration::from_millis(50));
    }
    guests.remove(7);
    serve(&database, &[network()], &guests).await;
    assert_eq!(pdns.ask("guest7.web.local", 1).unwrap().0, NO_SUCH_NAME);
}
