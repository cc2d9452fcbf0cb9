//! Cuts a machine's power and makes sure that it is off.
//!
//! Never takes a command that was accepted for a machine that is off, and no answer for either: the status is read until it says
//! so. The job is looked at afresh immediately before each command, and a look that took long is none: so a fencer that was frozen
//! powers off nobody who lives.

use std::time::Duration;

use pvc_core::{
    model::{DaemonState, Entry, Fence, Node, NodeName, Proof},
    sabotage::{self, Bug},
};
use pvc_host::power::{Bmc, Power, PowerError, PowerState};
use pvc_store::{CommitError, Store, StoreError, schema};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

/// How long a machine may take to be off after the command.
const OFF_WITHIN: Duration = Duration::from_secs(20);
/// How often it is told to.
const COMMANDS: u32 = 2;
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// A reset is acknowledged before it happens: for so long the machine may go on.
const RESET_WITHIN: Duration = Duration::from_secs(10);

/// How long a look may take that a command follows from. What it saw is at most so old.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// One attempt on one node.
pub(super) struct PowerOff<'a> {
    pub(super) me: &'a NodeName,
    pub(super) store: &'a dyn Store,
    pub(super) power: &'a dyn Power,
    pub(super) bmc: &'a Bmc,
    pub(super) fence: &'a Fence,
}

/// How it went.
pub(super) enum Outcome {
    /// It executes nothing, whatever it said until it was `seen`.
    Dead { proof: Proof, seen: Box<Node> },
    /// Its power could not be cut.
    Alive(String),
    /// It is not this daemon's to shoot any more.
    NotOurs(&'static str),
}

/// Why a command is not given.
enum Halt {
    Store(StoreError),
    NotOurs(&'static str),
    Alive(String),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => {
                Self::NotOurs("it gave a sign of life, or its fence has moved on")
            }
            CommitError::Unknown(cause) | CommitError::Failed(cause) => Self::Store(cause),
        }
    }
}

impl From<PowerError> for Halt {
    fn from(error: PowerError) -> Self {
        Self::Alive(error.to_string())
    }
}

impl PowerOff<'_> {
    /// Shoots.
    ///
    /// # Errors
    /// If the store did not answer: then nothing was done that is not done again.
    pub(super) async fn fire(&self) -> Result<Outcome, StoreError> {
        match self.try_to().await {
            Ok((proof, seen)) => Ok(Outcome::Dead { proof, seen: Box::new(seen) }),
            Err(Halt::Alive(why)) => Ok(Outcome::Alive(why)),
            Err(Halt::NotOurs(why)) => Ok(Outcome::NotOurs(why)),
            Err(Halt::Store(error)) => Err(error),
        }
    }

    async fn try_to(&self) -> Result<(Proof, Node), Halt> {
        let node = &self.fence.node;
        let seen = self.still_ours().await?;
        if sabotage::commits(Bug::ResetAsProof) {
            self.power.reset(self.bmc).await?;
            return Ok((Proof::ResetAccepted, seen));
        }
        if self.power.status(self.bmc).await? == PowerState::Off {
            info!(%node, "its BMC says that it is off already");
            return Ok((self.fence.job.found_off(), seen));
        }
        let commands = if sabotage::commits(Bug::KeepShooting) { 20 } else { COMMANDS };
        for command in 1..=commands {
            let seen = self.still_ours().await?;
            info!(%node, bmc = self.bmc.host, "power off (command {command} of {commands})");
            match self.power.off(self.bmc).await {
                Ok(()) => {}
                Err(PowerError::Refused { why, .. }) => return self.reset(&why).await,
                // It may have been carried out all the same.
                Err(unknown @ (PowerError::Unreachable { .. } | PowerError::TimedOut { .. })) => {
                    debug!(%node, error = %unknown, "no answer to power off: asking for the status");
                }
                Err(error) => return Err(error.into()),
            }
            if self.is_off_in_time().await {
                return Ok((Proof::PowerOff, seen));
            }
        }
        Err(Halt::Alive(format!(
            "its BMC {} does not say that it is off {} s after each of {commands} commands to power off",
            self.bmc.host,
            OFF_WITHIN.as_secs()
        )))
    }

    async fn is_off_in_time(&self) -> bool {
        let deadline = Instant::now() + OFF_WITHIN;
        loop {
            match self.power.status(self.bmc).await {
                Ok(PowerState::Off) => return true,
                Ok(PowerState::On) => {}
                Err(error) => debug!(node = %self.fence.node, %error, "no status"),
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// For a BMC that cannot power off. A machine that is off accepts a reset, too, and has then proved nothing by it.
    async fn reset(&self, refusal: &str) -> Result<(Proof, Node), Halt> {
        let node = &self.fence.node;
        let seen = self.still_ours().await?;
        if self.power.status(self.bmc).await? == PowerState::Off {
            return Ok((Proof::PowerOff, seen));
        }
        info!(%node, bmc = self.bmc.host, "reset, since its BMC refuses to power off: {refusal}");
        self.power.reset(self.bmc).await?;
        sleep(RESET_WITHIN).await;
        Ok((Proof::ResetAccepted, seen))
    }

    /// The node as it is now, if it is still to be powered off by this daemon.
    async fn still_ours(&self) -> Result<Node, Halt> {
        let node = &self.fence.node;
        let began = Instant::now();
        let now = schema::fence::read(self.store, node).await?;
        let same = matches!(&now, Some(Entry::Good(now))
            if now.version == self.fence.version && now.fencer.as_ref() == Some(self.me));
        if !same && !sabotage::commits(Bug::KeepShooting) {
            return Err(Halt::NotOurs("the fence is not this node's, or not what it was"));
        }
        let Some(seen) = schema::node::read(self.store, node).await? else {
            return Err(Halt::NotOurs("it was removed from the cluster"));
        };
        if sabotage::commits(Bug::KeepShooting) {
            return Ok(seen);
        }
        let declared = self.fence.job.keepalive_version;
        let spoke = seen.daemon_state.value != DaemonState::Dead || declared != seen.keepalive_version;
        let asked = self.fence.job.asked.is_some();
        // A fence that was asked for is of one boot of the node.
        let same_boot = seen.boot == self.fence.job.boot || sabotage::commits(Bug::WordOutlivesLife);
        if spoke && !(asked && same_boot) {
            return Err(Halt::NotOurs("it gave a sign of life"));
        }
        // What was read may come from a server that lags behind. A transaction is judged by the leader: a daemon that registers
        // in another boot says another state.
        let as_seen = if asked {
            schema::fence::expect_state(self.fence, &seen)
        } else {
            schema::fence::expect_dead(self.fence, &seen)
        };
        self.store.commit(as_seen).await?;
        if began.elapsed() > LOOK_WITHIN {
            return Err(Halt::NotOurs("looking at it took too long"));
        }
        Ok(seen)
    }
}
