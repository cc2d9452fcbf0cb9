//! By the service as it is, with guests that are fakes; and by services that are none.

use futures_util::{SinkExt as _, StreamExt as _};
use pvc_api::{Api, Gate, Limits, Server, Tls};
use pvc_config::{ApiToken, Authentication, Role, Secret, TlsFiles, Token as Kept};
use pvc_core::model::{Claim, VmSet, VmState};
use pvc_host::hypervisor::{
    Peer,
    console::Place,
    fake::{FakeConsoles, FakeGuest},
};
use pvc_operate::testing::{Fake, id};
use std::net::SocketAddr;
use tokio::{task::JoinHandle, time::timeout};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::*;
use crate::door::{
    client::tls,
    endpoint::{Endpoint, Token, roots},
    testing::{self, Service},
};

const TOKEN: &str = "a-token-that-is-long-enough";
const SOON: Duration = Duration::from_mins(2);

/// A VM that runs on hv1 and echoes, and the service.
struct Room {
    fake: Fake,
    consoles: Arc<FakeConsoles>,
    address: SocketAddr,
    /// What is spoken is TLS, by these.
    tls: Option<TlsFiles>,
}

/// One service of it.
struct Serving {
    api: Arc<Api>,
    task: JoinHandle<()>,
}

fn place(node: &str) -> Place {
    Place::Peer(Peer::new(node))
}

impl Room {
    async fn new() -> (Self, Serving) {
        Self::speaking(None).await
    }

    async fn speaking(tls: Option<TlsFiles>) -> (Self, Serving) {
        let fake = Fake::with(&["hv1", "hv2"]).await;
        fake.define(1, "web1", "hv1").await;
        let address = "127.0.0.1:0".parse().unwrap();
        let mut room = Self { fake, consoles: Arc::default(), address, tls };
        room.execute("hv1").await;
        let serving = room.serve().await;
        (room, serving)
    }

    async fn serve(&mut self) -> Serving {
        let token = ApiToken {
            description: "tests".into(),
            role: Role::Admin,
            token: Kept::Plain(Secret::new(TOKEN)),
        };
        let authentication = Authentication { secret_key: None, tokens: vec![token] };
        let limits = Limits::default();
        let gate = Gate::new(Some(&authentication), false, limits);
        let cluster = Cluster::new(self.fake.cluster.store.clone(), self.fake.cluster.place.clone());
        let api = Arc::new(Api::new(cluster, gate, limits).with_consoles(self.consoles.clone()));
        let server = loop {
            let tls = match &self.tls {
                Some(files) => Some(Tls::load(files).await.unwrap()),
                None => None,
            };
            match Server::bind(self.address, tls).await {
                Ok(server) => break server,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        self.address = server.address().unwrap();
        let serves = Arc::clone(&api);
        let task = tokio::spawn(async move {
            server.serve(serves).await;
        });
        Serving { api, task }
    }

    async fn execute(&self, node: &str) {
        self.consoles.put(&place(node), id(1), FakeGuest::Echoes);
        let claim: Claim = node.parse().unwrap();
        self.fake.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(claim)]).await;
    }

    async fn turn_off(&self, node: &str) {
        self.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
        self.consoles.remove(&place(node), id(1));
    }

    fn door(&self, token: &str) -> Door {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::parse(&format!("{scheme}://{}", self.address)).unwrap();
        let trusts = |files: &TlsFiles| tls(roots(Some(&files.certificate)).unwrap()).unwrap();
        Door::Api(Client::new(endpoint, Some(Token::new(token).unwrap()), self.tls.as_ref().map(trusts)))
    }
}

/// What it tells next but what is printed, as text.
async fn told(console: &mut Console<'_>) -> String {
    loop {
        match timeout(SOON, console.next()).await.expect("it tells something") {
            Event::Printed(_) => {}
            Event::Opened(line) => return format!("opened: {line}"),
            Event::Said(line) => return format!("said: {line}"),
            Event::Ended(Ok(line)) => return format!("ended: {line}"),
            Event::Ended(Err(failure)) => {
                return format!("failed, {}: {}", failure.exit_code(), failure.with_causes());
            }
        }
    }
}

/// Types, and waits for the echo.
async fn echoes(console: &mut Console<'_>, typed: &str) {
    assert!(console.write(typed.as_bytes()));
    let mut seen = String::new();
    while !seen.contains(&typed.to_uppercase()) {
        match timeout(SOON, console.next()).await.expect("it prints") {
            Event::Printed(bytes) => seen.push_str(&String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
}

#[tokio::test]
async fn a_console_follows_its_guest_and_ends_with_the_words_that_it_has_on_a_node() {
    let (room, _serving) = Room::new().await;
    let door = room.door(TOKEN);
    let mut console = door.open_console("web1", false, false).await.unwrap();
    assert!(!console.write(b"before it is open"));
    assert_eq!(told(&mut console).await, "opened: VM web1 on hv1");
    echoes(&mut console, "hello").await;
    let mut other = door.open_console("web1", false, false).await.unwrap();
    let refused = told(&mut other).await;
    assert!(refused.starts_with("failed, 3: the console of VM web1 on hv1 was not opened"), "{refused}");
    assert!(refused.contains("--force web1"), "{refused}");
    room.consoles.remove(&place("hv1"), id(1));
    room.execute("hv2").await;
    assert_eq!(told(&mut console).await, "opened: VM web1 has moved from hv1 to hv2");
    echoes(&mut console, "again").await;
    let mut taker = door.open_console("web1", true, false).await.unwrap();
    assert_eq!(told(&mut taker).await, "opened: VM web1 on hv2");
    let lost = told(&mut console).await;
    assert!(lost.starts_with("failed, 1: somebody else has taken the console of VM web1"), "{lost}");
    echoes(&mut taker, "mine").await;
    room.turn_off("hv2").await;
    let mut end = told(&mut taker).await;
    while end.starts_with("said: ") {
        end = told(&mut taker).await;
    }
    assert_eq!(end, "ended: VM web1 is off");
    let refused = told(&mut door.open_console("web1", false, false).await.unwrap()).await;
    assert!(
        refused.starts_with("failed, 3: ")
            && refused.contains("`pvc vm start web1`, or wait for it with --wait"),
        "{refused}"
    );
    let missing = told(&mut door.open_console("nobody", false, false).await.unwrap()).await;
    assert!(missing.starts_with("failed, 4: "), "{missing}");
    let stranger = room.door("another-token-that-is-long");
    let refused = told(&mut stranger.open_console("web1", false, false).await.unwrap()).await;
    assert!(refused.starts_with("failed, 3: ") && refused.contains("pvc login"), "{refused}");
}

#[tokio::test]
async fn who_waits_sees_the_vm_come_and_go_and_come() {
    let (room, _serving) = Room::new().await;
    room.turn_off("hv1").await;
    let door = room.door(TOKEN);
    let mut console = door.open_console("web1", false, true).await.unwrap();
    assert_eq!(told(&mut console).await, "said: VM web1 is off: waiting until it starts");
    room.execute("hv1").await;
    assert_eq!(told(&mut console).await, "opened: VM web1 on hv1");
    echoes(&mut console, "here").await;
    room.turn_off("hv1").await;
    let mut said = told(&mut console).await;
    while said.contains("the console is closed") {
        said = told(&mut console).await;
    }
    assert_eq!(said, "said: VM web1 is off: waiting until it starts");
}

/// The primary ends, for a while nobody answers, and what the first had open is given up only then.
#[tokio::test]
async fn a_console_is_opened_again_at_the_next_primary() {
    let (mut room, first) = Room::new().await;
    let door = room.door(TOKEN);
    let mut console = door.open_console("web1", false, false).await.unwrap();
    told(&mut console).await;
    echoes(&mut console, "first").await;
    let (said, ()) = tokio::join!(
        async {
            loop {
                let said = told(&mut console).await;
                if said.contains("is opened again") {
                    return said;
                }
                assert_eq!(said, "said: the service ends");
            }
        },
        first.api.end()
    );
    assert!(said.contains("has ended (the service ends) and is opened again; the VM goes on"), "{said}");
    first.task.abort();
    let _ = first.task.await;
    assert!(!console.write(b"typed to nobody"));
    assert!(timeout(Duration::from_secs(7), console.next()).await.is_err(), "nobody answers");
    let _second = room.serve().await;
    assert_eq!(told(&mut console).await, "opened: VM web1 on hv1");
    echoes(&mut console, "second").await;
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_its_console_and_asks_for_another() {
    let (room, _serving) = Room::new().await;
    let admin = room.door(TOKEN);
    let Door::Api(api) = &admin else { panic!("it is the API's") };
    let made: serde_json::Value = api
        .ask(Call::post(&["tokens"]).json(&serde_json::json!({ "name": "ci", "role": "operate" })))
        .await
        .unwrap();
    let door = room.door(made["token"].as_str().unwrap());
    let mut console = door.open_console("web1", false, false).await.unwrap();
    told(&mut console).await;
    echoes(&mut console, "mine").await;
    api.send(Call::delete(&["tokens", "ci"])).await.unwrap();
    let mut end = told(&mut console).await;
    if end.starts_with("said: ") {
        end = told(&mut console).await;
    }
    assert!(end.starts_with("failed, 3: ") && end.contains("pvc login"), "{end}");
}

#[tokio::test]
async fn a_console_goes_over_tls() {
    let folder = tempfile::TempDir::new().unwrap();
    let (room, _serving) = Room::speaking(Some(testing::pair(folder.path(), "127.0.0.1"))).await;
    let door = room.door(TOKEN);
    let mut console = door.open_console("web1", false, false).await.unwrap();
    assert_eq!(told(&mut console).await, "opened: VM web1 on hv1");
    echoes(&mut console, "hello").await;
    let (typed, close) = (console.write(b"last"), console.close());
    assert!(typed && timeout(SOON, close).await.is_ok());
}

/// It lets everybody in, and ends at once: pauses grow, and there is an end of it.
#[tokio::test(start_paused = true)]
async fn a_service_that_ends_again_and_again_is_given_up() {
    let service = Service::begin().await;
    let door = Door::Api(service.client());
    let serves = tokio::spawn(async move {
        let mut heads = Vec::new();
        loop {
            let (head, mut socket) = service.socket().await;
            heads.push(head);
            assert!(heads.len() < 60, "{} times", heads.len());
            let _ = socket.send(Message::Text(r#"{"opened":"VM web1 on hv1"}"#.into())).await;
            let code = CloseCode::Away;
            let _ = socket
                .send(Message::Close(Some(CloseFrame { code, reason: "the service ends".into() })))
                .await;
            while let Some(Ok(_)) = socket.next().await {}
            if heads.len() == 3 {
                let of = |at: usize| heads[at].lines().next().unwrap().to_owned();
                assert_eq!(of(0), "GET /api/v2/vms/web1/console?events=true&force=true HTTP/1.1");
                assert_eq!(
                    of(2),
                    "GET /api/v2/vms/web1/console?events=true&again=true HTTP/1.1",
                    "not by force"
                );
            }
        }
    });
    let mut console = door.open_console("web1", true, false).await.unwrap();
    let began = Instant::now();
    let end = loop {
        let said = told(&mut console).await;
        if said.starts_with("failed") {
            break said;
        }
    };
    assert!(end.starts_with("failed, 5: ") && end.contains("ends again and again"), "{end}");
    assert!(began.elapsed() < AGAIN + 2 * LATEST, "{:?}", began.elapsed());
    assert!(!serves.is_finished(), "{:?}", serves.await);
    serves.abort();
}

#[tokio::test]
async fn what_no_service_says_is_told_as_such() {
    for text in ["VM web1 on hv1", "{}", r#"{"sung":"la"}"#, r#"{"opened":1}"#] {
        let service = Service::begin().await;
        let door = Door::Api(service.client());
        let mut console = door.open_console("web1", false, false).await.unwrap();
        let (end, _socket) = tokio::join!(told(&mut console), async {
            let (_, mut socket) = service.socket().await;
            socket.send(Message::Text(text.into())).await.unwrap();
            socket
        });
        assert!(end.starts_with("failed, 1: ") && end.contains("of another version"), "{end}");
    }
}
