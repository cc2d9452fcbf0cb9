//! The lock of an image: who has it, who gives it up, and from whom it is taken.

use std::time::Duration;

use pvc_core::model::ceph::ClientAddress;

use super::{CephFault, State};

/// Whether a client may write.
pub(super) enum Locking {
    Has,
    /// Not yet.
    Again(Duration),
    Gone,
}

impl State {
    /// A client wants the lock. Answers, too, who was shut out for it, and until when.
    pub(super) fn lock(
        &mut self,
        address: ClientAddress,
        now: Duration,
    ) -> (Locking, Option<(ClientAddress, Duration)>) {
        let again = |ms| (Locking::Again(Duration::from_millis(ms)), None);
        let Some(client) = self.clients.get(&address).filter(|client| client.gone.is_none()) else {
            return (Locking::Gone, None);
        };
        let (image, machine) = (client.image.clone(), client.machine);
        // Who was given it has it for as long as it knows, and asks nobody.
        if client.believes {
            return (Locking::Has, None);
        }
        if !client.connected || self.trouble.cut_since(machine).is_some() {
            return again(1000);
        }
        if self.refuses(address, 0, now) {
            return again(5000);
        }
        let holder = self.images.get(&image).and_then(|image| image.lock).filter(|holder| *holder != address);
        let mut taken_from = None;
        if let Some(holder) = holder {
            if self.watches(holder, now) {
                return if self.hands_over(holder) { again(50) } else { again(2000) };
            }
            if self.trouble.is(CephFault::Down) || self.trouble.is(CephFault::RefusesBlocklist) {
                return again(5000);
            }
            let until = now + self.taken_for;
            self.monitors.shut_out(holder, until);
            self.map_changes(now);
            let epoch = self.monitors.epoch();
            self.judged_by(&image, 0, epoch, now);
            if let Some(client) = self.clients.get_mut(&address) {
                client.epoch = epoch;
            }
            taken_from = Some((holder, until));
        }
        if let (Some(image), Some(client)) = (self.images.get_mut(&image), self.clients.get_mut(&address)) {
            image.lock = Some(address);
            client.believes = true;
        }
        (Locking::Has, taken_from)
    }

    /// Whoever is asked for a lock gives it up once nothing of it is on its way, if its process runs.
    fn hands_over(&mut self, holder: ClientAddress) -> bool {
        let Some(client) = self.clients.get(&holder) else { return false };
        let answers = client.gone.is_none()
            && !self.frozen.contains_key(&client.machine)
            && self.trouble.cut_since(client.machine).is_none();
        if !answers || client.in_flight > 0 {
            return false;
        }
        let image = client.image.clone();
        if let (Some(image), Some(client)) = (self.images.get_mut(&image), self.clients.get_mut(&holder)) {
            image.lock.take_if(|held| *held == holder);
            client.believes = false;
        }
        true
    }
}
