//! Live migrations of two nodes' reconcilers, with every failure that the fakes can play.

use pvc_core::model::{DaemonState, DomainState};
use pvc_host::hypervisor::{
    Activity, Halt, Hypervisor, Seen,
    fake::{Journey, Switch},
};

use super::*;

mod targets;

const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// As old clients write it.
    pub(super) async fn migrate(&self, n: u8, to: &str) {
        let from = self.vm(n).await.node.value;
        self.set(
            n,
            vec![
                VmSet::State(VmState::Migrate),
                VmSet::Node(to.parse().unwrap()),
                VmSet::LastNode(Some(from)),
            ],
        )
        .await;
    }

    fn journey(&self, node: usize, journey: Journey) {
        self.nodes[node].hypervisor.behave(id(1), Behaviour { journey, ..Behaviour::default() });
    }

    async fn method(&self, method: &str) {
        let path = schema::vm::migration_method_path(id(1));
        let mut txn = pvc_store::Transaction::default();
        txn.ops.push(pvc_store::Op::Create {
            path,
            data: method.into(),
            mode: pvc_store::CreateMode::Persistent,
        });
        self.operator.commit(txn).await.unwrap();
    }

    /// It is answered, executes there, and the claim says so.
    async fn until_at_home(&self, node: usize, within_s: u64) {
        let name = self.nodes[node].name.clone();
        self.until(&format!("it is at home on {name}"), within_s, async |w| {
            let vm = w.vm(1).await;
            vm.state.value == VmState::Start
                && vm.node.value == name
                && vm.claim.value.is_only(&name)
                && w.runs(node, 1)
                && !w.nodes[1 - node].hypervisor.running().contains(&id(1))
        })
        .await;
    }

    /// Whether a process of VM 1 is there.
    fn is_there(&self, node: usize) -> bool {
        self.nodes[node].hypervisor.running().contains(&id(1))
    }

    async fn explained(&self) -> String {
        match schema::vm::read_explanation(&*self.operator, id(1)).await.unwrap() {
            Some(explanation) => explanation.unwrap().because,
            None => String::new(),
        }
    }
}

/// One that takes four seconds and holds the guest for two of them.
fn slow() -> Journey {
    Journey { copying: Some(2 * SECOND), pause: 2 * SECOND, ..Journey::default() }
}

#[tokio::test(start_paused = true)]
async fn a_migration_moves_guest_claim_and_answer_and_nothing_is_started_or_ended() {
    let w = World::new().await;
    w.running(1).await;
    w.migrate(1, "b").await;
    w.until_at_home(1, 2).await;
    w.migrate(1, "a").await;
    w.until_at_home(0, 2).await;
    let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
    assert_eq!((a.migrate, b.migrate, a.start, b.start), (1, 1, 1, 0));
    assert_eq!((a.power_off, b.power_off, a.ask_to_shut_down, b.ask_to_shut_down), (0, 0, 0, 0));
    w.until("nothing is left to explain", 2, async |w| w.explained().await.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn progress_is_explained_while_it_lasts() {
    let w = World::new().await;
    w.running(1).await;
    w.journey(0, Journey { copying: Some(10 * SECOND), ..Journey::default() });
    w.migrate(1, "b").await;
    w.until("half of it is copied", 10, async |w| {
        w.explained().await.contains("migrating to b: 50 % copied in 5 s")
    })
    .await;
    assert!(w.vm(1).await.claim.value.to_string() == "a b");
    w.until_at_home(1, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_desired_state_ends_a_migration_at_any_time_and_is_done_on_the_right_side() {
    for after_ms in (0..4500).step_by(250) {
        for (state, node) in
            [(VmState::Start, "a"), (VmState::Migrate, "a"), (VmState::Stop, "a"), (VmState::Start, "b")]
        {
            let w = World::new().await;
            w.running(1).await;
            w.journey(0, slow());
            w.migrate(1, "b").await;
            sleep(Duration::from_millis(after_ms)).await;
            w.set(1, vec![VmSet::State(state), VmSet::Node(node.parse().unwrap())]).await;
            if state == VmState::Stop {
                w.until("it is off", 20, async |w| {
                    w.nodes.iter().all(|n| n.hypervisor.running().is_empty())
                        && w.vm(1).await.claim.value.is_empty()
                })
                .await;
            } else {
                w.until_at_home(usize::from(node == "b"), 20).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_killed_during_a_migration_leaves_it_to_libvirt_and_answers_later() {
    for after_ms in (0..4500).step_by(250) {
        for node in [0, 1] {
            let mut w = World::new().await;
            w.running(1).await;
            w.journey(0, slow());
            w.migrate(1, "b").await;
            sleep(Duration::from_millis(after_ms)).await;
            w.nodes[node].kill();
            sleep(Duration::from_millis(300)).await;
            w.nodes[node].start();
            w.until_at_home(1, 20).await;
            let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
            assert_eq!((a.start + b.start, a.power_off + b.power_off), (1, 0), "after {after_ms} ms");
            assert!(a.migrate <= 1, "what goes on is not begun again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_libvirt_that_ends_during_a_migration_costs_no_guest_and_the_desired_state_is_done() {
    for after_ms in (0..4500).step_by(250) {
        for (node, cut_at_switch) in [(0, Switch::Arrived), (0, Switch::Lost), (1, Switch::Arrived)] {
            let w = World::new().await;
            w.running(1).await;
            w.journey(0, Journey { cut_at_switch, ..slow() });
            w.migrate(1, "b").await;
            sleep(Duration::from_millis(after_ms)).await;
            w.nodes[node].hypervisor.set_reach(Reach::Down);
            sleep(Duration::from_millis(1500)).await;
            w.nodes[node].hypervisor.set_reach(Reach::Up);
            w.until_at_home(1, 60).await;
            let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
            assert_eq!(
                a.start + b.start,
                1,
                "after {after_ms} ms, {node} {cut_at_switch:?}: the guest went on"
            );
            assert_eq!(a.ask_to_shut_down, 0);
        }
    }
}

/// libvirt says of a process that is being made ready for a guest that it is paused, and not by a migration; and so does one that
/// was restarted and has not found out yet what it has.
#[tokio::test(start_paused = true)]
async fn what_is_paused_at_the_target_does_not_execute_and_ends_nothing_at_the_source() {
    let mut w = World::new().await;
    w.running(1).await;
    // A daemon that was killed while it migrated; the migration has failed since.
    w.nodes[0].kill();
    let arriving = w.nodes[0].hypervisor.seen(id(1)).await.unwrap().unwrap();
    w.nodes[1].hypervisor.put(Seen { activity: Activity::Halted(Halt::Paused), ..arriving });
    w.migrate(1, "b").await;
    w.set(1, vec![VmSet::Claim("a b".parse().unwrap())]).await;
    w.nodes[0].start();
    // The source gives it some time to end by itself; then the target ends it, and the migration is done after all.
    let began = Instant::now();
    while w.nodes[1].hypervisor.seen(id(1)).await.unwrap().is_some_and(|seen| seen.activity.halt().is_some())
    {
        assert!(began.elapsed() < 10 * SECOND && w.runs(0, 1), "{:?}", began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    w.until_at_home(1, 60).await;
    let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
    assert_eq!((a.start + b.start, a.power_off), (1, 0), "the guest went on");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_dies_leaves_the_guest_where_it_was_and_the_desired_state_is_answered_there() {
    for after_ms in (0..3750).step_by(250) {
        let mut w = World::new().await;
        w.running(1).await;
        w.journey(0, slow());
        w.migrate(1, "b").await;
        sleep(Duration::from_millis(after_ms)).await;
        w.nodes[1].kill();
        w.nodes[1].hypervisor.die();
        sleep(40 * SECOND).await;
        let claim = w.vm(1).await.claim.value;
        assert!(claim.names(&w.nodes[0].name), "{claim}");
        assert!(w.runs(0, 1), "after {after_ms} ms: it goes on at its source");
        // What the fence of b leaves: its proof takes b out of claims.
        let dead = &w.nodes[1].name;
        w.operator.commit(schema::node::set_daemon_state(dead, DaemonState::Dead)).await.unwrap();
        if claim.names(dead) {
            w.set(1, vec![VmSet::Claim(claim.without(dead))]).await;
        }
        w.until_at_home(0, 60).await;
        let vm = w.vm(1).await;
        assert!(vm.failed_reason.value.contains("not migrated to b"), "{}", vm.failed_reason.value);
        assert_eq!(vm.last_node.value, None, "it is at home");
        assert_eq!(w.nodes[0].hypervisor.counts().start, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_dies_leaves_the_vm_to_the_target_once_it_is_fenced_and_no_copy_of_unknown_age_goes_on()
{
    for after_ms in (0..4500).step_by(250) {
        for cut_at_switch in [Switch::Arrived, Switch::Lost] {
            let mut w = World::new().await;
            w.running(1).await;
            w.journey(0, Journey { cut_at_switch, ..slow() });
            w.migrate(1, "b").await;
            sleep(Duration::from_millis(after_ms)).await;
            w.nodes[0].kill();
            w.nodes[0].hypervisor.die();
            let answered = w.vm(1).await.state.value == VmState::Start;
            let goes_on = w.runs(1, 1);
            sleep(30 * SECOND).await;
            let vm = w.vm(1).await;
            if !answered {
                assert_eq!(w.nodes[1].hypervisor.counts().start, 0, "nothing starts before the proof");
            }
            let claim = vm.claim.value.after_the_end_on(&w.nodes[0].name);
            w.set(1, vec![VmSet::Claim(claim)]).await;
            w.until_at_home(1, 20).await;
            let started = w.nodes[1].hypervisor.counts().start;
            assert_eq!(
                started == 0,
                goes_on,
                "after {after_ms} ms: what was not handed over is started anew"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_fails_in_the_middle_is_waited_for_and_the_migration_done_again() {
    for after_ms in (0..4500).step_by(500) {
        let w = World::new().await;
        w.running(1).await;
        w.journey(0, slow());
        w.migrate(1, "b").await;
        sleep(Duration::from_millis(after_ms)).await;
        w.fabric.cut("a.cluster", "b.cluster");
        sleep(10 * SECOND).await;
        w.fabric.mend("a.cluster", "b.cluster");
        w.until_at_home(1, 60).await;
        let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
        assert_eq!((a.start + b.start, a.ask_to_shut_down), (1, 0), "after {after_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_migration_is_answered_as_the_policy_says() {
    for (method, home, asked) in [("live", 0, 0), ("none", 1, 1), ("shutdown", 1, 1)] {
        let w = World::new().await;
        w.running(1).await;
        w.method(method).await;
        let outcome = Outcome::Refused("the CPU of the target lacks avx512".into());
        let journey = Journey { outcome, ..Journey::default() };
        let power_button = PowerButton::Obeyed(3 * SECOND);
        w.nodes[0].hypervisor.behave(id(1), Behaviour { journey, power_button, ..Behaviour::default() });
        w.migrate(1, "b").await;
        w.until_at_home(home, 30).await;
        let (vm, counts) = (w.vm(1).await, w.nodes[0].hypervisor.counts());
        assert_eq!(counts.ask_to_shut_down, asked, "{method}");
        assert_eq!(counts.migrate, if method == "shutdown" { 0 } else { 2 }, "{method}");
        let reason = vm.failed_reason.value;
        assert_eq!(reason.contains("lacks avx512"), method == "live", "{reason}");
        if method == "live" {
            sleep(10 * SECOND).await;
            assert_eq!(w.vm(1).await.failed_reason.value, reason, "it is kept until the next desired state");
            w.ask_for(1, VmState::Start).await;
            w.until("then it is void", 5, async |w| w.vm(1).await.failed_reason.value.is_empty()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_switch_leaves_the_guest_where_it_was() {
    let w = World::new().await;
    w.running(1).await;
    w.method("live").await;
    w.journey(0, Journey { fails_at_switch: true, ..slow() });
    w.migrate(1, "b").await;
    w.until_at_home(0, 30).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1);
    assert!(w.vm(1).await.failed_reason.value.contains("could not be resumed"));
}

#[tokio::test(start_paused = true)]
async fn a_last_answer_that_is_lost_costs_time_and_no_guest_and_the_migration_is_done_again() {
    for killed in [None, Some(0), Some(1)] {
        let mut w = World::new().await;
        w.running(1).await;
        w.journey(0, Journey { reply_lost: Some(8 * SECOND), ..slow() });
        w.migrate(1, "b").await;
        w.until("all of it is there", 10, async |w| w.is_there(1) && !w.runs(0, 1)).await;
        sleep(SECOND).await;
        assert!(!w.runs(1, 1), "it goes on without having been handed over");
        if let Some(node) = killed {
            w.nodes[node].kill();
            sleep(SECOND).await;
            w.nodes[node].start();
        }
        w.until("it goes on at its source", 10, async |w| w.runs(0, 1)).await;
        assert!(!w.runs(1, 1));
        w.journey(0, slow());
        w.until_at_home(1, 60).await;
        let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
        assert_eq!((a.start + b.start, a.power_off), (1, 0), "{killed:?} was killed: the guest went on");
    }
}

/// libvirt lets the guest go on at its source, and there it ends, before anybody has looked: what the target has is older than the disks.
#[tokio::test(start_paused = true)]
async fn a_guest_that_went_on_at_its_source_and_ended_there_is_started_anew() {
    let mut w = World::new().await;
    w.running(1).await;
    w.journey(0, Journey { reply_lost: Some(2 * SECOND), ..slow() });
    w.migrate(1, "b").await;
    w.until("all of it is there", 10, async |w| w.is_there(1) && !w.runs(0, 1)).await;
    w.nodes[0].kill();
    w.until("it goes on at its source", 10, async |w| w.runs(0, 1)).await;
    w.nodes[0].hypervisor.vanish(id(1));
    w.nodes[0].start();
    w.until_at_home(1, 20).await;
    let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
    assert_eq!((a.start, b.start, b.power_off), (1, 1, 1), "the copy was ended, and the guest started");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_has_left_is_handed_over_before_its_process_has_ended_and_by_the_next_daemon_too() {
    for killed in [false, true] {
        let mut w = World::new().await;
        w.running(1).await;
        let pause = Duration::from_millis(100);
        let times = Journey { copying: Some(2 * SECOND), pause, teardown: 10 * SECOND, ..Journey::default() };
        w.journey(0, times);
        w.migrate(1, "b").await;
        if killed {
            sleep(SECOND).await;
            w.nodes[0].kill();
            sleep(3 * SECOND).await;
            assert!(!w.runs(0, 1) && !w.runs(1, 1));
            w.nodes[0].start();
        }
        w.until("it goes on", 3, async |w| w.runs(1, 1)).await;
        w.until_at_home(1, 20).await;
        let (a, b) = (w.nodes[0].hypervisor.counts(), w.nodes[1].hypervisor.counts());
        assert_eq!((a.start, b.start, b.power_off), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_not_waited_for_longer_than_the_migration() {
    let w = World::new().await;
    w.running(1).await;
    w.journey(0, Journey { outcome: Outcome::Lost, ..slow() });
    w.migrate(1, "b").await;
    w.until("it executes there", 10, async |w| w.runs(1, 1)).await;
    w.until_at_home(1, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_without_an_end_is_aborted() {
    for (outcome, copying, why) in [
        (Outcome::Done, None, "changes its memory faster"),
        (Outcome::Hangs, Some(Duration::ZERO), "canceled by client"),
    ] {
        let w = World::new().await;
        w.running(1).await;
        w.method("live").await;
        w.journey(0, Journey { outcome, copying, ..Journey::default() });
        w.migrate(1, "b").await;
        w.until_at_home(0, 120).await;
        let reason = w.vm(1).await.failed_reason.value;
        assert!(reason.contains(why), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_arrives_while_the_store_is_away_waits_for_it() {
    for node in [0, 1] {
        let w = World::new().await;
        w.running(1).await;
        w.journey(0, slow());
        w.migrate(1, "b").await;
        w.until("it is under way", 2, async |w| w.nodes[0].hypervisor.counts().migrate == 1).await;
        w.nodes[node].store.suspend();
        sleep(20 * SECOND).await;
        assert!(w.is_there(1) && !w.runs(0, 1) && !w.runs(1, 1));
        w.nodes[node].store.resume();
        w.until_at_home(1, 10).await;
        assert_eq!(w.nodes[1].hypervisor.counts().start, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn many_migrate_but_only_four_at_once() {
    let w = World::new().await;
    for n in 1..=6 {
        w.running(n).await;
    }
    for n in 1..=6 {
        w.nodes[0].hypervisor.behave(id(n), Behaviour { journey: slow(), ..Behaviour::default() });
        w.migrate(n, "b").await;
    }
    w.until("all have arrived", 20, async |w| {
        let (local_state, peer_state) = (&w.nodes[0].hypervisor, &w.nodes[1].hypervisor);
        let under_way = local_state.running().iter().filter(|vm| peer_state.running().contains(vm)).count();
        assert!(under_way <= 4, "{under_way} at once");
        let mut all = true;
        for n in 1..=6 {
            let vm = w.vm(n).await;
            all &= w.runs(1, n) && vm.state.value == VmState::Start && vm.claim.value.to_string() == "b";
        }
        all
    })
    .await;
}

/// `b` refuses to start VM 1.
fn refuse_at(w: &World, node: usize, why: &str) {
    let start = Answer { outcome: Outcome::Refused(why.into()), ..Answer::default() };
    w.nodes[node].hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
}
