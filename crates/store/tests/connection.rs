//! What an operator reads when ZooKeeper is not there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod log;

use std::time::Duration;

use pvc_store::{
    Store, StoreError,
    zookeeper::{Options, ZooKeeperStore},
};
use tokio::{net::TcpListener, time::timeout};

use log::Log;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_server_that_does_not_answer_is_tried_again_and_said_once() {
    let log = Log::default();
    let _guard = log.collect("trace");
    // Accepts connections and closes them: a server on its way up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options = Options { request_timeout: Duration::from_millis(300), ..Options::new(&address) };
    let store = ZooKeeperStore::start(options);
    for _ in 0..5 {
        drop(timeout(SOON, listener.accept()).await.expect("it tries again").unwrap());
    }
    let Err(StoreError::Unavailable(why)) = store.get("/a").await else { panic!("nobody can have answered") };
    assert!(why.contains(&address), "{why}");
    let warnings = log.lines();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains(&address), "{warnings:#?}");
}

#[tokio::test]
async fn an_impossible_address_is_named() {
    let log = Log::default();
    let _guard = log.collect("trace");
    let options = Options { request_timeout: Duration::from_millis(300), ..Options::new("nowhere:port") };
    let store = ZooKeeperStore::start(options);
    let Err(StoreError::Unavailable(why)) = store.get("/a").await else { panic!("nobody can have answered") };
    assert!(why.contains("nowhere:port"), "{why}");
    assert!(log.lines().iter().any(|line| line.contains("nowhere:port")), "{:#?}", log.lines());
    timeout(SOON, store.close()).await.expect("a store that never connected can be closed");
}
