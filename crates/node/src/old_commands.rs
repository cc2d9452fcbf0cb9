//! Answers what clients of the 0.5 generation write to `/cmd/domains` and `/cmd/ceph`. No command is served yet: each is answered
//! with a failure at once, so that its client says so instead of waiting for nothing.
//!
//! A client waits half a second, then waits for a read lock, then takes what it finds for the answer. So the write lock comes first, and
//! is held until every such client had time to read. What was written before this began, or while the connection was lost, is left as it
//! is: nobody waits for it, and it may ask for something that is no longer wanted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_process::JoinSet;
use pvc_store::{
    CommitError, Store, Watch, WatchEvent,
    lock::{Kind, Lock},
    schema::cmd::{self, Pipeline},
};
use tokio::time::sleep;
use tracing::warn;

use crate::reconcile::primary::PrimaryService;

/// How long the lock is waited for. By then the client that wrote the command has long given up.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer is kept under the lock, as the daemons of that generation did.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// The service, which runs on the primary coordinator.
pub(crate) struct OldCommands {
    store: Arc<dyn Store>,
    running: Mutex<Option<JoinSet<()>>>,
}

impl OldCommands {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, running: Mutex::default() }
    }

    fn is_running(&self, tasks: Option<JoinSet<()>>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }
}

#[async_trait]
impl PrimaryService for OldCommands {
    fn name(&self) -> &'static str {
        "old clients' commands"
    }

    async fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self) -> Result<(), String> {
        let mut tasks = JoinSet::new();
        for key in [cmd::DOMAINS, cmd::CEPH] {
            tasks.spawn(serve(Arc::clone(&self.store), key, self.store.watch(key)));
        }
        self.is_running(Some(tasks));
        Ok(())
    }

    async fn stop(&self) -> Result<(), String> {
        self.is_running(None);
        Ok(())
    }
}

async fn serve(store: Arc<dyn Store>, key: &'static str, mut changes: Watch) {
    while let Some(event) = changes.recv().await {
        // The lock's own keys are below.
        if event == WatchEvent::Changed(key.to_owned()) && is_asked(&*store, key).await {
            answer(&store, key).await;
        }
    }
}

async fn is_asked(store: &dyn Store, key: &str) -> bool {
    matches!(asked(store, key).await, Ok(Pipeline::Asked { .. }))
}

async fn asked(store: &dyn Store, key: &str) -> Result<Pipeline, String> {
    let value = store.get(key).await.map_err(|error| error.to_string())?;
    Ok(cmd::decode(value.as_ref()))
}

async fn answer(store: &Arc<dyn Store>, key: &str) {
    let lock = match Lock::acquire(Arc::clone(store), key, Kind::Write, LOCK_WITHIN).await {
        Ok(lock) => lock,
        Err(error) => return warn!("a command in {key} is not answered: {error}"),
    };
    match refuse(&**store, key).await {
        Ok(true) => sleep(READ_WITHIN).await,
        // Its client has changed it meanwhile, which is signalled again.
        Ok(false) => {}
        Err(error) => warn!("a command in {key} is not answered: {error}"),
    }
    lock.release().await;
}

/// Answers with a failure what is asked now; false if nothing is, any more.
async fn refuse(store: &dyn Store, key: &str) -> Result<bool, String> {
    let Pipeline::Asked { line, command, version } = asked(store, key).await? else { return Ok(false) };
    match store.commit(cmd::answer(key, &line, false, version)).await {
        Ok(_) => {}
        Err(CommitError::Conflict { .. }) => return Ok(false),
        Err(error) => return Err(error.to_string()),
    }
    let why = command.err().map_or_else(|| "nothing serves it yet".to_owned(), |error| error.to_string());
    warn!("the command in {key} is answered with a failure: {why}: {line}");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use pvc_store::{Op, Transaction, memory::MemoryTree, schema::root};
    use tokio::time::timeout;

    use super::*;

    async fn write(store: &dyn Store, key: &str, line: &str) {
        let op = Op::Set { path: key.into(), data: line.into(), version: None };
        store.commit(Transaction { ops: vec![op] }).await.unwrap();
    }

    /// As a client of that generation does it.
    async fn ask(store: &Arc<dyn Store>, key: &str, line: &str) -> String {
        write(&**store, key, line).await;
        sleep(Duration::from_millis(500)).await;
        let within = Duration::from_secs(10);
        let lock = Lock::acquire(Arc::clone(store), key, Kind::Read, within).await.unwrap();
        let answer = store.get(key).await.unwrap().unwrap().data;
        lock.release().await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_serves_is_refused_at_once_while_it_runs_and_what_is_stale_stays() {
        let tree = MemoryTree::new();
        let (store, client): (Arc<dyn Store>, Arc<dyn Store>) = (tree.client(), tree.client());
        root::init(&*client).await.unwrap();
        write(&*client, cmd::CEPH, "osd_remove 3").await;
        let commands = OldCommands::new(store);
        commands.start().await.unwrap();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(client.get(cmd::CEPH).await.unwrap().unwrap().data, b"osd_remove 3"[..], "stale");

        for (key, line) in [
            (cmd::CEPH, "osd_add hv1,/dev/sdb,1.0"),
            (cmd::CEPH, "no such thing"),
            (cmd::DOMAINS, "flush_locks 11111111-0000-4000-8000-000000000001"),
        ] {
            let answer = timeout(Duration::from_secs(2), ask(&client, key, line)).await.expect("at once");
            assert_eq!(answer, format!("failure-{line}"));
            write(&*client, key, "").await;
        }

        commands.stop().await.unwrap();
        let line = "osd_out 1";
        assert_eq!(ask(&client, cmd::CEPH, line).await, line, "it has stopped");
    }
}
