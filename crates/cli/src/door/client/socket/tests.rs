use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::door::testing::{Service, TOKEN};

fn call() -> Call {
    Call::get(&["vms", "web1", "console"])
}

/// A WebSocket, and the other side of it, whose frames are the test's.
async fn pair() -> (Socket, TcpStream) {
    let service = Service::begin().await;
    let client = service.client();
    let (open, stream) = tokio::join!(client.socket(call()), async { service.asked().await.upgrade().await });
    (open.unwrap(), stream)
}

/// What is heard next, but that it was sent what was to be sent.
async fn heard(open: &mut Socket) -> Heard {
    loop {
        match open.next().await {
            Heard::Sent => {}
            heard => return heard,
        }
    }
}

fn rubbish(heard: Heard) -> String {
    match heard {
        Heard::Rubbish(failure) => {
            assert_eq!(failure.exit_code(), 1);
            failure.with_causes()
        }
        heard => panic!("{heard:?}"),
    }
}

#[tokio::test]
async fn the_token_is_in_a_header_and_bytes_go_both_ways_until_one_side_closes() {
    let service = Service::begin().await;
    let client = service.client();
    let (open, (head, mut other)) = tokio::join!(client.socket(call()), service.socket());
    let mut open = open.unwrap();
    let first = head.lines().next().unwrap();
    assert_eq!(first, "GET /api/v2/vms/web1/console HTTP/1.1");
    assert!(head.to_lowercase().contains(&format!("x-api-key: {TOKEN}\r\n")), "{head}");
    assert!(open.send(b"typed") && open.send(b" before"));
    other.send(Message::Ping(b"there".to_vec().into())).await.unwrap();
    other.send(Message::Text("a line".into())).await.unwrap();
    assert!(matches!(heard(&mut open).await, Heard::Text(line) if line == "a line"));
    other.send(Message::Binary(b"printed".to_vec().into())).await.unwrap();
    assert!(matches!(heard(&mut open).await, Heard::Bytes(bytes) if &bytes[..] == b"printed"));
    // What is typed last is passed on before the end.
    assert!(open.send(b", and last"));
    let (typed, ()) = tokio::join!(
        async {
            let (mut typed, mut kinds) = (Vec::new(), String::new());
            while let Some(Ok(message)) = other.next().await {
                match message {
                    Message::Binary(bytes) => typed.extend(bytes),
                    Message::Pong(bytes) => kinds += std::str::from_utf8(&bytes).unwrap(),
                    Message::Close(_) => kinds += " closed",
                    _ => {}
                }
            }
            assert_eq!(kinds, "there closed");
            String::from_utf8(typed).unwrap()
        },
        open.close()
    );
    assert_eq!(typed, "typed before, and last");
}

#[tokio::test]
async fn what_is_answered_instead_has_its_words_and_its_code() {
    let problem = "application/problem+json";
    let refused =
        r#"{"status":409,"detail":"x","what":"it was not opened","why":"it is off","todo":"start it"}"#;
    for (status, kind, body, code, why) in [
        ("401 Unauthorized", problem, r#"{"detail":"no"}"#, 3, "does not know this token"),
        ("403 Forbidden", problem, r#"{"detail":"the role operate"}"#, 3, "the role operate"),
        ("404 Not Found", problem, r#"{"detail":"no such VM"}"#, 4, "no such VM"),
        ("409 Conflict", problem, refused, 3, "it is off"),
        ("503 Later", problem, r#"{"detail":"all places are taken"}"#, 5, "all places"),
        ("200 OK", "text/html", "<html>", 1, "no WebSocket"),
        ("302 Found", "text/html", "", 1, "it sends elsewhere"),
        ("500 Oh", "text/plain", TOKEN, 1, "and no reason"),
    ] {
        let service = Service::begin().await;
        let client = service.client();
        let (open, ()) = tokio::join!(client.socket(call()), async {
            service.asked().await.answer(status, kind, body).await;
        });
        let failure = open.err().expect("it is no WebSocket");
        let told = failure.with_causes();
        assert_eq!(failure.exit_code(), code, "{status}: {told}");
        assert!(told.contains(why) && !told.contains(TOKEN), "{status}: {told}");
    }
    let service = Service::begin().await;
    let client = service.client();
    let (open, _stream) =
        tokio::join!(client.socket(call()), async { service.asked().await.upgrade_with("another's").await });
    assert!(open.err().unwrap().to_string().contains("another protocol"));
}

/// 1 GB that is only announced, and a line that goes on and on: nothing of it is waited for, and nothing reserved.
#[tokio::test]
async fn what_is_larger_than_any_frame_ends_it_before_it_is_read() {
    for frame in [
        &[0x82, 127, 0, 0, 0, 0, 0x40, 0, 0, 0][..],
        &[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 1][..],
        &[0x83, 0][..],
        &[0x82, 0x80 | 1, 0, 0, 0, 0, 1][..],
        &[0x81, 1, 0xff][..],
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 60\r\n\r\n<html><body>This is another server altogether, and it is talkative.</body></html>",
    ] {
        let (mut open, mut other) = pair().await;
        other.write_all(frame).await.unwrap();
        let told = rubbish(heard(&mut open).await);
        assert!(told.contains("sent what no API sends"), "{told}");
    }
    let (mut open, mut other) = pair().await;
    // Parts of one message, each of a size that is allowed.
    let mut parts = vec![0x02, 126, 0xff, 0xff];
    parts.extend(vec![0; 0xffff]);
    parts.extend([0x00, 126, 0xff, 0xff]);
    parts.extend(vec![0; 0xffff]);
    let (told, _) = tokio::join!(heard(&mut open), other.write_all(&parts));
    rubbish(told);
}

#[tokio::test]
async fn an_end_in_the_middle_is_told_and_a_reason_is_read_also_after_nothing_can_be_sent() {
    let (mut open, mut other) = pair().await;
    other.write_all(&[0x82, 9, b'h', b'a', b'l', b'f']).await.unwrap();
    drop(other);
    assert!(matches!(heard(&mut open).await, Heard::Lost(_)));

    let (mut open, mut other) = pair().await;
    let mut close = vec![0x88, 10, 0x03, 0xe9];
    close.extend(b"it ends.");
    other.write_all(&close).await.unwrap();
    other.shutdown().await.unwrap();
    drop(other);
    while open.send(b"typed to nobody") {}
    let told = heard(&mut open).await;
    assert!(matches!(&told, Heard::Closed(Some((1001, why))) if why == "it ends."), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_says_nothing_is_asked_and_given_up_and_one_that_answers_is_not() {
    let (mut open, mut other) = pair().await;
    let began = Instant::now();
    let (lost, pings) = tokio::join!(heard(&mut open), async {
        let mut pings = 0;
        let mut head = [0; 6];
        while pings < 3 && other.read_exact(&mut head).await.is_ok() {
            assert_eq!(&head[..2], &[0x89, 0x80], "an empty ping");
            pings += 1;
        }
        pings
    });
    assert!(matches!(lost, Heard::Lost(why) if why.contains("says nothing")));
    assert_eq!(pings, 3);
    assert!(began.elapsed() <= 4 * SILENCE + Duration::from_secs(1), "{:?}", began.elapsed());

    let service = Service::begin().await;
    let client = service.client();
    let (open, (_, mut other)) = tokio::join!(client.socket(call()), service.socket());
    let mut open = open.unwrap();
    let answering = tokio::spawn(async move { while let Some(Ok(_)) = other.next().await {} });
    assert!(timeout(Duration::from_mins(10), heard(&mut open)).await.is_err(), "it lives");
    answering.abort();
}

/// What the service sends without pause is taken as it is shown, and what is typed goes out all the same.
#[tokio::test]
async fn of_a_flood_no_more_is_taken_than_is_shown_and_typing_goes_on() {
    const FLOOD: usize = 100 << 20;
    let service = Service::begin().await;
    let client = service.client();
    let (open, (_, other)) = tokio::join!(client.socket(call()), service.socket());
    let mut open = open.unwrap();
    let (mut out, mut typed) = other.split();
    let flood = tokio::spawn(async move {
        let part = Bytes::from(vec![b'x'; FRAME]);
        for _ in 0..FLOOD / FRAME {
            if out.send(Message::Binary(part.clone())).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    let hears = tokio::spawn(async move {
        while let Some(Ok(message)) = typed.next().await {
            if matches!(&message, Message::Binary(bytes) if &bytes[..] == b"\x03") {
                return true;
            }
        }
        false
    });
    let (mut seen, mut most) = (0, 0);
    while seen < FLOOD {
        let Heard::Bytes(bytes) = heard(&mut open).await else { panic!("it ended after {seen}") };
        seen += bytes.len();
        most = most.max(bytes.len());
        if seen == 16 * FRAME {
            assert!(open.send(b"\x03"));
        }
    }
    assert!(most <= FRAME);
    assert!(hears.await.unwrap(), "what was typed in the middle of it has arrived");
    flood.abort();
}

#[tokio::test]
async fn of_what_nobody_takes_so_much_waits_and_no_more() {
    let (mut open, other) = pair().await;
    let mut sent = 0;
    // As long as the way takes it, and then until there is no room.
    loop {
        if open.send(&[b'x'; 1024]) {
            sent += 1024;
        } else if timeout(Duration::from_millis(20), heard(&mut open)).await.is_err()
            && !open.send(&[b'x'; 1024])
        {
            break;
        }
        assert!(sent < 64 << 20, "there is always room");
    }
    let waiting: usize = open.unsent.iter().map(Bytes::len).sum();
    assert!(waiting <= MOST_UNSENT, "{waiting}");
    drop(other);
    assert!(matches!(heard(&mut open).await, Heard::Lost(_)));
}

#[tokio::test]
async fn the_token_is_in_nothing_that_is_heard_from_who_was_sent_it() {
    let service = Service::begin().await;
    let client = service.client();
    let (open, (_, mut other)) = tokio::join!(client.socket(call()), service.socket());
    let mut open = open.unwrap();
    other.send(Message::Text(format!("you sent {TOKEN}").into())).await.unwrap();
    let Heard::Text(said) = heard(&mut open).await else { panic!("no text") };
    assert!(said.starts_with("you sent ") && !said.contains(TOKEN), "{said}");
    let reason = format!("it was {TOKEN}");
    let frame = CloseFrame { code: CloseCode::Away, reason: reason.as_str().into() };
    other.send(Message::Close(Some(frame))).await.unwrap();
    let Heard::Closed(Some((1001, said))) = heard(&mut open).await else { panic!("not closed") };
    assert!(said.starts_with("it was ") && !said.contains(TOKEN), "{said}");
}
