//! The real thing: children of this process that the kernel kills when it ends, in whatever way.
//!
//! The kernel's promise (`PR_SET_PDEATHSIG`) is about the *thread* that forked, and forgotten when the child changes its user. So one thread
//! that lives as long as this process starts them all, and setpriv, not the program, changes the user before it asks for the promise.

use std::{
    io,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, OnceLock, mpsc as channel},
    thread,
    time::Duration,
};

use rustix::process::{Signal, kill_process};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{Kept, Order, ProgramState, Programs, Spec, leftovers, line, log};
use crate::run::{Group, Program, RunError};

/// The pause before a program that ended is started again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Who ran so long begins with the first pause again.
const STEADY: Duration = Duration::from_secs(30);
/// How long leftovers may take to end.
const LEFTOVERS_WITHIN: Duration = Duration::from_secs(5);

/// Keeps programs running as children of this process.
pub struct Supervisor {
    ground: Arc<Ground>,
}

/// What a folder says about the programs that were started with it.
struct Ground {
    folder: PathBuf,
    /// The mark in the environment of each; known once leftovers have ended.
    mark: OnceCell<String>,
}

impl Supervisor {
    /// One whose programs are known by a mark in `folder`, which must be gone after a boot and only root's; an earlier daemon that had the
    /// same folder may have left some, and these are ended now. Two daemons must not share a folder.
    pub fn start(folder: PathBuf) -> Arc<Self> {
        let ground = Arc::new(Ground { folder, mark: OnceCell::new() });
        let clearing = Arc::clone(&ground);
        tokio::spawn(async move {
            if let Err(error) = clearing.mark().await {
                warn!("programs: what an earlier daemon may have left is not known: {error}");
            }
        });
        Arc::new(Self { ground })
    }
}

impl Programs for Supervisor {
    fn run(&self, spec: Spec) -> Kept {
        let (kept, orders, state) = line();
        tokio::spawn(keep(Arc::clone(&self.ground), spec, orders, state));
        kept
    }
}

impl Ground {
    /// The mark, after everything that bears it has ended.
    async fn mark(&self) -> io::Result<&str> {
        let found = self.mark.get_or_try_init(async || {
            let folder = self.folder.clone();
            let job = tokio::task::spawn_blocking(move || {
                let mark = leftovers::mark(&folder)?;
                for name in leftovers::end(&mark, LEFTOVERS_WITHIN)? {
                    warn!("programs: ended {name}, which an earlier daemon has left");
                }
                Ok(mark)
            });
            job.await.map_err(io::Error::other)?
        });
        found.await.map(String::as_str)
    }

    async fn start(&self, spec: &Spec) -> Result<Group, String> {
        let mark = self
            .mark()
            .await
            .map_err(|e| format!("what an earlier daemon may have left is not known: {e}"))?;
        let (setpriv, program) = (Program::find("setpriv"), Program::find(&spec.program));
        let found = |found: Result<Program, RunError>| found.map_err(|error| error.to_string());
        let (setpriv, program) = (found(setpriv)?, found(program)?);
        let mut arguments: Vec<String> = ["--pdeathsig", "KILL", "--no-new-privs"].map(String::from).into();
        if let Some(identity) = spec.identity {
            let capabilities = [&["-all"], identity.capabilities].concat().join(",+");
            arguments.extend(
                ["--reuid", identity.user, "--regid", identity.group, "--clear-groups"].map(String::from),
            );
            arguments.extend(["inh", "ambient"].map(|set| format!("--{set}-caps={capabilities}")));
        }
        arguments.extend(["--".to_owned(), program.path().to_owned()]);
        arguments.extend(spec.arguments.iter().cloned());
        let mut environment = spec.environment.clone();
        environment.push((leftovers::VARIABLE.to_owned(), mark.to_owned()));
        let (answer, started) = oneshot::channel();
        let runtime = Handle::current();
        on_the_lasting_thread(Box::new(move || {
            let _entered = runtime.enter();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let environment: Vec<_> =
                environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            // Nobody waits any more: it is killed as it is dropped.
            let _ = answer.send(setpriv.start(&arguments, &environment));
        }))?;
        let started = started.await.map_err(|_| "the thread that starts programs has ended".to_owned())?;
        started.map_err(|error| error.to_string())
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs a job on the thread whose end is this process's.
fn on_the_lasting_thread(job: Job) -> Result<(), String> {
    static THREAD: OnceLock<Result<channel::Sender<Job>, String>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (send, jobs) = channel::channel::<Job>();
        let work = move || jobs.into_iter().for_each(|job| job());
        let started = thread::Builder::new().name("programs".to_owned()).spawn(work);
        started.map(|_| send).map_err(|error| format!("no thread to start programs: {error}"))
    });
    let send = thread.as_ref().map_err(Clone::clone)?;
    send.send(job).map_err(|_| "the thread that starts programs has ended".to_owned())
}

/// One program's life, until it is stopped or nobody wants it any more.
async fn keep(
    ground: Arc<Ground>,
    spec: Spec,
    mut orders: mpsc::UnboundedReceiver<Order>,
    state: watch::Sender<ProgramState>,
) {
    let name = &spec.name;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let why = match ground.start(&spec).await {
            Err(why) => why,
            Ok(mut group) => {
                let _logs = log::follow(name, &mut group);
                info!("{name}: started");
                state.send_replace(ProgramState::Running);
                match attend(&mut group, &mut orders).await {
                    Ok(why) => why,
                    Err(stop) => {
                        stop.end(group).await;
                        state.send_replace(ProgramState::Stopped);
                        return;
                    }
                }
            }
        };
        if began.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        warn!("{name}: {why}; starting it again in {} ms", pause.as_millis());
        state.send_replace(ProgramState::Down { why });
        let until = Instant::now() + pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
        loop {
            tokio::select! {
                () = sleep(until.saturating_duration_since(Instant::now())) => break,
                order = orders.recv() => match order {
                    Some(Order::HangUp) => {}
                    Some(Order::Stop { .. }) | None => {
                        state.send_replace(ProgramState::Stopped);
                        return;
                    }
                },
            }
        }
    }
}

/// How it is to end.
struct Stop {
    within: Duration,
    done: Option<oneshot::Sender<()>>,
}

/// Does what is ordered while the program runs. Answers why it ended by itself, or else how it is to end.
async fn attend(group: &mut Group, orders: &mut mpsc::UnboundedReceiver<Order>) -> Result<String, Stop> {
    loop {
        tokio::select! {
            ended = group.wait() => return Ok(told(ended)),
            order = orders.recv() => match order {
                Some(Order::HangUp) => signal(group, Signal::HUP),
                Some(Order::Stop { within, done }) => return Err(Stop { within, done: Some(done) }),
                None => return Err(Stop { within: Duration::ZERO, done: None }),
            },
        }
    }
}

impl Stop {
    async fn end(self, mut group: Group) {
        if !self.within.is_zero() {
            signal(&group, Signal::TERM);
            if timeout(self.within, group.wait()).await.is_err() {
                warn!("a program did not stop within {} s: killed", self.within.as_secs_f32());
            }
        }
        group.kill();
        // A process in the middle of a call of the kernel may stay for a while; nothing is gained by waiting for it for ever.
        let _ = timeout(Duration::from_secs(2), group.wait()).await;
        if let Some(done) = self.done {
            let _ = done.send(());
        }
    }
}

fn signal(group: &Group, signal: Signal) {
    if let Some(leader) = group.leader() {
        // It may have ended by itself just now; its number is not given to another before it is waited for.
        let _ = kill_process(leader, signal);
    }
}

fn told(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("ended by itself ({status})"),
        Err(error) => format!("could not be waited for: {error}"),
    }
}
