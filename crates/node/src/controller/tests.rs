//! The engine over a kind of object that does what it is told, on a paused clock.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use pvc_core::plan::Next;
use pvc_host::machine::FakeMachine;
use pvc_store::{Store, memory::MemoryTree, mirror::Mirror, schema};
use tokio::time::sleep;

use super::*;

const STEP: Duration = Duration::from_secs(1);

/// Nodes that are to be counted up.
#[derive(Default)]
struct Counters {
    /// How many steps each has to go.
    to_go: Mutex<Vec<usize>>,
    outcomes: Mutex<Vec<StepError>>,
    observed: Mutex<Vec<(Instant, Freshness)>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

fn subject(n: usize) -> Subject {
    Subject::Node(format!("n{n}").parse().unwrap())
}

fn number(subject: &Subject) -> usize {
    let Subject::Node(name) = subject else { panic!("{subject}") };
    name.as_str()[1..].parse().unwrap()
}

#[async_trait]
impl Reconciler for Counters {
    type Facts = usize;
    type Step = ();

    const KIND: &'static str = "counter";
    const AT_ONCE: usize = 2;
    const RETRY: Retry = Retry { first: Duration::from_secs(1), longest: Duration::from_secs(4) };

    fn cluster(&self) -> Option<&Cluster> {
        None
    }

    fn subjects(&self) -> Vec<Subject> {
        (0..self.to_go.lock().unwrap().len()).map(subject).collect()
    }

    async fn observe(&self, subject: &Subject, freshness: Freshness) -> Result<usize, StepError> {
        self.observed.lock().unwrap().push((Instant::now(), freshness));
        Ok(self.to_go.lock().unwrap()[number(subject)])
    }

    fn plan(&self, _subject: &Subject, to_go: &mut usize) -> Plan<()> {
        let next = if *to_go == 0 { Next::Settled } else { Next::Do(()) };
        Plan { next, why: String::new() }
    }

    fn freshness(&self, _step: &()) -> Freshness {
        Freshness::Confirmed
    }

    async fn apply(
        &self,
        subject: &Subject,
        _step: &(),
        _facts: &usize,
        _why: &str,
    ) -> Result<(), StepError> {
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
        sleep(STEP).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        if let Some(error) = self.outcomes.lock().unwrap().pop() {
            return Err(error);
        }
        self.to_go.lock().unwrap()[number(subject)] -= 1;
        Ok(())
    }
}

fn start(to_go: Vec<usize>, outcomes: Vec<StepError>) -> (Arc<Counters>, Controller<Counters>) {
    let counters = Arc::new(Counters {
        to_go: Mutex::new(to_go),
        outcomes: Mutex::new(outcomes),
        ..Counters::default()
    });
    (Arc::clone(&counters), Controller::start(counters))
}

impl Counters {
    fn left(&self) -> usize {
        self.to_go.lock().unwrap().iter().sum()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_step_is_decided_from_gets_fresher_degree_by_degree() {
    use Freshness::{Confirmed, Known, Observed};
    let (counters, _controller) = start(vec![1], vec![]);
    sleep(2 * STEP).await;
    let observed: Vec<Freshness> = counters.observed.lock().unwrap().iter().map(|(_, how)| *how).collect();
    assert_eq!(observed, [Known, Observed, Confirmed, Known], "and what is settled is only glanced at");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_subjects_are_looked_at_side_by_side() {
    let (counters, _controller) = start(vec![2; 5], vec![]);
    sleep(7 * STEP).await;
    assert_eq!((counters.left(), counters.most_at_once.load(Ordering::Relaxed)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failure_doubles_and_a_conflict_has_none() {
    let failed = || StepError::Failed("no".to_owned());
    let conflict = StepError::Conflict("key".to_owned());
    let (counters, _controller) = start(vec![1], vec![failed(), conflict, failed(), failed(), failed()]);
    let began = Instant::now();
    sleep(30 * STEP).await;
    let mut seconds: Vec<u64> =
        counters.observed.lock().unwrap().iter().map(|(at, _)| (*at - began).as_secs()).collect();
    seconds.dedup();
    // Each step takes a second; pauses of 1, 2 and 4 s, none, and 4 s again.
    assert_eq!(seconds, [0, 2, 5, 10, 11, 16, 17]);
}

#[tokio::test(start_paused = true)]
async fn a_second_conflict_in_a_row_has_a_pause() {
    let conflict = || StepError::Conflict("key".to_owned());
    let (counters, _controller) = start(vec![1], vec![conflict(), conflict()]);
    let began = Instant::now();
    sleep(30 * STEP).await;
    let mut seconds: Vec<u64> =
        counters.observed.lock().unwrap().iter().map(|(at, _)| (*at - began).as_secs()).collect();
    seconds.dedup();
    assert_eq!(seconds, [0, 1, 3, 4]);
}

/// Waits, and says for what.
struct Waits {
    cluster: Cluster,
    why: Mutex<String>,
}

#[async_trait]
impl Reconciler for Waits {
    type Facts = ();
    type Step = ();

    const KIND: &'static str = "waits";
    const FIGURES_ARE_NEWS: bool = false;

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![Subject::Primary]
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<(), StepError> {
        Ok(())
    }

    fn plan(&self, _subject: &Subject, _facts: &mut ()) -> Plan<()> {
        Plan { next: Next::Wait(None), why: self.why.lock().unwrap().clone() }
    }

    async fn apply(&self, _subject: &Subject, _step: &(), _facts: &(), _why: &str) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_is_published_when_it_is_news_and_withdrawn_when_there_is_none() {
    let store: Arc<dyn Store> = MemoryTree::new().client();
    schema::root::init(&*store).await.unwrap();
    let mirror = Mirror::start(Arc::clone(&store));
    let machine = Arc::new(FakeMachine::default());
    let cluster = Cluster::new("a".parse().unwrap(), Arc::clone(&store), mirror, machine);
    let waits = Arc::new(Waits { cluster, why: Mutex::default() });
    let controller = Controller::start(Arc::clone(&waits));
    let said = async || {
        schema::explain::read(&*store, &Subject::Primary).await.unwrap().map(|said| said.unwrap().because)
    };
    for (why, published) in [
        ("", None),
        ("for 5 s more", Some("for 5 s more")),
        ("for 4 s more", Some("for 5 s more")),
        ("for good", Some("for good")),
        ("", None),
    ] {
        why.clone_into(&mut waits.why.lock().unwrap());
        controller.poker().poke_all();
        sleep(STEP).await;
        assert_eq!(said().await.as_deref(), published, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_step_that_has_begun_end_and_begins_none_and_a_drop_cuts_it() {
    let (counters, controller) = start(vec![1; 5], vec![]);
    sleep(STEP / 2).await;
    assert_eq!(controller.stop(2 * STEP).await, 0);
    sleep(10 * STEP).await;
    assert_eq!(counters.left(), 3, "two had begun");
    let (counters, controller) = start(vec![1; 5], vec![]);
    sleep(STEP / 2).await;
    drop(controller);
    sleep(10 * STEP).await;
    assert_eq!(counters.left(), 5);
}
