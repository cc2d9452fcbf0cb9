//! Guests that have a process and do not execute.

use pvc_host::hypervisor::{Activity, Halt, Hypervisor};

use super::*;

impl World {
    fn halt(&self, node: usize, n: u8, halt: Halt) {
        self.nodes[node].hypervisor.turn(id(n), Activity::Halted(halt));
    }

    async fn activity(&self, node: usize, n: u8) -> Option<Activity> {
        self.nodes[node].hypervisor.seen(id(n)).await.unwrap().map(|seen| seen.activity)
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_crashes_with_its_process_is_started_again_and_given_up_in_the_end() {
    let w = World::new().await;
    w.running(1).await;
    for starts in 2..=10 {
        w.halt(0, 1, Halt::Crashed);
        w.until("it is started again", 70, async |w| w.nodes[0].hypervisor.counts().start == starts).await;
        w.until("it runs", 5, async |w| w.activity(0, 1).await == Some(Activity::Running)).await;
    }
    w.halt(0, 1, Halt::Crashed);
    w.until_state(1, VmState::Failed, 5).await;
    assert!(w.vm(1).await.failed_reason.value.contains("10 times"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_somebody_or_an_error_has_stopped_is_left_alone_and_told() {
    for halt in [Halt::Paused, Halt::IoError, Halt::Watchdog, Halt::Asleep] {
        let w = World::new().await;
        w.running(1).await;
        let before = w.vm(1).await;
        w.halt(0, 1, halt);
        sleep(Duration::from_mins(5)).await;
        assert_eq!(w.activity(0, 1).await, Some(Activity::Halted(halt)));
        assert_eq!(w.vm(1).await, before);
        let said = schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().unwrap().unwrap();
        assert!(
            said.because.contains(halt.what()) && said.because.contains("left alone"),
            "{}",
            said.because
        );
        w.nodes[0].hypervisor.turn(id(1), Activity::Running);
        w.until("nothing is left to explain", 5, async |w| {
            schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().is_none()
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_or_restart_does_not_wait_for_a_guest_that_hears_nothing() {
    for halt in [Halt::Paused, Halt::IoError, Halt::Crashed, Halt::Asleep] {
        let w = World::new().await;
        for n in [1, 2] {
            w.running(n).await;
            w.halt(0, n, halt);
        }
        w.ask_for(1, VmState::Shutdown).await;
        w.ask_for(2, VmState::Restart).await;
        w.until_state(1, VmState::Stop, 5).await;
        w.until_state(2, VmState::Start, 5).await;
        assert_eq!(w.activity(0, 2).await, Some(Activity::Running), "{halt}");
        assert_eq!(w.nodes[0].hypervisor.counts().ask_to_shut_down, 0, "{halt}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_arrives_paused_and_the_answer_says_so_until_it_goes_on() {
    let w = World::new().await;
    w.running(1).await;
    w.halt(0, 1, Halt::Paused);
    w.migrate(1, "b").await;
    w.until_state(1, VmState::Start, 30).await;
    let vm = w.vm(1).await;
    assert!(vm.claim.value.is_only(&w.nodes[1].name) && vm.node.value == w.nodes[1].name, "{vm:?}");
    let reason = &vm.failed_reason.value;
    assert!(reason.contains("does not execute: it is paused") && reason.contains("on b"), "{reason}");
    sleep(Duration::from_mins(5)).await;
    assert_eq!(w.activity(1, 1).await, Some(Activity::Halted(Halt::Paused)));
    assert_eq!(w.nodes[1].hypervisor.counts().resume, 0);
    w.nodes[1].hypervisor.turn(id(1), Activity::Running);
    w.until("the reason is void", 5, async |w| w.vm(1).await.failed_reason.value.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_crashed_is_moved_by_an_end_and_a_start() {
    let w = World::new().await;
    w.running(1).await;
    w.migrate(1, "b").await;
    w.halt(0, 1, Halt::Crashed);
    w.until("it runs there", 30, async |w| w.activity(1, 1).await == Some(Activity::Running)).await;
    w.until_state(1, VmState::Start, 5).await;
    assert_eq!(w.activity(0, 1).await, None);
}
