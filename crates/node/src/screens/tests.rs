use std::{
    io::{Read as _, Write as _},
    net::TcpStream as Viewer,
};

use pvc_core::model::screen::ANSWER_HEAD;
use pvc_host::{
    hypervisor::fake::{FakeDisplay, FakeScreens, Look, look},
    machine::FakeMachine,
};
use pvc_store::{
    memory::{MemoryStore, MemoryTree},
    schema::{root, screen::GOOD_FOR_S},
};

use super::*;

const SOON: Duration = Duration::from_secs(30);

/// A node's service, and a client of the state tree.
struct Room {
    tree: MemoryTree,
    /// The node's.
    own: Arc<MemoryStore>,
    fake: Arc<FakeScreens>,
    store: Arc<MemoryStore>,
    machine: Arc<FakeMachine>,
    address: SocketAddr,
    service: JoinSet<()>,
}

impl Room {
    async fn new(limits: Limits) -> Self {
        Self::within("127.0.0.0/8", limits).await
    }

    async fn within(network: &str, limits: Limits) -> Self {
        let tree = MemoryTree::new();
        let (fake, machine) = (Arc::new(FakeScreens::default()), Arc::new(FakeMachine::default()));
        let (own, store) = (tree.client(), tree.client());
        root::init(&*store).await.unwrap();
        let service = ScreenService {
            me: node("hv1"),
            store: own.clone(),
            machine: machine.clone(),
            screens: fake.clone(),
            network: network.parse().unwrap(),
            limits,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(service.serve(listener));
        Self { tree, own, fake, store, machine, address, service: tasks }
    }

    /// A ticket that was made for that node.
    async fn ticket(&self, at: &str, vm: VmId, ticket: u8) -> Hello {
        let until_unix_s = self.machine.unix_s() + GOOD_FOR_S;
        let hello = Hello { vm, until_unix_s, ticket: [ticket; 32] };
        assert!(tickets::issue(&*self.store, &node(at), &hello).await.unwrap());
        hello
    }

    /// What is answered to this; what an answer leaves is a screen, if it is `Open`.
    async fn ask(&self, sent: impl Into<Vec<u8>>) -> Option<(ScreenAnswer, Viewer)> {
        let (address, sent) = (self.address, sent.into());
        apart(move || {
            let mut viewer = Viewer::connect(address).unwrap();
            viewer.set_read_timeout(Some(SOON)).unwrap();
            // What it does not want to hear it closes.
            let _ = viewer.write_all(&sent);
            let mut head = [0; ANSWER_HEAD];
            viewer.read_exact(&mut head).ok()?;
            let mut words = vec![0; ScreenAnswer::words_after(head).unwrap()];
            viewer.read_exact(&mut words).unwrap();
            Some((ScreenAnswer::decode(head[0], &words).unwrap(), viewer))
        })
        .await
    }

    async fn answer(&self, sent: impl Into<Vec<u8>>) -> Option<ScreenAnswer> {
        self.ask(sent).await.map(|(answer, _)| answer)
    }

    /// A viewer at its screen.
    async fn open(&self, vm: VmId, ticket: u8) -> Viewer {
        let hello = self.ticket("hv1", vm, ticket).await;
        match self.ask(hello.line()).await {
            Some((ScreenAnswer::Open, viewer)) => viewer,
            other => panic!("{other:?}"),
        }
    }
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn vm(n: u8) -> VmId {
    format!("5a0b0ad5-2f1c-4f3e-9a3d-6d0d6b2f8c{n:02x}").parse().unwrap()
}

/// On another thread: the service runs on this one.
#[allow(clippy::disallowed_methods, reason = "a viewer of a test waits as it likes")]
async fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

async fn seen(mut viewer: Viewer) -> (Look, Viewer) {
    apart(move || (look(&mut viewer).unwrap(), viewer)).await
}

async fn is_closed(mut viewer: Viewer) -> bool {
    apart(move || viewer.read_to_end(&mut Vec::new()).is_ok()).await
}

#[tokio::test]
async fn who_has_a_ticket_sees_the_screen_until_the_guest_ends() {
    let room = Room::new(Limits::default()).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    let (seen, viewer) = seen(room.open(vm(1), 1).await).await;
    assert_eq!((seen.width, seen.height, seen.name.as_str()), (8, 4, "fake"));
    room.fake.remove(vm(1));
    assert!(is_closed(viewer).await);
}

#[tokio::test]
async fn no_other_ticket_opens_anything_and_each_is_used_once() {
    let room = Room::new(Limits::default()).await;
    (1..=2).for_each(|n| room.fake.put(vm(n), FakeDisplay::Shows));
    let ticket = room.ticket("hv1", vm(1), 1).await;
    let elsewhere = room.ticket("hv2", vm(1), 2).await;
    let unknown = Hello { ticket: [9; 32], ..ticket };
    let of_another_vm = Hello { vm: vm(2), ..ticket };
    let longer = Hello { until_unix_s: ticket.until_unix_s + 60, ..ticket };
    for hello in [unknown, of_another_vm, longer, elsewhere] {
        assert_eq!(room.answer(hello.line()).await, Some(ScreenAnswer::NoTicket), "{hello:?}");
    }
    assert_eq!(room.answer(ticket.line()).await, Some(ScreenAnswer::Open), "nobody has used it up");
    assert_eq!(room.answer(ticket.line()).await, Some(ScreenAnswer::NoTicket), "it is used");
    let old = Hello { until_unix_s: room.machine.unix_s() - 1, ..ticket };
    assert!(tickets::issue(&*room.store, &node("hv1"), &old).await.unwrap());
    assert_eq!(room.answer(old.line()).await, Some(ScreenAnswer::NoTicket), "it is too old");
}

#[tokio::test]
async fn what_is_no_hello_is_closed_without_a_word() {
    let room = Room::new(Limits { hello_within: Duration::from_millis(200), ..Limits::default() }).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    let line = room.ticket("hv1", vm(1), 1).await.line();
    for sent in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![b'A'; 1 << 20],
        line.as_bytes()[..HELLO_BYTES - 1].to_vec(),
        line.replace("pvc-screen/1", "pvc-screen/0").into_bytes(),
        Vec::new(),
    ] {
        assert_eq!(room.answer(sent).await, None);
    }
    assert_eq!(room.answer(line).await, Some(ScreenAnswer::Open));
}

#[tokio::test]
async fn who_is_slow_makes_room_for_who_has_a_ticket() {
    let limits = Limits { asking: 4, hello_within: SOON, ..Limits::default() };
    let room = Room::new(limits).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    let first = room.open(vm(1), 1).await;
    let address = room.address;
    let flood = move || (0..200).map(|_| Viewer::connect(address).unwrap()).collect::<Vec<_>>();
    let slow = apart(flood).await;
    let begun = std::time::Instant::now();
    let second = room.open(vm(1), 2).await;
    assert!(begun.elapsed() < SOON / 2);
    // Who has a ticket is pushed out by nobody.
    assert_eq!((seen(first).await.0.width, seen(second).await.0.width), (8, 8));
    drop(slow);
}

#[tokio::test]
async fn screens_are_few_and_a_place_is_free_when_its_viewer_has_gone() {
    let room = Room::new(Limits { shown: 3, of_one_vm: 2, ..Limits::default() }).await;
    (1..=3).for_each(|n| room.fake.put(vm(n), FakeDisplay::Shows));
    let one = room.open(vm(1), 1).await;
    let _two = room.open(vm(1), 2).await;
    let third = room.ticket("hv1", vm(1), 3).await;
    let Some(ScreenAnswer::Full(why)) = room.answer(third.line()).await else { panic!("it is let in") };
    assert!(why.contains("2 look at this screen"), "{why}");
    let _other = room.open(vm(2), 4).await;
    let fourth = room.ticket("hv1", vm(3), 5).await;
    let Some(ScreenAnswer::Full(why)) = room.answer(fourth.line()).await else { panic!("it is let in") };
    assert!(why.contains("3 screens"), "{why}");
    drop(one);
    opens_at_last(&room, vm(3), 6).await;
}

/// As soon as its place is free; nothing else stands in the way.
async fn opens_at_last(room: &Room, vm: VmId, mut ticket: u8) {
    loop {
        match room.answer(room.ticket("hv1", vm, ticket).await.line()).await {
            Some(ScreenAnswer::Open) => return,
            Some(ScreenAnswer::Full(_)) => {}
            other => panic!("{other:?}"),
        }
        ticket += 1;
        sleep(Duration::from_millis(50)).await;
        assert!(ticket < 200, "its place stays taken");
    }
}

/// Anybody in the cluster network may say something that looks like a hello.
#[tokio::test]
async fn hellos_without_a_ticket_write_nothing_and_ask_little_of_the_state_tree() {
    let room = Room::new(Limits { looked_at: 2, ..Limits::default() }).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    let until_unix_s = room.machine.unix_s() + GOOD_FOR_S;
    let invented = |n| Hello { vm: vm(1), until_unix_s, ticket: [n; 32] }.line();
    // A server that takes no write answers them.
    room.own.orphan(true);
    for n in 1..20 {
        assert_eq!(room.answer(invented(n)).await, Some(ScreenAnswer::NoTicket));
    }
    room.own.orphan(false);

    let before = room.tree.dump();
    room.own.delay(Duration::from_secs(2));
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut viewer = Viewer::connect(room.address).unwrap();
        viewer.write_all(invented(n).as_bytes()).unwrap();
        waiting.push(viewer);
    }
    sleep(Duration::from_millis(300)).await;
    // Who goes away leaves what it has asked for.
    drop(waiting);
    let begun = std::time::Instant::now();
    let Some(ScreenAnswer::Failed(why)) = room.answer(invented(3)).await else { panic!("it is asked") };
    assert!(why.contains("come back") && begun.elapsed() < Duration::from_secs(1), "{why}");
    assert_eq!(room.tree.dump(), before);
    room.own.delay(Duration::ZERO);
    sleep(Duration::from_secs(2)).await;
    room.open(vm(1), 9).await;
}

#[tokio::test]
async fn who_has_said_all_is_pushed_out_by_nobody_however_many_come() {
    let room = Room::new(Limits { hello_within: SOON, ..Limits::default() }).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    // Many come while its ticket is looked at.
    room.own.delay(Duration::from_millis(300));
    let (address, is_over) = (room.address, Arc::new(AtomicBool::new(false)));
    let ends = Arc::clone(&is_over);
    let flood = std::thread::spawn(move || {
        let mut last = VecDeque::new();
        while !ends.load(Ordering::Relaxed) {
            last.extend(Viewer::connect(address));
            if last.len() > 100 {
                last.pop_front();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut opened = None;
    // It may be too late with its hello, and comes again.
    for n in 1..20 {
        opened = room.answer(room.ticket("hv1", vm(1), n).await.line()).await;
        if opened.is_some() {
            break;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    apart(move || flood.join().unwrap()).await;
    assert_eq!(opened, Some(ScreenAnswer::Open));
}

#[tokio::test]
async fn what_stands_in_the_way_is_said() {
    let room = Room::new(Limits::default()).await;
    room.fake.put(vm(1), FakeDisplay::Defined("<domain><devices/></domain>".into()));
    room.fake.put(vm(2), FakeDisplay::Refused("no".into()));
    let answer = async |n, ticket| room.answer(room.ticket("hv1", vm(n), ticket).await.line()).await.unwrap();
    assert!(
        matches!(answer(1, 1).await, ScreenAnswer::Lacking(lack) if lack.contains("<graphics type='vnc'"))
    );
    assert_eq!(answer(2, 2).await, ScreenAnswer::Failed("libvirt: no".into()));
    assert_eq!(answer(3, 3).await, ScreenAnswer::NotActive);
}

#[tokio::test]
async fn a_viewer_that_takes_nothing_is_left() {
    let room =
        Room::new(Limits { patience: Duration::from_millis(300), shown: 1, ..Limits::default() }).await;
    room.fake.put(vm(1), FakeDisplay::Floods);
    let viewer = room.open(vm(1), 1).await;
    opens_at_last(&room, vm(1), 2).await;
    drop(viewer);
}

#[tokio::test]
async fn who_is_not_in_the_cluster_network_is_not_heard() {
    let room = Room::within("10.99.0.0/24", Limits::default()).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    let ticket = room.ticket("hv1", vm(1), 1).await;
    assert_eq!(room.answer(ticket.line()).await, None);
    assert!(
        tickets::take(&*room.store, &node("hv1"), &ticket, room.machine.unix_s()).await.unwrap(),
        "unused"
    );
}

#[tokio::test]
async fn all_is_over_when_the_daemon_ends() {
    let room = Room::new(Limits::default()).await;
    room.fake.put(vm(1), FakeDisplay::Shows);
    let viewer = room.open(vm(1), 1).await;
    drop(room.service);
    assert!(is_closed(viewer).await);
}
