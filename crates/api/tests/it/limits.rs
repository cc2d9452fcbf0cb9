//! What a request may cost.

use std::{net::Ipv4Addr, time::Duration};

use pvc_api::{Limits, Share};
use pvc_operate::testing::Fake;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{OPERATOR, READER, Served, TOKEN, again, authentication, definition, encoded};

async fn served(limits: Limits) -> Served {
    let fake = Fake::with(&["hv1"]).await;
    Served::of(again(&fake), Some(authentication()), limits).await
}

#[tokio::test]
async fn a_large_body_a_large_head_and_a_long_form_are_refused() {
    let served = served(Limits { body_bytes: 1000, ..Limits::default() }).await;
    let answer = served.ask("POST", "/api/v1/vm", &format!("xml={}", "a".repeat(1000))).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let many = "a=b&".repeat(100);
    assert_eq!(served.ask("POST", "/api/v1/vm", &many).await.status, 400);
    let head = format!("X-Long: {}\r\n", "a".repeat(100_000));
    assert_ne!(served.send("GET", "/api/v1", &head, "").await.status, 209);
    assert_ne!(served.send("GET", "/api/v1", &"X-Many: a\r\n".repeat(100), "").await.status, 209);
    assert_eq!(served.ask("POST", "/api/v1/vm", "xml=%ff").await.status, 400);
    let form = format!("X-Api-Key: {TOKEN}\r\nContent-Type: multipart/form-data; boundary=x\r\n");
    assert_eq!(served.send("POST", "/api/v1/vm", &form, "--x").await.status, 400);
}

#[tokio::test]
async fn who_is_slow_to_ask_is_cut_off() {
    let short = Duration::from_millis(100);
    let served = served(Limits { head_within: short, body_within: short, ..Limits::default() }).await;
    let unfinished = [
        "GET /api/v1 HTTP/1.1\r\nHost: api\r\n".to_owned(),
        String::new(),
        format!(
            "POST /api/v1/vm HTTP/1.1\r\nHost: api\r\nX-Api-Key: {TOKEN}\r\nContent-Length: 100\r\n\r\nxml="
        ),
    ];
    for request in unfinished {
        // Reads to the end: that there is one is what is tested.
        let answer = served.raw(request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn who_holds_all_connections_keeps_nobody_out() {
    let served = served(Limits { connections: 4, ..Limits::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(served.address).await.unwrap());
    }
    for _ in 0..5 {
        assert_eq!(served.ask("GET", "/api/v1/node", "").await.status, 200);
    }
    let mut oldest = idle.remove(0);
    let mut rest = Vec::new();
    let _ = oldest.write_all(b"GET /api/v1 HTTP/1.1\r\n").await;
    let _ = oldest.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "it has made room");
}

#[tokio::test]
async fn who_logs_in_slowly_keeps_nobody_out_and_says_little() {
    let served = served(Limits { connections: 4, ..Limits::default() }).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        slow.push(stream);
        assert_eq!(served.ask("GET", "/api/v1/node", "").await.status, 200);
    }
    let long = format!("token={}", "x".repeat(5000));
    assert_eq!(served.send("POST", "/api/v1/auth/login", "", &long).await.status, 413);
}

#[tokio::test]
async fn who_reads_and_does_not_send_its_body_keeps_nobody_out() {
    let served = served(Limits { connections: 4, ..Limits::default() }).await;
    let head = format!(
        "GET /api/v2/vms HTTP/1.1\r\nHost: x\r\nX-Api-Key: {READER}\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        // It is waited for what it does not send, from here on.
        let _ = stream.read(&mut [0; 100]).await;
        slow.push(stream);
    }
    assert_eq!(served.ask("GET", "/api/v1/node", "").await.status, 200);
}

#[tokio::test]
async fn a_body_in_many_pieces_is_bounded_and_read() {
    let served = served(Limits { body_bytes: 64, ..Limits::default() }).await;
    for (pieces, status) in [(30, 400), (70, 413)] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let mut text = format!(
            "POST /api/v1/vm HTTP/1.1\r\nHost: x\r\nX-Api-Key: {TOKEN}\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        text.extend(std::iter::repeat_n("1\r\n<\r\n", pieces));
        text.push_str("0\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{pieces}: {answer}");
    }
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_said_to_be_away() {
    let fake = Fake::with(&["hv1"]).await;
    let limits = Limits { answer_within: Duration::from_millis(200), ..Limits::default() };
    let served = Served::of(again(&fake), Some(authentication()), limits).await;
    fake.client.suspend();
    let answer = served.ask("GET", "/api/v1/node", "").await;
    assert!([503, 504].contains(&answer.status), "{answer:?}");
}

/// Asks for what there is of VMs and takes nothing of the answer.
async fn ask_and_take_nothing(served: &Served, token: &str) -> TcpStream {
    ask_from(Ipv4Addr::LOCALHOST, served, token).await
}

async fn ask_from(from: Ipv4Addr, served: &Served, token: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(served.address).await.unwrap();
    let request = format!("GET /api/v2/vms HTTP/1.1\r\nHost: x\r\nX-Api-Key: {token}\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    stream
}

/// A service whose list of VMs is large.
async fn with_a_large_list(limits: Limits) -> Served {
    let served = served(limits).await;
    for n in 1..=40 {
        let long = definition(&format!("vm{n}"), n).replace("a test", &"d".repeat(200_000));
        let form = format!("node=hv1&xml={}", encoded(&long));
        let answer = served.ask("POST", "/api/v1/vm", &form).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    served
}

#[tokio::test]
async fn who_takes_no_answers_fills_no_memory_and_keeps_out_nobody_with_another_token() {
    let unit = include_str!("../../../../packaging/pvc-api.service");
    let most = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')).unwrap();
    let most = most.parse::<u64>().unwrap() << 20;
    let served = with_a_large_list(Limits::default()).await;
    let list = served.ask("GET", "/api/v2/vms", "").await;
    assert!(list.body.len() > 8_000_000, "{} bytes", list.body.len());
    let before = memory("VmRSS:");
    // The most that it had begins anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let mut slow = Vec::new();
    for n in 0..1500 {
        let from = Ipv4Addr::new(127, 0, 0, if n % 4 < 2 { 1 } else { 2 });
        slow.push(ask_from(from, &served, [READER, OPERATOR][n % 2]).await);
    }
    for _ in 0..3 {
        assert_eq!(served.ask("GET", "/api/v2/vms", "").await.body.len(), list.body.len());
    }
    assert_eq!(served.ask("PUT", "/api/v2/maintenance", "").await.status, 422, "who changes is served, too");
    let peak = memory("VmHWM:");
    // This process is also the askers and the state tree.
    assert!(peak < most * 7 / 8, "{peak} bytes of {most}, {before} before");
}

#[tokio::test]
async fn who_takes_an_answer_too_slowly_is_cut_off_and_the_next_is_served() {
    let one = Share { all: 1, token: 1, address: 1, waiting: 8 };
    let limits = Limits { reads: one, place_within: Duration::from_millis(10), ..Limits::default() };
    let served = with_a_large_list(limits).await;
    let mut slow = ask_and_take_nothing(&served, READER).await;
    slow.read_u8().await.unwrap();
    let answer = served.ask("GET", "/api/v2/nodes", "").await;
    assert_eq!(answer.status, 503, "it has the only place: {answer:?}");
    assert_eq!(answer.header("retry-after"), Some("5"));

    let served = with_a_large_list(Limits {
        reads: one,
        taken_bytes_a_second: u64::MAX,
        taken_within: Duration::from_millis(300),
        ..limits
    })
    .await;
    let mut slow = ask_and_take_nothing(&served, READER).await;
    // Drop by drop: it takes something all the time, and is cut off nevertheless.
    slow.read_u8().await.unwrap();
    while served.ask("GET", "/api/v2/nodes", "").await.status == 503 {
        slow.read_u8().await.unwrap();
    }
}

/// What this process has in memory, or had at most, bytes.
fn memory(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn who_asks_with_a_body_at_the_same_time_gets_an_answer_to_that() {
    let served = served(Limits::default()).await;
    let (all, none) =
        tokio::join!(served.ask("GET", "/api/v1/node", ""), served.ask("GET", "/api/v1/node", "limit=hv9"),);
    assert_eq!((all.status, none.status), (200, 404), "{none:?}");
}
