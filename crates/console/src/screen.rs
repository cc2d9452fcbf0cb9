//! A VM's screen (VNC), which is found on whatever node the guest is: that node's daemon carries it to who shows a ticket.
//!
//! RFB cannot be resumed: when the guest moves the screen ends, and whoever looks opens it again.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    command::{Refusal, RefusalKind},
    model::{
        NodeName, VmId, VmState,
        screen::{ANSWER_HEAD, SCREEN_PORT, ScreenAnswer},
    },
};
use pvc_operate::{
    Cluster, Failure, Kind,
    screen::{self, Ticket},
    vm::{Home, Whereabouts},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::{Nodes, watched::Watched};

/// How long a guest that shall run is waited for. Who looks again does so by itself.
const WITHIN: Duration = Duration::from_secs(10);
/// No other node says that a guest has come to it: it is asked again after so long, and twice as long each time.
const AGAIN: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(2);
/// How long a node may take to be reached …
const REACHED_WITHIN: Duration = Duration::from_secs(4);
/// … and to answer: it asks the state tree and libvirt.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// How long a screen is shown whose guest is claimed by another node.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// How long it is waited for that the tree says why a screen was closed.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);
/// After so much silence it is asked whether the node's machine is there.
const PROBED_AFTER: Duration = Duration::from_secs(15);
const PROBED_EVERY: Duration = Duration::from_secs(5);
/// A machine that takes nothing of what is on its way for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// Where screens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screens {
    /// How nodes are reached.
    pub nodes: Nodes,
    /// At which port.
    pub port: u16,
}

/// An open screen. Dropping it closes it.
pub struct Screen {
    stream: TcpStream,
    node: NodeName,
    home: Home,
    cluster: Arc<Cluster>,
    watched: Watched,
    leave_at: Option<Instant>,
    /// There is no such VM any more.
    is_removed: bool,
}

/// What is heard of a screen.
#[derive(Debug)]
pub enum Seen {
    /// So many bytes of RFB.
    Bytes(usize),
    /// It is over.
    Ended(ScreenEnd),
}

/// Why a screen has ended; each with a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenEnd {
    /// The VM is off.
    Off(String),
    /// The guest has moved, is restarted, or its node cannot be reached: the screen is to be opened again.
    Again(String),
}

impl ScreenEnd {
    /// The line.
    pub fn line(&self) -> &str {
        match self {
            Self::Off(line) | Self::Again(line) => line,
        }
    }
}

impl Screens {
    /// Of nodes that are reached so.
    pub fn of(nodes: Nodes) -> Self {
        Self { nodes, port: SCREEN_PORT }
    }

    /// Opens the screen of a VM, on whatever node it is. `now_unix_s` is the wall clock.
    pub async fn open(
        &self,
        cluster: Arc<Cluster>,
        vm: VmId,
        now_unix_s: impl Fn() -> u64,
    ) -> Result<Screen, Failure> {
        let until = Instant::now() + WITHIN;
        let mut whereabouts = Whereabouts::watch(&cluster, vm);
        // A ticket that the node's server of the state tree had not seen yet is shown once more.
        let mut unseen = None;
        let mut pause = AGAIN;
        loop {
            let home = whereabouts.look(&cluster).await?;
            if home.is_off() {
                return Err(is_off(&home));
            }
            let mut why = "no node executes it yet".to_owned();
            for node in &home.nodes {
                match self.ask(&cluster, node, vm, now_unix_s(), &mut unseen).await {
                    Ok((ScreenAnswer::Open, stream)) => {
                        let watched = Watched::new(whereabouts);
                        return Ok(Screen {
                            stream,
                            node: node.clone(),
                            home,
                            cluster,
                            watched,
                            leave_at: None,
                            is_removed: false,
                        });
                    }
                    Ok((ScreenAnswer::NotActive, _)) => {}
                    Ok((ScreenAnswer::Lacking(lack), _)) => return Err(refused(&home, &lack)),
                    Ok((ScreenAnswer::Full(full), _)) => {
                        return Err(refused(&home, &format!("{full}: have one of them closed")));
                    }
                    Ok((ScreenAnswer::NoTicket, _)) => {
                        why = format!(
                            "{node} does not take the ticket: are the clocks of both machines right?"
                        );
                    }
                    Ok((ScreenAnswer::Failed(failed), _)) => why = format!("{node}: {failed}"),
                    Err(failure) if failure.kind() == Kind::Failed => why = failure.to_string(),
                    Err(failure) => return Err(failure),
                }
            }
            if Instant::now() >= until {
                return Err(Failure::Failed(format!(
                    "the screen of VM {} was not opened: {why} (see `pvc vm explain {}`)",
                    home.name, home.name
                )));
            }
            // No event is relied upon.
            let _ = timeout(pause, whereabouts.changed()).await;
            pause = LONGEST.min(2 * pause);
        }
    }

    /// What a node answers, and the screen if it is open.
    async fn ask(
        &self,
        cluster: &Cluster,
        node: &NodeName,
        vm: VmId,
        now_unix_s: u64,
        unseen: &mut Option<(NodeName, Ticket)>,
    ) -> Result<(ScreenAnswer, TcpStream), Failure> {
        let host = self.nodes.host(node);
        let failed = |why: String| {
            Failure::Failed(format!(
                "the pvcd of {node} cannot be asked for a screen ({host}, port {}): {why}. It shows screens where functions.enable_hypervisor and \
                 enable_networking are True, in the cluster network only",
                self.port
            ))
        };
        let stream = timeout(REACHED_WITHIN, TcpStream::connect((host.as_str(), self.port))).await;
        let late = || failed("no answer".to_owned());
        let mut stream = stream.map_err(|_| late())?.map_err(|error| failed(error.to_string()))?;
        let probes = TcpKeepalive::new().with_time(PROBED_AFTER).with_interval(PROBED_EVERY).with_retries(3);
        let socket = SockRef::from(&stream);
        let set = stream
            .set_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&probes))
            .and_then(|()| socket.set_tcp_user_timeout(Some(GONE_AFTER)));
        set.map_err(|error| failed(error.to_string()))?;
        let shown = unseen.take().filter(|(at, _)| at == node);
        let is_first = shown.is_none();
        let ticket = match shown {
            Some((_, ticket)) => ticket,
            None => screen::ticket(cluster, node, vm, now_unix_s).await?,
        };
        let answered = timeout(ANSWERED_WITHIN, async {
            stream.write_all(ticket.line().as_bytes()).await?;
            let mut head = [0; ANSWER_HEAD];
            stream.read_exact(&mut head).await?;
            let mut words = vec![0; ScreenAnswer::words_after(head).unwrap_or(0)];
            stream.read_exact(&mut words).await?;
            std::io::Result::Ok(ScreenAnswer::decode(head[0], &words))
        })
        .await;
        let answer = match answered {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(failed("its answer is of another version".to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(late()),
        };
        match answer {
            Ok(ScreenAnswer::NoTicket) if is_first => *unseen = Some((node.clone(), ticket)),
            // Perhaps it was not looked at: it is taken back.
            Ok(ScreenAnswer::NoTicket | ScreenAnswer::Failed(_)) | Err(_) => drop(ticket),
            Ok(_) => ticket.used(),
        }
        answer.map(|answer| (answer, stream))
    }
}

impl Screen {
    /// Of whom, and where.
    pub fn line(&self) -> String {
        format!("VM {} on {}", self.home.name, self.node)
    }

    /// What is heard of it next; bytes are in `into`. Nothing is lost when this future is dropped.
    pub async fn next(&mut self, into: &mut [u8]) -> Seen {
        loop {
            let leave_at = self.leave_at;
            let leave = async {
                match leave_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = self.stream.read(into) => return match read {
                    Ok(bytes) if bytes > 0 => Seen::Bytes(bytes),
                    Ok(_) | Err(_) => Seen::Ended(self.end().await),
                },
                home = self.watched.home(&self.cluster) => {
                    if !self.hear(home) { continue }
                    // Its node may say nothing any more.
                    let is_over = self.has_left() || self.is_removed || self.home.is_off();
                    self.leave_at = is_over.then(|| self.leave_at.unwrap_or(Instant::now() + LAST_LOOK));
                }
                () = leave => return Seen::Ended(self.end().await),
            }
        }
    }

    /// Passes this on to the guest; `false`: it takes nothing, or is gone.
    #[must_use]
    pub async fn write(&mut self, bytes: &[u8], patience: Duration) -> bool {
        matches!(timeout(patience, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Why it has ended, as far as the state tree says so by now, or soon.
    pub async fn end(&mut self) -> ScreenEnd {
        let settled = timeout(SETTLED_WITHIN, async {
            loop {
                // What cannot be read is read again when it changes.
                let home = self.watched.home_now(&self.cluster).await;
                self.hear(home);
                if let Some(end) = self.known_end() {
                    return end;
                }
                let _ = timeout(AGAIN, self.watched.home(&self.cluster)).await;
            }
        });
        let closed = settled.await;
        closed.unwrap_or_else(|_| ScreenEnd::Again(format!("{}: its screen was closed", self.line())))
    }

    /// What cannot be read is no news of the guest: `false`.
    fn hear(&mut self, home: Result<Home, Failure>) -> bool {
        match home {
            Ok(home) => (self.home, self.is_removed) = (home, false),
            Err(failure) if failure.kind() == Kind::NotFound => self.is_removed = true,
            Err(_) => return false,
        }
        true
    }

    fn has_left(&self) -> bool {
        !self.home.nodes.is_empty() && !self.home.nodes.contains(&self.node)
    }

    fn known_end(&self) -> Option<ScreenEnd> {
        let Home { name, state, .. } = &self.home;
        if self.is_removed {
            return Some(ScreenEnd::Off(format!("VM {name} is removed")));
        }
        // Who is being powered off is claimed for a moment still.
        if matches!(state, VmState::Stop | VmState::Shutdown | VmState::Failed | VmState::Delete) {
            return Some(ScreenEnd::Off(format!("VM {name} is off")));
        }
        self.has_left().then(|| ScreenEnd::Again(format!("VM {name} has left {}", self.node)))
    }
}

fn is_off(home: &Home) -> Failure {
    Failure::Refused(Refusal {
        kind: RefusalKind::Refused,
        what: format!("the screen of VM {} was not opened", home.name),
        why: "the VM is off".to_owned(),
        todo: format!("`pvc vm start {}`", home.name),
    })
}

fn refused(home: &Home, words: &str) -> Failure {
    let what = format!("the screen of VM {} was not opened", home.name);
    let (why, todo) = words.split_once(": ").unwrap_or((words, "look at its definition (`pvc vm dump`)"));
    Failure::Refused(Refusal { kind: RefusalKind::Refused, what, why: why.to_owned(), todo: todo.to_owned() })
}
