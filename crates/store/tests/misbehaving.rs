//! Servers that say what no ZooKeeper would: nothing they send takes memory, fills the log or keeps the client busy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod log;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use pvc_store::{
    Store, StoreError,
    zookeeper::{Options, ZooKeeperStore},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use log::Log;

const ASKED: Duration = Duration::from_secs(10);

/// What such a server says.
#[derive(Debug, Clone, Copy)]
struct Script {
    granted_ms: i32,
    /// The length that the handshake's answer claims.
    welcome: Option<i32>,
    /// What a request is answered with: a length, after which nothing comes.
    claims: Option<i32>,
    /// Answers to more keys than this are too long.
    most_keys: Option<usize>,
}

const ORDINARY: Script = Script { granted_ms: 10_000, welcome: None, claims: None, most_keys: None };

struct Server {
    address: String,
    connections: Arc<AtomicU32>,
    requests: Arc<AtomicU32>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (connections, requests) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (connected, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        pvc_process::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connected.fetch_add(1, Ordering::Relaxed);
                pvc_process::spawn(serve(stream, script, Arc::clone(&asked)));
            }
        });
        Self { address, connections, requests }
    }

    fn connect(&self) -> Arc<ZooKeeperStore> {
        let request_timeout = Duration::from_secs(30);
        ZooKeeperStore::start(Options {
            session_timeout: ASKED,
            request_timeout,
            ..Options::new(&self.address)
        })
    }

    fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_i32().await?;
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn serve(mut stream: TcpStream, script: Script, requests: Arc<AtomicU32>) -> io::Result<()> {
    frame(&mut stream).await?;
    stream.write_i32(script.welcome.unwrap_or(37)).await?;
    stream.write_i32(0).await?;
    stream.write_i32(script.granted_ms).await?;
    stream.write_i64(7).await?;
    stream.write_i32(16).await?;
    stream.write_all(&[0; 17]).await?;
    if script.welcome.is_some() {
        let _ends_with_the_connection = stream.read_u8().await;
    }
    loop {
        let request = frame(&mut stream).await?;
        let (xid, op) = (&request[..4], i32::from_be_bytes(request[4..8].try_into().unwrap()));
        if op == 11 {
            continue;
        }
        requests.fetch_add(1, Ordering::Relaxed);
        let mut answer = xid.to_vec();
        answer.extend(1_i64.to_be_bytes());
        answer.extend(0_i32.to_be_bytes());
        let keys = request.windows(2).filter(|name| name == b"/k").count();
        if let Some(length) = script.claims {
            stream.write_i32(length).await?;
        } else if script.most_keys.is_some_and(|most| keys > most) {
            answer.resize(17 << 20, 0);
            stream.write_i32(i32::try_from(answer.len()).unwrap()).await?;
            stream.write_all(&answer).await?;
        } else {
            for _ in 0..keys {
                // An error within a multi: there is no such key.
                answer.extend((-1_i32).to_be_bytes());
                answer.push(0);
                answer.extend((-101_i32).to_be_bytes());
                answer.extend((-101_i32).to_be_bytes());
            }
            answer.extend((-1_i32).to_be_bytes());
            answer.push(1);
            answer.extend((-1_i32).to_be_bytes());
            stream.write_i32(i32::try_from(answer.len()).unwrap()).await?;
            stream.write_all(&answer).await?;
        }
    }
}

async fn session_timeout(granted_ms: i32) -> Option<Duration> {
    let server = Server::start(Script { granted_ms, ..ORDINARY }).await;
    let store = server.connect();
    let mut session = store.session();
    let healthy = timeout(Duration::from_secs(1), session.wait_for(|s| s.is_healthy())).await.is_ok();
    healthy.then(|| store.session_timeout())
}

#[tokio::test]
async fn a_session_time_out_is_believed_from_a_tenth_of_a_second_to_what_was_asked_for() {
    assert_eq!(session_timeout(i32::MAX).await, Some(ASKED));
    assert_eq!(session_timeout(60_000).await, Some(ASKED));
    assert_eq!(session_timeout(4_000).await, Some(Duration::from_secs(4)));
    for none in [0, -1, 1, 99] {
        assert_eq!(session_timeout(none).await, None, "{none}");
    }
}

#[tokio::test]
async fn a_length_that_cannot_be_is_not_waited_for_and_the_server_not_bothered_again_and_again() {
    let begins_so = Script { welcome: Some(1 << 30), ..ORDINARY };
    let answers_so = |claims| Script { claims: Some(claims), ..ORDINARY };
    for script in [begins_so, answers_so(1 << 30), answers_so(-1), answers_so(4)] {
        let log = Log::default();
        let guard = log.collect("info");
        let server = Server::start(script).await;
        let store = server.connect();
        let ask = async {
            loop {
                let answer = store.get("/key").await;
                assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{script:?}: {answer:?}");
            }
        };
        tokio::select! {
            () = ask => {}
            () = sleep(Duration::from_secs(8)) => {}
        }
        drop(guard);
        // After 50, 100, 200, 400, 800, 1000 … ms, each by up to a half less; or after two thirds of a session without a word.
        assert!((2..=20).contains(&server.connections()), "{script:?}: {}", server.connections());
        let warnings = log.lines().iter().filter(|line| line.contains("WARN")).count();
        assert!((1..=3).contains(&warnings), "{script:?}: {:#?}", log.lines());
    }
}

#[tokio::test]
async fn keys_that_are_too_much_for_one_answer_are_asked_for_in_parts() {
    let server = Server::start(Script { most_keys: Some(40), ..ORDINARY }).await;
    let store = server.connect();
    let keys: Vec<String> = (0..100).map(|n| format!("/k{n}")).collect();
    assert_eq!(store.get_many(&keys).await.unwrap(), vec![None; 100]);
    assert_eq!(server.requests.load(Ordering::Relaxed), 7, "100, 50, 25, 25, 50, 25, 25");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_name_that_nobody_knows_and_servers_that_say_nothing_are_passed_by_within_one_call() {
    let server = Server::start(ORDINARY).await;
    let mute = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, other] = mute.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let servers = ["nobody-knows.invalid:2181", &one, &other, &server.address];
    let patience = Duration::from_secs(5);
    for first in 0..servers.len() {
        // Where a client begins is left to chance: this many begin everywhere.
        let connect = [&servers[first..], &servers[..first]].concat().join(",");
        let options = Options { request_timeout: patience, ..Options::new(connect) };
        let stores: Vec<Arc<ZooKeeperStore>> =
            (0..12).map(|_| ZooKeeperStore::start(options.clone())).collect();
        for store in &stores {
            let mut session = store.session();
            let connected = timeout(patience, session.wait_for(|session| session.is_healthy())).await;
            assert!(connected.is_ok_and(|state| state.is_ok()), "{}", options.connect);
        }
    }
}
