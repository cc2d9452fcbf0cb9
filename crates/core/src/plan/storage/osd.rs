//! OSDs are made and removed by the node that has the device: from what Ceph and that node have to the next step.
//!
//! ```text
//!   add:     take a number ──► give it up as destroyed ──► write to the device ──► start its daemon ──► heard: give it its weight ──► done
//!                 └─ a daemon that died after it began to write: what there is of it goes, as long as Ceph never heard of it, and it is written anew
//!   remove:  out (taken in again by somebody: it stays) ──► all its data is elsewhere ──► stop its daemon ──► safe still: purge ──► clear the device ──► done
//! ```
//! A number alone says nothing: it may be another OSD's by now. What is removed has the UUID that the task was begun for.

mod whose;

use std::{collections::BTreeSet, time::Duration};

pub use self::whose::{Host, Whose, leave_add, leave_removal, whose};
use super::counted;
use crate::model::{
    ceph::OsdId,
    osd::{LocalOsd, ObservedDevice, ObservedOsd, OsdUuid, Osds, TasksOsd, is_weight},
    storage_command::{Device, Weight},
};

/// How long a new OSD's daemon may take until Ceph hears of it.
pub const STARTS_WITHIN: Duration = Duration::from_mins(5);

/// Smaller ones hold nothing.
const SMALLEST: u64 = 1 << 30;

/// OSDs that are used to this share, in percent, take no data from others: Ceph's own bound.
const FULLEST_PERCENT: u64 = 85;

/// What an OSD's task is planned from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What stands at the task.
    pub own: Option<TasksOsd>,
    /// What Ceph has.
    pub osds: Osds,
    /// The device that is to be one; none if there is none.
    pub device: Option<ObservedDevice>,
    /// Why that cannot be looked at.
    pub unreadable: Option<String>,
    /// The VM whose definition names that device, and a VM whose definition cannot be read: it may.
    pub disk_of: Option<String>,
    /// See [`Self::disk_of`].
    pub unread_vm: Option<String>,
    /// What this node has of the OSD with the task's number.
    pub local: Option<LocalOsd>,
    /// This daemon has written it to its end.
    pub is_written: bool,
    /// Why it is not to be made after all; of one that is removed, why its device cannot be cleared.
    pub given_up: Option<String>,
    /// For how long its daemon was started, and Ceph has not heard of it.
    pub starts: Option<Duration>,
    /// For how long Ceph has not heard of it any more.
    pub silent: Option<Duration>,
    /// This node is removing an OSD: a folder that is there may go.
    pub removes_another: bool,
    /// Why it is not safe to be without it.
    pub unsafe_since: Option<String>,
    /// The tree has it.
    pub is_in_tree: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Record that it is carried out, and for which OSD.
    Begin,
    /// Take a number for a new one. One that was taken before is no more.
    TakeNumber,
    /// Record it.
    Number(OsdId),
    /// Write to the device, which is cleared first.
    Write(OsdId),
    /// Take away what is left of one that was not finished; its number stays.
    TakeAway(OsdId),
    /// Start its daemon.
    Start(OsdId),
    /// Give it its weight.
    Weigh(OsdId, Weight),
    /// Have its data leave it.
    Out(OsdId),
    /// Record that it was taken out of use.
    IsOut,
    /// Stop its daemon.
    Stop(OsdId),
    /// Have Ceph forget it.
    Purge(OsdId),
    /// Clear its device, and take its folder away.
    Clear(OsdId),
    /// Take its folder away only.
    Forget(OsdId),
    /// It is over: the OSD is removed, but for this.
    Left(OsdId, String),
    /// Wait, for this.
    Wait(String),
    /// It is over: the tree says from now on that there is such an OSD, or none.
    Done(OsdId, Option<bool>),
    /// It is not to be made, for this reason: what there is of it goes first.
    GiveUp(String),
    /// It is over.
    Fail(String),
}

use Step::{
    Begin, Clear, Done, Fail, Forget, GiveUp, IsOut, Left, Number, Out, Purge, Start, Stop, TakeAway,
    TakeNumber, Wait, Weigh, Write,
};

/// Makes one.
pub fn add(device: &Device, weight: Weight, wipe: bool, facts: &Facts) -> Step {
    let Some(own) = &facts.own else { return may_be_one(device, wipe, facts).map_or(Begin, Fail) };
    let by_uuid = facts.osds.all.iter().find(|(_, osd)| osd.uuid == own.uuid).map(|(id, _)| *id);
    let Some((id, osd)) = numbered(own, &facts.osds) else {
        // ceph-volume has Ceph forget the number if it fails.
        let left = own
            .id
            .map(OsdId)
            .filter(|id| own.writes && facts.local.is_some() && !facts.osds.all.contains_key(id));
        return match (left, by_uuid, &facts.given_up) {
            (Some(left), ..) => TakeAway(left),
            (None, Some(id), None) => Number(id),
            (None, Some(id), Some(_)) => Purge(id),
            (None, None, None) => TakeNumber,
            (None, None, Some(why)) => Fail(why.clone()),
        };
    };
    if osd.was_up {
        return heard(id, osd, weight, facts);
    }
    if facts.given_up.is_some() {
        let is_left = !osd.is_destroyed || (own.writes && facts.local.is_some());
        return if is_left { TakeAway(id) } else { Purge(id) };
    }
    if osd.is_destroyed {
        return match &facts.local {
            Some(_) if own.writes => TakeAway(id),
            Some(_) if facts.removes_another => Wait(format!("an OSD {id} is being removed from this node")),
            Some(_) => GiveUp(format!(
                "this node has a folder of an OSD {id} already, `/var/lib/ceph/osd/ceph-{id}`: move it away, then ask again"
            )),
            // What is on the device now this task has written.
            None if own.may_touch(facts.device.as_ref()) => is_a_vms(device, facts).map_or(Write(id), GiveUp),
            None if own.writes => GiveUp(format!(
                "while {device} was being made an OSD its node has booted, or it was taken out: by that name it may be another one now. \
                 Nothing more was done to it; ask again with `--wipe` if it is the one"
            )),
            None => may_be_one(device, wipe, facts).map_or(Write(id), GiveUp),
        };
    }
    match (facts.is_written, facts.starts) {
        (false, _) => TakeAway(id),
        (true, None) => Start(id),
        (true, Some(since)) if since < STARTS_WITHIN => Wait(format!("Ceph has not heard of OSD {id} yet")),
        (true, Some(_)) => GiveUp(format!(
            "Ceph has not heard of the new OSD within {} minutes: `journalctl -u ceph-osd@{id}` may say why",
            STARTS_WITHIN.as_secs() / 60
        )),
    }
}

/// The OSD that has the task's number. One that is not known to be this task's is another's, and is left alone.
fn numbered<'o>(own: &TasksOsd, osds: &'o Osds) -> Option<(OsdId, &'o ObservedOsd)> {
    let id = own.id.map(OsdId)?;
    let found = osds.all.get(&id).filter(|osd| own.writes || osd.is_destroyed || osd.uuid == own.uuid);
    found.map(|osd| (id, osd))
}

/// … or that has the UUID by which a number is taken: it may not have been recorded.
fn known_number<'o>(own: &TasksOsd, osds: &'o Osds) -> Option<(OsdId, &'o ObservedOsd)> {
    let by_uuid = || osds.all.iter().find(|(_, osd)| osd.uuid == own.uuid).map(|(id, osd)| (*id, osd));
    numbered(own, osds).or_else(by_uuid)
}

/// A new one that Ceph has heard of: data may be on it.
fn heard(id: OsdId, osd: &ObservedOsd, weight: Weight, facts: &Facts) -> Step {
    let is_here = facts.local.as_ref().is_some_and(|local| local.uuid.as_ref() == Some(&osd.uuid));
    match (osd.is_up, facts.silent) {
        (true, _) if !is_here => Fail(format!("OSD {id} is another one by now, and not on this node")),
        (true, _) if is_weight(osd.weight, weight) => Done(id, Some(true)),
        (true, _) => Weigh(id, weight),
        // A daemon was stopping it while Ceph came to hear of it.
        (false, _) if is_here && facts.local.as_ref().is_some_and(|local| !local.runs) => Start(id),
        (false, Some(since)) if since >= STARTS_WITHIN => Fail(format!(
            "OSD {id} was made and heard, and is down since: `journalctl -u ceph-osd@{id}` may say why, `pvc storage osd remove {id}` removes it"
        )),
        (false, _) => Wait(format!("OSD {id} was heard, and is not any more")),
    }
}

/// Who else has the device, if that is a VM. Asked before each time that something is written to it: a task may have waited for days.
fn is_a_vms(device: &Device, facts: &Facts) -> Option<String> {
    let name = facts.device.as_ref()?.named.as_ref()?;
    let vm = facts.disk_of.as_ref()?;
    Some(format!(
        "{device} is a disk of VM {vm}, whose definition names {name}: take it out of that first (`pvc vm modify {vm}`). \
         If the VM means another node's device of that name, have it name that by /dev/disk/by-id"
    ))
}

/// Why a device is not to be an OSD.
fn may_be_one(device: &Device, wipe: bool, facts: &Facts) -> Option<String> {
    if let Some(why) = &facts.unreadable {
        return Some(format!("{device} cannot be looked at: {why}"));
    }
    let Some(there) = &facts.device else {
        return Some(format!("there is no block device {device} on this node"));
    };
    if let Some(by) = &there.used {
        return Some(format!("{device} is in use: {by}"));
    }
    if let Some(why) = is_a_vms(device, facts) {
        return Some(why);
    }
    if let Some(id) = there.osd.as_ref().and_then(|uuid| known(uuid, facts)) {
        return Some(format!(
            "{device} is OSD {id} of this cluster: `pvc storage osd remove {id}` removes that"
        ));
    }
    match (&facts.unread_vm, &there.holds) {
        _ if there.size < SMALLEST => Some(format!("{device} has less than 1 GiB")),
        (Some(vm), _) if !wipe => Some(format!(
            "the definition of VM {vm} cannot be read, and {device} may be a disk of it: mend or remove that first. \
             If {device} is no VM's, `--wipe` clears it all the same"
        )),
        (_, Some(what)) if !wipe => Some(format!(
            "{device} holds {what}: nothing was changed. If all that is on it may be lost, `--wipe` clears it"
        )),
        _ => None,
    }
}

/// The OSD that Ceph knows by that UUID. One that was destroyed has lost its own.
fn known(uuid: &OsdUuid, facts: &Facts) -> Option<OsdId> {
    facts.osds.all.iter().find(|(_, osd)| osd.uuid == *uuid).map(|(id, _)| *id)
}

/// Removes one.
pub fn remove(id: OsdId, facts: &Facts) -> Step {
    let osd = facts.osds.all.get(&id);
    let Some(own) = &facts.own else {
        return match osd {
            None if facts.is_in_tree => Done(id, Some(false)),
            None => Fail(format!("there is no OSD {id}")),
            Some(ObservedOsd { is_up: true, .. }) if facts.local.is_none() => Fail(format!(
                "OSD {id} was not made by ceph-volume on this node: pvcd cannot stop it. Ceph's own tools remove it"
            )),
            Some(osd) => too_few(id, osd, facts).map_or(Begin, Fail),
        };
    };
    // Another one has the number by now.
    let there = osd.filter(|osd| osd.uuid == own.uuid);
    let local = facts.local.as_ref().filter(|local| local.uuid.as_ref() == Some(&own.uuid));
    match (there, local) {
        (None, None) if facts.given_up.is_some() && osd.is_none() => {
            Left(id, facts.given_up.clone().unwrap_or_default())
        }
        // Of another one that has the number by now the tree says what it says.
        (None, None) => Done(id, osd.is_none().then_some(false)),
        (None, Some(local)) if local.runs && osd.is_none() => Stop(id),
        // A disk that is broken is why it goes, as often as not.
        (None, Some(_)) if facts.given_up.is_some() => Forget(id),
        (None, Some(_)) => Clear(id),
        // That is how an operator says that it is to stay.
        (Some(osd), Some(local)) if osd.is_in && own.writes && !local.runs => Start(id),
        (Some(osd), _) if osd.is_in && own.writes => {
            Fail(format!("somebody has taken OSD {id} into use again meanwhile: it stays"))
        }
        (Some(osd), _) if osd.is_in => Out(id),
        (Some(_), _) if !own.writes => IsOut,
        (Some(osd), local) => match (&facts.unsafe_since, local) {
            (Some(why), _) => {
                let left = counted(usize::try_from(osd.pgs).unwrap_or(usize::MAX), "placement group");
                Wait(format!("it still has {left}: {why}"))
            }
            (None, Some(local)) if local.runs => Stop(id),
            (None, _) if osd.is_up => Wait(format!("Ceph hears OSD {id} still")),
            (None, _) => Purge(id),
        },
    }
}

/// Its data would find no other place.
fn too_few(id: OsdId, osd: &ObservedOsd, facts: &Facts) -> Option<String> {
    if !osd.is_in {
        return None;
    }
    let others: Vec<_> =
        facts.osds.all.iter().filter(|(other, osd)| **other != id && osd.is_in && osd.is_up).collect();
    let hosts: BTreeSet<_> = others.iter().filter_map(|(_, osd)| osd.host.as_deref()).collect();
    let fewer = |left: usize, what: &str, most: &Option<(u32, String)>, how: &str| {
        let (copies, pool) =
            most.as_ref().filter(|(copies, _)| left < usize::try_from(*copies).unwrap_or(usize::MAX))?;
        Some(format!(
            "{} would be left, and pool {pool} keeps {copies} copies{how}: add another one first",
            counted(left, what)
        ))
    };
    let space = others.iter().fold(0_u64, |sum, (_, osd)| sum.saturating_add(osd.kib));
    let used = others.iter().fold(osd.kib_data, |sum, (_, osd)| sum.saturating_add(osd.kib_used));
    fewer(others.len(), "OSD", &facts.osds.most_copies, "")
        .or_else(|| fewer(hosts.len(), "host", &facts.osds.most_hosts, ", each on another host"))
        .or_else(|| {
            let percent = u128::from(used) * 100 / u128::from(space.max(1));
            (percent >= u128::from(FULLEST_PERCENT)).then(|| {
                format!("the others would be used to {percent} %, and take nothing more at {FULLEST_PERCENT} %: add another one first")
            })
        })
}

/// How far the removal is, in percent, from how many placement groups there were.
pub fn percent(was: u64, now: u64) -> u8 {
    let gone = u128::from(was.saturating_sub(now)) * 100;
    u8::try_from(gone.checked_div(u128::from(was)).unwrap_or(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests;
