//! Whether this node can start VMs, as its parts last knew. The keepalive tells the others; the flush reconciler gives away what shall run here
//! and cannot. Whoever looks waits for nothing.

use std::future::pending;

use pvc_core::model::{NO_HYPERVISOR, NodeReport};
use tokio::sync::watch;

/// Why a part of the node keeps it from starting VMs; `None`: it does not.
pub type Trouble = Option<String>;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Ability {
    /// `None` on a node without a hypervisor.
    hypervisor: Option<watch::Receiver<Trouble>>,
    /// `None` where the networks are not managed.
    networks: Option<watch::Receiver<Trouble>>,
}

impl Ability {
    /// Of a node whose parts say this.
    pub fn new(
        hypervisor: Option<watch::Receiver<Trouble>>,
        networks: Option<watch::Receiver<Trouble>>,
    ) -> Self {
        Self { hypervisor, networks }
    }

    /// Why no VM can be started here now, in a line.
    pub fn why_not(&self) -> Option<String> {
        let Some(hypervisor) = &self.hypervisor else { return Some(NO_HYPERVISOR.to_owned()) };
        let trouble = hypervisor.borrow().clone();
        let trouble = trouble.or_else(|| self.networks.as_ref()?.borrow().clone())?;
        NodeReport::reason(&trouble)
    }

    /// Returns when that may have changed.
    pub async fn changed(&mut self) {
        tokio::select! {
            biased;
            () = changed(&mut self.hypervisor) => {}
            () = changed(&mut self.networks) => {}
        }
    }
}

/// Returns at the next change; never if nobody will say so any more.
async fn changed(receiver: &mut Option<watch::Receiver<Trouble>>) {
    match receiver {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                pending::<()>().await;
            }
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_trouble_is_told_in_a_line() {
        let (hypervisor, is) = watch::channel(Some("libvirt:\n no socket".to_owned()));
        let (networks, are) = watch::channel(None);
        let ability = Ability::new(Some(is), Some(are));
        assert_eq!(ability.why_not().as_deref(), Some("libvirt: no socket"));
        hypervisor.send_replace(None);
        assert_eq!(ability.why_not(), None);
        networks.send_replace(Some("x".repeat(10_000)));
        assert_eq!(ability.why_not().map(|why| why.len()), Some(300));
        assert_eq!(Ability::new(None, None).why_not().as_deref(), Some(NO_HYPERVISOR));
    }
}
