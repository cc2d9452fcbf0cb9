//! Servers in memory.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::plan::database_leader::{Member, Servers};

use super::{DatabaseCluster, DatabaseClusterError, MOVE_WITHIN};

/// The fake.
#[derive(Default)]
pub struct FakeDatabaseCluster(Mutex<State>);

/// What a test may set.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is something that a test may set by itself")]
pub struct State {
    /// The servers; empty: nobody listens.
    pub members: Vec<Member>,
    /// An operator has told it to change nothing.
    pub is_paused: bool,
    /// It changes the leader, and does not say so.
    pub fails: bool,
    /// It changes no leader.
    pub refuses: bool,
    /// It answers nothing.
    pub hangs: bool,
    /// How often it was asked for members.
    pub looks: usize,
    /// What it was asked to change, in order.
    pub asked: Vec<(String, String)>,
}

impl FakeDatabaseCluster {
    /// Servers of these names; the first leads.
    pub fn new(names: &[&str]) -> Arc<Self> {
        let member = |(index, name): (usize, &&str)| Member {
            name: (*name).to_owned(),
            host: None,
            port: None,
            leads: index == 0,
            works: true,
            state: "running".to_owned(),
        };
        let members = names.iter().enumerate().map(member).collect();
        Arc::new(Self(Mutex::new(State { members, ..State::default() })))
    }

    /// How they are.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Somebody else changes something.
    pub fn by_hand(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hang(&self, doing: &'static str, within: Duration) -> Result<(), DatabaseClusterError> {
        if self.lock().hangs {
            tokio::time::sleep(within).await;
            return Err(DatabaseClusterError::Late { at: "a test".into(), doing, within });
        }
        Ok(())
    }
}

#[async_trait]
impl DatabaseCluster for FakeDatabaseCluster {
    async fn servers(&self) -> Result<Servers, DatabaseClusterError> {
        self.lock().looks += 1;
        self.hang("tell its members", super::ASK_WITHIN).await?;
        let State { members, is_paused, .. } = self.state();
        if members.is_empty() {
            return Err(DatabaseClusterError::Absent("a test".into()));
        }
        Ok(Servers { is_paused, members })
    }

    async fn lead(&self, leader: &str, candidate: &str) -> Result<(), DatabaseClusterError> {
        self.lock().asked.push((leader.to_owned(), candidate.to_owned()));
        self.hang("change the leader", MOVE_WITHIN).await?;
        let mut state = self.lock();
        if state.refuses {
            let (at, why) = ("a test".into(), "a test refuses it".into());
            return Err(DatabaseClusterError::Refused { at, doing: "change the leader", why });
        }
        for member in &mut state.members {
            member.leads = member.name == candidate;
        }
        if state.fails {
            let (at, doing) = ("a test".into(), "change the leader");
            return Err(DatabaseClusterError::Failed { at, doing, cause: io::Error::other("a test") });
        }
        Ok(())
    }
}
