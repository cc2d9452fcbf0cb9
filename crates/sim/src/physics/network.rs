//! Who reaches whom. A direction that is cut loses nothing that TCP would send again: it arrives late, or the connection ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pvc_core::model::NodeName;
use tokio::sync::watch;

use crate::{
    event::{Event, Net},
    journal::Journal,
};

/// Nodes are numbered in the order of their names.
pub type Number = usize;

/// See the module's documentation.
pub struct Network {
    names: Vec<NodeName>,
    journal: Arc<Journal>,
    /// How many faults cut each direction.
    cuts: Mutex<Vec<u32>>,
    changes: watch::Sender<()>,
}

impl Network {
    /// The machine of that name.
    pub fn number(&self, node: &NodeName) -> Option<Number> {
        self.names.iter().position(|name| name == node)
    }

    /// Everything passes.
    pub fn new(names: Vec<NodeName>, journal: Arc<Journal>) -> Self {
        let directions = Net::ALL.len() * names.len() * names.len();
        Self { names, journal, cuts: Mutex::new(vec![0; directions]), changes: watch::Sender::new(()) }
    }

    /// One more fault cuts a direction.
    pub fn cut(&self, net: Net, from: Number, to: Number) {
        self.change(net, from, to, |faults| *faults += 1);
    }

    /// One of its faults is over.
    pub fn mend(&self, net: Net, from: Number, to: Number) {
        self.change(net, from, to, |faults| *faults = faults.saturating_sub(1));
    }

    fn change(&self, net: Net, from: Number, to: Number, change: impl FnOnce(&mut u32)) {
        let place = self.place(net, from, to);
        let mut cuts = self.lock();
        let before = cuts[place];
        change(&mut cuts[place]);
        let (was, cut) = (before > 0, cuts[place] > 0);
        drop(cuts);
        if was != cut {
            let (from, to) = (self.names[from].clone(), self.names[to].clone());
            self.journal.tell(Event::Link { net, from, to, cut });
            self.changes.send_replace(());
        }
    }

    /// Whether anything gets from one to the other.
    pub fn passes(&self, net: Net, from: Number, to: Number) -> bool {
        from == to && net != Net::Bmc || self.lock()[self.place(net, from, to)] == 0
    }

    /// Whether anything gets there and back.
    pub fn passes_both_ways(&self, net: Net, a: Number, b: Number) -> bool {
        self.passes(net, a, b) && self.passes(net, b, a)
    }

    /// Returns when something gets there.
    pub async fn until_it_passes(&self, net: Net, from: Number, to: Number) {
        let mut changes = self.changes.subscribe();
        while !self.passes(net, from, to) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Signalled at each change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn place(&self, net: Net, from: Number, to: Number) -> usize {
        (net as usize * self.names.len() + from) * self.names.len() + to
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
