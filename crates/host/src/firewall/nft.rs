//! The real one: the program `nft`, which gets every transaction as a text.

use std::{collections::BTreeMap, fmt::Write as _, io, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::{
    model::rule::Body,
    plan::firewall::{Ruleset, TABLES},
    text::one_line,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{
    DEADLINE, Firewall, FirewallError, Listing, Mark, OwnFile, files, listen,
    mark::{Generations, Heard},
};
use crate::run::{Ended, Program, RunError};

/// So much of what `nft` says of a refusal is told.
const TOLD: usize = 300;

const TRY: &str = "try rules";

/// How long it may take to hear of a transaction that is over: the kernel has said it by then.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The packet filter of the network namespace it was started in.
pub struct Nft {
    /// Where an operator's own files are.
    own_files: PathBuf,
    generations: Arc<Generations>,
    heard: watch::Receiver<Heard>,
    changes: watch::Receiver<()>,
    listener: JoinHandle<()>,
}

impl Nft {
    /// Begins to listen to changes. Needs a tokio runtime. An operator's own files are in `own_files`.
    ///
    /// # Errors
    /// If the kernel gives no socket for that.
    pub fn start(own_files: PathBuf) -> io::Result<Arc<Self>> {
        Self::start_with(own_files, listen::ROOM)
    }

    fn start_with(own_files: PathBuf, room: usize) -> io::Result<Arc<Self>> {
        // What comes between the two is heard.
        let (socket, generations) = (listen::open(room)?, Arc::new(Generations::open()?));
        let (told, heard) = watch::channel(Heard::from(generations.now()?));
        let (signal, changes) = watch::channel(());
        let listener = tokio::spawn(listen::listen(socket, Arc::clone(&generations), told, signal));
        Ok(Arc::new(Self { own_files, generations, heard, changes, listener }))
    }

    async fn transaction(&self, doing: &'static str, text: &str) -> Result<(), FirewallError> {
        let run = |cause| FirewallError::Run { doing, cause };
        let ended = program("nft").map_err(run)?.run_on(&["-f", "-"], text, DEADLINE).await.map_err(run)?;
        if ended.is_success() { Ok(()) } else { Err(FirewallError::Refused { doing, why: reason(&ended) }) }
    }

    /// Why these bodies would not be taken; `None`: they would. `-c` changes nothing.
    async fn trial(&self, bodies: &[Body]) -> Result<Option<String>, FirewallError> {
        let run = |cause| FirewallError::Run { doing: TRY, cause };
        let mut text = String::from("add table inet trial\nadd chain inet trial rules\n");
        for body in bodies {
            let _ = writeln!(text, "add rule inet trial rules {} counter {}", body.matches(), body.verdict());
        }
        let ended =
            program("nft").map_err(run)?.run_on(&["-c", "-f", "-"], &text, DEADLINE).await.map_err(run)?;
        Ok((!ended.is_success()).then(|| reason(&ended)))
    }
}

fn program(name: &str) -> Result<Program, RunError> {
    Program::find(name)
}

/// The first line of what it said: the others point at places of a text that nobody else sees.
fn reason(ended: &Ended) -> String {
    let line = ended.stderr.lines().find(|line| !line.is_empty()).unwrap_or("it does not say why");
    let line = line.split_once("Error: ").map_or(line, |(_, why)| why);
    one_line(line).chars().take(TOLD).collect()
}

#[async_trait]
impl Firewall for Nft {
    async fn load(&self, ruleset: &Ruleset) -> Result<(), FirewallError> {
        self.transaction("load the firewall", &ruleset.whole()).await
    }

    async fn change(&self, before: &Ruleset, after: &Ruleset) -> Result<(), FirewallError> {
        match after.change_from(before) {
            text if text.is_empty() => Ok(()),
            text => self.transaction("change the firewall", &text).await,
        }
    }

    async fn mark(&self) -> Result<Mark, FirewallError> {
        let doing = "ask whether the firewall was touched";
        let now = self.generations.now().map_err(|cause| FirewallError::Kernel { doing, cause })?;
        let mut heard = self.heard.clone();
        if let Ok(Ok(heard)) = timeout(HEARD_WITHIN, heard.wait_for(|heard| heard.reaches(now))).await {
            return Ok(Mark { generation: heard.generation, touched: heard.touched, is_complete: true });
        }
        let touched = self.heard.borrow().touched;
        Ok(Mark { generation: now, touched, is_complete: false })
    }

    async fn listing(&self) -> Result<Option<Listing>, FirewallError> {
        let doing = "list the firewall";
        let run = |cause| FirewallError::Run { doing, cause };
        let mut listing = Listing::default();
        for (family, name) in TABLES {
            let arguments = ["-n", "list", "table", family, name];
            let ended = program("nft").map_err(run)?.run_on(&arguments, "", DEADLINE).await.map_err(run)?;
            match reason(&ended) {
                _ if ended.is_success() => listing.add(&ended.stdout),
                why if why.contains("No such file or directory") => return Ok(None),
                why => return Err(FirewallError::Refused { doing, why }),
            }
        }
        Ok(Some(listing))
    }

    async fn refused(&self, bodies: &[Body]) -> Result<BTreeMap<Body, String>, FirewallError> {
        let mut refused = BTreeMap::new();
        // Most are taken.
        if self.trial(bodies).await?.is_none() {
            return Ok(refused);
        }
        // No rule is to blame for what nft says without any.
        if let Some(why) = self.trial(&[]).await? {
            return Err(FirewallError::Refused { doing: TRY, why });
        }
        // Halves, until one alone is refused: most are not.
        let mut untried: Vec<&[Body]> = vec![bodies];
        while let Some(some) = untried.pop() {
            let why = if some.is_empty() { None } else { self.trial(some).await? };
            match (why, some) {
                (None, _) => {}
                (Some(why), [body]) => drop(refused.insert(body.clone(), why)),
                (Some(_), several) => {
                    let (first, second) = several.split_at(several.len() / 2);
                    untried.extend([first, second]);
                }
            }
        }
        Ok(refused)
    }

    fn own_files(&self) -> Vec<OwnFile> {
        files::read(&self.own_files)
    }

    async fn import(&self, text: &str) -> Result<(), FirewallError> {
        self.transaction("load it", text).await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
        thread,
    };

    use nix::sched::{CloneFlags, unshare};
    use pvc_core::{
        model::rule::Direction,
        plan::firewall::{Line, Wall},
    };

    use super::*;

    /// Runs it in a network namespace of its own.
    fn alone(test: impl AsyncFnOnce() + Send) {
        thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(test());
            });
        });
    }

    /// More than a socket of little room can be told of.
    fn much() -> Ruleset {
        let line = |port: u32| Line {
            name: String::new(),
            body: Some(format!("tcp dport {port} drop").parse().unwrap()),
        };
        let wall = Wall { lines: [(Direction::In, (1..2000).map(line).collect())].into(), ..Wall::default() };
        Ruleset { networks: [("100".parse().unwrap(), wall)].into(), ..Ruleset::default() }
    }

    /// Loads it while nobody listens: the thread that would waits.
    fn load_unheard(ruleset: &Ruleset) {
        #[allow(clippy::disallowed_methods, reason = "that it blocks is the point")]
        let mut nft =
            Command::new("/usr/sbin/nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nftables");
        nft.stdin.take().unwrap().write_all(ruleset.whole().as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
    }

    #[test]
    fn what_was_too_much_to_be_heard_is_still_known_by_the_kernels_count() {
        alone(async || {
            let firewall = Nft::start_with("/nonexistent".into(), 16 * 1024).unwrap();
            let before = firewall.mark().await.unwrap();
            load_unheard(&much());
            let loaded = firewall.mark().await.unwrap();
            assert!(!loaded.is_as(&before) && loaded.is_next_to(&before), "{before:?} {loaded:?}");
            assert!(loaded.touched > 1, "it was heard after all: this test is for what is not: {loaded:?}");
            // From then on all is heard again.
            firewall.import("table inet site { }\ndelete table inet site\n").await.unwrap();
            firewall.import("table inet site { }\n").await.unwrap();
            let later = firewall.mark().await.unwrap();
            assert!(later.is_as(&loaded), "{loaded:?} {later:?}");
            // Of two that were not heard nobody knows whose they were.
            for _ in 0..2 {
                load_unheard(&much());
            }
            let twice = firewall.mark().await.unwrap();
            assert!(!twice.is_next_to(&later), "{later:?} {twice:?}");
        });
    }
}
