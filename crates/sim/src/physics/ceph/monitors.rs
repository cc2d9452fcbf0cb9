//! What the monitors have decided: who is shut out, from which map on, and until when.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::ceph::ClientAddress;

/// See the module's documentation. Times are the world's.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    /// The number of the latest map.
    epoch: u64,
    until: BTreeMap<ClientAddress, Duration>,
    /// From which map on each client was shut out, or was not any more.
    turns: BTreeMap<ClientAddress, Vec<(u64, bool)>>,
}

impl Monitors {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who is shut out, and until when.
    pub(super) fn entries(&self) -> &BTreeMap<ClientAddress, Duration> {
        &self.until
    }

    /// Shuts a client out; an entry that there is gets that end, be it sooner.
    pub(super) fn shut_out(&mut self, client: ClientAddress, until: Duration) {
        self.until.insert(client, until);
        self.turn(client, true);
    }

    /// Lets it in again. Whether it was shut out.
    pub(super) fn lift(&mut self, client: ClientAddress) -> bool {
        let was = self.until.remove(&client).is_some();
        if was {
            self.turn(client, false);
        }
        was
    }

    /// Lets in those whose entries have ended, and answers who they are.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<ClientAddress> {
        let ended = self.until.iter().filter(|(_, until)| **until <= now).map(|(client, _)| *client);
        let ended: Vec<ClientAddress> = ended.collect();
        for client in &ended {
            self.lift(*client);
        }
        ended
    }

    /// Whether a client is shut out by the map of that number.
    pub(super) fn is_shut_out(&self, client: ClientAddress, epoch: u64) -> bool {
        let turns = self.turns.get(&client).into_iter().flatten();
        turns.take_while(|(from, _)| *from <= epoch).last().is_some_and(|(_, shut_out)| *shut_out)
    }

    fn turn(&mut self, client: ClientAddress, shut_out: bool) {
        self.epoch += 1;
        self.turns.entry(client).or_default().push((self.epoch, shut_out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_map_says_what_was_so_when_it_was_made() {
        let (client, s) = ("10.0.0.1:0/1".parse().unwrap(), Duration::from_secs);
        let mut monitors = Monitors::default();
        monitors.shut_out(client, s(10));
        monitors.shut_out(client, s(20));
        assert!(monitors.expire(s(19)).is_empty());
        assert_eq!(monitors.expire(s(20)), [client]);
        assert!(!monitors.lift(client));
        assert_eq!([0, 1, 2, 3].map(|epoch| monitors.is_shut_out(client, epoch)), [false, true, true, false]);
    }
}
