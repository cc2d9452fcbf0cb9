//! Screens over WebSockets: what goes both ways, who may, and how they end. The nodes are fakes; `pvcd`, `pvc-host` and the lab have real ones.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pvc_api::{Api, Gate, Limits, Share};
use pvc_console::{Nodes, screen::Screens as At};
use pvc_core::model::{
    Claim, NodeName, VmSet, VmState,
    screen::{HELLO_BYTES, Hello, ScreenAnswer},
};
use pvc_host::hypervisor::{
    fake::{FakeDisplay, FakeScreens},
    screen::{ScreenError, Screens as _},
};
use pvc_operate::testing::{Fake, id, name};
use pvc_store::{Store, schema::screen as tickets};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    socket::{BINARY, CLOSE, Socket, TEXT},
    support::{Answer, OPERATOR, READER, Served, TOKEN, again, authentication},
};

const PATH: &str = "/api/v2/vms/web1/screen";

/// A VM that runs on hv1 and shows something; hv1 is 127.0.0.1, hv2 is 127.0.0.2.
struct Room {
    fake: Fake,
    screens: Arc<[(NodeName, FakeScreens); 2]>,
    served: Served,
}

impl Room {
    async fn new(limits: Limits) -> Self {
        let fake = Fake::with(&["hv1", "hv2"]).await;
        let addresses = [(1, "hv1"), (2, "hv2")].map(|(n, node)| (name(node), Ipv4Addr::new(127, 0, 0, n)));
        fake.define(1, "web1", "hv1").await;
        let screens =
            Arc::new([(name("hv1"), FakeScreens::default()), (name("hv2"), FakeScreens::default())]);
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (store, nodes) = (Arc::clone(&fake.cluster.store), Arc::clone(&screens));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(stream, Arc::clone(&store), Arc::clone(&nodes)));
            }
        });
        let gate = Gate::new(Some(&authentication()), false, limits);
        let api = Api::new(again(&fake), gate, limits);
        let nodes = Nodes { addresses: addresses.into(), ..Nodes::default() };
        let api = api.with_screens(At { nodes, port });
        let room = Self { fake, screens, served: Served::speaking(None, api).await };
        room.execute("hv1", FakeDisplay::Shows).await;
        room
    }

    fn at(&self, node: &str) -> &FakeScreens {
        &self.screens.iter().find(|(name, _)| name.as_str() == node).unwrap().1
    }

    async fn execute(&self, node: &str, display: FakeDisplay) {
        self.at(node).put(id(1), display);
        let claim: Claim = node.parse().unwrap();
        self.fake.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(claim)]).await;
    }

    async fn open(&self, token: &str) -> Socket {
        Socket::open(&self.served, PATH, &format!("X-Api-Key: {token}\r\n")).await.unwrap()
    }

    async fn refused(&self, path: &str, headers: &str) -> Answer {
        Socket::open(&self.served, path, headers).await.err().expect("it is refused")
    }

    async fn tickets(&self) -> usize {
        tickets::waiting(&*self.fake.cluster.store).await.unwrap()
    }
}

/// As a node does it, but for its bounds.
async fn carry(mut stream: TcpStream, store: Arc<dyn Store>, nodes: Arc<[(NodeName, FakeScreens); 2]>) {
    let SocketAddr::V4(at) = stream.local_addr().unwrap() else { return };
    let (node, screens) = &nodes[usize::from(at.ip().octets()[3] - 1)];
    let mut sent = [0; HELLO_BYTES];
    stream.read_exact(&mut sent).await.unwrap();
    let hello = Hello::parse(&sent).unwrap();
    let answer = if tickets::remove(&*store, node, &hello).await.unwrap() {
        match screens.open(hello.vm).await {
            Ok(screen) => {
                let screen = screen.into_stream();
                screen.set_nonblocking(true).unwrap();
                let mut screen = tokio::net::UnixStream::from_std(screen).unwrap();
                stream.write_all(&ScreenAnswer::Open.encode()).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut screen).await;
                return;
            }
            Err(ScreenError::NotActive) => ScreenAnswer::NotActive,
            Err(ScreenError::Lacking(lack)) => ScreenAnswer::Lacking(lack),
            Err(error) => ScreenAnswer::Failed(error.to_string()),
        }
    } else {
        ScreenAnswer::NoTicket
    };
    stream.write_all(&answer.encode()).await.unwrap();
}

/// So many bytes of RFB, in whatever frames.
async fn bytes(socket: &mut Socket, count: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let (kind, bytes) = socket.receive().await;
        assert_eq!(kind, BINARY, "{bytes:?}");
        seen.extend(bytes);
    }
    seen
}

/// As far as what the guest's machine is called.
async fn is_a_screen(socket: &mut Socket) {
    assert_eq!(bytes(socket, 12).await, b"RFB 003.008\n");
    socket.send(BINARY, b"RFB 003.008\n").await;
    bytes(socket, 2).await;
    socket.send(BINARY, &[1]).await;
    bytes(socket, 4).await;
    socket.send(BINARY, &[1]).await;
    assert!(bytes(socket, 28).await.ends_with(b"fake"));
}

#[tokio::test]
async fn a_screen_goes_both_ways_is_closed_when_its_guest_moves_and_can_be_opened_again() {
    let room = Room::new(Limits::default()).await;
    let mut socket = room.open(OPERATOR).await;
    is_a_screen(&mut socket).await;
    assert_eq!(room.tickets().await, 0, "it is used");
    room.execute("hv2", FakeDisplay::Shows).await;
    room.at("hv1").remove(id(1));
    assert_eq!(socket.closed_for().await, (4001, "VM web1 has left hv1".to_owned()));
    let mut socket = room.open(OPERATOR).await;
    is_a_screen(&mut socket).await;
    room.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
    room.at("hv2").remove(id(1));
    assert_eq!(socket.closed_for().await, (1000, "VM web1 is off".to_owned()));
    let entries = loop {
        let audit = room.served.send("GET", "/api/v2/audit", &format!("X-Api-Key: {TOKEN}\r\n"), "").await;
        let entries = audit.json();
        if entries.as_array().is_some_and(|entries| entries.len() == 4) {
            break entries.to_string();
        }
        tokio::task::yield_now().await;
    };
    for said in [
        "a screen was opened: VM web1 on hv1",
        "a screen was closed after",
        "VM web1 has left hv1",
        "a screen was opened: VM web1 on hv2",
        "VM web1 is off",
    ] {
        assert!(entries.contains(said), "{said}: {entries}");
    }
}

/// The death of its node is no end that anybody hears.
#[tokio::test]
async fn a_screen_of_a_node_that_says_nothing_is_closed_when_the_guest_is_claimed_elsewhere() {
    let room = Room::new(Limits::default()).await;
    let mut socket = room.open(OPERATOR).await;
    is_a_screen(&mut socket).await;
    room.execute("hv2", FakeDisplay::Shows).await;
    assert_eq!(socket.closed_for().await.0, 4001);
}

#[tokio::test]
async fn who_may_not_sees_no_screen_and_what_stands_in_the_way_is_an_ordinary_answer() {
    let room = Room::new(Limits::default()).await;
    let key = |token: &str| format!("X-Api-Key: {token}\r\n");
    for (path, headers, status) in [
        (PATH, String::new(), 401),
        (PATH, key("wrong"), 401),
        (PATH, key(READER), 403),
        ("/api/v2/vms/other/screen", key(OPERATOR), 404),
    ] {
        assert_eq!(room.refused(path, &headers).await.status, status, "{path} {headers}");
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login = room.served.send("POST", "/api/v1/auth/login", form, &format!("token={TOKEN}")).await;
    let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for (headers, status) in [
        ("Origin: http://evil.example\r\n", Some(403)),
        ("Origin: null\r\n", Some(403)),
        ("Origin: http://api\r\n", None),
    ] {
        let opened = Socket::open(&room.served, PATH, &format!("Cookie: {cookie}\r\n{headers}")).await;
        assert_eq!(opened.err().map(|answer| answer.status), status, "{headers}");
    }
    assert_eq!(room.served.send("GET", PATH, &key(OPERATOR), "").await.status, 426);

    room.execute("hv1", FakeDisplay::Defined("<domain><devices/></domain>".into())).await;
    let lacks = room.refused(PATH, &key(TOKEN)).await;
    assert!(
        lacks.status == 409 && lacks.json()["todo"].as_str().unwrap().contains("<graphics type='vnc'"),
        "{lacks:?}"
    );
    let inside = format!("{PATH}?inside=true");
    let mut socket = Socket::open(&room.served, &inside, &key(TOKEN)).await.unwrap();
    assert!(socket.said().await.contains("the guest has no screen"));
    assert_eq!(socket.closed().await, 4409);
    room.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
    let off = room.refused(PATH, &key(TOKEN)).await;
    assert!(off.status == 409 && off.json()["todo"].as_str().unwrap().contains("pvc vm start"), "{off:?}");
    assert_eq!(room.tickets().await, 0, "what was refused leaves none");
}

#[tokio::test]
async fn screens_are_bounded_and_end_with_their_token_with_text_and_with_the_service() {
    let consoles = Share { all: 1, token: 1, address: 1, waiting: 0 };
    let room = Room::new(Limits { consoles, ..Limits::default() }).await;
    let mut socket = room.open(TOKEN).await;
    is_a_screen(&mut socket).await;
    assert_eq!(room.refused(PATH, &format!("X-Api-Key: {OPERATOR}\r\n")).await.status, 503);
    socket.send(TEXT, b"typed as text").await;
    assert_eq!(socket.closed().await, 1003);

    let key = format!("X-Api-Key: {TOKEN}\r\nContent-Type: application/json\r\n");
    let made = room.served.send("POST", "/api/v2/tokens", &key, r#"{"name":"ci","role":"operate"}"#);
    let token = made.await.json()["token"].as_str().unwrap().to_owned();
    let mut socket = again_open(&room, &token).await;
    is_a_screen(&mut socket).await;
    room.served.send("DELETE", "/api/v2/tokens/ci", &key, "").await;
    assert_eq!(socket.closed().await, 1008);

    let mut socket = again_open(&room, TOKEN).await;
    is_a_screen(&mut socket).await;
    room.served.api.end().await;
    assert_eq!(socket.closed_for().await, (1001, "the service ends".to_owned()));
}

/// When the place of the one before is free.
async fn again_open(room: &Room, token: &str) -> Socket {
    loop {
        match Socket::open(&room.served, PATH, &format!("X-Api-Key: {token}\r\n")).await {
            Ok(socket) => return socket,
            Err(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
        }
    }
}

/// Memory is that of one frame each way, however much the guest sends.
#[tokio::test]
async fn a_client_that_takes_nothing_of_a_flood_is_closed() {
    let room = Room::new(Limits { taken_within: Duration::from_secs(1), ..Limits::default() }).await;
    room.execute("hv1", FakeDisplay::Floods).await;
    let socket = room.open(TOKEN).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Many more bytes than wait anywhere on the way: who is not closed would be sent them.
    let most: u64 = 128 << 20;
    let mut rest = Vec::new();
    let mut stream = socket.stream.take(most);
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok() && stream.limit() > 0, "it is not closed after {} bytes", rest.len());
    assert!(rest.first() != Some(&(0x80 | CLOSE)), "there was something before its end");
}
