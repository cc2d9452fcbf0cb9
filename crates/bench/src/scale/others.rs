//! The other nodes of the cluster, as far as the state tree shows them.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::tree::Tree;

/// Writes their keepalives until it is stopped.
pub(crate) struct Others {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

/// The name of one.
pub(super) fn name(number: usize) -> String {
    format!("other{number}")
}

impl Others {
    /// Registers so many, the first of which is primary, and begins to speak for them.
    pub(super) async fn start(nodes: usize, every: Duration) -> Result<Self> {
        let tree = Tree::connect().await?;
        for n in 0..nodes {
            register(&tree, n).await?;
        }
        tree.write("/primary_node", &name(0)).await?;
        tree.hold("/pvc/primary", &name(0)).await?;
        let (stop, stopped) = watch::channel(false);
        let share = every / u32::try_from(nodes).context("so many nodes")?;
        let task = tokio::spawn(speak(tree, nodes, share, stopped));
        Ok(Self { stop, task })
    }

    /// They leave the cluster: the next measured daemon would have nodes to fence, or to look after since they have stopped.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.task.await?
    }
}

async fn speak(tree: Tree, nodes: usize, share: Duration, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let mut tick = interval(share);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for said in 0_usize.. {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        let base = format!("/nodes/{}", name(said % nodes));
        let round = said / nodes;
        // What another daemon writes when nothing happens: that it lives, and what is never twice the same.
        let keys = [
            ("memused", (1000 + round).to_string()),
            ("memfree", (9000 - round).to_string()),
            ("cpuload", format!("0.{:02}", round % 100)),
            ("keepalive", (1_700_000_000 + round).to_string()),
        ];
        tree.set_all(keys.iter().map(|(key, value)| (format!("{base}/{key}"), value.as_str()))).await?;
    }
    for n in 0..nodes {
        tree.remove(&format!("/nodes/{}", name(n))).await?;
    }
    Ok(())
}

/// Writes every key of a node.
async fn register(tree: &Tree, n: usize) -> Result<()> {
    let base = format!("/nodes/{}", name(n));
    let mode = if n == 0 { "coordinator" } else { "hypervisor" };
    let keys = [
        ("daemonmode", mode),
        ("daemonstate", "run"),
        ("routerstate", if n == 0 { "primary" } else { "client" }),
        ("domainstate", "ready"),
        ("staticdata", "8 6.1.0-18-amd64 GNU/Linux x86_64"),
        ("boot", "7b8f6a0e-0000-4000-8000-000000000000"),
        ("keepalive_interval", "5"),
        ("selffence", ""),
        ("ipmihostname", ""),
        ("ipmiusername", ""),
        ("ipmipassword", ""),
        ("memtotal", "10000"),
        ("memused", "0"),
        ("memfree", "0"),
        ("memalloc", "0"),
        ("vcpualloc", "0"),
        ("cpuload", "0"),
        ("networkscount", "0"),
        ("domainscount", "0"),
        ("runningdomains", ""),
        ("keepalive", "0"),
        ("guests", ""),
        ("hypervisor", ""),
    ];
    let below = keys.map(|(key, value)| (format!("{base}/{key}"), value));
    tree.create_all(std::iter::once((base.clone(), mode)).chain(below)).await
}
