//! Which machine may have the name: reads what the decision needs, and says what it was. Decides nothing; see
//! `pvc_core::plan::machine`.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    model::MachineRecord,
    plan::machine::{Decision, Recorded, Refused, Taken, Ties, decide},
};
use pvc_store::{
    StoreError,
    mirror::Mirror,
    schema::machine::{self, Seen},
};
use tokio::time::timeout;
use tracing::info;

use super::{Ownership, OwnershipError};

/// How long it may take to read what claims a name.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

impl Ownership {
    /// This machine in this boot. The time since when it has the name goes on if the record is its own.
    pub(super) fn record(&self, seen: &Seen) -> MachineRecord {
        let id = self.machine.identity();
        let since = match &seen.recorded {
            Recorded::Machine(had) if had.id == id && had.replaced.is_none() => Some(had.since_unix_s),
            _ => None,
        };
        MachineRecord {
            id,
            boot: self.me.boot.clone(),
            host: self.me.host.clone(),
            since_unix_s: since.unwrap_or_else(|| self.machine.unix_s()),
            replaced: None,
        }
    }

    /// The record with which this machine may follow the one that had the name, or why not.
    pub(super) async fn successor(
        &self,
        seen: &Seen,
    ) -> Result<Result<MachineRecord, OwnershipError>, StoreError> {
        let me = self.record(seen);
        let others = machine::others(&*self.store, &self.node).await?;
        let mut ties = None;
        loop {
            match decide(&seen.recorded, &me, &others, ties.as_ref()) {
                Decision::Take(taken) => {
                    self.tell(taken, &seen.recorded);
                    return Ok(Ok(me));
                }
                Decision::Refuse(why) => return Ok(Err(self.refused(why))),
                Decision::LookForTies => ties = Some(self.ties().await?),
            }
        }
    }

    /// Why a name that this daemon had is another machine's now, if it is.
    pub(super) async fn lost(&self, seen: &Seen) -> Result<Option<OwnershipError>, StoreError> {
        let others = machine::others(&*self.store, &self.node).await?;
        Ok(match (decide(&seen.recorded, &self.record(seen), &others, None), &seen.recorded) {
            (Decision::Refuse(why), _) => Some(self.refused(why)),
            (Decision::LookForTies, Recorded::Machine(other)) => {
                let ties = "it has taken the name while this one was not heard of".to_owned();
                Some(self.refused(Refused::Another { machine: other.to_string(), ties }))
            }
            _ => None,
        })
    }

    fn refused(&self, why: Refused) -> OwnershipError {
        let node = self.node.clone();
        match why {
            Refused::Another { .. } => OwnershipError::AnotherMachine { node, why },
            Refused::SaidGone { .. } => OwnershipError::Replaced { node, why },
        }
    }

    /// Reads the cluster as it is now: a view that was begun before would not do.
    async fn ties(&self) -> Result<Ties, StoreError> {
        self.store.sync().await?;
        let mirror = Mirror::start(Arc::clone(&self.store));
        let ready = timeout(LOOK_WITHIN, mirror.ready()).await;
        ready.map_err(|_| StoreError::Unavailable("the cluster could not be read".into()))?;
        Ok(Ties::of(&self.node, &mirror.view()))
    }

    fn tell(&self, taken: Taken, before: &Recorded) {
        let (node, before) = (
            &self.node,
            match before {
                Recorded::Machine(machine) => machine.to_string(),
                Recorded::Nobody | Recorded::Unreadable => "an unknown machine".to_owned(),
            },
        );
        match taken {
            Taken::First | Taken::Itself => {}
            Taken::InstalledAnew => {
                info!("takes the name {node}: this machine had it before it was installed anew");
            }
            Taken::Unclaimed => info!("takes the name {node} from {before}: nothing claims it"),
            Taken::Replacement => {
                info!("takes the name {node} from {before}, which an operator said is gone for good");
            }
        }
    }
}
