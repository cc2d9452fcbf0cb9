//! Carries the screens (VNC) of the guests that execute here to clients elsewhere in the cluster network: to who shows a ticket, which is used once.
//!
//! ```text
//! accepted ──hello──► ticket taken ──a place──► opened by libvirt ──► carried, on a thread of its own ──► ended
//!     └──slow, or somebody newer──► closed          └──no, in words──► closed
//! ```
//! Tasks here wait; bytes are carried by threads, which nothing of the daemon's waits for. Never looks at what is carried, and connects to nothing.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::Ipv4Net;
use pvc_core::model::{
    NodeName, VmId,
    screen::{HELLO_BYTES, Hello, ScreenAnswer},
};
use pvc_host::{
    hypervisor::screen::{Carriers, ScreenError, Screens},
    machine::Machine,
};
use pvc_process::JoinSet;
use pvc_store::{Store, schema::screen as tickets};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::{AbortHandle, yield_now},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// The pause before an address that cannot be had is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// What this may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Screens that are shown at once: each has a thread and 128 KiB.
    pub shown: usize,
    /// … of one VM.
    pub of_one_vm: usize,
    /// Who has not said yet which screen it wants, at once.
    pub asking: usize,
    /// How long one may take to say it.
    pub hello_within: Duration,
    /// Tickets that the state tree is asked about at once, on the session that says that this node lives.
    pub looked_at: usize,
    /// How long the state tree may take to say whether it is one.
    pub ticket_within: Duration,
    /// How long a viewer, or a guest, may take nothing.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shown: 32,
            of_one_vm: 4,
            asking: 16,
            hello_within: Duration::from_secs(5),
            looked_at: 4,
            ticket_within: Duration::from_secs(5),
            patience: Duration::from_secs(30),
        }
    }
}

/// What it works with.
pub struct ScreenService {
    /// This node.
    pub me: NodeName,
    /// Where tickets are.
    pub store: Arc<dyn Store>,
    /// Has the time.
    pub machine: Arc<dyn Machine>,
    /// The guests' screens.
    pub screens: Arc<dyn Screens>,
    /// The cluster network: nobody else is let in.
    pub network: Ipv4Net,
    /// See there.
    pub limits: Limits,
}

impl ScreenService {
    /// Listens there, as soon as that is possible. Ends when it is dropped, and with it whatever is shown.
    pub async fn run(self, address: SocketAddr) {
        let listener = listen(address).await;
        debug!("guests' screens are shown on {address}");
        self.serve(listener).await;
    }

    /// Lets in whoever connects there.
    pub async fn serve(self, listener: TcpListener) {
        let looks = Arc::new(Semaphore::new(self.limits.looked_at));
        let room =
            Arc::new(Room { service: self, looks, carriers: Carriers::default(), shown: Mutex::default() });
        let mut askers = Askers::default();
        loop {
            match listener.accept().await {
                Ok((stream, from)) if room.is_from_the_cluster(from) => {
                    askers.admit(&room, stream, from);
                    // Who has said it already is heard before somebody newer makes it leave.
                    yield_now().await;
                }
                Ok((_, from)) => debug!("{from} is not in the cluster network, and is shown no screen"),
                Err(error) => {
                    // Out of descriptors, for example: it passes or it does not, but not at once.
                    debug!(error = &error as &dyn std::error::Error, "cannot accept who asks for a screen");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut is_said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !is_said {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot listen on {address}: no screens of this node's guests until that is possible"
                    );
                    is_said = true;
                }
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

/// Everybody who is here; nobody is any longer when this is dropped.
#[derive(Default)]
struct Askers {
    tasks: JoinSet<()>,
    /// Those who have not said all so far, the oldest first.
    order: VecDeque<(AbortHandle, Arc<AtomicBool>)>,
}

impl Askers {
    /// Who is slow keeps nobody out: if all places are taken, the oldest of those who have not said all makes room.
    fn admit(&mut self, room: &Arc<Room>, stream: TcpStream, from: SocketAddr) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|(task, has_said)| !task.is_finished() && !has_said.load(Ordering::Relaxed));
        if self.order.len() >= room.service.limits.asking
            && let Some((oldest, _)) = self.order.pop_front()
        {
            oldest.abort();
        }
        let (room, has_said) = (Arc::clone(room), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&has_said);
        let task = self.tasks.spawn(async move { room.converse(stream, from, &told).await });
        self.order.push_back((task, has_said));
    }
}

struct Room {
    service: ScreenService,
    /// Each is one ticket that the state tree is asked about.
    looks: Arc<Semaphore>,
    carriers: Carriers,
    /// How many screens of each VM are shown, or being opened.
    shown: Mutex<BTreeMap<VmId, usize>>,
}

impl Room {
    fn is_from_the_cluster(&self, from: SocketAddr) -> bool {
        match from.ip() {
            IpAddr::V4(address) => self.service.network.contains(&address),
            IpAddr::V6(_) => false,
        }
    }

    async fn converse(self: Arc<Self>, mut stream: TcpStream, from: SocketAddr, has_said: &AtomicBool) {
        let limits = self.service.limits;
        let mut sent = [0; HELLO_BYTES];
        if !matches!(timeout(limits.hello_within, stream.read_exact(&mut sent)).await, Ok(Ok(_))) {
            return debug!("{from} did not say which screen it wants");
        }
        has_said.store(true, Ordering::Relaxed);
        let Some(hello) = Hello::parse(&sent) else {
            return debug!("{from} says something else than which screen it wants");
        };
        if let Err(refusal) = self.take(&hello).await {
            debug!("{from} is not shown the screen of VM {}: {refusal:?}", hello.vm);
            return answer(&mut stream, &refusal, limits.patience).await;
        }
        let opened = match self.place(hello.vm) {
            Ok(place) => {
                self.service.screens.open(hello.vm).await.map_err(refusal).map(|screen| (screen, place))
            }
            Err(full) => Err(full),
        };
        let (screen, _place) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                debug!("{from} is not shown the screen of VM {}: {refusal:?}", hello.vm);
                return answer(&mut stream, &refusal, limits.patience).await;
            }
        };
        answer(&mut stream, &ScreenAnswer::Open, limits.patience).await;
        let carried =
            stream.into_std().and_then(|viewer| self.carriers.carry(viewer, screen, limits.patience));
        match carried {
            Ok(mut carried) => {
                info!("the screen of VM {} is shown to {from}", hello.vm);
                let why = carried.ended().await;
                info!("the screen of VM {} is not shown to {from} any more: {why}", hello.vm);
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "the screen of VM {} cannot be shown to {from}", hello.vm
            ),
        }
    }

    /// Uses the ticket up. Anybody may say a hello: what the state tree is asked for that is bounded, also if whoever said it goes away.
    async fn take(&self, hello: &Hello) -> Result<(), ScreenAnswer> {
        let Ok(look) = Arc::clone(&self.looks).try_acquire_owned() else {
            return Err(ScreenAnswer::Failed("others show their tickets: come back in a moment".into()));
        };
        let ScreenService { store, me, machine, limits, .. } = &self.service;
        let (store, me, hello, now) = (Arc::clone(store), me.clone(), *hello, machine.unix_s());
        let (answer, answered) = oneshot::channel();
        // What is on its way to the state tree is not called back by anybody: it keeps its place until it is answered.
        drop(pvc_process::spawn(async move {
            let taken = tickets::take(&*store, &me, &hello, now).await;
            drop(look);
            let _ = answer.send(taken);
        }));
        match timeout(limits.ticket_within, answered).await {
            Ok(Ok(Ok(true))) => Ok(()),
            Ok(Ok(Ok(false))) => Err(ScreenAnswer::NoTicket),
            Ok(Ok(Err(error))) => {
                Err(ScreenAnswer::Failed(format!("the ticket cannot be looked at: {error}")))
            }
            Ok(Err(_)) | Err(_) => {
                Err(ScreenAnswer::Failed("the ticket cannot be looked at: ZooKeeper does not answer".into()))
            }
        }
    }

    /// A place for one more.
    fn place(self: &Arc<Self>, vm: VmId) -> Result<Place, ScreenAnswer> {
        let Limits { shown: most, of_one_vm, .. } = self.service.limits;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.values().sum::<usize>() >= most {
            return Err(ScreenAnswer::Full(format!("this node shows {most} screens, and no more at once")));
        }
        let of_it = shown.entry(vm).or_default();
        if *of_it >= of_one_vm {
            return Err(ScreenAnswer::Full(format!(
                "{of_one_vm} look at this screen, and no more can at once"
            )));
        }
        *of_it += 1;
        Ok(Place { room: Arc::clone(self), vm })
    }
}

/// Somebody's place, until this is dropped.
struct Place {
    room: Arc<Room>,
    vm: VmId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shown = self.room.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_it) = shown.get_mut(&self.vm) {
            *of_it -= 1;
            if *of_it == 0 {
                shown.remove(&self.vm);
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, answer: &ScreenAnswer, patience: Duration) {
    // Who does not take it hears nothing, and is closed.
    let _ = timeout(patience, stream.write_all(&answer.encode())).await;
}

fn refusal(error: ScreenError) -> ScreenAnswer {
    match error {
        ScreenError::NotActive => ScreenAnswer::NotActive,
        ScreenError::Lacking(lack) => ScreenAnswer::Lacking(lack),
        ScreenError::Busy | ScreenError::Late(_) | ScreenError::Failed(_) => {
            ScreenAnswer::Failed(error.to_string())
        }
    }
}
