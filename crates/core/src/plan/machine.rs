//! Whether this machine may have a node's name. Claims name nodes, so whoever has a name has its claims: it finds VMs that "it" runs,
//! does not find them in its libvirt, and starts them. Of a machine that is cut off that is known only by its record.
//!
//! ```text
//!                        │ same installation    │ another installation             │ installation unknown
//! same hardware          │ itself               │ other boot: installed anew       │ itself
//!                        │                      │ same boot: another machine       │
//! other hardware         │ another machine (a cloned disk, or new hardware)
//! neither has an id      │ itself               │ another machine                  │ same boot: itself; else another
//! only one has an id     │ same boot: itself; else another machine
//! ```
//!
//! What cannot be told from another machine counts as another one. Another machine takes a name that nothing claims, and is refused
//! otherwise, until an operator says that the first is gone for good.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::{
    model::{ClusterView, DaemonState, MachineId, MachineRecord, NodeName, VmKey},
    text::some,
};

/// What the tree has about the machine that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing: no daemon of ours has had the name.
    Nobody,
    /// A machine.
    Machine(MachineRecord),
    /// Something that is not understood.
    Unreadable,
}

/// What to do about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Take it.
    Take(Taken),
    /// Look for what claims it, then decide again.
    LookForTies,
    /// Leave it alone: another machine has it.
    Refuse(Refused),
}

/// By what right a machine takes a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nobody has had it.
    First,
    /// It has it already.
    Itself,
    /// The same hardware had it under another installation, whose boot is over.
    InstalledAnew,
    /// Another machine had it, and nothing claims it any more.
    Unclaimed,
    /// An operator has said that the machine that had it is gone for good.
    Replacement,
}

/// Why a machine may not have a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Another machine has it, and may still execute what the name claims.
    Another {
        /// Which, in words.
        machine: String,
        /// What claims the name, in words.
        ties: String,
    },
    /// This machine has another name in this very boot, which claims something: its guests would be taken for somebody else's.
    HasAName {
        /// The other name.
        name: NodeName,
        /// What claims that, in words.
        ties: String,
    },
    /// This very machine, in this very boot, was said to be gone for good.
    SaidGone {
        /// By whom.
        by: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Another { machine, ties } => write!(f, "the name belongs to {machine}, and {ties}"),
            Self::HasAName { name, ties } => write!(f, "this machine is {name}, and {ties}"),
            Self::SaidGone { by } => {
                write!(f, "{by} has said that this machine is gone for good; it may come back after a reboot")
            }
        }
    }
}

/// What ties a name to the machine that has it: that machine may be executing something that the cluster counts on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ties {
    /// What does, in words.
    words: Vec<String>,
}

impl Ties {
    /// What ties that name. What cannot be read might.
    pub fn of(node: &NodeName, view: &ClusterView) -> Self {
        let mut words = Vec::new();
        let claimed: Vec<&str> =
            view.good_vms().filter(|vm| vm.claim.value.names(node)).map(|vm| vm.name.as_str()).collect();
        if !claimed.is_empty() {
            words.push(format!("it claims {}", some(&claimed)));
        }
        let claims = view.orphan_claims.values();
        let orphans =
            claims.clone().filter(|claim| claim.good().is_some_and(|claim| claim.value.names(node)));
        match orphans.count() {
            0 => {}
            n => words.push(format!("it claims {n} VM(s) that somebody has undefined")),
        }
        let bad =
            view.vms.values().filter(|vm| vm.good().is_none_or(|vm| vm.cannot_read(VmKey::Claim))).count()
                + claims.filter(|claim| claim.good().is_none()).count();
        if bad > 0 {
            words.push(format!("{bad} VM(s) cannot be read, whose claims may name it"));
        }
        let fence = view.fences.get(node);
        match view.node(node) {
            // What a node said before its proven death is void: a fence that is over has dealt with it.
            Some(seen) if seen.daemon_state.value == DaemonState::Dead && fence.is_none() => {}
            Some(seen) if seen.cannot_read("runningdomains") => {
                words.push("its last word on what it runs cannot be read".to_owned());
            }
            Some(seen) if !seen.report.running.is_empty() => {
                words.push(format!("{} VM(s) ran on it by its last word", seen.report.running.len()));
            }
            Some(_) | None => {}
        }
        if fence.is_some() {
            words.push("its fence is not over".to_owned());
        }
        Self { words }
    }

    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

impl fmt::Display for Ties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("nothing claims it") } else { f.write_str(&self.words.join(", ")) }
    }
}

/// Decides about the name of which `recorded` is known. `others` are the machines that have other names: a hardware id that one of
/// them has, too, means nothing. `ties`: what claims the name, once somebody has looked.
pub fn decide(
    recorded: &Recorded,
    me: &MachineRecord,
    others: &[MachineRecord],
    ties: Option<&Ties>,
) -> Decision {
    let machine = match recorded {
        Recorded::Nobody => return Decision::Take(Taken::First),
        Recorded::Unreadable => "a machine whose record cannot be read".to_owned(),
        Recorded::Machine(had) => {
            let kin = kin(had, me, others);
            match &had.replaced {
                Some(word) if kin == Kin::SameBoot => {
                    return Decision::Refuse(Refused::SaidGone { by: word.by.clone() });
                }
                Some(_) => return Decision::Take(Taken::Replacement),
                None => {}
            }
            match kin {
                Kin::SameBoot | Kin::Same => return Decision::Take(Taken::Itself),
                Kin::InstalledAnew => return Decision::Take(Taken::InstalledAnew),
                Kin::Another => format!("another machine, {had}"),
            }
        }
    };
    match ties {
        None => Decision::LookForTies,
        Some(ties) if ties.is_empty() => Decision::Take(Taken::Unclaimed),
        Some(ties) => Decision::Refuse(Refused::Another { machine, ties: ties.to_string() }),
    }
}

/// Whether that is this very machine, in this very boot: what executes here may be what the name that it has claims.
pub fn is_this_boot(had: &MachineRecord, me: &MachineRecord) -> bool {
    kin(had, me, &[]) == Kin::SameBoot
}

/// What two machines are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kin {
    /// One machine in one boot.
    SameBoot,
    /// One machine, rebooted.
    Same,
    /// One machine, with another installation in another boot.
    InstalledAnew,
    /// Two machines, or what cannot be told from that.
    Another,
}

fn kin(had: &MachineRecord, me: &MachineRecord, others: &[MachineRecord]) -> Kin {
    let boot = if had.boot == me.boot { Kin::SameBoot } else { Kin::Same };
    let installation = agree(had.id.machine_id.as_ref(), me.id.machine_id.as_ref());
    let anew = installation == Some(false);
    let (same_boot, same) = (boot == Kin::SameBoot, installation == Some(true));
    match hardware(&had.id, &me.id, others) {
        // Containers of one machine have its firmware, and may even have its boot.
        Hardware::Same if anew && !same_boot => Kin::InstalledAnew,
        Hardware::Same if !anew => boot,
        Hardware::Neither if same => boot,
        // Firmware that was read once is read again: without it, the disk may be a copy in another machine.
        Hardware::Neither | Hardware::OneSided if same_boot && !anew => boot,
        Hardware::Same | Hardware::Other | Hardware::Neither | Hardware::OneSided => Kin::Another,
    }
}

enum Hardware {
    Same,
    Other,
    /// Neither machine has an id.
    Neither,
    /// One has ids, the other has none of these.
    OneSided,
}

/// One id that differs proves two machines; only what names a board proves that there is one: a chassis may hold several.
fn hardware(had: &MachineId, me: &MachineId, others: &[MachineRecord]) -> Hardware {
    let ids: [fn(&MachineId) -> Option<&String>; 3] =
        [|id| id.product_uuid.as_ref(), |id| id.board_serial.as_ref(), |id| id.chassis_serial.as_ref()];
    if ids.iter().any(|id| agree(id(had), id(me)) == Some(false)) {
        return Hardware::Other;
    }
    let genuine = |of: &MachineId, id: &fn(&MachineId) -> Option<&String>| {
        id(of).is_some_and(|value| others.iter().all(|other| id(&other.id) != Some(value)))
    };
    let boards = &ids[..2];
    match boards.iter().any(|id| genuine(had, id) && id(me).is_some()) {
        true => Hardware::Same,
        false if boards.iter().any(|id| genuine(had, id) || genuine(me, id)) => Hardware::OneSided,
        false => Hardware::Neither,
    }
}

/// Whether two ids are the same; `None`: one of them is unknown.
fn agree(a: Option<&String>, b: Option<&String>) -> Option<bool> {
    Some(a? == b?)
}
