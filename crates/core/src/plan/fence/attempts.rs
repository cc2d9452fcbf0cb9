//! What this daemon did about one fence: the memory that repetitions need. Everything else is in the record.

use std::{collections::BTreeSet, time::Duration};

use crate::model::{Moment, NodeName};

use super::{TRY_AGAIN, renewal::BOOTS_WITHIN};

/// For how long it is believed who serves.
const ASK_SERVERS_AGAIN: Duration = Duration::from_secs(10);

/// How often the BMC of a node whose daemon has stopped is asked whether its machine is off.
const ASK_POWER_AGAIN: Duration = Duration::from_secs(20);

/// Memory of one fence.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    holds: bool,
    shot: Option<Moment>,
    powered_on: bool,
    /// When it could not be shut out of the storage, and why.
    storage: Option<(Moment, String)>,
    /// When some of its VMs found no new home, and why.
    recovery: Option<(Moment, String)>,
    /// When the servers of stopped coordinators were asked, and which of them serve.
    servers: Option<(Moment, BTreeSet<NodeName>)>,
    /// When it was not known to be off, and why.
    not_off: Option<(Moment, String)>,
    /// The proof of its death, if there is one, is no older than this.
    proven_since: Option<Moment>,
    /// Since when its machine may be on again, told to or found so, and when that was known last.
    on: Option<(Moment, Moment)>,
}

impl Attempts {
    /// The job was taken by this daemon's present session: a beginning, but for when it shot last, and how old a proof can be.
    pub fn taken(&mut self) {
        *self = Self { holds: true, shot: self.shot, proven_since: self.proven_since, ..Self::default() };
    }

    /// Its power could not be cut by this daemon, which has left the job to others.
    pub fn power_off_failed(&mut self, now: Moment) {
        *self = Self { shot: Some(now), ..Self::default() };
    }

    /// The job was left to others.
    pub fn left(&mut self) {
        *self = Self { shot: self.shot, proven_since: self.proven_since, ..Self::default() };
    }

    /// It was not proven dead yet at that moment.
    pub fn proven_no_sooner_than(&mut self, at: Moment) {
        self.proven_since = Some(at);
    }

    /// It was proven dead at that moment: what was done about it before was about another life of it.
    pub fn proven(&mut self, at: Moment) {
        *self = Self { holds: self.holds, shot: self.shot, proven_since: Some(at), ..Self::default() };
    }

    /// It was found to be off still, at that moment.
    pub fn found_off(&mut self, at: Moment) {
        (self.proven_since, self.on, self.not_off) = (Some(at), None, None);
    }

    /// It was found to be on, or nobody can say. If nobody has looked for long, it may just have been switched on.
    pub fn not_found_off(&mut self, why: String, now: Moment) {
        let known = self.on.filter(|(_, last)| now < *last + BOOTS_WITHIN);
        self.on = Some((known.map_or(now, |(since, _)| since), now));
        self.not_off = Some((now, why));
    }

    /// It was told to power on; that is done once for each proof, however it goes.
    pub fn told_to_power_on(&mut self, now: Moment) {
        (self.powered_on, self.on) = (true, Some((now, now)));
    }

    /// It could not be shut out of the storage.
    pub fn storage_failed(&mut self, why: String, now: Moment) {
        self.storage = Some((now, why));
    }

    /// Some of its VMs found no new home.
    pub fn recovery_failed(&mut self, why: String, now: Moment) {
        self.recovery = Some((now, why));
    }

    /// These of the stopped coordinators' servers serve.
    pub fn asked_servers(&mut self, serving: BTreeSet<NodeName>, now: Moment) {
        self.servers = Some((now, serving));
    }

    /// Who serves, and when to ask again; `None`: that is to be asked now.
    pub(super) fn serving(&self, now: Moment) -> Option<(&BTreeSet<NodeName>, Moment)> {
        let (at, serving) = self.servers.as_ref()?;
        let again = *at + ASK_SERVERS_AGAIN;
        (now < again).then_some((serving, again))
    }

    /// Its machine is not known to be off.
    pub fn asked_power(&mut self, why: String, now: Moment) {
        self.not_off = Some((now, why));
    }

    /// Why its machine is not known to be off, and when to ask again; `None`: that is to be asked now.
    pub(super) fn not_off(&self, now: Moment) -> Option<(&str, Moment)> {
        let (at, why) = self.not_off.as_ref()?;
        let again = *at + ASK_POWER_AGAIN;
        (now < again).then_some((why, again))
    }

    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    pub(super) fn shot_at(&self) -> Option<Moment> {
        self.shot
    }

    pub(super) fn proven_since(&self) -> Option<Moment> {
        self.proven_since
    }

    pub(super) fn on_since(&self) -> Option<Moment> {
        self.on.map(|(since, _)| since)
    }

    pub(super) fn powered_on(&self) -> bool {
        self.powered_on
    }

    /// When to try again to shut it out of the storage, and why that failed.
    pub(super) fn not_shut_out(&self) -> Option<(Moment, &str)> {
        self.storage.as_ref().map(|(at, why)| (*at + TRY_AGAIN, why.as_str()))
    }

    pub(super) fn storage_due(&self, now: Moment) -> bool {
        self.not_shut_out().is_none_or(|(at, _)| now >= at)
    }

    /// When to try again to find homes for its VMs, and why that failed.
    pub(super) fn homeless(&self) -> Option<(Moment, &str)> {
        self.recovery.as_ref().map(|(at, why)| (*at + TRY_AGAIN, why.as_str()))
    }

    pub(super) fn recovery_due(&self, now: Moment) -> bool {
        self.homeless().is_none_or(|(at, _)| now >= at)
    }
}
