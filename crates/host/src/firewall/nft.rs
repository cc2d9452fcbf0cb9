//! The real one: the program `nft`, which gets every transaction as a text.

use std::{collections::BTreeMap, fmt::Write as _, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use pvc_core::{
    model::rule::Body,
    plan::firewall::{Ruleset, TABLES},
    text::one_line,
};
use tokio::{sync::watch, task::JoinHandle};

use super::{DEADLINE, Firewall, FirewallError, Listing, OwnFile, files, listen};
use crate::run::{Ended, Program, RunError};

/// So much of what `nft` says of a refusal is told.
const TOLD: usize = 300;

const TRY: &str = "try rules";

/// The packet filter of the network namespace it was started in.
pub struct Nft {
    /// Where an operator's own files are.
    own_files: PathBuf,
    changes: watch::Receiver<()>,
    listener: JoinHandle<()>,
}

impl Nft {
    /// Begins to listen to changes. Needs a tokio runtime. An operator's own files are in `own_files`.
    ///
    /// # Errors
    /// If the kernel gives no socket for that.
    pub fn start(own_files: PathBuf) -> io::Result<Arc<Self>> {
        let (signal, changes) = watch::channel(());
        let socket = listen::open()?;
        Ok(Arc::new(Self { own_files, changes, listener: tokio::spawn(listen::listen(socket, signal)) }))
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
