//! A port at which a test asks as guests do.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use pvc_core::model::{
    Mac,
    dhcp::{Asks, Reply, Request},
    dhcp6::{Advertisement, Reply6},
};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::{
    Asked6, Asker, Dhcp6Exchange, DhcpExchange, DhcpPort, Received,
    message::{self, Envelope},
    message6,
};

type Packet = (String, Vec<u8>);
type Heard6 = (Asked6, Asker);
type Observer = dyn Fn(Mac, &Reply) + Send + Sync;

/// The fake.
#[derive(Clone, Default)]
pub struct FakePort {
    taken: Arc<AtomicBool>,
    keeps_time: Arc<AtomicBool>,
    open: Arc<Mutex<Option<mpsc::UnboundedSender<Packet>>>>,
    open6: Arc<Mutex<Option<mpsc::UnboundedSender<Heard6>>>>,
    answers: Arc<Mutex<Answers>>,
}

#[derive(Default)]
struct Answers {
    so_far: Vec<Reply>,
    six: Vec<Reply6>,
    advertised: Vec<(Asker, Advertisement)>,
    looked_for: Vec<Asker>,
    observer: Option<Arc<Observer>>,
}

impl FakePort {
    /// Whom every answer is told from now on, with the card that it is for, instead of being remembered.
    pub fn observe(&self, observer: impl Fn(Mac, &Reply) + Send + Sync + 'static) {
        lock(&self.answers).observer = Some(Arc::new(observer));
    }

    /// Another server has it from now on, or has it no more.
    pub fn taken(&self, is_taken: bool) {
        self.taken.store(is_taken, Ordering::Relaxed);
    }

    /// A time server answers at all of the machine's addresses from now on, or no more.
    pub fn keeps_time(&self, keeps_time: bool) {
        self.keeps_time.store(keeps_time, Ordering::Relaxed);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        lock(&self.open).as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// A guest's request on that device; lost if the port is closed.
    pub fn ask(&self, device: &str, request: &Request) {
        self.send(device, packet(request));
    }

    /// Whatever else somebody sends there.
    pub fn send(&self, device: &str, packet: Vec<u8>) {
        if let Some(sender) = &*lock(&self.open) {
            let _ = sender.send((device.to_owned(), packet));
        }
    }

    /// What a guest asks over IPv6 on that device; lost if the port is closed.
    pub fn ask6(&self, device: &str, asked: Asked6) {
        if let Some(sender) = &*lock(&self.open6) {
            let address = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7));
            let _ = sender.send((asked, Asker { device: device.to_owned(), address }));
        }
    }

    /// Whatever a card sends to DHCPv6's port; answers whether it was understood.
    pub fn send6(&self, device: &str, mac: Mac, packet: &[u8]) -> bool {
        let read = message6::read(packet, mac);
        let is_understood = read.is_some();
        if let Some((request, number)) = read {
            self.ask6(device, Asked6::Dhcp(request, number));
        }
        is_understood
    }

    /// What was answered by DHCPv6 so far.
    pub fn answers6(&self) -> Vec<Reply6> {
        lock(&self.answers).six.clone()
    }

    /// Whom anybody has looked for so far.
    pub fn looked_for(&self) -> Vec<Asker> {
        lock(&self.answers).looked_for.clone()
    }

    /// What routers have said of themselves so far, and to whom.
    pub fn advertised(&self) -> Vec<(Asker, Advertisement)> {
        lock(&self.answers).advertised.clone()
    }

    /// What was answered so far.
    pub fn answers(&self) -> Vec<Reply> {
        lock(&self.answers).so_far.clone()
    }
}

impl DhcpPort for FakePort {
    fn open(&self) -> io::Result<Box<dyn DhcpExchange>> {
        if self.taken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.open) = Some(sender);
        let (keeps_time, answers) = (Arc::clone(&self.keeps_time), Arc::clone(&self.answers));
        Ok(Box::new(Open { requests: AsyncMutex::new(receiver), keeps_time, answers }))
    }

    fn open6(&self) -> io::Result<Box<dyn Dhcp6Exchange>> {
        if self.taken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.open6) = Some(sender);
        Ok(Box::new(Open6 { requests: AsyncMutex::new(receiver), answers: Arc::clone(&self.answers) }))
    }
}

struct Open6 {
    requests: AsyncMutex<mpsc::UnboundedReceiver<Heard6>>,
    answers: Arc<Mutex<Answers>>,
}

#[async_trait]
impl Dhcp6Exchange for Open6 {
    async fn receive(&self) -> io::Result<(Asked6, Asker)> {
        Ok(self.requests.lock().await.recv().await.ok_or(io::ErrorKind::BrokenPipe)?)
    }

    fn answer(&self, _to: &Asker, number: [u8; 3], reply: &Reply6) {
        assert!(message6::write(number, reply).len() < 1232);
        lock(&self.answers).six.push(reply.clone());
    }

    fn advertise(&self, to: &Asker, advertisement: &Advertisement) -> io::Result<()> {
        assert!(message6::advertisement(advertisement).len() < 1232);
        lock(&self.answers).advertised.push((to.clone(), advertisement.clone()));
        Ok(())
    }

    fn look_for(&self, whom: &Asker) {
        lock(&self.answers).looked_for.push(whom.clone());
    }
}

struct Open {
    requests: AsyncMutex<mpsc::UnboundedReceiver<Packet>>,
    keeps_time: Arc<AtomicBool>,
    answers: Arc<Mutex<Answers>>,
}

#[async_trait]
impl DhcpExchange for Open {
    async fn receive(&self) -> io::Result<Received> {
        loop {
            let next = self.requests.lock().await.recv().await;
            let (device, packet) = next.ok_or(io::ErrorKind::BrokenPipe)?;
            if let Some((request, envelope)) = message::read(&packet, 1) {
                return Ok(Received { device, request, envelope });
            }
        }
    }

    async fn time_is_kept_at(&self, _address: Ipv4Addr) -> bool {
        self.keeps_time.load(Ordering::Relaxed)
    }

    fn answer(&self, to: &Envelope, reply: &Reply) {
        assert!(message::write(to, reply).len() < 1500);
        let observer = lock(&self.answers).observer.clone();
        match observer {
            Some(observer) => observer(to.mac, reply),
            None => lock(&self.answers).so_far.push(reply.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The packet of a request.
fn packet(request: &Request) -> Vec<u8> {
    let (is, wanted, server, has) = match request.asks {
        Asks::Discover(wanted) => (1, wanted, None, None),
        Asks::Take(server, address) => (3, Some(address), Some(server), None),
        Asks::Keep(address) => (3, None, None, Some(address)),
        Asks::Decline(address) => (4, Some(address), None, None),
        Asks::Release(address) => (7, None, None, Some(address)),
        Asks::Inform => (8, None, None, None),
    };
    let has = has.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mut packet = [&[1, 1, 6, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], &has.octets(), &[0; 12]].concat();
    packet.extend(request.mac.0);
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99, 53, 1, is]);
    for (code, address) in [(50, wanted), (54, server)] {
        if let Some(address) = address {
            packet.extend([code, 4]);
            packet.extend(address.octets());
        }
    }
    if let Some(name) = &request.name {
        packet.extend([12, u8::try_from(name.len()).unwrap_or_default()]);
        packet.extend(name.bytes());
    }
    packet.push(255);
    packet
}
