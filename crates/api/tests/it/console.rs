//! Consoles over WebSockets: what goes both ways, who may, and what a client can do to them. The guests are fakes; `pvc-host` and the lab have real ones.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use pvc_api::{Api, Gate, Limits, Share, Tls};
use pvc_config::{Authentication, Secret};
use pvc_core::model::{Claim, VmSet, VmState};
use pvc_host::hypervisor::{
    Peer,
    console::Place,
    fake::{FakeConsoles, FakeGuest},
};
use pvc_operate::testing::{Fake, id};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::{
    socket::{CLOSE, PING, PONG, Socket, TEXT},
    support::{Answer, KEY, OPERATOR, READER, Served, TOKEN, again, authentication, session_until},
    tls,
};

/// A VM that runs on hv1 and echoes.
struct Room {
    fake: Fake,
    consoles: Arc<FakeConsoles>,
    served: Served,
}

fn place(node: &str) -> Place {
    Place::Peer(Peer::new(node))
}

impl Room {
    async fn new(limits: Limits) -> Self {
        Self::speaking(None, limits).await
    }

    async fn speaking(tls: Option<Tls>, limits: Limits) -> Self {
        let fake = Fake::with(&["hv1", "hv2"]).await;
        fake.define(1, "web1", "hv1").await;
        let consoles = Arc::new(FakeConsoles::default());
        let authentication = Authentication { secret_key: Some(Secret::new(KEY)), ..authentication() };
        let gate = Gate::new(Some(&authentication), false, limits);
        let gate = if tls.is_some() { gate.behind_tls() } else { gate };
        let api = Api::new(again(&fake), gate, limits).with_consoles(consoles.clone());
        let room = Self { fake, consoles, served: Served::speaking(tls, api).await };
        room.execute("hv1").await;
        room
    }

    async fn execute(&self, node: &str) {
        self.consoles.put(&place(node), id(1), FakeGuest::Echoes);
        let claim: Claim = node.parse().unwrap();
        self.fake.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(claim)]).await;
    }

    async fn open(&self, token: &str) -> Socket {
        let headers = format!("X-Api-Key: {token}\r\n");
        Socket::open(&self.served, "/api/v2/vms/web1/console", &headers).await.unwrap()
    }

    async fn refused(&self, path: &str, headers: &str) -> Answer {
        Socket::open(&self.served, path, headers).await.err().expect("it is refused")
    }
}

#[tokio::test]
async fn a_console_goes_both_ways_follows_its_guest_and_is_in_the_audit() {
    let room = Room::new(Limits::default()).await;
    let mut socket = room.open(OPERATOR).await;
    assert_eq!(socket.said().await, "VM web1 on hv1");
    socket.echoes("hello").await;
    socket.send(PING, b"there").await;
    assert_eq!(socket.receive().await, (PONG, b"there".to_vec()));
    room.consoles.remove(&place("hv1"), id(1));
    room.execute("hv2").await;
    assert_eq!(socket.said().await, "VM web1 has moved from hv1 to hv2");
    socket.echoes("again").await;
    room.consoles.remove(&place("hv2"), id(1));
    room.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
    while socket.said().await != "VM web1 is off" {}
    assert_eq!(socket.closed().await, 1000);
    let entries = loop {
        let audit = room.served.send("GET", "/api/v2/audit", &format!("X-Api-Key: {TOKEN}\r\n"), "").await;
        let entries = audit.json();
        if entries.as_array().is_some_and(|entries| entries.len() == 2) {
            break entries;
        }
        tokio::task::yield_now().await;
    };
    for (entry, said) in
        [(0, "a console was closed after 0 s: VM web1 is off"), (1, "a console was opened: VM web1 on hv1")]
    {
        let entry = &entries[entry];
        assert_eq!(entry["said"], said, "{entry}");
        assert_eq!(
            (&entry["by"], &entry["what"]),
            (&json!("operator"), &json!("GET /api/v2/vms/web1/console"))
        );
    }
}

#[tokio::test]
async fn a_console_that_is_taken_is_noted_and_the_end_of_the_service_ends_all_in_the_audit() {
    let room = Room::new(Limits::default()).await;
    let mut loses = room.open(OPERATOR).await;
    let headers = format!("X-Api-Key: {TOKEN}\r\n");
    let mut takes =
        Socket::open(&room.served, "/api/v2/vms/web1/console?force=true", &headers).await.unwrap();
    takes.echoes("mine").await;
    while loses.receive().await.0 != CLOSE {}
    room.served.api.end().await;
    assert_eq!(takes.closed().await, 1001);
    let mut noted = String::new();
    for number in 1..=5 {
        noted += &room.fake.get(&format!("/pvc/audit/{number:03}")).await.unwrap_or_default();
    }
    for said in ["taken by force", "opened: VM web1 on hv1", "the service ends"] {
        assert!(noted.contains(said), "{said}: {noted}");
    }
}

#[tokio::test]
async fn who_may_not_opens_no_console_and_what_stands_in_the_way_is_an_ordinary_answer() {
    let room = Room::new(Limits::default()).await;
    let path = "/api/v2/vms/web1/console";
    let key = |token: &str| format!("X-Api-Key: {token}\r\n");
    for (path, headers, status) in [
        (path, String::new(), 401),
        (path, key("wrong"), 401),
        (path, key(READER), 403),
        ("/api/v2/vms/other/console", key(OPERATOR), 404),
        ("/api/v2/vms/web1/console?force=perhaps", key(OPERATOR), 400),
    ] {
        let answer = room.refused(path, &headers).await;
        assert_eq!(answer.status, status, "{path} {headers}: {answer:?}");
    }
    // A page of another site, in a browser that has a session.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login = room.served.send("POST", "/api/v1/auth/login", form, &format!("token={TOKEN}")).await;
    let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for (headers, status) in [
        ("Origin: http://evil.example\r\n", Some(403)),
        ("Origin: null\r\n", Some(403)),
        ("Origin: http://api.evil.example\r\n", Some(403)),
        ("Sec-Fetch-Site: cross-site\r\nOrigin: http://api\r\n", Some(403)),
        ("Origin: http://api\r\n", None),
    ] {
        let opened = Socket::open(&room.served, path, &format!("Cookie: {cookie}\r\n{headers}")).await;
        assert_eq!(opened.err().map(|answer| answer.status), status, "{headers}");
    }
    let plain = room.served.send("GET", path, &key(OPERATOR), "").await;
    assert_eq!(plain.status, 426, "{plain:?}");
    let _holds = loop {
        // The session's is closed, and libvirt may not have noticed yet.
        if let Ok(socket) = Socket::open(&room.served, path, &key(OPERATOR)).await {
            break socket;
        }
    };
    let taken = room.refused(path, &key(TOKEN)).await;
    assert!(taken.status == 409 && taken.body.contains("somebody has this console open"), "{taken:?}");
    room.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
    let off = room.refused(path, &key(TOKEN)).await;
    assert!(off.status == 409 && off.json()["todo"].as_str().unwrap().contains("pvc vm start"), "{off:?}");
    let bare = FakeGuest::Defined("<domain><devices/></domain>".into());
    room.execute("hv1").await;
    room.consoles.put(&place("hv1"), id(1), bare);
    let lacks = room.refused(path, &key(TOKEN)).await;
    assert!(lacks.status == 409 && lacks.body.contains("has no serial console"), "{lacks:?}");
}

#[tokio::test]
async fn consoles_are_bounded_and_who_sends_what_is_none_of_it_or_loses_its_token_is_closed() {
    let consoles = Share { all: 1, token: 1, address: 1, waiting: 0 };
    let room = Room::new(Limits { consoles, ..Limits::default() }).await;
    let mut socket = room.open(TOKEN).await;
    socket.echoes("held").await;
    let full =
        room.refused("/api/v2/vms/web1/console?force=true", &format!("X-Api-Key: {OPERATOR}\r\n")).await;
    assert_eq!(full.status, 503, "{full:?}");
    socket.send(TEXT, b"typed as text").await;
    assert_eq!(socket.closed().await, 1003);
    drop(socket);

    // Its place is free again; a frame that is too large ends it, whatever it says of itself.
    let mut socket = loop {
        let headers = format!("X-Api-Key: {TOKEN}\r\n");
        match Socket::open(&room.served, "/api/v2/vms/web1/console", &headers).await {
            Ok(socket) => break socket,
            Err(answer) => assert!([409, 503].contains(&answer.status), "{answer:?}"),
        }
    };
    socket
        .stream
        .write_all(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = socket.stream.read_to_end(&mut rest).await;
    drop(socket);

    let key = format!("X-Api-Key: {TOKEN}\r\nContent-Type: application/json\r\n");
    let made = room.served.send("POST", "/api/v2/tokens", &key, r#"{"name":"ci","role":"operate"}"#);
    let token = made.await.json()["token"].as_str().unwrap().to_owned();
    let mut socket = loop {
        let headers = format!("X-Api-Key: {token}\r\n");
        match Socket::open(&room.served, "/api/v2/vms/web1/console", &headers).await {
            Ok(socket) => break socket,
            Err(answer) => assert!([409, 503].contains(&answer.status), "{answer:?}"),
        }
    };
    socket.echoes("mine").await;
    room.served.send("DELETE", "/api/v2/tokens/ci", &format!("X-Api-Key: {TOKEN}\r\n"), "").await;
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn what_stands_in_the_way_comes_inside_for_browsers_and_names_no_other_vm() {
    let room = Room::new(Limits::default()).await;
    let _holds = room.open(OPERATOR).await;
    let path = "/api/v2/vms/web1/console?inside=true";
    let headers = format!("X-Api-Key: {TOKEN}\r\n");
    let mut taken = Socket::open(&room.served, path, &headers).await.unwrap();
    let problem: Value = serde_json::from_str(&taken.said().await).unwrap();
    assert_eq!(problem["status"], 409, "{problem}");
    assert!(problem["why"].as_str().unwrap().contains("somebody has this console open"), "{problem}");
    assert_eq!(taken.closed().await, 4409);

    let unknown = "/api/v2/vms/web/console?inside=true";
    let mut missing = Socket::open(&room.served, unknown, &headers).await.unwrap();
    let problem: Value = serde_json::from_str(&missing.said().await).unwrap();
    assert!(
        problem["status"] == 404 && problem.to_string().contains("web1"),
        "what might be meant: {problem}"
    );
    let json = format!("{headers}Content-Type: application/json\r\n");
    let made =
        room.served.send("POST", "/api/v2/tokens", &json, r#"{"name":"ci","role":"operate","vms":["web"]}"#);
    let made = made.await;
    let limited =
        format!("X-Api-Key: {}\r\n", made.json()["token"].as_str().unwrap_or_else(|| panic!("{made:?}")));
    let mut missing = Socket::open(&room.served, unknown, &limited).await.unwrap();
    let problem: Value = serde_json::from_str(&missing.said().await).unwrap();
    assert!(problem["status"] == 404 && !problem.to_string().contains("web1"), "{problem}");

    // What is nobody's business stays outside.
    for (headers, status) in [(String::new(), 401), (format!("X-Api-Key: {READER}\r\n"), 403)] {
        assert_eq!(room.refused(path, &headers).await.status, status);
    }
    let audit = room.served.send("GET", "/api/v2/audit", &headers, "").await.json();
    let opened = |entry: &&Value| entry["what"].as_str().is_some_and(|what| what.contains("console"));
    assert_eq!(audit.as_array().unwrap().iter().filter(opened).count(), 1, "{audit}");
}

/// What is said to it, as the object that it is.
async fn object(socket: &mut Socket) -> Value {
    serde_json::from_str(&socket.said().await).unwrap()
}

#[tokio::test]
async fn a_program_is_told_by_objects_may_wait_and_may_come_again() {
    let room = Room::new(Limits::default()).await;
    let headers = format!("X-Api-Key: {OPERATOR}\r\n");
    let path = "/api/v2/vms/web1/console?events=true";
    for (path, status) in [
        ("/api/v2/vms/web1/console?wait=true", 400),
        ("/api/v2/vms/web1/console?again=true", 400),
        ("/api/v2/vms/web1/console?events=true&again=true&force=true", 400),
        ("/api/v2/vms/nobody/console?events=true", 404),
    ] {
        assert_eq!(room.refused(path, &headers).await.status, status, "{path}");
    }
    let mut socket = Socket::open(&room.served, path, &headers).await.unwrap();
    assert_eq!(object(&mut socket).await, json!({ "opened": "VM web1 on hv1" }));
    socket.echoes("hello").await;
    let mut other = Socket::open(&room.served, path, &headers).await.unwrap();
    let failed = object(&mut other).await["failed"].take();
    assert_eq!((&failed["status"], failed["what"].is_string()), (&json!(409), true), "{failed}");
    assert_eq!(other.closed().await, 1011);

    // Whoever comes again waits until it is free: its client may be itself.
    let again = format!("{path}&again=true");
    let mut again = Socket::open(&room.served, &again, &headers).await.unwrap();
    assert!(object(&mut again).await["said"].as_str().unwrap().contains("waiting"));
    drop(socket);
    assert_eq!(object(&mut again).await, json!({ "opened": "VM web1 on hv1" }));
    again.echoes("mine").await;
    room.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
    room.consoles.remove(&place("hv1"), id(1));
    let mut end = object(&mut again).await;
    while end["said"].is_string() {
        end = object(&mut again).await;
    }
    assert_eq!(end, json!({ "ended": "VM web1 is off" }));
    assert_eq!(again.closed().await, 1000);

    let mut waits = Socket::open(&room.served, &format!("{path}&wait=true"), &headers).await.unwrap();
    assert_eq!(object(&mut waits).await, json!({ "said": "VM web1 is off: waiting until it starts" }));
    room.execute("hv2").await;
    assert_eq!(object(&mut waits).await, json!({ "opened": "VM web1 on hv2" }));
    room.served.api.end().await;
    assert_eq!(object(&mut waits).await, json!({ "said": "the service ends" }));
    assert_eq!(waits.closed().await, 1001);
    // What was refused is not in it, what was open is, with its end.
    let mut noted = String::new();
    for number in 1..=9 {
        noted += &room.fake.get(&format!("/pvc/audit/{number:03}")).await.unwrap_or_default();
    }
    assert_eq!(
        (noted.matches("a console was opened").count(), noted.matches("a console was closed").count()),
        (3, 3),
        "{noted}"
    );
}

#[tokio::test]
async fn a_console_ends_with_the_session_that_it_was_opened_by() {
    let room = Room::new(Limits::default()).await;
    let cookie = session_until(SystemTime::now() + Duration::from_secs(3));
    let headers = format!("Cookie: {cookie}\r\nOrigin: http://api\r\n");
    let mut socket = Socket::open(&room.served, "/api/v2/vms/web1/console", &headers).await.unwrap();
    socket.echoes("mine").await;
    while socket.said().await != "its session is over" {}
    assert_eq!(socket.closed().await, 1008);
    let gone = room.refused("/api/v2/vms/web1/console", &headers).await;
    assert_eq!(gone.status, 401, "{gone:?}");
}

#[tokio::test]
async fn a_console_goes_over_tls_and_a_page_that_came_without_is_another_sites() {
    let folder = TempDir::new().unwrap();
    let files = tls::pair(folder.path(), 2200, "trusted.pem");
    let room = Room::speaking(Some(Tls::load(&files).await.unwrap()), Limits::default()).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.path().join("trusted.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async || {
        let stream = TcpStream::connect(room.served.address).await.unwrap();
        connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
    };
    let path = "/api/v2/vms/web1/console";
    let cookie = session_until(SystemTime::now() + Duration::from_mins(10));
    let foreign = format!("Cookie: {cookie}\r\nOrigin: http://api\r\n");
    let refused = Socket::over(connect().await, path, &foreign).await.err().expect("it is refused");
    assert_eq!(refused.status, 403, "{refused:?}");
    let own = format!("Cookie: {cookie}\r\nOrigin: https://api\r\n");
    let mut socket = Socket::over(connect().await, path, &own).await.unwrap();
    assert_eq!(socket.said().await, "VM web1 on hv1");
    socket.echoes("hello").await;
}
