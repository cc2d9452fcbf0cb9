//! The clients by which images are changed in the fake, and that their daemons stop executing between any two steps.

use std::{net::Ipv4Addr, time::Duration};

use pvc_core::model::{
    ceph::{ClientAddress, ImageName, Lock},
    storage::CephChange,
};
use tokio::time::sleep;

use super::{FakeCeph, State};
use crate::ceph::CephError;

/// How often one that is stopped looks whether it goes on.
const LOOK: Duration = Duration::from_millis(50);

impl FakeCeph {
    /// The steps of a change of an image, between any two of which its daemon may stop.
    pub const STEPS: [&'static str; 5] = ["warranted", "looked", "locked", "looked again", "begun"];

    /// The next change whose words begin so stops at that step, as when its machine freezes for long: its client is not heard any more.
    pub fn stop_change(&self, words: &str, step: &'static str) {
        self.state().stops_at = Some((words.to_owned(), step));
    }

    /// Whether one has stopped.
    pub fn has_stopped(&self) -> bool {
        !self.state().stopped.is_empty()
    }

    /// All that have stopped go on.
    pub fn go_on(&self) {
        self.state().stopped.clear();
    }

    /// A client of a change's own.
    pub(super) fn changer(&self) -> ClientAddress {
        self.state().new_client(Ipv4Addr::LOCALHOST)
    }

    /// The change has come to this step. Nothing more is done by who is shut out.
    pub(super) async fn step(
        &self,
        change: &CephChange,
        client: &ClientAddress,
        step: &str,
    ) -> Result<(), CephError> {
        {
            let mut state = self.state();
            let stops = |(words, at): &(String, &str)| *at == step && change.to_string().starts_with(words);
            if state.stops_at.as_ref().is_some_and(stops) {
                state.stops_at = None;
                state.stopped.insert(*client);
                state.forget_watch(client);
            }
        }
        while self.state().stopped.contains(client) {
            sleep(LOOK).await;
        }
        if self.state().blocklist.contains_key(client) { Err(CephError::ShutOut) } else { Ok(()) }
    }
}

/// A client that has an image open to change it. Its lock stays if it ends without having given that up.
pub(super) struct Watch<'a> {
    pub(super) ceph: &'a FakeCeph,
    pub(super) client: ClientAddress,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.ceph.state().forget_watch(&self.client);
    }
}

impl State {
    pub(super) fn forget_watch(&mut self, client: &ClientAddress) {
        for image in self.images.values_mut() {
            image.users.watchers.retain(|watcher| watcher != client);
        }
    }

    /// What the image with this id is called now; one without an id by its name.
    pub(super) fn name_of(&self, name: &ImageName, id: Option<&str>) -> Option<ImageName> {
        let Some(id) = id else { return Some(name.clone()) };
        let mut named = self.images.iter().filter(|(_, image)| image.observed.id.as_deref() == Some(id));
        named.next().map(|(name, _)| name.clone())
    }

    /// Whether a writer gets the lock of an image, or has it. Who changes the image gives it to nobody; from one that is silent it is taken, by shutting that out.
    pub(super) fn gives_lock(&mut self, image: &ImageName) -> bool {
        let Some(there) = self.images.get(image) else { return false };
        let Some(holder) = there.users.locks.iter().find(|lock| lock.cookie == KEPT).map(|lock| lock.address)
        else {
            return true;
        };
        if there.users.watchers.contains(&holder) {
            return false;
        }
        self.shut_out(holder);
        true
    }

    /// Takes the lock of an image to keep it.
    pub(super) fn keep_lock(&mut self, image: &ImageName, client: ClientAddress) {
        if let Some(image) = self.images.get_mut(image) {
            let lock = Lock { client: format!("client.{client}"), cookie: KEPT.to_owned(), address: client };
            image.users.locks = vec![lock];
            image.users.watchers.push(client);
        }
    }

    pub(super) fn give_up_lock(&mut self, client: &ClientAddress) {
        for image in self.images.values_mut() {
            image.users.locks.retain(|lock| lock.address != *client);
        }
    }
}

/// Of a lock that is given to nobody who asks.
const KEPT: &str = "kept";
