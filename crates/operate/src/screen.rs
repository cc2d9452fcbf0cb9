//! Tickets for guests' screens: what a client shows to the node that executes a VM.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    command::{Refusal, RefusalKind},
    model::{NodeName, VmId, screen::Hello},
};
use pvc_store::{CommitError, Store, schema::screen as schema};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{Cluster, Failure};

/// A key that cannot be removed is tried again after so long, and twice as long each time.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);
/// For longer than a session outlives its client's silence: then the key is gone anyway.
const TRIES: u32 = 15;

/// A ticket for one screen. Its key is removed when this is dropped, or when it is too old.
#[derive(Debug)]
pub struct Ticket {
    hello: Hello,
    used: oneshot::Sender<()>,
}

impl Ticket {
    /// What is shown to the node.
    pub fn line(&self) -> String {
        self.hello.line()
    }

    /// The node has taken it: nothing is left to be removed.
    pub fn used(self) {
        // Who would have removed it may have done so, since it was too old.
        let _ = self.used.send(());
    }
}

/// A ticket for the screen of a VM on a node; good for a moment and once, and for as long as this client's session lives at most.
///
/// A task of its own makes the key and removes it, whatever becomes of who asks here.
pub async fn ticket(
    cluster: &Cluster,
    node: &NodeName,
    vm: VmId,
    now_unix_s: u64,
) -> Result<Ticket, Failure> {
    let mut ticket = [0; 32];
    // From the kernel's random numbers, 244 bits of them.
    for half in ticket.chunks_mut(16) {
        half.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    let hello = Hello { vm, until_unix_s: now_unix_s.saturating_add(schema::GOOD_FOR_S), ticket };
    let (used, over) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    #[allow(
        clippy::disallowed_methods,
        reason = "a key that was made is removed, also if nobody waits any more"
    )]
    tokio::spawn(keep(Arc::clone(&cluster.store), node.clone(), hello, tell, over));
    let ticket = Ticket { hello, used };
    let issued = told.await.map_err(|_| Failure::Failed("the ticket's task has ended".to_owned()))?;
    if issued? {
        return Ok(ticket);
    }
    Err(Failure::Refused(Refusal {
        kind: RefusalKind::Refused,
        what: "the screen was not opened".to_owned(),
        why: format!("{} others are being opened", schema::MOST_TICKETS),
        todo: "try again in a moment".to_owned(),
    }))
}

/// Makes the key, and removes it when it is not used and `over`, or too old; also one of which nobody knows whether it was made.
async fn keep(
    store: Arc<dyn Store>,
    node: NodeName,
    hello: Hello,
    tell: oneshot::Sender<Result<bool, CommitError>>,
    over: oneshot::Receiver<()>,
) {
    let issued = schema::issue(&*store, &node, &hello).await;
    let may_be = !matches!(issued, Ok(false) | Err(CommitError::Failed(_) | CommitError::Conflict { .. }));
    // Who does not listen any more has let go of the ticket, too.
    let _ = tell.send(issued);
    if !may_be || matches!(timeout(Duration::from_secs(schema::GOOD_FOR_S), over).await, Ok(Ok(()))) {
        return;
    }
    let mut pause = AGAIN;
    for _ in 0..TRIES {
        if schema::remove(&*store, &node, &hello).await.is_ok() {
            return;
        }
        sleep(pause).await;
        pause = LONGEST.min(2 * pause);
    }
}

#[cfg(test)]
mod tests {
    use pvc_store::schema::screen::{GOOD_FOR_S, waiting};
    use tokio::task::yield_now;

    use super::*;
    use crate::testing::{Fake, id, name};

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods, reason = "an asker that goes away")]
    async fn askers_that_go_away_leave_no_ticket() {
        let fake = Fake::with(&["hv1"]).await;
        let cluster = Arc::new(Cluster::new(Arc::clone(&fake.cluster.store), "memory"));
        let client = &fake.client;
        let left = async || waiting(&*fake.cluster.store).await.unwrap();
        for n in 0..300 {
            if n % 10 == 0 {
                client.lose_answers(1);
            }
            client.delay(Duration::from_millis(n % 3));
            let cluster = Arc::clone(&cluster);
            let asker = tokio::spawn(async move {
                let ticket = ticket(&cluster, &name("hv1"), id(1), 1000).await;
                sleep(Duration::from_secs(n % 2)).await;
                drop(ticket);
            });
            for _ in 0..n % 7 {
                yield_now().await;
            }
            sleep(Duration::from_millis(n % 5)).await;
            asker.abort();
        }
        sleep(Duration::from_secs(GOOD_FOR_S)).await;
        assert_eq!(left().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_goes_when_it_is_let_go_of_or_too_old_and_nothing_is_written_for_a_used_one() {
        let fake = Fake::with(&["hv1"]).await;
        let left = async || waiting(&*fake.cluster.store).await.unwrap();
        let one = async || ticket(&fake.cluster, &name("hv1"), id(1), 1000).await.unwrap();
        let dropped = one().await;
        assert_eq!(left().await, 1);
        drop(dropped);
        sleep(AGAIN).await;
        assert_eq!(left().await, 0);

        let kept = one().await;
        fake.client.refuse(2);
        sleep(Duration::from_secs(GOOD_FOR_S + 10)).await;
        assert_eq!(left().await, 0, "it is removed when that is possible again");
        kept.used();

        let used = one().await;
        used.used();
        sleep(AGAIN).await;
        assert_eq!(left().await, 1, "that is the node's to remove");
    }
}
