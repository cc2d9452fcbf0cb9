//! Asks the other nodes' BMCs now and then whether their machines have power, and records what they say: a BMC that cannot be used is
//! told while its node lives, not when it dies. It is only asked; nothing is switched here.
//!
//! Runs on every coordinator. The primary asks all BMCs but its own, which a machine often cannot reach; that one is asked by the first
//! other coordinator that works.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics::gauge;
use pvc_core::{
    model::{BmcReport, BmcWord, ClusterView, DaemonMode, Node, NodeName},
    plan::{liveness, placement},
};
use pvc_host::{
    machine::Machine,
    power::{Bmc, IPMI_PORT, Power, PowerError, PowerState},
};
use pvc_store::{Store, StoreError, mirror::Mirror, schema};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::metrics::BMC_USABLE;

/// How often each is asked.
const EVERY: Duration = Duration::from_mins(5);
/// How long after one the next is asked: BMCs are slow, and nobody is in a hurry.
const APART: Duration = Duration::from_secs(2);
/// How often it is looked who has to ask.
const LOOK: Duration = Duration::from_secs(30);

/// What it stands on.
pub(crate) struct Bmcs {
    pub(crate) me: NodeName,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) mirror: Mirror,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) power: Arc<dyn Power>,
    /// How often this node speaks.
    pub(crate) keepalive: Duration,
}

impl Bmcs {
    /// Asks, for ever.
    pub(crate) async fn run(self) {
        let mut asked: BTreeMap<NodeName, Instant> = BTreeMap::new();
        loop {
            let view = self.mirror.view();
            let mine: Vec<&NodeName> = asked_by(&self.me, &view);
            asked.retain(|node, _| {
                let is_mine = mine.contains(&node);
                if !is_mine {
                    // Who asks from now on tells it.
                    gauge!(BMC_USABLE, "node" => node.to_string()).set(f64::NAN);
                }
                is_mine
            });
            let due = mine.into_iter().find(|node| asked.get(*node).is_none_or(|at| at.elapsed() >= EVERY));
            match due.filter(|_| self.mirror.synced()) {
                Some(node) => {
                    asked.insert(node.clone(), Instant::now());
                    if let Err(error) = self.ask(node, &view).await {
                        debug!(%node, "what its BMC says could not be recorded: {error}");
                    }
                    sleep(APART).await;
                }
                None => sleep(LOOK).await,
            }
        }
    }

    async fn ask(&self, name: &NodeName, view: &ClusterView) -> Result<(), String> {
        let text = |error: StoreError| error.to_string();
        let Some(node) = view.node(name) else { return Ok(()) };
        let before = schema::bmc::read(&*self.store, name).await.map_err(text)?;
        let bmc = read(&*self.store, name).await.map_err(text)?;
        let host = bmc.as_ref().map(|bmc| bmc.host.clone()).unwrap_or_default();
        let before = before.filter(|before| before.host == host);
        let mut on_in_boot = before.as_ref().and_then(|before| before.on_in_boot.clone());
        let word = match &bmc {
            None => BmcWord::NotConfigured,
            Some(bmc) => match self.power.status(bmc).await {
                Ok(PowerState::On) => {
                    if placement::works(node) {
                        on_in_boot.clone_from(&node.boot);
                    }
                    BmcWord::On
                }
                Ok(PowerState::Off) if speaks(&self.mirror, node, self.keepalive).await => BmcWord::Elsewhere,
                Ok(PowerState::Off) => BmcWord::Off,
                Err(error @ PowerError::WrongCredentials { .. }) => {
                    BmcWord::WrongCredentials { why: error.to_string() }
                }
                Err(error) => BmcWord::NoAnswer { why: error.to_string() },
            },
        };
        if word == BmcWord::Elsewhere {
            on_in_boot = None;
        }
        let report =
            BmcReport { word, host, by: self.me.to_string(), at_unix_s: self.machine.unix_s(), on_in_boot };
        let trouble = report.trouble();
        // Where there is none nothing can fail.
        let usable = match (&report.word, &trouble) {
            (BmcWord::NotConfigured, _) => f64::NAN,
            (_, Some(_)) => 0.0,
            (_, None) => 1.0,
        };
        gauge!(BMC_USABLE, "node" => name.to_string()).set(usable);
        match (&trouble, before.as_ref().and_then(BmcReport::trouble)) {
            (Some(now), then) if then.as_ref() != Some(now) => {
                warn!(node = %name, alert = true, "if it dies it cannot be fenced: {now}");
            }
            (None, Some(_)) => info!(node = %name, "its BMC can be used"),
            _ => {}
        }
        schema::bmc::record(&*self.store, name, &report).await.map_err(|error| error.to_string())
    }
}

/// Whether a node says from now on that it lives: a keepalive that may have been on its way does not count. `keepalive`: how often this node
/// speaks.
pub(crate) async fn speaks(mirror: &Mirror, node: &Node, keepalive: Duration) -> bool {
    let patience = liveness::longest_gap(liveness::interval(node, keepalive));
    let speaking = async {
        mirror.hears(&node.name).await?;
        mirror.hears(&node.name).await
    };
    matches!(timeout(patience * 2, speaking).await, Ok(Some(())))
}

/// How a node's BMC is reached, as the node has published it; `None`: it names none.
pub(crate) async fn read(store: &dyn Store, node: &NodeName) -> Result<Option<Bmc>, StoreError> {
    let ipmi = schema::node::read_ipmi(store, node).await?;
    Ok((!ipmi.hostname.is_empty()).then_some(Bmc {
        host: ipmi.hostname,
        port: IPMI_PORT,
        user: ipmi.username,
        password: ipmi.password,
    }))
}

/// The nodes whose BMCs this node asks.
fn asked_by<'a>(me: &NodeName, view: &'a ClusterView) -> Vec<&'a NodeName> {
    let primary = view.primary_holder.as_ref();
    let works = |node: &&Node| node.mode == DaemonMode::Coordinator && placement::works(node);
    let second = view.all_nodes().filter(works).map(|node| &node.name).find(|name| Some(*name) != primary);
    let is_mine = |name: &&NodeName| match primary {
        Some(primary) if primary == *name => second == Some(me),
        Some(primary) => primary == me,
        None => false,
    };
    view.nodes.keys().filter(is_mine).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pvc_core::model::{DaemonState, NodeReport};
    use pvc_host::{
        machine::FakeMachine,
        power::fake::{FakePower, Reach},
    };
    use pvc_process::JoinSet;
    use pvc_store::{
        Transaction,
        memory::{MemoryStore, MemoryTree},
        schema::{node, primary, root},
    };

    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    async fn register(store: &MemoryStore, node: &str, host: &str) {
        let registration = node::Registration {
            name: name(node),
            mode: DaemonMode::Coordinator,
            static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
            boot: "boot".into(),
            keepalive_interval: Duration::from_secs(5),
            vtep: None,
            storage: true,
            ipmi: node::Ipmi { hostname: host.into(), username: "admin".into(), password: "secret".into() },
        };
        node::register(store, &registration).await.unwrap();
        store.commit(node::set_daemon_state(&name(node), DaemonState::Run)).await.unwrap();
    }

    /// Speaks for nodes, for ever.
    async fn speak(store: Arc<MemoryStore>, nodes: &[&str]) {
        loop {
            for node in nodes {
                store.commit(node::report(&name(node), &NodeReport::default(), None)).await.unwrap();
            }
            sleep(Duration::from_secs(5)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_each_bmc_says_is_recorded_while_its_node_lives() {
        let tree = MemoryTree::new();
        let (store, eye) = (tree.client(), tree.client());
        root::init(&*eye).await.unwrap();
        let power = FakePower::new();
        for (node, host) in
            [("a", "a-lom"), ("b", "b-lom"), ("c", "c-lom"), ("d", "d-lom"), ("e", "e-lom"), ("f", "")]
        {
            register(&eye, node, host).await;
            let password = if node == "c" { "another" } else { "secret" };
            drop(power.add(host, "admin", password));
        }
        power.plug("d-lom", false);
        power.set_reach("e-lom", Reach::Silent);
        let held: Transaction = primary::take(&name("a"), false);
        eye.commit(held).await.unwrap();
        let mirror = Mirror::start(Arc::clone(&store) as Arc<dyn Store>);
        mirror.ready().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(speak(Arc::clone(&eye), &["a", "b", "c", "d", "e", "f"]));
        let bmcs = Bmcs {
            me: name("a"),
            store,
            mirror,
            machine: Arc::new(FakeMachine::default()),
            power: Arc::clone(&power) as Arc<dyn Power>,
            keepalive: Duration::from_secs(5),
        };
        tasks.spawn(bmcs.run());
        sleep(Duration::from_mins(2)).await;
        let said = async |node: &str| schema::bmc::read(&*eye, &name(node)).await.unwrap();
        assert_eq!(said("a").await, None, "its own is another's to ask");
        let b = said("b").await.unwrap();
        assert_eq!((b.word, b.on_in_boot.as_deref()), (BmcWord::On, Some("boot")));
        let c = said("c").await.unwrap();
        assert!(matches!(&c.word, BmcWord::WrongCredentials { why } if why.contains("c-lom")), "{c:?}");
        assert!(!format!("{c:?}").contains("secret"));
        let d = said("d").await.unwrap();
        assert!(d.word == BmcWord::Elsewhere && d.trouble().unwrap().contains("another machine's"), "{d:?}");
        assert!(matches!(said("e").await.unwrap().word, BmcWord::NoAnswer { .. }));
        assert_eq!(said("f").await.unwrap().word, BmcWord::NotConfigured);

        power.plug("d-lom", true);
        sleep(Duration::from_mins(6)).await;
        assert_eq!(said("d").await.unwrap().word, BmcWord::On, "asked again after five minutes");
    }
}
