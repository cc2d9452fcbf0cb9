//! Events: what changes is told to whoever listens, and a listener that does not read holds up nobody.

use std::time::{Duration, SystemTime};

use pvc_api::{Limits, Share};
use pvc_config::{Authentication, Secret};
use pvc_core::model::{VmSet, VmState};
use pvc_operate::testing::{Fake, id};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
};

use crate::support::{KEY, Served, TOKEN, again, authentication, session_until};

/// Listens, and has been told that it hears everything from now on.
async fn listen(served: &Served) -> Lines<BufReader<TcpStream>> {
    listen_by(served, &format!("X-Api-Key: {TOKEN}")).await
}

/// The same, by this header.
async fn listen_by(served: &Served, header: &str) -> Lines<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!("GET /api/v2/events HTTP/1.1\r\nHost: api\r\n{header}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    until(&mut lines, "event: ready").await;
    lines
}

/// Reads until a line has that part.
async fn until(lines: &mut Lines<BufReader<TcpStream>>, part: &str) {
    loop {
        let line = lines.next_line().await.unwrap().expect("the stream goes on");
        if line.contains(part) {
            return;
        }
    }
}

#[tokio::test]
async fn who_listens_by_a_session_hears_nothing_after_its_end() {
    let fake = Fake::with(&["hv1"]).await;
    let authentication = Authentication { secret_key: Some(Secret::new(KEY)), ..authentication() };
    let served = Served::of(again(&fake), Some(authentication), Limits::default()).await;
    let end = SystemTime::now() + Duration::from_secs(3);
    let mut hears = listen_by(&served, &format!("Cookie: {}", session_until(end))).await;
    // The last chunk is empty: the stream has come to its end.
    while hears.next_line().await.unwrap().unwrap() != "0" {}
    assert!(SystemTime::now() >= end - Duration::from_secs(1));
    assert_eq!(hears.next_line().await.unwrap().as_deref(), Some(""));
}

#[tokio::test]
async fn what_changes_is_told_and_listeners_that_do_not_read_hold_up_nobody() {
    let fake = Fake::with(&["hv1"]).await;
    fake.define(1, "web1", "hv1").await;
    let served = Served::guarded(&fake).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        deaf.push(listen(&served).await);
    }
    let mut hears = listen(&served).await;
    let web1 = format!(r#"{{"gone":false,"id":"{}","kind":"vm"}}"#, id(1));
    for state in [VmState::Start, VmState::Stop, VmState::Start] {
        fake.change(1, vec![VmSet::State(state)]).await;
        until(&mut hears, &web1).await;
    }
    fake.define(2, "web2", "hv1").await;
    until(&mut hears, &id(2).to_string()).await;
    // In the words of `pvc events`.
    let defined = format!(r#"{{"id":"{}","kind":"vm","name":"web2","what":"is defined"}}"#, id(2));
    until(&mut hears, &defined).await;
    fake.change(2, vec![VmSet::State(VmState::Start)]).await;
    until(&mut hears, r#""name":"web2","what":"desired: stop → start""#).await;
    fake.cluster.set_maintenance(true).await.unwrap();
    until(&mut hears, r#""kind":"cluster""#).await;
    // Who reads at last has missed nothing.
    for late in &mut deaf {
        until(late, r#""kind":"cluster""#).await;
    }
}

#[tokio::test]
async fn no_more_listen_than_there_are_places_and_a_place_is_given_back() {
    let fake = Fake::with(&["hv1"]).await;
    let one = Share { all: 1, token: 1, address: 1, waiting: 0 };
    let limits = Limits { listeners: one, ..Limits::default() };
    let served = Served::of(again(&fake), Some(authentication()), limits).await;
    let request = format!("GET /api/v2/events HTTP/1.1\r\nHost: api\r\nX-Api-Key: {TOKEN}\r\n\r\n");
    let listen = async || {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        (String::from_utf8_lossy(&head).into_owned(), stream)
    };
    let (first, stream) = listen().await;
    assert_eq!(first, "HTTP/1.1 200");
    assert_eq!(listen().await.0, "HTTP/1.1 503");
    drop(stream);
    // The server notices a little later.
    while listen().await.0 != "HTTP/1.1 200" {}
}
