use pvc_core::model::{Claim, VmChange, VmId, VmKey, VmSet, VmState};
use pvc_host::{
    boot_note::FakeNote,
    hypervisor::{
        Halt, Seen,
        fake::{Answer, Behaviour, FakeHypervisor, Outcome, Reach},
    },
    machine::FakeMachine,
};
use pvc_store::{
    CreateMode, Op, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema::{owner::Owner, root},
};
use tokio::time::{Instant, sleep};

use super::*;

fn id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn guest(n: u8, activity: Activity) -> Seen {
    Seen { id: id(n), name: format!("vm{n}"), activity, memory_mib: 64, vcpus: 1 }
}

struct World {
    store: Arc<MemoryStore>,
    hypervisor: Arc<FakeHypervisor>,
    note: Arc<FakeNote>,
}

impl World {
    async fn new() -> Self {
        let store = MemoryTree::new().client();
        root::init(&*store).await.unwrap();
        let note = Arc::new(FakeNote::default());
        note.leave().unwrap();
        Self { store, hypervisor: FakeHypervisor::new(), note }
    }

    /// VM number `n` is to run on `on`, claimed by `claim`, and executes here, on `a`.
    async fn stray(&self, n: u8, on: &str, claim: &str) {
        let name = format!("vm{n}").parse().unwrap();
        let xml = "<domain/>".to_owned();
        let define = VmChange::Define { id: id(n), name, node: node(on), xml, rbd_images: vec![] };
        schema::vm::apply(&*self.store, &define).await.unwrap();
        let claim: Claim = claim.parse().unwrap();
        let set = vec![VmSet::State(VmState::Start), VmSet::Claim(claim)];
        let change = VmChange::Update { id: id(n), expect: vec![], set };
        schema::vm::apply(&*self.store, &change).await.unwrap();
        self.hypervisor.put(guest(n, Activity::Running));
    }

    /// The machine has booted anew.
    fn boots(&mut self) {
        self.note = Arc::default();
    }

    async fn watch(&self) -> Strangers {
        let mut strangers = Strangers::watch(Dependencies {
            me: node("a"),
            boot: "this boot".into(),
            note: self.note.clone(),
            ownership: self.ownership("a", "this boot"),
            store: self.store.clone(),
            hypervisor: self.hypervisor.clone(),
        });
        strangers.first_look().await;
        strangers
    }

    /// This machine's request to be called so, in a boot.
    fn ownership(&self, name: &str, boot: &str) -> Arc<Ownership> {
        let me = Owner {
            host: name.into(),
            boot: boot.into(),
            pid_namespace: String::new(),
            pid: 1,
            started: 1,
            instance: format!("{name} in {boot}"),
            version: None,
        };
        let machine = Arc::new(FakeMachine::default());
        Arc::new(Ownership::new(self.store.clone(), machine, node(name), me))
    }

    /// A machine takes a name, and its session ends.
    async fn has_had(&self, name: &str, boot: &str) {
        let ownership = self.ownership(name, boot);
        ownership.take().await.unwrap();
        let ends = Op::Delete { path: format!("/pvc/daemon/{name}"), version: None };
        self.store.commit(Transaction { ops: vec![ends] }).await.unwrap();
    }

    async fn activity(&self, n: u8) -> Activity {
        self.hypervisor.seen(id(n)).await.unwrap().unwrap().activity
    }
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_another_node_for_certain_is_suspended_at_once_and_nothing_else_is_touched() {
    let w = World::new().await;
    for (n, on, claim) in [(1, "a", "b"), (2, "b", ""), (3, "b", "b c"), (7, "a", "b a")] {
        w.stray(n, on, claim).await;
    }
    for (n, on, claim) in [(4, "a", "a"), (5, "a", ""), (6, "b", "a"), (11, "b", "a b")] {
        w.stray(n, on, claim).await;
    }
    w.hypervisor.put(guest(8, Activity::Running));
    w.stray(9, "b", "b").await;
    w.hypervisor.turn(id(9), Activity::Halted(Halt::Paused));
    for (n, key) in [(10, VmKey::Claim), (12, VmKey::State)] {
        w.stray(n, "b", "b").await;
        let path = schema::vm::key_path(id(n), key);
        let broken = Op::Set { path, data: b"non sense!".to_vec(), version: None };
        w.store.commit(Transaction { ops: vec![broken] }).await.unwrap();
    }

    let began = Instant::now();
    let _watch = w.watch().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    for n in [1, 2, 3, 7] {
        assert_eq!(w.activity(n).await, Activity::Suspended(Suspension::Elsewhere), "vm{n}");
    }
    for n in [4, 5, 6, 8, 11] {
        assert_eq!(w.activity(n).await, Activity::Running, "vm{n}");
    }
    assert_eq!(w.activity(9).await, Activity::Halted(Halt::Paused), "an operator's pause is his");
    assert_eq!(w.activity(10).await, Activity::Running, "who has it cannot be read: it is left alone");
    assert_eq!(
        w.activity(12).await,
        Activity::Suspended(Suspension::Elsewhere),
        "only the desired state cannot be read: b has it"
    );
    let counts = w.hypervisor.counts();
    assert_eq!((counts.suspend, counts.power_off), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn what_appears_meanwhile_is_suspended_and_a_libvirt_or_store_that_is_away_holds_up_the_start_for_three_seconds()
 {
    let w = World::new().await;
    w.stray(1, "b", "b").await;
    w.hypervisor.set_reach(Reach::Down);
    let began = Instant::now();
    let watch = w.watch().await;
    assert_eq!(began.elapsed(), FIRST_LOOK);
    w.hypervisor.set_reach(Reach::Up);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(w.activity(1).await, Activity::Suspended(Suspension::Elsewhere));
    w.stray(2, "b", "b").await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(w.activity(2).await, Activity::Suspended(Suspension::Elsewhere));
    drop(watch);
    w.stray(3, "b", "b").await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(w.activity(3).await, Activity::Running, "the reconcilers' to see");

    w.store.refuse(2);
    let began = Instant::now();
    let _watch = w.watch().await;
    assert!(began.elapsed() <= FIRST_LOOK, "{:?}", began.elapsed());
    assert_eq!(w.activity(3).await, Activity::Suspended(Suspension::Elsewhere));
}

#[tokio::test(start_paused = true)]
async fn what_a_name_claims_that_another_machine_has_taken_is_ended_and_not_only_suspended() {
    let world = World::new().await;
    world.has_had("a", "this boot").await;
    world.stray(1, "a", "a").await;
    let watch = world.watch().await;
    assert_eq!(world.activity(1).await, Activity::Running, "it is its own");
    drop(watch);
    // Nothing claims the name for a moment, in which another machine takes it.
    let claim = |claim: &str| {
        let set = vec![VmSet::Claim(claim.parse().unwrap())];
        VmChange::Update { id: id(1), expect: vec![], set }
    };
    schema::vm::apply(&*world.store, &claim("")).await.unwrap();
    world.has_had("a", "another boot").await;
    schema::vm::apply(&*world.store, &claim("a")).await.unwrap();
    let _watch = world.watch().await;
    assert_eq!(world.hypervisor.seen(id(1)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_another_name_of_this_machine_claims_is_its_own() {
    let world = World::new().await;
    world.has_had("b", "this boot").await;
    world.has_had("c", "another boot").await;
    world.stray(1, "b", "b").await;
    world.stray(2, "c", "c").await;
    let _watch = world.watch().await;
    assert_eq!(world.activity(1).await, Activity::Running);
    assert_eq!(world.activity(2).await, Activity::Suspended(Suspension::Elsewhere));
}

const UNREAD: Activity = Activity::Suspended(Suspension::Unread);

#[tokio::test(start_paused = true)]
async fn in_a_new_boot_all_that_executes_is_suspended_while_the_tree_cannot_be_read_and_nothing_in_one_that_has_read_it()
 {
    let mut w = World::new().await;
    w.stray(1, "a", "a").await;
    w.hypervisor.put(guest(2, Activity::Running));
    w.hypervisor.put(guest(3, Activity::Halted(Halt::Paused)));
    w.store.suspend();
    // An upgrade while ZooKeeper is away.
    drop(w.watch().await);
    assert_eq!(w.hypervisor.counts().suspend, 0);

    w.boots();
    let watch = w.watch().await;
    assert_eq!((w.activity(1).await, w.activity(2).await), (UNREAD, UNREAD));
    assert_eq!(w.activity(3).await, Activity::Halted(Halt::Paused), "an operator's pause is his");
    // By hand, while it is still away; and an operator's `resume`.
    w.hypervisor.put(guest(4, Activity::Running));
    w.hypervisor.turn(id(1), Activity::Running);
    sleep(Duration::from_millis(10)).await;
    assert_eq!((w.activity(1).await, w.activity(4).await), (UNREAD, UNREAD));
    // That daemon ends before it has read the tree: the next one knows no more.
    drop(watch);
    w.hypervisor.put(guest(5, Activity::Running));
    let watch = w.watch().await;
    assert_eq!(w.activity(5).await, UNREAD);

    watch.tree_is_read();
    w.hypervisor.turn(id(1), Activity::Running);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(w.activity(1).await, Activity::Running, "whether it may is known now");
    drop(watch);
    drop(w.watch().await);
    assert_eq!(w.activity(1).await, Activity::Running, "and so it is until the machine boots again");
    w.boots();
    drop(w.watch().await);
    assert_eq!(w.activity(1).await, UNREAD);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_can_be_read_saves_what_it_does_not_have_from_that_and_all_in_a_boot_that_it_knows() {
    let mut w = World::new().await;
    w.boots();
    w.stray(1, "a", "a").await;
    w.stray(2, "b", "b").await;
    w.hypervisor.put(guest(3, Activity::Running));
    drop(w.watch().await);
    assert_eq!(w.activity(1).await, UNREAD, "the claim is of the boot before, which may be proven dead");
    assert_eq!(w.activity(2).await, Activity::Suspended(Suspension::Elsewhere));
    assert_eq!(w.activity(3).await, Activity::Running, "its operator's own");

    // A daemon that left no note, as those of earlier versions, has registered this boot.
    let registered = |boot: &str| {
        let create = |path: &str, data: &str| Op::Create {
            path: path.into(),
            data: data.into(),
            mode: CreateMode::Persistent,
        };
        vec![create("/nodes/a", "coordinator"), create("/nodes/a/boot", boot)]
    };
    w.store.commit(Transaction { ops: registered("this boot") }).await.unwrap();
    w.hypervisor.turn(id(1), Activity::Running);
    drop(w.watch().await);
    assert_eq!(w.activity(1).await, Activity::Running);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_within_a_second_suspends_nothing_blindly_and_a_late_libvirt_is_asked_again() {
    let mut w = World::new().await;
    w.boots();
    w.hypervisor.put(guest(1, Activity::Running));
    w.store.suspend();
    let strangers = w.watch();
    let answers = async {
        sleep(Duration::from_millis(900)).await;
        w.store.resume();
    };
    let (strangers, ()) = tokio::join!(strangers, answers);
    drop(strangers);
    assert_eq!(w.activity(1).await, Activity::Running);

    w.store.suspend();
    w.hypervisor.set_reach(Reach::Down);
    let _watch = w.watch().await;
    w.hypervisor.set_reach(Reach::Up);
    sleep(LOOK_AGAIN).await;
    assert_eq!(w.activity(1).await, UNREAD);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_cannot_be_suspended_keeps_no_other_from_being_suspended() {
    let mut w = World::new().await;
    w.boots();
    w.store.suspend();
    let answers =
        [Outcome::Hangs, Outcome::Refused("another job is under way".into()), Outcome::Done, Outcome::Done];
    for (n, outcome) in (1..).zip(answers) {
        let suspend = Answer { outcome, ..Answer::default() };
        w.hypervisor.behave(id(n), Behaviour { suspend, ..Behaviour::default() });
    }
    let suspended = async |w: &World, others: Activity| {
        for (n, expected) in [(1, Activity::Running), (2, Activity::Running), (3, others), (4, others)] {
            assert_eq!(w.activity(n).await, expected, "vm{n}");
        }
    };
    for n in 1..=4 {
        w.hypervisor.put(guest(n, Activity::Running));
    }
    drop(w.watch().await);
    suspended(&w, UNREAD).await;

    // The same where the tree can be read and gives them to another node; and that one fails is no reason to suspend all.
    w.store.resume();
    for n in 1..=4 {
        w.stray(n, "b", "b").await;
    }
    w.hypervisor.put(guest(5, Activity::Running));
    drop(w.watch().await);
    suspended(&w, Activity::Suspended(Suspension::Elsewhere)).await;
    assert_eq!(w.activity(5).await, Activity::Running);
}

#[tokio::test(start_paused = true)]
async fn what_the_tree_does_not_have_goes_on_when_that_can_be_read_whoever_has_the_nodes_name() {
    let mut w = World::new().await;
    w.has_had("a", "another boot").await;
    w.boots();
    w.stray(1, "a", "a").await;
    w.stray(2, "b", "b").await;
    for n in 3..=5 {
        w.hypervisor.put(guest(n, Activity::Running));
    }
    // Undefined while it was claimed.
    let claim = Op::Create {
        path: schema::vm::key_path(id(3), VmKey::Claim),
        data: b"?!".to_vec(),
        mode: CreateMode::Persistent,
    };
    w.store.commit(Transaction { ops: vec![claim] }).await.unwrap();
    w.store.suspend();
    let _watch = w.watch().await;
    for n in 1..=5 {
        assert_eq!(w.activity(n).await, UNREAD, "vm{n}");
    }
    w.hypervisor.turn(id(5), Activity::Suspended(Suspension::Elsewhere));
    w.store.resume();
    sleep(LOOK_AGAIN).await;
    assert_eq!(w.hypervisor.seen(id(1)).await.unwrap(), None, "another machine has its name");
    for (n, expected) in
        [(2, UNREAD), (3, UNREAD), (4, Activity::Running), (5, Activity::Suspended(Suspension::Elsewhere))]
    {
        assert_eq!(w.activity(n).await, expected, "vm{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_new_boot_what_is_claimed_without_being_in_the_tree_is_suspended_and_one_unreadable_key_costs_nobody_else()
 {
    let tree = MemoryTree::new();
    let store = tree.client();
    root::init(&*store).await.unwrap();
    let w = World { store, hypervisor: FakeHypervisor::new(), note: Arc::default() };
    w.stray(1, "a", "a").await;
    w.hypervisor.put(guest(2, Activity::Running));
    w.hypervisor.put(guest(3, Activity::Running));
    // Somebody undefines it here and is about to define it anew elsewhere.
    let claim = schema::vm::key_path(id(2), VmKey::Claim);
    let create = Op::Create { path: claim, data: b"b".to_vec(), mode: CreateMode::Persistent };
    w.store.commit(Transaction { ops: vec![create] }).await.unwrap();
    tree.forbid("/pvc/machine/a", true);
    let _watch = w.watch().await;
    for _ in 0..5 {
        assert_eq!((w.activity(1).await, w.activity(2).await), (UNREAD, UNREAD));
        assert_eq!(w.activity(3).await, Activity::Running);
        sleep(LOOK_AGAIN).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_gone_lets_nothing_go_on() {
    let mut w = World::new().await;
    w.boots();
    w.store = MemoryTree::new().client();
    w.hypervisor.put(guest(1, Activity::Suspended(Suspension::Unread)));
    w.hypervisor.put(guest(2, Activity::Running));
    let _watch = w.watch().await;
    assert_eq!((w.activity(1).await, w.activity(2).await), (UNREAD, Activity::Running));
}
