//! What handlers work with.

use std::sync::{Arc, OnceLock};

use pvc_console::{Consoles, screen::Screens};
use pvc_operate::{Cluster, Failure, vm::Catalogue};
use pvc_store::{Trial, mirror::Mirror};
use tokio::sync::watch;

use crate::{
    audit::Audit, differences::Differences, gate::Gate, limits::Limits, metrics::Metrics, past::Past,
    readings::Readings, remembered::Remembered, shares::Shares, written::Noting,
};

/// The cluster, who may command it, and what a request may cost.
pub struct Api {
    /// The cluster.
    pub cluster: Cluster,
    /// Who may.
    pub gate: Arc<Gate>,
    /// Whether everything is tried, and nothing done.
    pub(crate) is_trial: bool,
    /// What a request may cost.
    pub limits: Limits,
    /// What is known of the cluster, for who only looks; made when the service begins, or for the first who looks.
    catalogue: OnceLock<Arc<Catalogue>>,
    /// What was told to listeners last.
    pub(crate) differences: Differences,
    /// Who has changed what.
    pub(crate) audit: Audit,
    /// What was answered to changes with a key.
    pub(crate) remembered: Remembered,
    /// What is being read.
    pub(crate) readings: Readings,
    /// Places of those who read.
    pub(crate) reads: Shares,
    /// Places of those who change something.
    pub(crate) changes: Shares,
    /// Places of those who listen.
    pub(crate) listeners: Shares,
    /// Places of those who talk with guests.
    pub(crate) talks: Shares,
    /// What was seen.
    pub(crate) past: Past,
    /// What was answered.
    pub(crate) metrics: Metrics,
    /// Whether the talks are to end.
    ends: watch::Sender<bool>,
    /// libvirt's library, loaded for the first of them.
    consoles: OnceLock<Arc<dyn Consoles>>,
    /// Where screens are, if not where nodes say.
    pub(crate) screens: Option<Screens>,
}

impl Api {
    /// An API of that cluster.
    pub fn new(cluster: Cluster, gate: Gate, limits: Limits) -> Self {
        let noting = Arc::new(Noting(cluster.store));
        Self::with(Cluster::new(noting, cluster.place), Arc::new(gate), limits, false)
    }

    fn with(cluster: Cluster, gate: Arc<Gate>, limits: Limits, is_trial: bool) -> Self {
        Self {
            cluster,
            gate,
            is_trial,
            limits,
            catalogue: OnceLock::new(),
            differences: Differences::default(),
            audit: Audit::default(),
            remembered: Remembered::default(),
            readings: Readings::default(),
            reads: Shares::new(limits.reads),
            changes: Shares::new(limits.changes),
            listeners: Shares::new(limits.listeners),
            talks: Shares::new(limits.consoles),
            past: Past::default(),
            metrics: Metrics::default(),
            ends: watch::Sender::new(false),
            consoles: OnceLock::new(),
            screens: None,
        }
    }

    /// The same, where everything is tried and nothing done.
    pub(crate) fn trial(&self) -> Self {
        let cluster = Cluster::new(Trial::of(Arc::clone(&self.cluster.store)), self.cluster.place.as_str());
        Self::with(cluster, Arc::clone(&self.gate), self.limits, true)
    }

    /// With other consoles than libvirt's.
    #[must_use]
    pub fn with_consoles(mut self, consoles: Arc<dyn Consoles>) -> Self {
        self.consoles = OnceLock::from(consoles);
        self
    }

    /// With screens that are elsewhere than nodes say.
    #[must_use]
    pub fn with_screens(mut self, screens: Screens) -> Self {
        self.screens = Some(screens);
        self
    }

    /// Guests' consoles.
    pub(crate) fn consoles(&self) -> Result<Arc<dyn Consoles>, Failure> {
        if let Some(consoles) = self.consoles.get() {
            return Ok(Arc::clone(consoles));
        }
        // Of two who load it at once one has loaded it in vain.
        let loaded = pvc_console::libvirt(self.limits.consoles.all)?;
        Ok(Arc::clone(self.consoles.get_or_init(|| loaded)))
    }

    /// Returns when the changes that are being made and the talks with guests have ended, and who made them is written. No other is begun.
    pub async fn end(&self) {
        self.ends.send_replace(true);
        tokio::join!(self.changes.close(), self.talks.close());
        self.audit.write_all(&*self.cluster.store).await;
    }

    /// Returns when the service ends.
    pub(crate) async fn until_end(&self) {
        // Its sender lives as long as this does.
        let _ = self.ends.subscribe().wait_for(|ends| *ends).await;
    }

    /// The cluster for who only looks: what is known of it, which is whatever was changed here before included. Whoever writes decides by
    /// [`Self::cluster`], from what is read anew.
    pub(crate) fn seen(&self) -> &Cluster {
        self.catalogue().cluster()
    }

    /// The VMs for who only looks.
    pub(crate) fn catalogue(&self) -> &Arc<Catalogue> {
        self.catalogue.get_or_init(|| Catalogue::of(&self.cluster))
    }

    /// Hears what changes; `None`: nothing is known.
    pub(crate) fn mirror(&self) -> Option<&Mirror> {
        self.seen().its_mirror()
    }
}

/// As handlers share it.
pub(crate) type Shared = Arc<Api>;
