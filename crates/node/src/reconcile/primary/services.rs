//! What runs on the primary coordinator besides its addresses: an ordered list, started first to last, stopped last to first.
//!
//! Never in the way of a hand-over: whatever is stuck is given a moment, named, and tried again later.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_host::services::{Services, ServicesError, UnitState};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// How long one service may take to start or stop before the next one is turned to.
const EACH_WITHIN: Duration = Duration::from_secs(10);

/// The pause before what failed is tried again, and between two looks at what runs.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The longest of these pauses: each failure in a row doubles it.
const AT_LAST: Duration = Duration::from_mins(1);

/// One of them. All three may be called at any time and as often as wanted: already so is success.
#[async_trait]
pub trait PrimaryService: Send + Sync + 'static {
    /// For logs and `explain`.
    fn name(&self) -> &'static str;

    /// Makes ready, on every coordinator, what can be made ready before this node is primary.
    async fn prepare(&self) -> Result<(), String>;

    /// Starts it: the addresses are here.
    async fn start(&self) -> Result<(), String>;

    /// Stops it: the addresses are about to go, or have gone.
    async fn stop(&self) -> Result<(), String>;

    /// Whether it still is what `start` made of it. What has ended is said and started anew; whoever watches over its own programs need not say more.
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Runs them as told.
pub(super) struct Runner {
    services: Vec<Arc<dyn PrimaryService>>,
    wanted: watch::Sender<bool>,
    /// What has been achieved of what was wanted last.
    done: watch::Sender<Option<bool>>,
    trouble: watch::Sender<BTreeMap<&'static str, String>>,
}

impl Runner {
    pub(super) fn new(services: Vec<Arc<dyn PrimaryService>>) -> Arc<Self> {
        let runner = Self {
            services,
            wanted: watch::Sender::new(false),
            done: watch::Sender::new(None),
            trouble: watch::Sender::default(),
        };
        Arc::new(runner)
    }

    /// What they were last told.
    pub(super) fn wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Tells them to run.
    pub(super) fn start(&self) {
        self.tell(true);
    }

    /// Tells them to stop, and gives them so long.
    pub(super) async fn stop(&self, within: Duration) {
        self.tell(false);
        let mut done = self.done.subscribe();
        if timeout(within, done.wait_for(|done| *done == Some(false))).await.is_err() {
            warn!("primary: services are still stopping after {} s: going on without", within.as_secs_f32());
        }
    }

    fn tell(&self, run: bool) {
        if self.wanted() != run {
            self.done.send_replace(None);
            self.wanted.send_replace(run);
        }
    }

    /// What does not work, for `explain`.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.borrow();
        let lines: Vec<String> = trouble.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Signals that something else does not work, or works again.
    pub(super) fn troubles(&self) -> watch::Receiver<BTreeMap<&'static str, String>> {
        self.trouble.subscribe()
    }

    /// Does what is wanted, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let run = *wanted.borrow_and_update();
            let work = async {
                if run {
                    self.keep().await;
                } else {
                    self.end().await;
                }
            };
            tokio::select! {
                biased;
                // What is being started or stopped is dropped in the middle: each of them starts from whatever there is.
                told = wanted.changed() => {
                    if told.is_err() {
                        return;
                    }
                }
                () = work => {}
            }
        }
    }

    /// Starts each, and anew the one that has ended, for ever.
    async fn keep(&self) {
        let mut kept = vec![Kept::default(); self.services.len()];
        loop {
            for (service, kept) in self.services.iter().zip(&mut kept) {
                self.keep_one(&**service, kept).await;
            }
            self.done.send_replace(Some(true));
            sleep(TRY_AGAIN).await;
        }
    }

    async fn keep_one(&self, service: &dyn PrimaryService, kept: &mut Kept) {
        let Some(since) = kept.since else {
            if Instant::now() < kept.again {
                return;
            }
            let start = async {
                service.prepare().await?;
                service.start().await
            };
            match within("start", start).await {
                // The next look says whether it runs.
                Ok(()) => kept.since = Some(Instant::now()),
                Err(why) => {
                    kept.fail();
                    self.note(service.name(), Some(why));
                }
            }
            return;
        };
        let seen = within("say whether it runs", service.check()).await;
        if seen.is_err() {
            kept.fail();
        } else if since.elapsed() > AT_LAST {
            kept.failures = 0;
        }
        self.note(service.name(), seen.err());
    }

    /// Stops all, last to first, until all are.
    async fn end(&self) {
        for failures in 0.. {
            let mut complete = true;
            for service in self.services.iter().rev() {
                let stop = async {
                    service.stop().await?;
                    service.prepare().await
                };
                let outcome = within("stop", stop).await;
                complete &= outcome.is_ok();
                self.note(service.name(), outcome.err());
            }
            self.done.send_replace(Some(false));
            if complete {
                return std::future::pending().await;
            }
            sleep(pause(failures)).await;
        }
    }

    fn note(&self, name: &'static str, error: Option<String>) {
        self.trouble.send_if_modified(|trouble| match error {
            Some(error) if trouble.get(name) == Some(&error) => false,
            Some(error) => {
                warn!(
                    "primary: {name}: {error}; trying again every {} to {} s",
                    TRY_AGAIN.as_secs(),
                    AT_LAST.as_secs()
                );
                trouble.insert(name, error);
                true
            }
            None if trouble.remove(name).is_some() => {
                info!("primary: {name} is as wanted again");
                true
            }
            None => false,
        });
    }
}

/// What is known of one that is to run.
#[derive(Clone)]
struct Kept {
    /// When it was started; `None`: it is not.
    since: Option<Instant>,
    /// When it is tried next.
    again: Instant,
    /// In a row.
    failures: u32,
}

impl Default for Kept {
    fn default() -> Self {
        Self { since: None, again: Instant::now(), failures: 0 }
    }
}

impl Kept {
    fn fail(&mut self) {
        (self.since, self.again) = (None, Instant::now() + pause(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}

/// The pause after so many failures before this one.
fn pause(failures: u32) -> Duration {
    TRY_AGAIN.saturating_mul(1 << failures.min(8)).min(AT_LAST)
}

async fn within(verb: &str, work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let late = |_| Err(format!("did not {verb} within {} s", EACH_WITHIN.as_secs()));
    timeout(EACH_WITHIN, work).await.unwrap_or_else(late)
}

/// A unit of the service manager that runs on the primary only: the API.
pub struct Unit {
    name: &'static str,
    file: &'static str,
    services: Arc<dyn Services>,
    said_absent: Mutex<bool>,
}

impl Unit {
    /// `pvc-api.service`.
    pub fn api(services: Arc<dyn Services>) -> Arc<dyn PrimaryService> {
        Arc::new(Self { name: "API", file: "pvc-api.service", services, said_absent: Mutex::default() })
    }

    /// A machine without the unit, or without a service manager, is a way to run: said once.
    fn absent(&self, why: &str) {
        let mut said = self.said_absent.lock().unwrap_or_else(PoisonError::into_inner);
        if !*said {
            info!("primary: {} is not run here: {why}", self.file);
            *said = true;
        }
    }

    fn forgive(&self, outcome: Result<(), ServicesError>) -> Result<(), String> {
        match outcome {
            Err(ServicesError::Unavailable(why)) => {
                self.absent(&why);
                Ok(())
            }
            other => other.map_err(|error| error.to_string()),
        }
    }
}

#[async_trait]
impl PrimaryService for Unit {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self) -> Result<(), String> {
        let start = async {
            if self.services.state(self.file).await? == UnitState::Absent {
                self.absent("it is not installed");
                return Ok(());
            }
            self.services.start(self.file).await
        };
        self.forgive(start.await)
    }

    async fn stop(&self) -> Result<(), String> {
        self.forgive(self.services.stop(self.file).await)
    }

    async fn check(&self) -> Result<(), String> {
        let how = match self.services.state(self.file).await {
            Ok(UnitState::Active | UnitState::Absent) | Err(ServicesError::Unavailable(_)) => return Ok(()),
            Ok(UnitState::Inactive) => "has ended",
            Ok(UnitState::Failed) => "has failed",
            Ok(UnitState::Changing) => "does not run yet, or ends again and again",
            Err(error) => return Err(error.to_string()),
        };
        Err(format!("{} {how}: see `journalctl -u {}`", self.file, self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One {
        name: &'static str,
        can_start: bool,
        runs: watch::Sender<bool>,
        starts: Mutex<u32>,
    }

    fn one(name: &'static str, can_start: bool) -> Arc<One> {
        Arc::new(One { name, can_start, runs: watch::Sender::new(true), starts: Mutex::default() })
    }

    #[async_trait]
    impl PrimaryService for One {
        fn name(&self) -> &'static str {
            self.name
        }

        async fn prepare(&self) -> Result<(), String> {
            Ok(())
        }

        async fn start(&self) -> Result<(), String> {
            *self.starts.lock().unwrap() += 1;
            if self.can_start { Ok(()) } else { Err("the port is taken".to_owned()) }
        }

        async fn stop(&self) -> Result<(), String> {
            Ok(())
        }

        async fn check(&self) -> Result<(), String> {
            if *self.runs.borrow() { Ok(()) } else { Err("has ended".to_owned()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_watched_and_started_anew_by_itself() {
        let (bad, api, old) = (one("DHCP", false), one("API", true), one("old clients", true));
        let runner = Runner::new(vec![bad.clone(), api.clone(), old.clone()]);
        let mut running = pvc_process::JoinSet::new();
        running.spawn(Arc::clone(&runner).run());
        runner.start();
        sleep(Duration::from_mins(10)).await;
        let starts = |of: &One| *of.starts.lock().unwrap();
        assert_eq!((starts(&api), starts(&old)), (1, 1), "what runs is left alone");
        assert!((10..=16).contains(&starts(&bad)), "{}: it is tried once a minute at last", starts(&bad));
        api.runs.send_replace(false);
        sleep(Duration::from_secs(6)).await;
        assert_eq!(runner.trouble().unwrap(), "API: has ended; DHCP: the port is taken");
        api.runs.send_replace(true);
        sleep(Duration::from_secs(11)).await;
        assert_eq!((starts(&api), starts(&old)), (2, 1));
        assert_eq!(runner.trouble().unwrap(), "DHCP: the port is taken");
    }
}
