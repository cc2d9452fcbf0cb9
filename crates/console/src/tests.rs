use std::time::Duration;

use pvc_core::model::{Claim, VmSet, VmState};
use pvc_host::hypervisor::{
    console::Place,
    fake::{FakeConsoles, FakeGuest},
};
use pvc_operate::{
    Cluster,
    testing::{Fake, id, name},
};
use tokio::time::timeout;

use super::*;

/// A VM, and the two nodes that it may be on.
struct Room {
    fake: Fake,
    consoles: Arc<FakeConsoles>,
}

fn nodes() -> Nodes {
    Nodes { here: Some(name("hv1")), domain: Some("cluster".to_owned()), ..Nodes::default() }
}

impl Room {
    /// It runs on hv1, where this client is, and echoes.
    async fn new() -> Self {
        let room = Self { fake: Fake::with(&["hv1", "hv2"]).await, consoles: Arc::default() };
        room.fake.define(1, "web1", "hv1").await;
        room.set(VmState::Start, "hv1").await;
        room.execute("hv1");
        room
    }

    /// What is desired, and who claims it.
    async fn set(&self, state: VmState, claim: &str) {
        let claim: Claim = claim.parse().unwrap();
        self.fake.change(1, vec![VmSet::State(state), VmSet::Claim(claim)]).await;
    }

    fn execute(&self, node: &str) {
        self.consoles.put(&place(node), id(1), FakeGuest::Echoes);
    }

    fn session(&self, hold: Hold, wait: bool) -> Session {
        self.begin(Wanted { vm: id(1), hold, wait, again: false })
    }

    fn begin(&self, wanted: Wanted) -> Session {
        let cluster = Cluster::new(self.fake.cluster.store.clone(), "memory");
        Session::begin(Arc::new(cluster), self.consoles.clone(), nodes(), wanted)
    }
}

fn place(node: &str) -> Place {
    nodes().place(&name(node))
}

/// What it tells next but what is printed, as text.
async fn told(session: &mut Session) -> String {
    loop {
        match timeout(Duration::from_mins(10), session.next()).await.expect("it tells something") {
            Event::Printed(_) => {}
            Event::Opened(line) => return format!("opened: {line}"),
            Event::Said(line) => return format!("said: {line}"),
            Event::Ended(Ok(line)) => return format!("ended: {line}"),
            Event::Ended(Err(failure)) => return format!("failed, {:?}: {failure}", failure.kind()),
        }
    }
}

/// Types, and waits for the echo.
async fn echoes(session: &mut Session, typed: &str) {
    assert!(session.write(typed.as_bytes()));
    printed(session, typed).await;
}

async fn printed(session: &mut Session, typed: &str) {
    let mut seen = String::new();
    while !seen.contains(&typed.to_uppercase()) {
        match timeout(Duration::from_mins(10), session.next()).await.expect("it prints") {
            Event::Printed(bytes) => seen.push_str(&String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_console_follows_its_guest_and_what_was_typed_meanwhile_goes_with_it() {
    let room = Room::new().await;
    let mut session = room.session(Hold::IfFree, false);
    assert_eq!(told(&mut session).await, "opened: VM web1 on hv1");
    echoes(&mut session, "here").await;
    room.set(VmState::Migrate, "hv1 hv2").await;
    echoes(&mut session, "still").await;
    // It hears of the end, and the guest is nowhere for a moment.
    room.consoles.remove(&place("hv1"), id(1));
    assert!(timeout(Duration::from_millis(1), session.next()).await.is_err());
    assert!(session.write(b"held"));
    room.execute("hv2");
    room.set(VmState::Start, "hv2").await;
    assert_eq!(told(&mut session).await, "opened: VM web1 has moved from hv1 to hv2");
    printed(&mut session, "held").await;
    echoes(&mut session, "there").await;
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_from_where_the_guest_was_goes_on_where_it_is() {
    let room = Room::new().await;
    let mut session = room.session(Hold::IfFree, false);
    told(&mut session).await;
    // Nothing is heard of hv1 any more, not even an end.
    room.execute("hv2");
    room.set(VmState::Start, "hv2").await;
    assert_eq!(told(&mut session).await, "opened: VM web1 has moved from hv1 to hv2");
    echoes(&mut session, "alive").await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ends_ends_the_console_in_order() {
    let room = Room::new().await;
    let mut session = room.session(Hold::IfFree, false);
    told(&mut session).await;
    room.consoles.remove(&place("hv1"), id(1));
    room.set(VmState::Shutdown, "hv1").await;
    assert_eq!(told(&mut session).await, "said: the console is closed: waiting until the VM executes again");
    room.set(VmState::Stop, "").await;
    assert_eq!(told(&mut session).await, "ended: VM web1 is off");
    let mut late = room.session(Hold::IfFree, false);
    let refused = told(&mut late).await;
    assert!(refused.starts_with("failed, Refused") && refused.contains("`pvc vm start web1`"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_sees_the_vm_go_and_come() {
    let room = Room::new().await;
    let mut session = room.session(Hold::IfFree, true);
    told(&mut session).await;
    room.consoles.remove(&place("hv1"), id(1));
    room.set(VmState::Stop, "").await;
    assert_eq!(told(&mut session).await, "said: VM web1 is off: waiting until it starts");
    // For as long as it takes, and what is typed to nobody is for nobody.
    let _ = session.write(b"rm -rf");
    assert!(timeout(Duration::from_mins(10), session.next()).await.is_err());
    room.execute("hv2");
    room.set(VmState::Start, "hv2").await;
    assert_eq!(told(&mut session).await, "opened: VM web1 has moved from hv1 to hv2");
    echoes(&mut session, "fresh").await;
}

#[tokio::test(start_paused = true)]
async fn of_two_clients_one_has_it_and_who_lost_it_does_not_take_it_back() {
    let room = Room::new().await;
    let mut first = room.session(Hold::IfFree, false);
    told(&mut first).await;
    let refused = told(&mut room.session(Hold::IfFree, false)).await;
    assert!(
        refused.contains("somebody has this console open") && refused.contains("--force web1"),
        "{refused}"
    );
    let mut second = room.session(Hold::Take, false);
    assert_eq!(told(&mut second).await, "opened: VM web1 on hv1");
    let lost = told(&mut first).await;
    assert!(lost.starts_with("failed, Failed: somebody else has taken"), "{lost}");
    echoes(&mut second, "mine").await;
}

/// The service of the API that it had it by has ended: libvirt may not have noticed yet.
#[tokio::test(start_paused = true)]
async fn who_has_lost_the_way_to_it_waits_until_it_is_free_and_hears_if_the_vm_is_off() {
    let room = Room::new().await;
    let mut lost = room.session(Hold::IfFree, false);
    told(&mut lost).await;
    let again = Wanted { vm: id(1), hold: Hold::IfFree, wait: false, again: true };
    let mut session = room.begin(again);
    assert!(told(&mut session).await.starts_with("said: the console is closed: waiting"));
    drop(lost);
    assert_eq!(told(&mut session).await, "opened: VM web1 on hv1");
    echoes(&mut session, "mine").await;
    drop(session);
    room.consoles.remove(&place("hv1"), id(1));
    room.set(VmState::Stop, "").await;
    assert_eq!(told(&mut room.begin(again)).await, "ended: VM web1 is off");
}

#[tokio::test(start_paused = true)]
async fn a_libvirt_that_is_away_for_a_moment_is_found_again_and_one_that_stays_away_is_told() {
    let room = Room::new().await;
    let mut session = room.session(Hold::IfFree, false);
    told(&mut session).await;
    room.consoles.set_reach(&place("hv1"), false);
    assert!(told(&mut session).await.starts_with("said: the console is closed"));
    let refused = told(&mut room.session(Hold::IfFree, false)).await;
    assert!(refused.starts_with("failed, Failed") && refused.contains("cannot be reached"), "{refused}");
    room.consoles.set_reach(&place("hv1"), true);
    assert_eq!(told(&mut session).await, "opened: VM web1 on hv1, as before");
    room.consoles.set_reach(&place("hv1"), false);
    assert!(told(&mut session).await.starts_with("said: "));
    let gave_up = told(&mut session).await;
    assert!(gave_up.contains("told to be down"), "{gave_up}");
}

#[tokio::test(start_paused = true)]
async fn what_its_definition_lacks_and_that_nobody_executes_it_is_said() {
    let room = Room::new().await;
    let bare = FakeGuest::Defined("<domain><devices/></domain>".into());
    room.consoles.put(&place("hv1"), id(1), bare);
    let refused = told(&mut room.session(Hold::IfFree, false)).await;
    assert!(refused.starts_with("failed, Refused") && refused.contains("<serial type='pty'>"), "{refused}");
    room.set(VmState::Start, "").await;
    let refused = told(&mut room.session(Hold::IfFree, false)).await;
    assert!(refused.contains("`pvc vm explain web1`"), "{refused}");
}

#[test]
fn this_machine_is_asked_through_its_socket_and_others_by_the_cluster_network() {
    assert_eq!(place("hv1"), Place::Here);
    assert!(matches!(place("hv2"), Place::Peer(peer) if peer.host == "hv2.cluster"));
    let bare = Nodes::default();
    assert!(matches!(bare.place(&name("hv1")), Place::Peer(peer) if peer.host == "hv1"));
}
