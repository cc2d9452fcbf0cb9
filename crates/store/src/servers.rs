//! Whether a coordinator's ZooKeeper server serves, asked of the server itself: one whose node daemon has stopped in order says nothing in
//! the tree, and may hold the quorum together all the same.
//!
//! The question is the four-letter word `srvr`, which ZooKeeper answers unless its `4lw.commands.whitelist` was narrowed. Who does not answer
//! in time, or as a member of a quorum, does not serve.

use std::{collections::BTreeMap, time::Duration};
#[cfg(any(test, feature = "fake"))]
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use pvc_core::model::NodeName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long a server may take to answer: meanwhile somebody's fence waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// No honest answer is longer.
const LONGEST_ANSWER: u64 = 4096;

/// Asks servers.
#[async_trait]
pub trait Servers: Send + Sync + 'static {
    /// Whether the server of that coordinator serves now.
    async fn serves(&self, coordinator: &NodeName) -> bool;
}

/// The real servers.
#[derive(Debug)]
pub struct ZooKeeperServers(BTreeMap<NodeName, String>);

impl ZooKeeperServers {
    /// The servers of these coordinators, each with its `host:port`.
    pub fn new(addresses: impl IntoIterator<Item = (NodeName, String)>) -> Self {
        Self(addresses.into_iter().collect())
    }
}

#[async_trait]
impl Servers for ZooKeeperServers {
    async fn serves(&self, coordinator: &NodeName) -> bool {
        let Some(address) = self.0.get(coordinator) else { return false };
        let answer = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"srvr").await?;
            let mut answer = Vec::new();
            stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        matches!(timeout(ANSWER_WITHIN, answer).await, Ok(Ok(answer)) if is_member(&String::from_utf8_lossy(&answer)))
    }
}

/// A server without a quorum answers that it serves nobody, and says no mode.
fn is_member(answer: &str) -> bool {
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.is_some_and(|mode| matches!(mode.trim(), "leader" | "follower"))
}

/// Servers for tests: those that were said to serve do.
#[cfg(any(test, feature = "fake"))]
#[derive(Debug, Default)]
pub struct FakeServers(Mutex<BTreeSet<NodeName>>);

#[cfg(any(test, feature = "fake"))]
impl FakeServers {
    /// From now on that coordinator's server serves, or does not.
    pub fn set(&self, coordinator: &NodeName, serves: bool) {
        let mut serving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if serves {
            serving.insert(coordinator.clone());
        } else {
            serving.remove(coordinator);
        }
    }
}

#[cfg(any(test, feature = "fake"))]
#[async_trait]
impl Servers for FakeServers {
    async fn serves(&self, coordinator: &NodeName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(coordinator)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_member_of_a_quorum_serves() {
        let said = |mode: &str| {
            format!("Zookeeper version: 3.8.0\nLatency min/avg/max: 0/0.5/3\nMode: {mode}\nNode count: 5\n")
        };
        assert!(is_member(&said("leader")) && is_member(&said("follower")));
        assert!(!is_member(&said("standalone")) && !is_member(&said("observer")) && !is_member(""));
        assert!(!is_member("This ZooKeeper instance is not currently serving requests\n"));
        assert!(!is_member("srvr is not executed because it is not in the whitelist.\n"));
    }

    #[tokio::test]
    async fn a_server_is_asked_and_not_for_long() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let [speaks, mute, closed] = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap().to_string();
        let servers = ZooKeeperServers::new([
            (node("a"), address(&speaks)),
            (node("b"), address(&mute)),
            (node("c"), address(&closed)),
        ]);
        drop(closed);
        speaks.set_nonblocking(true).unwrap();
        let speaks = TcpListener::from_std(speaks).unwrap();
        let answering = pvc_process::spawn(async move {
            let (mut stream, _) = speaks.accept().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"srvr");
            stream.write_all(b"Zookeeper version: 3.8.0\nMode: follower\n").await.unwrap();
        });
        assert!(servers.serves(&node("a")).await);
        answering.await.unwrap();
        let began = std::time::Instant::now();
        for name in ["b", "c", "unknown"] {
            assert!(!servers.serves(&node(name)).await, "{name}");
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
