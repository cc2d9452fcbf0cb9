//! Which machine may have the name: reads what the decision needs, and says what it was. Decides nothing; see
//! `pvc_core::plan::machine`.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    model::{MachineRecord, NodeName},
    plan::machine::{Decision, Recorded, Refused, Taken, Ties, decide, is_this_boot},
};
use pvc_store::{
    StoreError,
    mirror::Mirror,
    schema::{
        machine::{self, Seen},
        owner,
    },
};
use tokio::time::timeout;
use tracing::info;

use super::{Holder, Ownership, OwnershipError};

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
        let machines: Vec<MachineRecord> = others.values().cloned().collect();
        let mut ties = None;
        let taken = loop {
            match decide(&seen.recorded, &me, &machines, ties.as_ref()) {
                Decision::Take(taken) => break taken,
                Decision::Refuse(why) => return Ok(Err(self.refused(why))),
                Decision::LookForTies => ties = Some(self.ties(&self.node).await?),
            }
        };
        for name in others.into_iter().filter(|(_, had)| is_this_boot(had, &me)).map(|(name, _)| name) {
            let ties = self.ties(&name).await?;
            if !ties.is_empty() {
                return Ok(Err(self.refused(Refused::HasAName { name, ties: ties.to_string() })));
            }
        }
        self.tell(taken, &seen.recorded);
        Ok(Ok(me))
    }

    /// Why a name that this daemon had is another machine's now, if it is.
    pub(super) async fn lost(&self, seen: &Seen) -> Result<Option<OwnershipError>, StoreError> {
        let others: Vec<MachineRecord> =
            machine::others(&*self.store, &self.node).await?.into_values().collect();
        Ok(match (decide(&seen.recorded, &self.record(seen), &others, None), &seen.recorded) {
            (Decision::Refuse(why), _) => Some(self.refused(why)),
            (Decision::LookForTies, Recorded::Machine(other)) => {
                let ties = "it has taken the name while this one was not heard of".to_owned();
                Some(self.refused(Refused::Another { machine: other.to_string(), ties }))
            }
            _ => None,
        })
    }

    /// Which machine the claims that name this node are about, if that is another one for certain.
    pub async fn claims_are_of(&self) -> Result<Option<String>, StoreError> {
        let held = owner::read(&*self.store, &self.node).await?;
        if held.is_some_and(|held| !matches!(self.judge(&held), Holder::Unknown(_))) {
            return Ok(None);
        }
        let seen = machine::read(&*self.store, &self.node).await?;
        Ok(self.lost(&seen).await?.map(|_| match seen.recorded {
            Recorded::Machine(other) if other.replaced.is_none() => other.to_string(),
            _ => "whatever machine replaces this one".to_owned(),
        }))
    }

    /// Whether this machine has that name in this boot.
    pub async fn is_called(&self, name: &NodeName) -> Result<bool, StoreError> {
        let seen = machine::read(&*self.store, name).await?;
        Ok(matches!(&seen.recorded, Recorded::Machine(had) if is_this_boot(had, &self.record(&seen))))
    }

    fn refused(&self, why: Refused) -> OwnershipError {
        let node = self.node.clone();
        match why {
            Refused::HasAName { .. } => OwnershipError::HasAName { node, why },
            Refused::Another { .. } => OwnershipError::AnotherMachine { node, why },
            Refused::SaidGone { .. } => OwnershipError::Replaced { node, why },
        }
    }

    /// Reads the cluster as it is now: a view that was begun before would not do.
    async fn ties(&self, name: &NodeName) -> Result<Ties, StoreError> {
        self.store.sync().await?;
        let mirror = Mirror::start(Arc::clone(&self.store));
        let ready = timeout(LOOK_WITHIN, mirror.ready()).await;
        ready.map_err(|_| StoreError::Unavailable("the cluster could not be read".into()))?;
        Ok(Ties::of(name, &mirror.view()))
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
