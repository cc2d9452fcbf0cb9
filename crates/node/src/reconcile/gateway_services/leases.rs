//! Answers the hook: which leases there are, and writes into the state tree what has become of one. Whatever it is told comes from guests.

use std::{collections::BTreeMap, net::Ipv4Addr, str::FromStr, sync::Arc, time::Duration};

use pvc_core::model::{Lease, Mac, Vni};
use pvc_process::JoinSet;
use pvc_store::{CommitError, schema::network::leases};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::IDENTITY;
use crate::{
    controller::Cluster,
    dhcp_hook::{ANSWER_WITHIN, DONE, LONGEST},
};

/// So many hooks are answered at once. There is one a network at a time.
const AT_ONCE: usize = 256;

/// The pause before a write that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// What a hook asks for.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// All leases.
    All,
    Upsert(Lease),
    Gone(Mac, Ipv4Addr),
}

/// Answers hooks. Nothing is written any more when this has been dropped.
pub(super) struct Answers {
    turns: Arc<Semaphore>,
    _task: JoinSet<()>,
}

impl Answers {
    pub(super) fn begin(listener: UnixListener, cluster: Cluster) -> Self {
        let (turns, mut task) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        task.spawn(serve(listener, cluster, Arc::clone(&turns)));
        Self { turns, _task: task }
    }

    /// Waits so long for those that are being answered.
    pub(super) async fn end(self, within: Duration) {
        // One turn is kept for the hook that may come next, and none comes.
        let all_but_one = u32::try_from(AT_ONCE - 1).unwrap_or(u32::MAX);
        if timeout(within, self.turns.acquire_many(all_but_one)).await.is_err() {
            warn!("client networks: leases could not be recorded in time");
        }
    }
}

async fn serve(listener: UnixListener, cluster: Cluster, turns: Arc<Semaphore>) {
    let mut answering = JoinSet::new();
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        while answering.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let cluster = cluster.clone();
                answering.spawn(async move {
                    match timeout(ANSWER_WITHIN, answer(stream, &cluster)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(why)) => warn!("client networks: a lease is not recorded: {why}"),
                        Err(_) => warn!("client networks: a lease could not be recorded in time"),
                    }
                    drop(turn);
                });
            }
            Err(error) => {
                warn!("client networks: nobody can tell of leases: {error}");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, cluster: &Cluster) -> Result<(), String> {
    let peer = stream.peer_cred().map_err(|error| error.to_string())?.uid();
    if peer != 0 && Some(peer) != uid_of(IDENTITY.user) {
        return Err(format!("user {peer} has no say in that"));
    }
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read.take(LONGEST));
    read.read_line(&mut line).await.map_err(|error| error.to_string())?;
    let (vni, event) = parse(&line).ok_or("it was told something unreadable")?;
    let text = match event {
        Event::All => all(cluster, vni).await?,
        other => {
            record(cluster, vni, &other).await?;
            String::new()
        }
    };
    let text = format!("{text}{DONE}\n");
    write.write_all(text.as_bytes()).await.map_err(|error| error.to_string())
}

/// The number of a user of this machine.
fn uid_of(user: &str) -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(2)?.parse().ok()
}

/// `100 init`, `100 add MAC ADDRESS EXPIRES NAME CLIENT`, `100 del MAC ADDRESS`, where `*` is nothing.
fn parse(line: &str) -> Option<(Vni, Event)> {
    fn or_nothing<T: FromStr>(word: &str) -> Option<T> {
        // What a guest says of itself that cannot be used is left out; its address counts all the same.
        word.parse().ok()
    }
    let words: Vec<&str> = line.strip_suffix('\n')?.split(' ').collect();
    let vni = words.first()?.parse().ok()?;
    let event = match words[1..] {
        ["init"] => Event::All,
        ["add" | "old", mac, address, expires, name, client] => Event::Upsert(Lease {
            mac: mac.parse().ok().filter(|mac: &Mac| mac.is_a_cards())?,
            address: address.parse().ok()?,
            expires_s: expires.parse().ok()?,
            name: or_nothing(name),
            client_id: or_nothing(client),
        }),
        ["del", mac, address, ..] => Event::Gone(mac.parse().ok()?, address.parse().ok()?),
        _ => return None,
    };
    Some((vni, event))
}

/// The leases that still count, as dnsmasq reads them: none twice, none that has ended, none outside the network.
async fn all(cluster: &Cluster, vni: Vni) -> Result<String, String> {
    let (leases, problems) = leases::read(&*cluster.store, vni).await.map_err(|error| error.to_string())?;
    if !problems.is_empty() {
        warn!("network {vni}: {} keys of leases cannot be read, {} first", problems.len(), problems[0].key);
    }
    let net = cluster.view().networks.get(&vni).and_then(|network| network.ip4.network);
    let now = cluster.machine.unix_s();
    let mut by_address = BTreeMap::<Ipv4Addr, Lease>::new();
    for lease in leases {
        // 0 is never.
        let lasts = lease.expires_s == 0 || lease.expires_s > now;
        let counts = lasts && net.is_some_and(|net| net.contains(&lease.address));
        let later = |other: &Lease| other.expires_s.wrapping_sub(1) >= lease.expires_s.wrapping_sub(1);
        if counts && !by_address.get(&lease.address).is_some_and(later) {
            by_address.insert(lease.address, lease);
        }
    }
    let text = |value: Option<String>| value.unwrap_or_else(|| "*".to_owned());
    let line = |lease: &Lease| {
        let name = text(lease.name.as_ref().map(ToString::to_string));
        let client = text(lease.client_id.as_ref().map(ToString::to_string));
        format!("{} {} {} {name} {client}\n", lease.expires_s, lease.mac, lease.address)
    };
    Ok(by_address.values().map(line).collect())
}

/// Writes it, again and again until the hook has waited long enough.
async fn record(cluster: &Cluster, vni: Vni, event: &Event) -> Result<(), String> {
    let view = cluster.view();
    let network = view.networks.get(&vni).ok_or_else(|| format!("there is no network {vni}"))?;
    loop {
        let outcome = match event {
            Event::All => return Ok(()),
            Event::Upsert(lease) => {
                if !network.ip4.network.is_some_and(|net| net.contains(&lease.address)) {
                    return Err(format!("{} is not in network {vni}", lease.address));
                }
                leases::write(&*cluster.store, vni, lease).await
            }
            Event::Gone(mac, address) => leases::remove(&*cluster.store, vni, *mac, *address).await,
        };
        match outcome {
            Ok(()) => return Ok(()),
            // The next round sees how it is now.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => debug!("network {vni}: {error}: trying again"),
        }
        sleep(TRY_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hook_says_is_read_and_hostile_words_are_not() {
        let lease = |line: &str| match parse(line) {
            Some((vni, Event::Upsert(lease))) => Some((vni.number(), lease)),
            _ => None,
        };
        let (vni, good) = lease("100 add 52:54:00:00:00:01 10.0.0.5 1800000000 web1 01:52:54\n").unwrap();
        assert_eq!(
            (vni, good.address.to_string().as_str(), good.name.unwrap().to_string().as_str()),
            (100, "10.0.0.5", "web1")
        );
        let (_, nameless) = lease("100 old 52:54:00:00:00:01 10.0.0.5 1800000000 $(x) *\n").unwrap();
        assert_eq!((nameless.name, nameless.client_id), (None, None));
        assert_eq!(parse("7 init\n").unwrap().1, Event::All);
        for bad in [
            "100 add 52:54:00:00:00:01 10.0.0.5 1800000000 web1\n",
            "100 add 52:54:00:00:00:01 10.0.0.5 1800000000 a b 01\n",
            "100 add ff:ff:ff:ff:ff:ff 10.0.0.5 1 web1 *\n",
            "0 init\n",
            "100 init",
            "100 init\n\n",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
