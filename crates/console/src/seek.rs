//! Finds a guest's console: looks where the guest may be, asks there, waits until something changes, looks again.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    command::{Refusal, RefusalKind},
    model::{NodeName, VmId},
};
use pvc_host::hypervisor::console::{Console, ConsoleError, Consoles, Hold};
use pvc_operate::{
    Cluster, Failure, Kind,
    vm::{Home, Whereabouts},
};
use tokio::time::{Instant, timeout};

use crate::Nodes;

/// libvirt says of no other node's guest that it has come: it is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What is looked for, and for how long.
pub(crate) struct Seek {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) consoles: Arc<dyn Consoles>,
    pub(crate) nodes: Nodes,
    pub(crate) id: VmId,
    pub(crate) hold: Hold,
    /// What fails may be well again soon.
    pub(crate) is_patient: bool,
    /// Whoever has the console may be ourselves: libvirt has not noticed yet that we have lost it.
    pub(crate) may_be_ours: bool,
    /// Also while the VM is off.
    pub(crate) until_it_runs: bool,
    /// `None`: for as long as it takes.
    pub(crate) until: Option<Instant>,
}

/// What was found.
pub(crate) enum Found {
    /// The console, and where.
    Open(Console, NodeName, Home),
    /// The VM is off.
    Off(Home),
}

impl Seek {
    pub(crate) async fn seek(self, mut whereabouts: Whereabouts) -> (Whereabouts, Result<Found, Failure>) {
        loop {
            let why = match self.look(&whereabouts).await {
                Ok(Looked::Found(found)) => return (whereabouts, Ok(found)),
                Ok(Looked::NotYet(why)) => why,
                // A store that is away for a moment comes back.
                Err(failure) if self.is_patient && failure.kind() == Kind::Unavailable => failure.to_string(),
                Err(failure) => return (whereabouts, Err(failure)),
            };
            if self.until.is_some_and(|until| Instant::now() >= until) {
                let id = self.id;
                return (whereabouts, Err(Failure::Failed(format!("no console of VM {id}: {why}"))));
            }
            // No event is relied upon.
            let _ = timeout(AGAIN, whereabouts.changed()).await;
        }
    }

    async fn look(&self, whereabouts: &Whereabouts) -> Result<Looked, Failure> {
        let home = whereabouts.look(&self.cluster).await?;
        if home.is_off() {
            let why = || Looked::NotYet(format!("VM {} is off", home.name));
            return Ok(if self.until_it_runs { why() } else { Looked::Found(Found::Off(home)) });
        }
        let mut why = format!("no node executes VM {} yet (see `pvc vm explain {}`)", home.name, home.name);
        for node in &home.nodes {
            match self.consoles.open(&self.nodes.place(node), self.id, self.hold).await {
                Ok(console) => return Ok(Looked::Found(Found::Open(console, node.clone(), home))),
                Err(ConsoleError::NotActive(_)) => {}
                Err(error @ ConsoleError::Lacking(_)) => return Err(refused(&home, node, &error)),
                Err(ConsoleError::Taken) if self.is_patient && !self.may_be_ours => {
                    return Err(Failure::Failed(format!(
                        "somebody else has taken the console of VM {} on {node}; `pvc vm console --force {}` takes it back",
                        home.name, home.name
                    )));
                }
                Err(error) if self.is_patient => why = error.to_string(),
                Err(error) => return Err(refused(&home, node, &error)),
            }
        }
        Ok(Looked::NotYet(why))
    }
}

enum Looked {
    Found(Found),
    NotYet(String),
}

fn refused(home: &Home, node: &NodeName, error: &ConsoleError) -> Failure {
    let what = format!("the console of VM {} on {node} was not opened", home.name);
    let refusal = |why: String, todo: String| {
        Failure::Refused(Refusal { kind: RefusalKind::Refused, what: what.clone(), why, todo })
    };
    match error {
        ConsoleError::Taken => refusal(
            error.to_string(),
            format!("have it closed there, or take it: `pvc vm console --force {}`", home.name),
        ),
        ConsoleError::Lacking(_) => match error.to_string().split_once(": ") {
            Some((why, todo)) => refusal(why.to_owned(), todo.to_owned()),
            None => Failure::Failed(format!("{what}: {error}")),
        },
        _ => Failure::Failed(format!("{what}: {error}")),
    }
}
