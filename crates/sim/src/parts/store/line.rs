//! A connection between a client and a server: what is asked is carried there in order, and answers come back.

use std::sync::Arc;

use pvc_store::{
    Children, CommitError, Committed, Op, Stat, Store, StoreError, Transaction, Value, memory::MemoryStore,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::Place;
use crate::{
    event::Net,
    physics::{ensemble::Accepted, network::Number},
};

/// The connection that the client believes in.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) requests: mpsc::UnboundedSender<Request>,
    /// Turns true when the client gives it up.
    pub(super) lost: watch::Receiver<bool>,
}

pub(super) struct Request {
    pub(super) sent: Instant,
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Reply>,
}

#[derive(Clone)]
pub(super) enum Ask {
    Ping,
    Get(String),
    Children(String),
    GetMany(Arc<[String]>),
    ChildrenMany(Arc<[String]>),
    StatMany(Arc<[String]>),
    Commit(Transaction),
}

pub(super) enum Reply {
    Pong,
    Get(Result<Option<Value>, StoreError>),
    Children(Result<Option<Children>, StoreError>),
    GetMany(Result<Vec<Option<Value>>, StoreError>),
    ChildrenMany(Result<Vec<Option<Children>>, StoreError>),
    StatMany(Result<Vec<Option<Stat>>, StoreError>),
    Commit(Result<Committed, CommitError>),
}

/// The world's side of a connection.
pub(super) struct Carrier {
    pub(super) place: Place,
    pub(super) client: u64,
}

impl Carrier {
    /// Carries requests to the server and answers back, in order, until one of the two ends it.
    pub(super) async fn carry(
        self,
        accepted: Accepted,
        mut queue: mpsc::UnboundedReceiver<Request>,
        inner: Arc<MemoryStore>,
    ) {
        let Place { network, ensemble, node, .. } = self.place.clone();
        let (server, line) = (accepted.server, accepted.line);
        let mut ended = accepted.ended;
        loop {
            let request = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                request = queue.recv() => match request {
                    Some(request) => request,
                    None => break,
                },
            };
            let arrives = request.sent + ensemble.latency();
            let there = async {
                sleep_until(arrives).await;
                network.until_it_passes(Net::Store, node, server).await;
            };
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                () = there => {}
            }
            let Some(reply) = self.answer(&request.ask, server, line, &inner, &mut ended).await else {
                break;
            };
            if matches!(request.ask, Ask::Commit(_)) && ensemble.loses_answer(self.client) {
                break;
            }
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                () = network.until_it_passes(Net::Store, server, node) => {}
            }
            let _asker_may_be_gone = request.reply.send(reply);
        }
        // What the client has sent before it ended the line is there already.
        ensemble.closed(self.client, line);
    }

    /// What the server does and says; `None`: it never will.
    async fn answer(
        &self,
        ask: &Ask,
        server: Number,
        line: u64,
        inner: &Arc<MemoryStore>,
        ended: &mut watch::Receiver<bool>,
    ) -> Option<Reply> {
        let ensemble = &self.place.ensemble;
        if !ensemble.answers(server) || !ensemble.heard(self.client) {
            // Whoever died says nothing.
            let _ = ended.wait_for(|ended| *ended).await;
            return None;
        }
        if !inner.session().borrow().is_healthy() {
            if let Ask::Commit(txn) = ask
                && ensemble.may_write_late(self.client, line)
                && ensemble.writes(server)
            {
                let _nobody_hears_of_it = inner.commit_late(txn);
            }
            return None;
        }
        Some(match ask {
            Ask::Ping => Reply::Pong,
            Ask::Get(path) => Reply::Get(inner.get(path).await),
            Ask::Children(path) => Reply::Children(inner.children(path).await),
            Ask::GetMany(paths) => Reply::GetMany(inner.get_many(paths).await),
            Ask::ChildrenMany(paths) => Reply::ChildrenMany(inner.children_many(paths).await),
            Ask::StatMany(paths) => Reply::StatMany(inner.stat_many(paths).await),
            Ask::Commit(txn) => {
                if !ensemble.writes(server) {
                    // A leader that is not there answers nobody.
                    let _ = ended.wait_for(|ended| *ended).await;
                    return None;
                }
                let committed = inner.commit(txn.clone()).await;
                if committed.is_ok() && txn.ops.iter().all(|op| matches!(op, Op::Check { .. })) {
                    ensemble.synced(self.place.node);
                }
                Reply::Commit(committed)
            }
        })
    }
}
