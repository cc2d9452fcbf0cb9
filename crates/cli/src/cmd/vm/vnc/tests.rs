//! Over the API, whose service is told what to answer.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use pvc_core::model::{Claim, VmSet, VmState};
use pvc_operate::testing::Fake;
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    },
};

use super::*;
use crate::{
    args::Format,
    door::{Door, testing::Service},
};

const SOON: Duration = Duration::from_mins(2);

type Way = WebSocketStream<TcpStream>;

/// What a service knows of a VM, and the screens that it was asked for.
struct Room {
    fake: Arc<Fake>,
    door: Door,
    screens: mpsc::UnboundedReceiver<Way>,
    /// What else than the VM is answered to who asks for it: a status, and a problem.
    refusal: Arc<Mutex<Option<(&'static str, &'static str)>>>,
}

impl Room {
    async fn new() -> Self {
        let fake = Arc::new(Fake::with(&["hv1", "hv2"]).await);
        fake.define(1, "web1", "hv1").await;
        let claim: Claim = "hv1".parse().unwrap();
        fake.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(claim)]).await;
        let service = Service::begin().await;
        let door = Door::Api(service.client());
        let (opened, screens) = mpsc::unbounded_channel();
        let (knows, refusal) = (Arc::clone(&fake), Arc::<Mutex<_>>::default());
        let refuses = Arc::clone(&refusal);
        tokio::spawn(async move {
            loop {
                let asked = service.asked().await;
                if asked.wants_a_socket() {
                    assert_eq!(asked.path(), "/api/v2/vms/web1/screen");
                    let way = WebSocketStream::from_raw_socket(asked.upgrade().await, Role::Server, None);
                    let _ = opened.send(way.await);
                    continue;
                }
                let refusal: Option<(&str, &str)> = *refuses.lock().unwrap();
                if let Some((status, problem)) = refusal {
                    asked.answer(status, "application/problem+json", problem).await;
                } else {
                    let info = pvc_operate::vm::info(&knows.cluster, "web1").await.unwrap();
                    asked.answer("200 OK", "application/json", &serde_json::to_string(&info).unwrap()).await;
                }
            }
        });
        Self { fake, door, screens, refusal }
    }

    /// The next screen that is asked for.
    async fn screen(&mut self) -> Way {
        timeout(SOON, self.screens.recv()).await.expect("a screen is asked for").unwrap()
    }
}

fn args() -> args::Vnc {
    args::Vnc {
        listen: "127.0.0.1:0".parse().unwrap(),
        viewer: false,
        vm: args::VmRef { vm: "web1".to_owned() },
    }
}

/// A viewer at the address that was printed.
async fn viewer(out: &Out) -> TcpStream {
    let address = loop {
        let said = out.text();
        if let Some((_, address)) = said.trim_end().split_once("VM web1 on hv1: vnc://") {
            break address.to_owned();
        }
        tokio::task::yield_now().await;
    };
    TcpStream::connect(address).await.unwrap()
}

async fn close(mut way: Way, code: u16, reason: &str) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    way.send(Message::Close(Some(frame))).await.unwrap();
    while let Some(Ok(_)) = way.next().await {}
}

/// Returns when the viewer is closed.
async fn closed(viewer: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(SOON, viewer.read_to_end(&mut rest)).await.expect("it is closed");
}

async fn read(viewer: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut seen = vec![0; bytes];
    timeout(SOON, viewer.read_exact(&mut seen)).await.expect("it is shown").unwrap();
    seen
}

#[tokio::test]
async fn each_viewer_has_a_screen_of_its_own_until_the_vm_is_off() {
    let mut room = Room::new().await;
    let (out, args) = (Out::captured(Format::Table), args());
    let door = std::mem::replace(&mut room.door, Door::from(&*room.fake));
    let looks = async {
        // Whether there is one is asked first; nobody looks at that.
        let mut first = room.screen().await;
        let mut one = viewer(&out).await;
        assert!(!matches!(first.next().await, Some(Ok(Message::Binary(_)))));
        let mut way = room.screen().await;
        // Who says nothing is shown what there is, in whatever pieces it comes.
        let greeting = b"RFB 003.008\n";
        way.send(Message::Binary(greeting[..4].to_vec().into())).await.unwrap();
        way.send(Message::Binary(greeting[4..].to_vec().into())).await.unwrap();
        assert_eq!(read(&mut one, 12).await, greeting);
        let mut second = viewer(&out).await;
        closed(&mut second).await;
        // One after the other, and nothing is answered meanwhile.
        for part in greeting.chunks(3) {
            one.write_all(part).await.unwrap();
            let passed = timeout(SOON, way.next()).await.expect("it is passed on");
            let Some(Ok(Message::Binary(bytes))) = passed else { panic!("{passed:?}") };
            assert_eq!(&bytes[..], part);
        }
        let picture = vec![7; 3 * FRAME];
        for part in picture.chunks(FRAME) {
            way.send(Message::Binary(part.to_vec().into())).await.unwrap();
        }
        assert_eq!(read(&mut one, picture.len()).await, picture);

        close(way, 4001, "VM web1 has left hv1").await;
        closed(&mut one).await;
        let mut again = viewer(&out).await;
        let way = room.screen().await;
        // The service ends without a word.
        drop(way);
        closed(&mut again).await;
        let mut last = viewer(&out).await;
        let way = room.screen().await;
        close(way, 1000, "VM web1 is off").await;
        closed(&mut last).await;
    };
    let (end, ()) = tokio::join!(vnc(&door, &out, &args), looks);
    end.unwrap();
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_it_and_so_does_a_vm_that_is_off_while_nobody_looks() {
    for is_off in [false, true] {
        let mut room = Room::new().await;
        let (out, args) = (Out::captured(Format::Table), args());
        let door = std::mem::replace(&mut room.door, Door::from(&*room.fake));
        let looks = async {
            drop(room.screen().await);
            let mut one = viewer(&out).await;
            let way = room.screen().await;
            if is_off {
                drop(one);
                room.fake.change(1, vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())]).await;
            } else {
                close(way, 1008, "its token is not good any more").await;
                closed(&mut one).await;
            }
        };
        let (end, ()) = tokio::join!(timeout(SOON, vnc(&door, &out, &args)), looks);
        let code = end.expect("it ends").map_err(|failure| failure.exit_code());
        assert_eq!(code, if is_off { Ok(()) } else { Err(3) });
    }
}

#[tokio::test]
async fn a_frame_that_no_service_sends_ends_it() {
    let mut room = Room::new().await;
    let (out, args) = (Out::captured(Format::Table), args());
    let door = std::mem::replace(&mut room.door, Door::from(&*room.fake));
    let looks = async {
        drop(room.screen().await);
        let mut one = viewer(&out).await;
        let mut way = room.screen().await;
        let _ = way.send(Message::Binary(vec![0; FRAME + 1].into())).await;
        closed(&mut one).await;
    };
    let (end, ()) = tokio::join!(timeout(SOON, vnc(&door, &out, &args)), looks);
    let failure = end.expect("it ends").unwrap_err();
    assert!(failure.to_string().contains("sent what no API sends"), "{failure}");
}

#[tokio::test]
async fn who_may_not_look_any_more_is_told_so_while_nobody_looks() {
    let gone = ("404 Not Found", r#"{"status":404,"detail":"no VM is called web1"}"#);
    let revoked = ("401 Unauthorized", r#"{"status":401,"detail":"no"}"#);
    for (refusal, code) in [(gone, 4), (revoked, 3)] {
        let mut room = Room::new().await;
        let (out, args) = (Out::captured(Format::Table), args());
        let door = std::mem::replace(&mut room.door, Door::from(&*room.fake));
        let looks = async {
            drop(room.screen().await);
            // It is listened for viewers.
            drop(viewer(&out).await);
            *room.refusal.lock().unwrap() = Some(refusal);
        };
        let (end, ()) = tokio::join!(timeout(SOON, vnc(&door, &out, &args)), looks);
        assert_eq!(end.expect("it ends").unwrap_err().exit_code(), code);
    }
}
